//! OpenAI's models at Azure: other paths, another key header, the content filter's annotations in the stream.

use crate::chat::{Ask, Failure};

use super::model::{Model, escaped};
use super::openai::Openai;
use super::{Call, Dialect, Framing, Reader, Refused};

/// The version of the dated API that is asked for by default: the last one that is generally available.
const VERSION: &str = "2024-10-21";

/// The dialect.
///
/// A base URL that ends in `/v1` (`https://RESOURCE.openai.azure.com/openai/v1`) means the API without a version; any other the dated
/// one, whose path names the deployment.
pub struct Azure {
    openai: Openai,
}

impl Azure {
    /// The dialect for this deployment.
    pub fn new(model: Model) -> Self {
        Self {
            openai: Openai::of_openai(model),
        }
    }

    /// The path of `dated`, or of `undated` in the API without a version.
    fn call(&self, dated: &str, undated: &str, body: String) -> Call {
        let model = self.openai.model();
        let base = model.base();
        let path = if base.ends_with("/v1") {
            undated.to_owned()
        } else {
            let root = if base.ends_with("/openai") {
                ""
            } else {
                "/openai"
            };
            let version = escaped(model.version(VERSION));
            format!("{root}{dated}?api-version={version}")
        };
        Call {
            path,
            headers: model.headers([("api-key", model.key().map(str::to_owned))]),
            body,
            framing: Framing::Sse,
        }
    }
}

impl Dialect for Azure {
    fn request(&self, ask: &Ask) -> Call {
        let deployment = escaped(&self.openai.model().model);
        let dated = format!("/deployments/{deployment}/chat/completions");
        self.call(&dated, "/chat/completions", self.openai.body(ask))
    }

    fn listing(&self) -> Call {
        self.call("/models", "/models", String::new())
    }

    /// OpenAI's reader: it takes chunks without choices and choices without delta, which is all that the filter's annotations are.
    fn reader(&self) -> Box<dyn Reader + Send> {
        self.openai.reader()
    }

    /// OpenAI's judgement: it knows the filter's inner code, a deployment that is missing, and the gateway's `statusCode`.
    fn refused(&self, answer: &Refused<'_>) -> Failure {
        self.openai.refused(answer)
    }

    fn adapt(&self, sent: &Call, answer: &Refused<'_>) -> bool {
        self.openai.adapt(sent, answer)
    }
}
