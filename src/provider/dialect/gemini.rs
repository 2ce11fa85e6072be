//! Google's Gemini (the Developer API; Vertex has the same bodies).

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::chat::{Ask, Failure, Fault, Finish, Usage};
use crate::provider::upstream::Step;

use super::complaint::Complaint;
use super::model::{Model, escaped};
use super::progress::{Progress, at, count, holds, objects, text, unknown};
use super::said::{ASSISTANT, Order, conversation, json, system};
use super::{Call, Dialect, Framing, Reader, Refused, judge};

/// The version that most servers, the stand-ins for tests among them, know.
const VERSION: &str = "v1beta";

/// The dialect.
pub struct Gemini {
    model: Arc<Model>,
}

impl Gemini {
    /// The dialect for this model.
    pub fn new(model: Model) -> Self {
        Self {
            model: Arc::new(model),
        }
    }

    fn call(&self, path: &str, body: String) -> Call {
        let version = escaped(self.model.version(VERSION));
        // The key as a header: in the query it would stand in every log on its way.
        let key = self.model.key().map(str::to_owned);
        Call {
            path: format!("/{version}/{path}"),
            headers: self.model.headers([("x-goog-api-key", key)]),
            body,
            framing: Framing::Sse,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    generation_config: Config<'a>,
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
struct Config<'a> {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
}

fn content<'a>(role: Option<&'static str>, text: Cow<'a, str>) -> Content<'a> {
    Content {
        role,
        parts: [Part { text }],
    }
}

impl Dialect for Gemini {
    fn request(&self, ask: &Ask) -> Call {
        let name = escaped(&self.model.model);
        // A tuned model's name has its own folder.
        let folder = if name.contains('/') { "" } else { "models/" };
        let body = json(&Body {
            system_instruction: system(ask).map(|text| content(None, text.into())),
            contents: conversation(ask, Order::Strict)
                .into_iter()
                .map(|said| {
                    content(
                        Some(if said.role == ASSISTANT {
                            "model"
                        } else {
                            "user"
                        }),
                        said.content,
                    )
                })
                .collect(),
            generation_config: Config {
                max_output_tokens: ask.max_tokens,
                temperature: self.model.temperature(ask),
                stop_sequences: &ask.stop,
            },
        });
        self.call(
            &format!("{folder}{name}:streamGenerateContent?alt=sse"),
            body,
        )
    }

    fn listing(&self) -> Call {
        self.call("models?pageSize=1", String::new())
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

/// Reads the stream, or a whole answer. There is no end mark: an error may come even after a finish, so the body is read to its end.
struct Answer {
    model: Arc<Model>,
    progress: Progress,
}

impl Answer {
    fn read(&mut self, event: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if let Some(complaint) = Complaint::in_event(event) {
            return Err(judge::event(&complaint, &self.model, fault));
        }
        let parts = at(event, "/candidates/0/content/parts");
        for part in parts.and_then(Value::as_array).into_iter().flatten() {
            if holds(part, "/thought") || holds(part, "/functionCall") {
                out.push(Step::Thinking);
            } else {
                self.progress.text(text(part, "/text"), out);
            }
        }
        self.finish(text(event, "/candidates/0/finishReason"), out)?;
        // The question itself was blocked.
        if !matches!(
            text(event, "/promptFeedback/blockReason"),
            "" | "BLOCK_REASON_UNSPECIFIED"
        ) {
            self.progress.finish(Finish::ContentFilter, out);
        }
        if let Some(usage) = event.get("usageMetadata").filter(|usage| usage.is_object()) {
            let counted = |place| count(usage, place).unwrap_or_default();
            let thought = counted("/thoughtsTokenCount");
            out.push(Step::Usage(Usage {
                input_tokens: counted("/promptTokenCount"),
                output_tokens: counted("/candidatesTokenCount").saturating_add(thought),
                estimated: false,
            }));
        }
        Ok(())
    }

    fn finish(&mut self, reason: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        let failed = |fault| Err(Failure::with(fault, &format!("finish reason {reason}")));
        let finish = match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => return Ok(()),
            "STOP" => Finish::Stop,
            "MAX_TOKENS" | "CONTINUATION" => Finish::Length,
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
            | "MODEL_ARMOR" | "ESCALATION" => Finish::ContentFilter,
            image if image.starts_with("IMAGE_") => Finish::ContentFilter,
            "PUP_LIMITED_DISABLED" => return failed(Fault::Unauthorized),
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE"
            | "MISSING_THOUGHT_SIGNATURE"
            | "OTHER" => return failed(Fault::ServerError),
            other => unknown(other),
        };
        self.progress.finish(finish, out);
        Ok(())
    }
}

impl Reader for Answer {
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        if name == "error" {
            let complaint = Complaint::of(data.as_bytes());
            return Err(judge::event(&complaint, &self.model, fault));
        }
        objects(data)?
            .iter()
            .try_for_each(|event| self.read(event, out))
    }

    fn ended(&self) -> bool {
        false
    }

    fn verdict(&self) -> Result<Finish, Failure> {
        self.progress.verdict()
    }
}

/// What an error means: the reason and the quota in its details first, then its message, then the status or its word.
fn fault(status: Option<u16>, complaint: &Complaint, _: &Model) -> Fault {
    let lower = complaint.lower();
    let reasons = details(complaint, "google.rpc.ErrorInfo");
    let bad_key = reasons
        .into_iter()
        .any(|info| text(info, "/reason").starts_with("API_KEY_"));
    if bad_key || lower.contains("api key not valid") || lower.contains("api key expired") {
        // It comes with 400, like the faults of a request.
        return Fault::Unauthorized;
    }
    if judge::overflow(status, complaint) {
        return Fault::TooLong;
    }
    match (complaint.kind.as_str(), status) {
        // The account's billing, or a country that is not served.
        ("FAILED_PRECONDITION", _) if lower.contains("billing") => Fault::QuotaSpent,
        ("FAILED_PRECONDITION", _) => Fault::Unauthorized,
        (_, Some(429)) | ("RESOURCE_EXHAUSTED", _) if spent_for_long(complaint, &lower) => {
            Fault::QuotaSpent
        }
        _ => judge::by_status(status, complaint),
    }
}

/// Whether it is the quota of a day, one of nothing at all, or paid credit that is spent: the next minute does not help.
fn spent_for_long(complaint: &Complaint, lower: &str) -> bool {
    let failures = details(complaint, "google.rpc.QuotaFailure");
    let violations = failures
        .into_iter()
        .filter_map(|failure| failure.get("violations")?.as_array());
    let long = violations.flatten().any(|violation| {
        text(violation, "/quotaId").contains("PerDay") || text(violation, "/quotaValue") == "0"
    });
    long || lower.contains("limit: 0,") || lower.contains("credits are depleted")
}

/// The details of this type.
fn details<'a>(complaint: &'a Complaint, kind: &str) -> Vec<&'a Value> {
    let all = complaint.error.get("details").and_then(Value::as_array);
    let of_kind = |detail: &&Value| text(detail, "/@type").ends_with(kind);
    all.into_iter().flatten().filter(of_kind).collect()
}
