//! Google's Gemini: the Developer API. Vertex has the same bodies.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason, TokenUsage};
use crate::provider::stream_event::StreamEvent;

use super::config::{ModelConfig, percent_encode};
use super::decoder_state::{
    DecoderState, is_set, parse_objects, str_at, u64_at, unknown_finish_reason, value_at,
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
                    text_content(
                        Some(if message.role == ASSISTANT_ROLE {
                            "model"
                        } else {
                            "user"
                        }),
                        message.content,
                    )
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
        Box::new(GeminiDecoder {
            model: Arc::clone(&self.model),
            state: DecoderState::default(),
        })
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        classify::http_error(response, &self.model, classify)
    }
}

/// Decodes the stream, or a complete answer. There is no end mark and an error may follow a finish,
/// so the body is read to its end.
struct GeminiDecoder {
    model: Arc<ModelConfig>,
    state: DecoderState,
}

impl GeminiDecoder {
    fn decode_event(&mut self, event: &Value, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if let Some(error_body) = ProviderErrorBody::from_event(event) {
            return Err(classify::stream_error(&error_body, &self.model, classify));
        }
        let parts = value_at(event, "/candidates/0/content/parts");
        for part in parts.and_then(Value::as_array).into_iter().flatten() {
            if is_set(part, "/thought") || is_set(part, "/functionCall") {
                out.push(StreamEvent::Thinking);
            } else {
                self.state.push_text(str_at(part, "/text"), out);
            }
        }
        self.set_finish_reason(str_at(event, "/candidates/0/finishReason"), out)?;
        // The prompt itself was blocked.
        if !matches!(
            str_at(event, "/promptFeedback/blockReason"),
            "" | "BLOCK_REASON_UNSPECIFIED"
        ) {
            self.state.set_finish(FinishReason::ContentFilter, out);
        }
        if let Some(usage) = event.get("usageMetadata").filter(|usage| usage.is_object()) {
            let count_at = |path| u64_at(usage, path).unwrap_or_default();
            let thoughts = count_at("/thoughtsTokenCount");
            out.push(StreamEvent::Usage(TokenUsage {
                input_tokens: count_at("/promptTokenCount"),
                output_tokens: count_at("/candidatesTokenCount").saturating_add(thoughts),
                estimated: false,
            }));
        }
        Ok(())
    }

    fn set_finish_reason(
        &mut self,
        reason: &str,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        let failure = |fault| {
            Err(Failure::with_detail(
                fault,
                &format!("finish reason {reason}"),
            ))
        };
        let finish = match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => return Ok(()),
            "STOP" => FinishReason::Stop,
            "MAX_TOKENS" | "CONTINUATION" => FinishReason::Length,
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
            | "MODEL_ARMOR" | "ESCALATION" => FinishReason::ContentFilter,
            image if image.starts_with("IMAGE_") => FinishReason::ContentFilter,
            "PUP_LIMITED_DISABLED" => return failure(FaultKind::Unauthorized),
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE"
            | "MISSING_THOUGHT_SIGNATURE"
            | "OTHER" => return failure(FaultKind::ServerError),
            other => unknown_finish_reason(other),
        };
        self.state.set_finish(finish, out);
        Ok(())
    }
}

impl StreamDecoder for GeminiDecoder {
    fn decode(
        &mut self,
        name: &str,
        data: &str,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        if name == "error" {
            let error_body = ProviderErrorBody::from_body(data.as_bytes());
            return Err(classify::stream_error(&error_body, &self.model, classify));
        }
        parse_objects(data)?
            .iter()
            .try_for_each(|event| self.decode_event(event, out))
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn finish_result(&self) -> Result<FinishReason, Failure> {
        self.state.finish_result()
    }
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
