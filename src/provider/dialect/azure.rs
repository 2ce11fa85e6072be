//! OpenAI models on Azure: different paths and key header, content filter annotations in the
//! stream.

use crate::domain::{ChatRequest, Failure};

use super::config::{ModelConfig, percent_encode};
use super::openai::OpenAi;
use super::{Dialect, ErrorResponse, Framing, ProviderRequest, StreamDecoder};

/// The default version of the dated API, the latest generally available one.
const DEFAULT_API_VERSION: &str = "2024-10-21";

/// With a base URL ending in `/v1` (`https://RESOURCE.openai.azure.com/openai/v1`) it uses the API
/// without a version, otherwise the dated one, whose paths name the deployment.
pub struct Azure {
    openai: OpenAi,
}

impl Azure {
    pub fn new(model: ModelConfig) -> Self {
        Self {
            openai: OpenAi::for_openai_models(model),
        }
    }

    /// Appends `dated`, or `undated` if the base URL selects the API without a version.
    fn build_request(&self, dated: &str, undated: &str, body: String) -> ProviderRequest {
        let model = self.openai.model();
        let base = model.trimmed_base_url();
        let path = if base.ends_with("/v1") {
            undated.to_owned()
        } else {
            let root = if base.ends_with("/openai") {
                ""
            } else {
                "/openai"
            };
            let version = percent_encode(model.api_version_or(DEFAULT_API_VERSION));
            format!("{root}{dated}?api-version={version}")
        };
        ProviderRequest {
            path,
            headers: model.headers([("api-key", model.key().map(str::to_owned))]),
            body,
            framing: Framing::Sse,
        }
    }
}

impl Dialect for Azure {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest {
        let deployment = percent_encode(&self.openai.model().name);
        let dated = format!("/deployments/{deployment}/chat/completions");
        self.build_request(
            &dated,
            "/chat/completions",
            self.openai.chat_request_body(request),
        )
    }

    fn list_models_request(&self) -> ProviderRequest {
        self.build_request("/models", "/models", String::new())
    }

    /// OpenAI's decoder accepts chunks without choices and choices without delta, which carry the
    /// content filter's annotations.
    fn decoder(&self) -> Box<dyn StreamDecoder + Send> {
        self.openai.decoder()
    }

    /// OpenAI's rules cover the filter's inner code, a missing deployment and the gateway's
    /// `statusCode`.
    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        self.openai.classify_error(response)
    }

    fn adapt_to_rejection(&self, sent: &ProviderRequest, response: &ErrorResponse<'_>) -> bool {
        self.openai.adapt_to_rejection(sent, response)
    }
}
