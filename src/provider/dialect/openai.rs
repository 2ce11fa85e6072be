//! OpenAI's chat completions, also spoken by vLLM, llama.cpp, LM Studio, OpenRouter, Mistral,
//! DeepSeek, LiteLLM and many more.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::chat::{Ask, Failure, Fault, Finish, Usage};
use crate::provider::upstream::Step;

use super::complaint::Complaint;
use super::learned::Learned;
use super::model::{Model, Prefill};
use super::progress::{Progress, count, holds, objects, text, unknown};
use super::said::{Said, json, mark_prefix, with_system};
use super::{Call, Dialect, Framing, Reader, Refused, judge};

mod plain;

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
pub struct Openai {
    model: Arc<Model>,
    learned: Learned,
    /// The more likely name first.
    limits: [&'static str; 2],
}

impl Openai {
    pub fn new(model: Model) -> Self {
        let host = host(&model.base_url);
        let is_openai = host == "api.openai.com" || host.ends_with(".api.openai.com");
        if is_openai {
            Self::of_openai(model)
        } else {
            Self::with_limits(model, [MAX_TOKENS, MAX_COMPLETION_TOKENS])
        }
    }

    pub(super) fn of_openai(model: Model) -> Self {
        Self::with_limits(model, [MAX_COMPLETION_TOKENS, MAX_TOKENS])
    }

    fn with_limits(model: Model, limits: [&'static str; 2]) -> Self {
        Self {
            model: Arc::new(model),
            learned: Learned::new(&[
                MAX_TOKENS,
                MAX_COMPLETION_TOKENS,
                STREAM_OPTIONS,
                TEMPERATURE,
            ]),
            limits,
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The first of the two names that the server has not rejected. The likelier one if it rejected
    /// both.
    fn limit(&self) -> &'static str {
        let [first, second] = self.limits;
        if self.learned.takes(first) || !self.learned.takes(second) {
            first
        } else {
            second
        }
    }

    pub(super) fn body(&self, request: &Ask) -> String {
        let limit = self.limit();
        let usage = StreamOptions {
            include_usage: true,
        };
        let prefill = Some(self.model.prefill).filter(|_| request.goes_on);
        let mut messages = with_system(request, self.learned.order());
        if prefill == Some(Prefill::Prefix) {
            mark_prefix(&mut messages);
        }
        let is_vllm_prefill = prefill == Some(Prefill::Vllm);
        json(&Body {
            model: &self.model.model,
            messages,
            stream: true,
            stream_options: self.learned.takes(STREAM_OPTIONS).then_some(usage),
            max_tokens: (limit == MAX_TOKENS).then_some(request.max_tokens),
            max_completion_tokens: (limit == MAX_COMPLETION_TOKENS).then_some(request.max_tokens),
            temperature: self
                .model
                .temperature(request)
                .filter(|_| self.learned.takes(TEMPERATURE)),
            stop: &request.stop,
            continue_final_message: is_vllm_prefill.then_some(true),
            // vLLM rejects a request with both set to true.
            add_generation_prompt: is_vllm_prefill.then_some(false),
        })
    }

    fn call(&self, path: &str, body: String) -> Call {
        Call {
            path: path.to_owned(),
            headers: self.model.headers([("authorization", self.model.bearer())]),
            body,
            framing: Framing::Sse,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
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

fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
    host.to_ascii_lowercase()
}

impl Dialect for Openai {
    fn request(&self, request: &Ask) -> Call {
        self.call("/chat/completions", self.body(request))
    }

    fn listing(&self) -> Call {
        self.call("/models", String::new())
    }

    fn reader(&self) -> Box<dyn Reader + Send> {
        Box::new(Answer {
            model: Arc::clone(&self.model),
            progress: Progress::default(),
        })
    }

    fn refused(&self, response: &Refused<'_>) -> Failure {
        judge::answer(response, &self.model, fault)
    }

    fn adapt(&self, sent: &Call, response: &Refused<'_>) -> bool {
        match self.learned.learn(sent, response) {
            None => self.learned.learn_order(sent, response),
            // Retry with the other name of the limit, unless that was rejected as well.
            Some(name) if self.limits.contains(&name) => {
                let mut others = self.limits.iter().filter(|other| **other != name);
                others.any(|other| self.learned.takes(other))
            }
            Some(_) => true,
        }
    }
}

struct Answer {
    model: Arc<Model>,
    progress: Progress,
}

impl Answer {
    fn chunk(&mut self, chunk: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if let Some(error_body) = Complaint::in_event(chunk) {
            return Err(judge::event(&error_body, &self.model, fault));
        }
        if let Some(choice) = first_choice(chunk) {
            self.choice(choice, out)?;
        }
        // Any chunk may carry the usage. The last one counts.
        let input = count(chunk, "/usage/prompt_tokens");
        let output = count(chunk, "/usage/completion_tokens");
        if input.is_some() || output.is_some() {
            out.push(Step::Usage(Usage {
                input_tokens: input.unwrap_or_default(),
                output_tokens: output.unwrap_or_default(),
                estimated: false,
            }));
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        let object = |key| choice.get(key).filter(|value: &&Value| value.is_object());
        let delta = object("delta");
        let message = object("message").filter(|_| delta.is_none());
        if let Some(content) = delta.or(message) {
            self.delta(content, out);
        }
        match text(choice, "/finish_reason") {
            // A complete JSON answer needs no finish reason: that it parses is proof enough.
            "" if message.is_some() => self.progress.finish(Finish::Stop, out),
            "" => {}
            "stop" | "tool_calls" | "function_call" => self.progress.finish(Finish::Stop, out),
            "length" => self.progress.finish(Finish::Length, out),
            "content_filter" => self.progress.finish(Finish::ContentFilter, out),
            "error" => {
                let detail = "the answer finished with an error";
                return Err(Failure::with(Fault::ServerError, detail));
            }
            other => self.progress.finish(unknown(other), out),
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<Step>) {
        const HIDDEN_CONTENT: [&str; 6] = [
            "/reasoning_content",
            "/reasoning",
            "/reasoning_details",
            "/tool_calls",
            "/function_call",
            "/audio",
        ];
        let before = out.len();
        self.progress.text(text(delta, "/content"), out);
        // Mistral sends a list of parts, which includes thinking.
        let parts = delta.get("content").and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            self.progress.text(text(part, "/text"), out);
        }
        self.progress.refusal(text(delta, "/refusal"), out);
        let has_hidden_content = parts.is_some_and(|parts| !parts.is_empty())
            || HIDDEN_CONTENT.iter().any(|path| holds(delta, path));
        if has_hidden_content && out.len() == before {
            out.push(Step::Thinking);
        }
    }
}

/// The choice with index 0. Servers may send others unasked, which must not be mixed into it.
fn first_choice(chunk: &Value) -> Option<&Value> {
    let choices = chunk.get("choices")?.as_array()?;
    choices
        .iter()
        .find(|choice| count(choice, "/index").unwrap_or_default() == 0)
}

impl Reader for Answer {
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        if self.progress.ended() {
            return Ok(());
        }
        if name == "error" {
            let error_body = Complaint::of(data.as_bytes());
            return Err(judge::event(&error_body, &self.model, fault));
        }
        if data.trim_start().starts_with("[DONE]") {
            // Some servers send no finish reason at all.
            self.progress.end_alone();
            return Ok(());
        }
        if let Some(text) = plain::text(data) {
            self.progress.text(&text, out);
            return Ok(());
        }
        objects(data)?
            .iter()
            .try_for_each(|chunk| self.chunk(chunk, out))
    }

    fn ended(&self) -> bool {
        self.progress.ended()
    }

    fn verdict(&self) -> Result<Finish, Failure> {
        self.progress.verdict()
    }
}

/// Classifies by code, then by message, then by status.
pub(super) fn fault(status: Option<u16>, error_body: &Complaint, model: &Model) -> Fault {
    let fault_by_code = by_code(&error_body.code).or_else(|| by_code(&error_body.kind));
    if let Some(fault) = fault_by_code {
        return fault;
    }
    let lower = error_body.lower();
    if judge::overflow(status, error_body) {
        return Fault::TooLong;
    }
    if filtered(error_body, &lower) {
        return Fault::Policy;
    }
    match status {
        // The OpenAI-compatible servers of Gemini and xAI reject a key with 400.
        Some(400) if lower.contains("api key not valid") || lower.contains("incorrect api key") => {
            Fault::Unauthorized
        }
        Some(403) if names_the_model(error_body, model) => Fault::Misconfigured,
        // A single request exceeds the whole limit per minute. Waiting does not make it smaller.
        Some(429) if lower.contains("request too large") => Fault::TooLong,
        _ => judge::by_status(status, error_body),
    }
}

/// Codes and types with the same meaning at every status.
fn by_code(code: &str) -> Option<Fault> {
    Some(match code {
        "context_length_exceeded" | "exceed_context_size_error" => Fault::TooLong,
        "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_spend_limit_exceeded"
        | "project_spend_limit_exceeded"
        | "organization_usage_limit_exceeded"
        | "billing_hard_limit_reached"
        | "billing_not_active" => Fault::QuotaSpent,
        "content_policy_violation" | "content_filter" => Fault::Policy,
        "invalid_api_key" | "account_deactivated" | "authentication_error" => Fault::Unauthorized,
        "model_not_found" | "DeploymentNotFound" => Fault::Misconfigured,
        "server_is_overloaded" => Fault::Overloaded,
        _ => return None,
    })
}

/// Azure's inner code, OpenRouter's moderation record, and the messages of Azure and DeepSeek.
fn filtered(error_body: &Complaint, lower: &str) -> bool {
    text(&error_body.error, "/innererror/code") == "ResponsibleAIPolicyViolation"
        || holds(&error_body.error, "/metadata/reasons")
        || holds(&error_body.error, "/metadata/flagged_input")
        || lower.contains("content management policy")
        || lower.contains("content exists risk")
}

fn names_the_model(error_body: &Complaint, model: &Model) -> bool {
    error_body.param == "model"
        || (!model.model.is_empty() && error_body.message.contains(&model.model))
}
