//! OpenAI's chat completions, also spoken by vLLM, llama.cpp, LM Studio, OpenRouter, Mistral,
//! DeepSeek, LiteLLM and many more.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason};
use crate::provider::stream_event::StreamEvent;

use super::config::{ModelConfig, Prefill};
use super::decoder::{Decoder, EventFormat};
use super::decoder_state::{
    DecoderState, is_set, push_usage, str_at, u64_at, unknown_finish_reason,
};
use super::errors::body::ProviderErrorBody;
use super::errors::classify;
use super::messages::{WireMessage, mark_prefix, messages_with_system, to_json};
use super::quirks::ServerQuirks;
use super::{Dialect, ErrorResponse, Framing, ProviderRequest, StreamDecoder};

mod fast_path;

/// The two names of the token limit: `max_tokens` is widely supported, newer OpenAI models accept
/// only `max_completion_tokens`.
const MAX_TOKENS: &str = "max_tokens";
const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";
const STREAM_OPTIONS: &str = "stream_options";
const TEMPERATURE: &str = "temperature";

/// Remembers which optional parameters its server rejected, and the message order it requires.
///
/// The token limit is sent as `max_completion_tokens` to OpenAI itself and as `max_tokens` to other
/// servers, and under the other name if the first is rejected. It is never left out, because it
/// bounds the cost of an answer.
pub struct OpenAi {
    model: Arc<ModelConfig>,
    quirks: ServerQuirks,
    /// The more likely name first.
    token_limit_fields: [&'static str; 2],
}

impl OpenAi {
    pub fn new(model: ModelConfig) -> Self {
        let host = lowercase_host(&model.base_url);
        let is_openai = host == "api.openai.com" || host.ends_with(".api.openai.com");
        if is_openai {
            Self::for_openai_models(model)
        } else {
            Self::with_token_limit_fields(model, [MAX_TOKENS, MAX_COMPLETION_TOKENS])
        }
    }

    pub(super) fn for_openai_models(model: ModelConfig) -> Self {
        Self::with_token_limit_fields(model, [MAX_COMPLETION_TOKENS, MAX_TOKENS])
    }

    fn with_token_limit_fields(model: ModelConfig, limits: [&'static str; 2]) -> Self {
        Self {
            model: Arc::new(model),
            quirks: ServerQuirks::new(&[
                MAX_TOKENS,
                MAX_COMPLETION_TOKENS,
                STREAM_OPTIONS,
                TEMPERATURE,
            ]),
            token_limit_fields: limits,
        }
    }

    pub(super) fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// The first of the two names that the server has not rejected. The likelier one if it rejected
    /// both.
    fn token_limit_field(&self) -> &'static str {
        let [first, second] = self.token_limit_fields;
        if self.quirks.accepts(first) || !self.quirks.accepts(second) {
            first
        } else {
            second
        }
    }

    pub(super) fn chat_request_body(&self, request: &ChatRequest) -> String {
        let limit = self.token_limit_field();
        let usage = StreamOptions {
            include_usage: true,
        };
        let prefill = Some(self.model.prefill).filter(|_| request.ends_with_prefill);
        let mut messages = messages_with_system(request, self.quirks.message_order());
        if prefill == Some(Prefill::Prefix) {
            mark_prefix(&mut messages);
        }
        let is_vllm_prefill = prefill == Some(Prefill::Vllm);
        to_json(&ChatCompletionRequest {
            model: &self.model.name,
            messages,
            stream: true,
            stream_options: self.quirks.accepts(STREAM_OPTIONS).then_some(usage),
            max_tokens: (limit == MAX_TOKENS).then_some(request.max_tokens),
            max_completion_tokens: (limit == MAX_COMPLETION_TOKENS).then_some(request.max_tokens),
            temperature: self
                .model
                .temperature(request)
                .filter(|_| self.quirks.accepts(TEMPERATURE)),
            stop: &request.stop,
            continue_final_message: is_vllm_prefill.then_some(true),
            // vLLM rejects a request with both set to true.
            add_generation_prompt: is_vllm_prefill.then_some(false),
        })
    }

    fn build_request(&self, path: &str, body: String) -> ProviderRequest {
        ProviderRequest {
            path: path.to_owned(),
            headers: self
                .model
                .headers([("authorization", self.model.bearer_header())]),
            body,
            framing: Framing::Sse,
        }
    }
}

#[derive(Serialize)]
struct ChatCompletionRequest<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    continue_final_message: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add_generation_prompt: Option<bool>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

fn lowercase_host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
    host.to_ascii_lowercase()
}

impl Dialect for OpenAi {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest {
        self.build_request("/chat/completions", self.chat_request_body(request))
    }

    fn list_models_request(&self) -> ProviderRequest {
        self.build_request("/models", String::new())
    }

    fn decoder(&self) -> Box<dyn StreamDecoder + Send> {
        Decoder::<OpenAiFormat>::boxed(&self.model, classify)
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        classify::http_error(response, &self.model, classify)
    }

    fn adapt_to_rejection(&self, sent: &ProviderRequest, response: &ErrorResponse<'_>) -> bool {
        match self.quirks.learn_parameter(sent, response) {
            None => self.quirks.learn_message_order(sent, response),
            // Retry with the other name of the limit, unless that was rejected as well.
            Some(name) if self.token_limit_fields.contains(&name) => {
                let mut fields = self.token_limit_fields.iter();
                fields.any(|other| *other != name && self.quirks.accepts(other))
            }
            Some(_) => true,
        }
    }
}

#[derive(Default)]
struct OpenAiFormat;

impl EventFormat for OpenAiFormat {
    fn decode_quickly(data: &str, state: &mut DecoderState, out: &mut Vec<StreamEvent>) -> bool {
        if data.trim_start().starts_with("[DONE]") {
            // Some servers send no finish reason at all.
            state.mark_ended_without_finish();
            return true;
        }
        let text = fast_path::text_only_chunk(data);
        if let Some(text) = &text {
            state.push_text(text, out);
        }
        text.is_some()
    }

    fn decode_event(
        &mut self,
        _: &str,
        chunk: &Value,
        state: &mut DecoderState,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        if let Some(choice) = first_choice(chunk) {
            decode_choice(choice, state, out)?;
        }
        // Any chunk may carry the usage. The last one counts.
        let input = u64_at(chunk, "/usage/prompt_tokens");
        push_usage(input, u64_at(chunk, "/usage/completion_tokens"), out);
        Ok(())
    }
}

fn decode_choice(
    choice: &Value,
    state: &mut DecoderState,
    out: &mut Vec<StreamEvent>,
) -> Result<(), Failure> {
    let object = |key| choice.get(key).filter(|value: &&Value| value.is_object());
    let delta = object("delta");
    let message = object("message").filter(|_| delta.is_none());
    if let Some(content) = delta.or(message) {
        decode_delta(content, state, out);
    }
    let finish = match str_at(choice, "/finish_reason") {
        // A complete JSON answer needs no finish reason: that it parses is proof enough.
        "" if message.is_some() => FinishReason::Stop,
        "" => return Ok(()),
        "stop" | "tool_calls" | "function_call" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        "error" => {
            let detail = "the answer finished with an error";
            return Err(Failure::with_detail(FaultKind::ServerError, detail));
        }
        other => unknown_finish_reason(other),
    };
    state.set_finish(finish, out);
    Ok(())
}

fn decode_delta(delta: &Value, state: &mut DecoderState, out: &mut Vec<StreamEvent>) {
    const HIDDEN_CONTENT: [&str; 6] = [
        "/reasoning_content",
        "/reasoning",
        "/reasoning_details",
        "/tool_calls",
        "/function_call",
        "/audio",
    ];
    let before = out.len();
    state.push_text(str_at(delta, "/content"), out);
    // Mistral sends a list of parts, which includes thinking.
    let parts = delta.get("content").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        state.push_text(str_at(part, "/text"), out);
    }
    state.push_refusal(str_at(delta, "/refusal"), out);
    let has_hidden_content = parts.is_some_and(|parts| !parts.is_empty())
        || HIDDEN_CONTENT.iter().any(|path| is_set(delta, path));
    if has_hidden_content && out.len() == before {
        out.push(StreamEvent::Thinking);
    }
}

/// The choice with index 0. Servers may send others unasked, which must not be mixed into it.
fn first_choice(chunk: &Value) -> Option<&Value> {
    let choices = chunk.get("choices")?.as_array()?;
    choices
        .iter()
        .find(|choice| u64_at(choice, "/index").unwrap_or_default() == 0)
}

/// Classifies by code, then by message, then by status.
pub(super) fn classify(
    status: Option<u16>,
    error_body: &ProviderErrorBody,
    model: &ModelConfig,
) -> FaultKind {
    let fault_by_code =
        fault_for_code(&error_body.code).or_else(|| fault_for_code(&error_body.error_type));
    if let Some(fault) = fault_by_code {
        return fault;
    }
    let lower = error_body.lowercase_message();
    if classify::is_context_overflow(status, error_body) {
        return FaultKind::TooLong;
    }
    if is_content_filter(error_body, &lower) {
        return FaultKind::Policy;
    }
    match status {
        // The OpenAI-compatible servers of Gemini and xAI reject a key with 400.
        Some(400) if lower.contains("api key not valid") || lower.contains("incorrect api key") => {
            FaultKind::Unauthorized
        }
        Some(403) if mentions_model(error_body, model) => FaultKind::Misconfigured,
        // A single request exceeds the whole limit per minute. Waiting does not make it smaller.
        Some(429) if lower.contains("request too large") => FaultKind::TooLong,
        _ => classify::by_status(status, error_body),
    }
}

/// Codes and types with the same meaning at every status.
fn fault_for_code(code: &str) -> Option<FaultKind> {
    Some(match code {
        "context_length_exceeded" | "exceed_context_size_error" => FaultKind::TooLong,
        "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_spend_limit_exceeded"
        | "project_spend_limit_exceeded"
        | "organization_usage_limit_exceeded"
        | "billing_hard_limit_reached"
        | "billing_not_active" => FaultKind::QuotaSpent,
        "content_policy_violation" | "content_filter" => FaultKind::Policy,
        "invalid_api_key" | "account_deactivated" | "authentication_error" => {
            FaultKind::Unauthorized
        }
        "model_not_found" | "DeploymentNotFound" => FaultKind::Misconfigured,
        "server_is_overloaded" => FaultKind::Overloaded,
        _ => return None,
    })
}

/// Azure's inner code, OpenRouter's moderation record, and the messages of Azure and DeepSeek.
fn is_content_filter(error_body: &ProviderErrorBody, lower: &str) -> bool {
    str_at(&error_body.error, "/innererror/code") == "ResponsibleAIPolicyViolation"
        || is_set(&error_body.error, "/metadata/reasons")
        || is_set(&error_body.error, "/metadata/flagged_input")
        || lower.contains("content management policy")
        || lower.contains("content exists risk")
}

fn mentions_model(error_body: &ProviderErrorBody, model: &ModelConfig) -> bool {
    error_body.param == "model"
        || (!model.name.is_empty() && error_body.message.contains(&model.name))
}
