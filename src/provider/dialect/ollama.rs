//! Ollama's own API.

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

/// The dialect.
pub struct Ollama {
    model: Arc<Model>,
}

impl Ollama {
    /// The dialect for this model.
    pub fn new(model: Model) -> Self {
        Self {
            model: Arc::new(model),
        }
    }

    fn call(&self, path: &str, body: String) -> Call {
        Call {
            path: path.to_owned(),
            // A local server asks for no key; the cloud does.
            headers: self.model.headers([("authorization", self.model.bearer())]),
            body,
            framing: Framing::Lines,
        }
    }
}

/// How long the model stays loaded and whether it thinks is left to the server's own settings.
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
    /// What is longer than this is cut without a word, and the default is small.
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}

impl Dialect for Ollama {
    fn request(&self, ask: &Ask) -> Call {
        let body = json(&Body {
            model: &self.model.model,
            messages: with_system(ask, Order::Free),
            stream: true,
            options: Options {
                num_predict: ask.max_tokens,
                num_ctx: Some(self.model.context_tokens).filter(|tokens| *tokens > 0),
                temperature: self.model.temperature(ask),
                stop: &ask.stop,
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

    fn refused(&self, answer: &Refused<'_>) -> Failure {
        judge::answer(answer, &self.model, fault)
    }
}

/// Reads the lines; a whole answer is just one that is done.
struct Answer {
    model: Arc<Model>,
    progress: Progress,
}

impl Answer {
    fn line(&mut self, line: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if self.progress.ended() {
            return Ok(());
        }
        // An error first: its line may have all the rest too.
        if let Some(complaint) = Complaint::in_event(line) {
            return Err(judge::event(&complaint, &self.model, fault));
        }
        let shown = text(line, "/message/content");
        self.progress.text(shown, out);
        let unshown = holds(line, "/message/thinking") || holds(line, "/message/tool_calls");
        if unshown && shown.is_empty() {
            out.push(Step::Thinking);
        }
        if line.get("done").and_then(Value::as_bool) == Some(true) {
            // "load" and "unload" generate nothing: such an answer is empty.
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

/// What an error means: its status; inside of a stream, where it is a text without a code, its words.
fn fault(status: Option<u16>, complaint: &Complaint, _: &Model) -> Fault {
    if judge::overflow(status, complaint) {
        return Fault::TooLong;
    }
    let lower = complaint.lower();
    match status {
        None if lower.contains("not found") => Fault::Misconfigured,
        None if lower.contains("unauthorized") => Fault::Unauthorized,
        _ => judge::by_status(status, complaint),
    }
}
