//! OpenAI's chat completions, and the servers that speak the same: vLLM, llama.cpp, LM Studio, OpenRouter, Mistral, DeepSeek,
//! LiteLLM and many more.

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

/// The two names of the token limit: what other servers know, and what OpenAI's newer models alone take.
const MAX_TOKENS: &str = "max_tokens";
const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";
const STREAM_OPTIONS: &str = "stream_options";
const TEMPERATURE: &str = "temperature";

/// The dialect. It remembers which optional parameters its server refused, and whether it takes conversations in any order.
///
/// The token limit is sent as `max_completion_tokens` to OpenAI itself and as `max_tokens` to any other server; where that is refused, as
/// the other. It is never left out: it bounds what an answer costs.
pub struct Openai {
    model: Arc<Model>,
    learned: Learned,
    /// The names of the token limit, the likelier first.
    limits: [&'static str; 2],
}

impl Openai {
    /// The dialect for this model.
    pub fn new(model: Model) -> Self {
        let host = host(&model.base_url);
        let own = host == "api.openai.com" || host.ends_with(".api.openai.com");
        if own {
            Self::of_openai(model)
        } else {
            Self::with_limits(model, [MAX_TOKENS, MAX_COMPLETION_TOKENS])
        }
    }

    /// The dialect for a model that OpenAI itself, or Azure, serves.
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

    /// The model that it speaks to.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The name of the token limit as far as it is known.
    fn limit(&self) -> &'static str {
        let [first, second] = self.limits;
        if self.learned.takes(first) || !self.learned.takes(second) {
            first
        } else {
            second
        }
    }

    /// The request's body.
    pub(super) fn body(&self, ask: &Ask) -> String {
        let limit = self.limit();
        let usage = StreamOptions {
            include_usage: true,
        };
        let form = Some(self.model.prefill).filter(|_| ask.goes_on);
        let mut messages = with_system(ask, self.learned.order());
        if form == Some(Prefill::Prefix) {
            mark_prefix(&mut messages);
        }
        let vllm = form == Some(Prefill::Vllm);
        json(&Body {
            model: &self.model.model,
            messages,
            stream: true,
            stream_options: self.learned.takes(STREAM_OPTIONS).then_some(usage),
            max_tokens: (limit == MAX_TOKENS).then_some(ask.max_tokens),
            max_completion_tokens: (limit == MAX_COMPLETION_TOKENS).then_some(ask.max_tokens),
            temperature: self
                .model
                .temperature(ask)
                .filter(|_| self.learned.takes(TEMPERATURE)),
            stop: &ask.stop,
            continue_final_message: vllm.then_some(true),
            // Both true is refused.
            add_generation_prompt: vllm.then_some(false),
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

/// The host of a URL, in lower case.
fn host(url: &str) -> String {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let host = after.split(['/', ':', '?']).next().unwrap_or_default();
    host.to_ascii_lowercase()
}

impl Dialect for Openai {
    fn request(&self, ask: &Ask) -> Call {
        self.call("/chat/completions", self.body(ask))
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

    fn refused(&self, answer: &Refused<'_>) -> Failure {
        judge::answer(answer, &self.model, fault)
    }

    fn adapt(&self, sent: &Call, answer: &Refused<'_>) -> bool {
        match self.learned.learn(sent, answer) {
            None => self.learned.learn_order(sent, answer),
            // The other name of the limit, unless that was refused as well.
            Some(name) if self.limits.contains(&name) => {
                let mut others = self.limits.iter().filter(|other| **other != name);
                others.any(|other| self.learned.takes(other))
            }
            Some(_) => true,
        }
    }
}

/// Reads the stream, or a whole `chat.completion`.
struct Answer {
    model: Arc<Model>,
    progress: Progress,
}

impl Answer {
    fn chunk(&mut self, chunk: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if let Some(complaint) = Complaint::in_event(chunk) {
            return Err(judge::event(&complaint, &self.model, fault));
        }
        if let Some(choice) = first_choice(chunk) {
            self.choice(choice, out)?;
        }
        // Any chunk may have it; the last one counts.
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
        let whole = object("message").filter(|_| delta.is_none());
        if let Some(told) = delta.or(whole) {
            self.delta(told, out);
        }
        match text(choice, "/finish_reason") {
            // A whole JSON answer needs no proof but that it could be parsed.
            "" if whole.is_some() => self.progress.finish(Finish::Stop, out),
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
        const UNSHOWN: [&str; 6] = [
            "/reasoning_content",
            "/reasoning",
            "/reasoning_details",
            "/tool_calls",
            "/function_call",
            "/audio",
        ];
        let before = out.len();
        self.progress.text(text(delta, "/content"), out);
        // Mistral sends parts, the thinking ones among them.
        let parts = delta.get("content").and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            self.progress.text(text(part, "/text"), out);
        }
        self.progress.refusal(text(delta, "/refusal"), out);
        let unshown = parts.is_some_and(|parts| !parts.is_empty())
            || UNSHOWN.iter().any(|place| holds(delta, place));
        if unshown && out.len() == before {
            out.push(Step::Thinking);
        }
    }
}

/// The choice that we asked for; others, which a server may send unasked, are not mixed into it.
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
            let complaint = Complaint::of(data.as_bytes());
            return Err(judge::event(&complaint, &self.model, fault));
        }
        if data.trim_start().starts_with("[DONE]") {
            // Some servers send no finish at all.
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

/// What an error means: its code first, then its words, then the status.
pub(super) fn fault(status: Option<u16>, complaint: &Complaint, model: &Model) -> Fault {
    let coded = by_code(&complaint.code).or_else(|| by_code(&complaint.kind));
    if let Some(fault) = coded {
        return fault;
    }
    let lower = complaint.lower();
    if judge::overflow(status, complaint) {
        return Fault::TooLong;
    }
    if filtered(complaint, &lower) {
        return Fault::Policy;
    }
    match status {
        // Gemini's and xAI's compatible servers refuse a key with 400.
        Some(400) if lower.contains("api key not valid") || lower.contains("incorrect api key") => {
            Fault::Unauthorized
        }
        Some(403) if names_the_model(complaint, model) => Fault::Misconfigured,
        // One request larger than the whole limit of a minute: waiting does not make it smaller.
        Some(429) if lower.contains("request too large") => Fault::TooLong,
        _ => judge::by_status(status, complaint),
    }
}

/// Codes and types that mean the same at every status.
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

/// Azure's inner code, OpenRouter's moderation record, the words of Azure and DeepSeek.
fn filtered(complaint: &Complaint, lower: &str) -> bool {
    text(&complaint.error, "/innererror/code") == "ResponsibleAIPolicyViolation"
        || holds(&complaint.error, "/metadata/reasons")
        || holds(&complaint.error, "/metadata/flagged_input")
        || lower.contains("content management policy")
        || lower.contains("content exists risk")
}

fn names_the_model(complaint: &Complaint, model: &Model) -> bool {
    complaint.param == "model"
        || (!model.model.is_empty() && complaint.message.contains(&model.model))
}
