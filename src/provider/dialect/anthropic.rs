//! Anthropic's Messages API: streams and complete messages.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::chat::{Ask, Failure, Fault, Finish, Usage};
use crate::provider::upstream::Step;

use super::complaint::Complaint;
use super::learned::Learned;
use super::model::Model;
use super::progress::{Progress, at, count, objects, text, unknown};
use super::said::{Order, Said, conversation, json, system};
use super::{Call, Dialect, Framing, Reader, Refused, judge};

/// The default version, which gateways and old servers support.
const VERSION: &str = "2023-06-01";

/// From this version on the key is a bearer token and sampling parameters are gone. Versions are
/// dates, so they compare as strings.
const BEARER_SINCE: &str = "2026-10-21";

const TEMPERATURE: &str = "temperature";

/// Remembers whether the model rejected a temperature.
pub struct Anthropic {
    model: Arc<Model>,
    learned: Learned,
}

impl Anthropic {
    pub fn new(model: Model) -> Self {
        Self {
            model: Arc::new(model),
            learned: Learned::new(&[TEMPERATURE]),
        }
    }

    fn newer(&self) -> bool {
        self.model.version(VERSION) >= BEARER_SINCE
    }

    fn call(&self, path: &str, body: String) -> Call {
        let version = (
            "anthropic-version",
            Some(self.model.version(VERSION).to_owned()),
        );
        let key = if self.newer() {
            ("authorization", self.model.bearer())
        } else {
            ("x-api-key", self.model.key().map(str::to_owned))
        };
        Call {
            path: path.to_owned(),
            headers: self.model.headers([version, key]),
            body,
            framing: Framing::Sse,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<Said<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
}

impl Dialect for Anthropic {
    fn request(&self, request: &Ask) -> Call {
        let takes_temperature = !self.newer() && self.learned.takes(TEMPERATURE);
        let body = json(&Body {
            model: &self.model.model,
            max_tokens: request.max_tokens,
            system: system(request),
            messages: conversation(request, Order::Strict),
            stream: true,
            stop_sequences: &request.stop,
            temperature: self
                .model
                .temperature(request)
                .filter(|_| takes_temperature),
        });
        self.call("/v1/messages", body)
    }

    fn listing(&self) -> Call {
        self.call("/v1/models", String::new())
    }

    fn reader(&self) -> Box<dyn Reader + Send> {
        Box::new(Answer {
            model: Arc::clone(&self.model),
            progress: Progress::default(),
            tokens: Tokens::default(),
        })
    }

    fn refused(&self, response: &Refused<'_>) -> Failure {
        judge::answer(response, &self.model, fault)
    }

    fn adapt(&self, sent: &Call, response: &Refused<'_>) -> bool {
        self.learned.learn(sent, response).is_some()
    }
}

/// Decodes the stream, or a complete `message`.
struct Answer {
    model: Arc<Model>,
    progress: Progress,
    tokens: Tokens,
}

/// The token counts so far. Each is cumulative, and events omit counts that have not changed.
#[derive(Default)]
struct Tokens {
    input: u64,
    cache_written: u64,
    cache_read: u64,
    output: u64,
}

impl Tokens {
    fn update(&mut self, usage: Option<&Value>, out: &mut Vec<Step>) {
        let Some(usage) = usage.filter(|usage| usage.is_object()) else {
            return;
        };
        for (path, total) in [
            ("/input_tokens", &mut self.input),
            ("/cache_creation_input_tokens", &mut self.cache_written),
            ("/cache_read_input_tokens", &mut self.cache_read),
            ("/output_tokens", &mut self.output),
        ] {
            *total = count(usage, path).unwrap_or(*total);
        }
        let input = self.input.saturating_add(self.cache_written);
        out.push(Step::Usage(Usage {
            input_tokens: input.saturating_add(self.cache_read),
            output_tokens: self.output,
            estimated: false,
        }));
    }
}

impl Answer {
    fn read(&mut self, name: &str, event: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if let Some(error_body) = Complaint::in_event(event) {
            return Err(judge::event(&error_body, &self.model, fault));
        }
        let kind = match text(event, "/type") {
            "" => name,
            kind => kind,
        };
        match kind {
            "message_start" => self.tokens.update(at(event, "/message/usage"), out),
            "content_block_start" => {
                if let Some(block) = event.get("content_block") {
                    self.block(block, out);
                }
            }
            "content_block_delta" => match text(event, "/delta/type") {
                "text_delta" => self.progress.text(text(event, "/delta/text"), out),
                "thinking_delta" | "signature_delta" | "input_json_delta" => {
                    out.push(Step::Thinking);
                }
                _ => {}
            },
            "message_delta" => {
                self.finish(text(event, "/delta/stop_reason"), out);
                self.tokens.update(event.get("usage"), out);
            }
            "message_stop" => self.progress.end(),
            // A complete answer: the server did not stream.
            "message" => {
                let blocks = event.get("content").and_then(Value::as_array);
                for block in blocks.into_iter().flatten() {
                    self.block(block, out);
                }
                self.finish(text(event, "/stop_reason"), out);
                self.tokens.update(event.get("usage"), out);
            }
            // Pings, ends of blocks, and future events, which the vendor says to ignore.
            _ => {}
        }
        Ok(())
    }

    fn block(&mut self, block: &Value, out: &mut Vec<Step>) {
        match text(block, "/type") {
            "text" => self.progress.text(text(block, "/text"), out),
            "" => {}
            _ => out.push(Step::Thinking),
        }
    }

    fn finish(&mut self, reason: &str, out: &mut Vec<Step>) {
        let finish = match reason {
            "" => return,
            "end_turn" | "stop_sequence" | "tool_use" | "pause_turn" => Finish::Stop,
            "max_tokens" | "model_context_window_exceeded" => Finish::Length,
            "refusal" => Finish::ContentFilter,
            other => unknown(other),
        };
        self.progress.finish(finish, out);
    }
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
        objects(data)?
            .iter()
            .try_for_each(|event| self.read(name, event, out))
    }

    fn ended(&self) -> bool {
        self.progress.ended()
    }

    fn verdict(&self) -> Result<Finish, Failure> {
        self.progress.verdict()
    }
}

/// Classifies by `error.details.error_code`, then by type, then by status. The message is used only
/// for errors that have no code of their own.
fn fault(status: Option<u16>, error_body: &Complaint, _: &Model) -> Fault {
    match text(&error_body.error, "/details/error_code") {
        "enforced_spend_limit_reached"
        | "contract_spend_limit_reached"
        | "organization_on_hold" => {
            return Fault::QuotaSpent;
        }
        "ramp_limit_exceeded" => return Fault::RateLimited,
        code if code.starts_with("linked_organization_") => return Fault::QuotaSpent,
        _ => {}
    }
    let lower = error_body.lower();
    if lower.contains("credit balance is too low")
        || lower.contains("you have reached your specified")
        || error_body.code == "organization_on_hold"
    {
        return Fault::QuotaSpent;
    }
    if judge::overflow(status, error_body) {
        return Fault::TooLong;
    }
    match error_body.kind.as_str() {
        "authentication_error" | "permission_error" => Fault::Unauthorized,
        "billing_error" => Fault::QuotaSpent,
        "not_found_error" => Fault::Misconfigured,
        "request_too_large" => Fault::TooLong,
        "rate_limit_error" => Fault::RateLimited,
        "overloaded_error" => Fault::Overloaded,
        _ => judge::by_status(status, error_body),
    }
}
