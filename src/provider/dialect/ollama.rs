//! Ollama's own API, one JSON object per line.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason};
use crate::provider::stream_event::StreamEvent;

use super::config::ModelConfig;
use super::decoder::{Decoder, EventFormat};
use super::decoder_state::{
    DecoderState, is_set, push_usage, str_at, u64_at, unknown_finish_reason,
};
use super::errors::body::ProviderErrorBody;
use super::errors::classify;
use super::messages::{MessageOrder, WireMessage, messages_with_system, to_json};
use super::{Dialect, ErrorResponse, Framing, ProviderRequest, StreamDecoder};

pub struct Ollama {
    model: Arc<ModelConfig>,
}

impl Ollama {
    pub fn new(model: ModelConfig) -> Self {
        Self {
            model: Arc::new(model),
        }
    }

    fn build_request(&self, path: &str, body: String) -> ProviderRequest {
        ProviderRequest {
            path: path.to_owned(),
            // A local server needs no key, the cloud does.
            headers: self
                .model
                .headers([("authorization", self.model.bearer_header())]),
            body,
            framing: Framing::Lines,
        }
    }
}

/// `keep_alive` and `think` are left to the server's own settings.
#[derive(Serialize)]
struct OllamaChatRequest<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    stream: bool,
    options: OllamaOptions<'a>,
}

#[derive(Serialize)]
struct OllamaOptions<'a> {
    num_predict: u32,
    /// Longer prompts are truncated silently, and the server's default is small.
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}

impl Dialect for Ollama {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest {
        let body = to_json(&OllamaChatRequest {
            model: &self.model.name,
            messages: messages_with_system(request, MessageOrder::Any),
            stream: true,
            options: OllamaOptions {
                num_predict: request.max_tokens,
                num_ctx: Some(self.model.context_tokens).filter(|tokens| *tokens > 0),
                temperature: self.model.temperature(request),
                stop: &request.stop,
            },
        });
        self.build_request("/api/chat", body)
    }

    fn list_models_request(&self) -> ProviderRequest {
        self.build_request("/api/tags", String::new())
    }

    fn decoder(&self) -> Box<dyn StreamDecoder + Send> {
        Decoder::<OllamaFormat>::boxed(&self.model, classify)
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        classify::http_error(response, &self.model, classify)
    }
}

/// A complete JSON answer is a single line with `done`.
#[derive(Default)]
struct OllamaFormat;

impl EventFormat for OllamaFormat {
    const HAS_ERROR_EVENTS: bool = false;

    fn decode_event(
        &mut self,
        _: &str,
        line: &Value,
        state: &mut DecoderState,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        let content = str_at(line, "/message/content");
        state.push_text(content, out);
        let has_hidden_content =
            is_set(line, "/message/thinking") || is_set(line, "/message/tool_calls");
        if has_hidden_content && content.is_empty() {
            out.push(StreamEvent::Thinking);
        }
        if line.get("done").and_then(Value::as_bool) == Some(true) {
            // "load" and "unload" generate nothing, so the answer is empty.
            let finish = match str_at(line, "/done_reason") {
                "" | "stop" | "load" | "unload" => FinishReason::Stop,
                "length" => FinishReason::Length,
                other => unknown_finish_reason(other),
            };
            state.set_finish(finish, out);
            state.mark_ended();
            let input = u64_at(line, "/prompt_eval_count");
            push_usage(input, u64_at(line, "/eval_count"), out);
        }
        Ok(())
    }
}

/// Classifies by status. An error inside a stream is a text without a code, so its message decides.
fn classify(status: Option<u16>, error_body: &ProviderErrorBody, _: &ModelConfig) -> FaultKind {
    if classify::is_context_overflow(status, error_body) {
        return FaultKind::TooLong;
    }
    let lower = error_body.lowercase_message();
    match status {
        None if lower.contains("not found") => FaultKind::Misconfigured,
        None if lower.contains("unauthorized") => FaultKind::Unauthorized,
        _ => classify::by_status(status, error_body),
    }
}
