//! Anthropic's Messages API: streams and complete messages.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason};
use crate::provider::stream_event::StreamEvent;

use super::config::ModelConfig;
use super::decoder::{Decoder, EventFormat};
use super::decoder_state::{
    DecoderState, push_usage, str_at, u64_at, unknown_finish_reason, value_at,
};
use super::errors::body::ProviderErrorBody;
use super::errors::classify;
use super::messages::{MessageOrder, WireMessage, messages, system_prompt, to_json};
use super::quirks::ServerQuirks;
use super::{Dialect, ErrorResponse, Framing, ProviderRequest, StreamDecoder};

/// The default version, which gateways and old servers support.
const DEFAULT_API_VERSION: &str = "2023-06-01";

/// From this version on the key is a bearer token and sampling parameters are gone. Versions are
/// dates, so they compare as strings.
const FIRST_BEARER_API_VERSION: &str = "2026-10-21";

const TEMPERATURE: &str = "temperature";

/// Remembers whether the model rejected a temperature.
pub struct Anthropic {
    model: Arc<ModelConfig>,
    quirks: ServerQuirks,
}

impl Anthropic {
    pub fn new(model: ModelConfig) -> Self {
        Self {
            model: Arc::new(model),
            quirks: ServerQuirks::new(&[TEMPERATURE]),
        }
    }

    fn uses_bearer_api(&self) -> bool {
        self.model.api_version_or(DEFAULT_API_VERSION) >= FIRST_BEARER_API_VERSION
    }

    fn build_request(&self, path: &str, body: String) -> ProviderRequest {
        let version = (
            "anthropic-version",
            Some(self.model.api_version_or(DEFAULT_API_VERSION).to_owned()),
        );
        let key = if self.uses_bearer_api() {
            ("authorization", self.model.bearer_header())
        } else {
            ("x-api-key", self.model.key().map(str::to_owned))
        };
        ProviderRequest {
            path: path.to_owned(),
            headers: self.model.headers([version, key]),
            body,
            framing: Framing::Sse,
        }
    }
}

#[derive(Serialize)]
struct MessagesRequest<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<WireMessage<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
}

impl Dialect for Anthropic {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest {
        let takes_temperature = !self.uses_bearer_api() && self.quirks.accepts(TEMPERATURE);
        let body = to_json(&MessagesRequest {
            model: &self.model.name,
            max_tokens: request.max_tokens,
            system: system_prompt(request),
            messages: messages(request, MessageOrder::UserFirstAndLast),
            stream: true,
            stop_sequences: &request.stop,
            temperature: self
                .model
                .temperature(request)
                .filter(|_| takes_temperature),
        });
        self.build_request("/v1/messages", body)
    }

    fn list_models_request(&self) -> ProviderRequest {
        self.build_request("/v1/models", String::new())
    }

    fn decoder(&self) -> Box<dyn StreamDecoder + Send> {
        Decoder::<AnthropicFormat>::boxed(&self.model, classify)
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        classify::http_error(response, &self.model, classify)
    }

    fn adapt_to_rejection(&self, sent: &ProviderRequest, response: &ErrorResponse<'_>) -> bool {
        self.quirks.learn_parameter(sent, response).is_some()
    }
}

/// A stream, or a complete `message`. The token counts so far: each is cumulative, and events omit
/// counts that have not changed.
#[derive(Default)]
struct AnthropicFormat {
    input: u64,
    cache_written: u64,
    cache_read: u64,
    output: u64,
}

impl AnthropicFormat {
    fn update_usage(&mut self, usage: Option<&Value>, out: &mut Vec<StreamEvent>) {
        let Some(usage) = usage.filter(|usage| usage.is_object()) else {
            return;
        };
        for (path, total) in [
            ("/input_tokens", &mut self.input),
            ("/cache_creation_input_tokens", &mut self.cache_written),
            ("/cache_read_input_tokens", &mut self.cache_read),
            ("/output_tokens", &mut self.output),
        ] {
            *total = u64_at(usage, path).unwrap_or(*total);
        }
        let input = self.input.saturating_add(self.cache_written);
        let input = input.saturating_add(self.cache_read);
        push_usage(Some(input), Some(self.output), out);
    }
}

impl EventFormat for AnthropicFormat {
    fn decode_event(
        &mut self,
        name: &str,
        event: &Value,
        state: &mut DecoderState,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        let kind = match str_at(event, "/type") {
            "" => name,
            kind => kind,
        };
        match kind {
            "message_start" => self.update_usage(value_at(event, "/message/usage"), out),
            "content_block_start" => {
                if let Some(block) = event.get("content_block") {
                    push_block(block, state, out);
                }
            }
            "content_block_delta" => match str_at(event, "/delta/type") {
                "text_delta" => state.push_text(str_at(event, "/delta/text"), out),
                "thinking_delta" | "signature_delta" | "input_json_delta" => {
                    out.push(StreamEvent::Thinking);
                }
                _ => {}
            },
            "message_delta" => {
                set_finish_reason(str_at(event, "/delta/stop_reason"), state, out);
                self.update_usage(event.get("usage"), out);
            }
            "message_stop" => state.mark_ended(),
            // A complete answer: the server did not stream.
            "message" => {
                let blocks = event.get("content").and_then(Value::as_array);
                for block in blocks.into_iter().flatten() {
                    push_block(block, state, out);
                }
                set_finish_reason(str_at(event, "/stop_reason"), state, out);
                self.update_usage(event.get("usage"), out);
            }
            // Pings, ends of blocks, and future events, which the vendor says to ignore.
            _ => {}
        }
        Ok(())
    }
}

fn push_block(block: &Value, state: &mut DecoderState, out: &mut Vec<StreamEvent>) {
    match str_at(block, "/type") {
        "text" => state.push_text(str_at(block, "/text"), out),
        "" => {}
        _ => out.push(StreamEvent::Thinking),
    }
}

fn set_finish_reason(reason: &str, state: &mut DecoderState, out: &mut Vec<StreamEvent>) {
    let finish = match reason {
        "" => return,
        "end_turn" | "stop_sequence" | "tool_use" | "pause_turn" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "refusal" => FinishReason::ContentFilter,
        other => unknown_finish_reason(other),
    };
    state.set_finish(finish, out);
}

/// Classifies by `error.details.error_code`, then by type, then by status. The message is used only
/// for errors that have no code of their own.
fn classify(status: Option<u16>, error_body: &ProviderErrorBody, _: &ModelConfig) -> FaultKind {
    match str_at(&error_body.error, "/details/error_code") {
        "enforced_spend_limit_reached"
        | "contract_spend_limit_reached"
        | "organization_on_hold" => {
            return FaultKind::QuotaSpent;
        }
        "ramp_limit_exceeded" => return FaultKind::RateLimited,
        code if code.starts_with("linked_organization_") => return FaultKind::QuotaSpent,
        _ => {}
    }
    let lower = error_body.lowercase_message();
    if lower.contains("credit balance is too low")
        || lower.contains("you have reached your specified")
        || error_body.code == "organization_on_hold"
    {
        return FaultKind::QuotaSpent;
    }
    if classify::is_context_overflow(status, error_body) {
        return FaultKind::TooLong;
    }
    match error_body.error_type.as_str() {
        "authentication_error" | "permission_error" => FaultKind::Unauthorized,
        "billing_error" => FaultKind::QuotaSpent,
        "not_found_error" => FaultKind::Misconfigured,
        "request_too_large" => FaultKind::TooLong,
        "rate_limit_error" => FaultKind::RateLimited,
        "overloaded_error" => FaultKind::Overloaded,
        _ => classify::by_status(status, error_body),
    }
}
