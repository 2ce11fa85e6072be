//! Google's Gemini: the Developer API. Vertex has the same bodies.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason};
use crate::provider::stream_event::StreamEvent;

use super::config::{ModelConfig, percent_encode};
use super::decoder::{Decoder, EventFormat};
use super::decoder_state::{
    DecoderState, is_set, push_usage, str_at, u64_at, unknown_finish_reason, value_at,
};
use super::errors::body::ProviderErrorBody;
use super::errors::classify;
use super::messages::{ASSISTANT_ROLE, MessageOrder, messages, system_prompt, to_json};
use super::{Dialect, ErrorResponse, Framing, ProviderRequest, StreamDecoder};

/// The default version, which most servers support, including test servers.
const DEFAULT_API_VERSION: &str = "v1beta";

pub struct Gemini {
    model: Arc<ModelConfig>,
}

impl Gemini {
    pub fn new(model: ModelConfig) -> Self {
        Self {
            model: Arc::new(model),
        }
    }

    fn build_request(&self, path: &str, body: String) -> ProviderRequest {
        let version = percent_encode(self.model.api_version_or(DEFAULT_API_VERSION));
        // In a header, because the query string would end up in every log on the way.
        let key = self.model.key().map(str::to_owned);
        ProviderRequest {
            path: format!("/{version}/{path}"),
            headers: self.model.headers([("x-goog-api-key", key)]),
            body,
            framing: Framing::Sse,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerateContentRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    generation_config: GenerationConfig<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
}

fn text_content<'a>(role: Option<&'static str>, text: Cow<'a, str>) -> Content<'a> {
    Content {
        role,
        parts: [Part { text }],
    }
}

impl Dialect for Gemini {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest {
        let name = percent_encode(&self.model.name);
        // The name of a tuned model includes its folder.
        let folder = if name.contains('/') { "" } else { "models/" };
        let body = to_json(&GenerateContentRequest {
            system_instruction: system_prompt(request).map(|text| text_content(None, text.into())),
            contents: messages(request, MessageOrder::UserFirstAndLast)
                .into_iter()
                .map(|message| {
                    let is_assistant = message.role == ASSISTANT_ROLE;
                    let role = if is_assistant { "model" } else { "user" };
                    text_content(Some(role), message.content)
                })
                .collect(),
            generation_config: GenerationConfig {
                max_output_tokens: request.max_tokens,
                temperature: self.model.temperature(request),
                stop_sequences: &request.stop,
            },
        });
        self.build_request(
            &format!("{folder}{name}:streamGenerateContent?alt=sse"),
            body,
        )
    }

    fn list_models_request(&self) -> ProviderRequest {
        self.build_request("models?pageSize=1", String::new())
    }

    fn decoder(&self) -> Box<dyn StreamDecoder + Send> {
        Decoder::<GeminiFormat>::boxed(&self.model, classify)
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        classify::http_error(response, &self.model, classify)
    }
}

/// A stream, or a complete answer. There is no end mark and an error may follow a finish, so the
/// body is read to its end.
#[derive(Default)]
struct GeminiFormat;

impl EventFormat for GeminiFormat {
    fn decode_event(
        &mut self,
        _: &str,
        event: &Value,
        state: &mut DecoderState,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        let parts = value_at(event, "/candidates/0/content/parts");
        for part in parts.and_then(Value::as_array).into_iter().flatten() {
            if is_set(part, "/thought") || is_set(part, "/functionCall") {
                out.push(StreamEvent::Thinking);
            } else {
                state.push_text(str_at(part, "/text"), out);
            }
        }
        if let Some(finish) = parse_finish_reason(str_at(event, "/candidates/0/finishReason"))? {
            state.set_finish(finish, out);
        }
        // The prompt itself was blocked.
        if !matches!(
            str_at(event, "/promptFeedback/blockReason"),
            "" | "BLOCK_REASON_UNSPECIFIED"
        ) {
            state.set_finish(FinishReason::ContentFilter, out);
        }
        if let Some(usage) = event.get("usageMetadata").filter(|usage| usage.is_object()) {
            let count_at = |path| u64_at(usage, path).unwrap_or_default();
            let thoughts = count_at("/thoughtsTokenCount");
            let output = count_at("/candidatesTokenCount").saturating_add(thoughts);
            push_usage(Some(count_at("/promptTokenCount")), Some(output), out);
        }
        Ok(())
    }
}

fn parse_finish_reason(reason: &str) -> Result<Option<FinishReason>, Failure> {
    let failure = |fault| Failure::with_detail(fault, &format!("finish reason {reason}"));
    Ok(Some(match reason {
        "" | "FINISH_REASON_UNSPECIFIED" => return Ok(None),
        "STOP" => FinishReason::Stop,
        "MAX_TOKENS" | "CONTINUATION" => FinishReason::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
        | "MODEL_ARMOR" | "ESCALATION" => FinishReason::ContentFilter,
        image if image.starts_with("IMAGE_") => FinishReason::ContentFilter,
        "PUP_LIMITED_DISABLED" => return Err(failure(FaultKind::Unauthorized)),
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MALFORMED_RESPONSE"
        | "MISSING_THOUGHT_SIGNATURE"
        | "OTHER" => return Err(failure(FaultKind::ServerError)),
        other => unknown_finish_reason(other),
    }))
}

/// Classifies by reason and quota in the details, then by message, then by status or status word.
fn classify(status: Option<u16>, error_body: &ProviderErrorBody, _: &ModelConfig) -> FaultKind {
    let lower = error_body.lowercase_message();
    let infos = details_of_type(error_body, "google.rpc.ErrorInfo");
    let is_key_rejected = infos
        .into_iter()
        .any(|info| str_at(info, "/reason").starts_with("API_KEY_"));
    if is_key_rejected || lower.contains("api key not valid") || lower.contains("api key expired") {
        // Sent with status 400, like errors of the request.
        return FaultKind::Unauthorized;
    }
    if classify::is_context_overflow(status, error_body) {
        return FaultKind::TooLong;
    }
    match (error_body.error_type.as_str(), status) {
        // The account's billing, or an unsupported country.
        ("FAILED_PRECONDITION", _) if lower.contains("billing") => FaultKind::QuotaSpent,
        ("FAILED_PRECONDITION", _) => FaultKind::Unauthorized,
        (_, Some(429)) | ("RESOURCE_EXHAUSTED", _) if is_long_term_quota(error_body, &lower) => {
            FaultKind::QuotaSpent
        }
        _ => classify::by_status(status, error_body),
    }
}

/// `true` if a daily quota, a quota of zero, or prepaid credit is exhausted, so that waiting for a
/// minute does not help.
fn is_long_term_quota(error_body: &ProviderErrorBody, lower: &str) -> bool {
    let failures = details_of_type(error_body, "google.rpc.QuotaFailure");
    let violations = failures
        .into_iter()
        .filter_map(|failure| failure.get("violations")?.as_array());
    let is_long = violations.flatten().any(|violation| {
        str_at(violation, "/quotaId").contains("PerDay") || str_at(violation, "/quotaValue") == "0"
    });
    is_long || lower.contains("limit: 0,") || lower.contains("credits are depleted")
}

fn details_of_type<'a>(error_body: &'a ProviderErrorBody, kind: &str) -> Vec<&'a Value> {
    let details = error_body.error.get("details").and_then(Value::as_array);
    let has_type = |detail: &&Value| str_at(detail, "/@type").ends_with(kind);
    details.into_iter().flatten().filter(has_type).collect()
}
