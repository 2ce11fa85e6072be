//! OpenAI models on Azure: different paths and key header, content filter annotations in the
//! stream.

use crate::chat::{Ask, Failure};

use super::model::{Model, escaped};
use super::openai::Openai;
use super::{Call, Dialect, Framing, Reader, Refused};

/// The default version of the dated API, the latest generally available one.
const VERSION: &str = "2024-10-21";

/// With a base URL ending in `/v1` (`https://RESOURCE.openai.azure.com/openai/v1`) it uses the API
/// without a version, otherwise the dated one, whose paths name the deployment.
pub struct Azure {
    openai: Openai,
}

impl Azure {
    pub fn new(model: Model) -> Self {
        Self {
            openai: Openai::of_openai(model),
        }
    }

    /// Appends `dated`, or `undated` if the base URL selects the API without a version.
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
    fn request(&self, request: &Ask) -> Call {
        let deployment = escaped(&self.openai.model().model);
        let dated = format!("/deployments/{deployment}/chat/completions");
        self.call(&dated, "/chat/completions", self.openai.body(request))
    }

    fn listing(&self) -> Call {
        self.call("/models", "/models", String::new())
    }

    /// OpenAI's decoder accepts chunks without choices and choices without delta, which carry the
    /// content filter's annotations.
    fn reader(&self) -> Box<dyn Reader + Send> {
        self.openai.reader()
    }

    /// OpenAI's rules cover the filter's inner code, a missing deployment and the gateway's
    /// `statusCode`.
    fn refused(&self, response: &Refused<'_>) -> Failure {
        self.openai.refused(response)
    }

    fn adapt(&self, sent: &Call, response: &Refused<'_>) -> bool {
        self.openai.adapt(sent, response)
    }
}
