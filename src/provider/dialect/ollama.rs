//! Ollama's own API, one JSON object per line.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::chat::{Ask, Failure, Fault, Finish, Usage};
use crate::provider::upstream::Step;

use super::complaint::Complaint;
use super::model::Model;
use super::progress::{Progress, count, holds, objects, text, unknown};
use super::said::{Order, Said, json, with_system};
use super::{Call, Dialect, Framing, Reader, Refused, judge};

pub struct Ollama {
    model: Arc<Model>,
}

impl Ollama {
    pub fn new(model: Model) -> Self {
        Self {
            model: Arc::new(model),
        }
    }

    fn call(&self, path: &str, body: String) -> Call {
        Call {
            path: path.to_owned(),
            // A local server needs no key, the cloud does.
            headers: self.model.headers([("authorization", self.model.bearer())]),
            body,
            framing: Framing::Lines,
        }
    }
}

/// `keep_alive` and `think` are left to the server's own settings.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
    stream: bool,
    options: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
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
    fn request(&self, request: &Ask) -> Call {
        let body = json(&Body {
            model: &self.model.model,
            messages: with_system(request, Order::Free),
            stream: true,
            options: Options {
                num_predict: request.max_tokens,
                num_ctx: Some(self.model.context_tokens).filter(|tokens| *tokens > 0),
                temperature: self.model.temperature(request),
                stop: &request.stop,
            },
        });
        self.call("/api/chat", body)
    }

    fn listing(&self) -> Call {
        self.call("/api/tags", String::new())
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
}

/// Decodes the lines. A complete JSON answer is a single line with `done`.
struct Answer {
    model: Arc<Model>,
    progress: Progress,
}

impl Answer {
    fn line(&mut self, line: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if self.progress.ended() {
            return Ok(());
        }
        // Check for an error first: its line may also have the members of an answer.
        if let Some(error_body) = Complaint::in_event(line) {
            return Err(judge::event(&error_body, &self.model, fault));
        }
        let content = text(line, "/message/content");
        self.progress.text(content, out);
        let has_hidden_content =
            holds(line, "/message/thinking") || holds(line, "/message/tool_calls");
        if has_hidden_content && content.is_empty() {
            out.push(Step::Thinking);
        }
        if line.get("done").and_then(Value::as_bool) == Some(true) {
            // "load" and "unload" generate nothing, so the answer is empty.
            let finish = match text(line, "/done_reason") {
                "" | "stop" | "load" | "unload" => Finish::Stop,
                "length" => Finish::Length,
                other => unknown(other),
            };
            self.progress.finish(finish, out);
            self.progress.end();
            let input = count(line, "/prompt_eval_count");
            let output = count(line, "/eval_count");
            if input.is_some() || output.is_some() {
                out.push(Step::Usage(Usage {
                    input_tokens: input.unwrap_or_default(),
                    output_tokens: output.unwrap_or_default(),
                    estimated: false,
                }));
            }
        }
        Ok(())
    }
}

impl Reader for Answer {
    fn event(&mut self, _: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        if self.progress.ended() {
            return Ok(());
        }
        objects(data)?
            .iter()
            .try_for_each(|line| self.line(line, out))
    }

    fn ended(&self) -> bool {
        self.progress.ended()
    }

    fn verdict(&self) -> Result<Finish, Failure> {
        self.progress.verdict()
    }
}

/// Classifies by status. An error inside a stream is a text without a code, so its message decides.
fn fault(status: Option<u16>, error_body: &Complaint, _: &Model) -> Fault {
    if judge::overflow(status, error_body) {
        return Fault::TooLong;
    }
    let lower = error_body.lower();
    match status {
        None if lower.contains("not found") => Fault::Misconfigured,
        None if lower.contains("unauthorized") => Fault::Unauthorized,
        _ => judge::by_status(status, error_body),
    }
}
