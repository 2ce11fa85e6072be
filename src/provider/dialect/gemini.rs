//! Google's Gemini: the Developer API. Vertex has the same bodies.

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

/// The default version, which most servers support, including test servers.
const VERSION: &str = "v1beta";

pub struct Gemini {
    model: Arc<Model>,
}

impl Gemini {
    pub fn new(model: Model) -> Self {
        Self {
            model: Arc::new(model),
        }
    }

    fn call(&self, path: &str, body: String) -> Call {
        let version = escaped(self.model.version(VERSION));
        // In a header, because the query string would end up in every log on the way.
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
    fn request(&self, request: &Ask) -> Call {
        let name = escaped(&self.model.model);
        // The name of a tuned model includes its folder.
        let folder = if name.contains('/') { "" } else { "models/" };
        let body = json(&Body {
            system_instruction: system(request).map(|text| content(None, text.into())),
            contents: conversation(request, Order::Strict)
                .into_iter()
                .map(|message| {
                    content(
                        Some(if message.role == ASSISTANT {
                            "model"
                        } else {
                            "user"
                        }),
                        message.content,
                    )
                })
                .collect(),
            generation_config: Config {
                max_output_tokens: request.max_tokens,
                temperature: self.model.temperature(request),
                stop_sequences: &request.stop,
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

    fn refused(&self, response: &Refused<'_>) -> Failure {
        judge::answer(response, &self.model, fault)
    }
}

/// Decodes the stream, or a complete answer. There is no end mark and an error may follow a finish,
/// so the body is read to its end.
struct Answer {
    model: Arc<Model>,
    progress: Progress,
}

impl Answer {
    fn read(&mut self, event: &Value, out: &mut Vec<Step>) -> Result<(), Failure> {
        if let Some(error_body) = Complaint::in_event(event) {
            return Err(judge::event(&error_body, &self.model, fault));
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
        // The prompt itself was blocked.
        if !matches!(
            text(event, "/promptFeedback/blockReason"),
            "" | "BLOCK_REASON_UNSPECIFIED"
        ) {
            self.progress.finish(Finish::ContentFilter, out);
        }
        if let Some(usage) = event.get("usageMetadata").filter(|usage| usage.is_object()) {
            let count_at = |path| count(usage, path).unwrap_or_default();
            let thoughts = count_at("/thoughtsTokenCount");
            out.push(Step::Usage(Usage {
                input_tokens: count_at("/promptTokenCount"),
                output_tokens: count_at("/candidatesTokenCount").saturating_add(thoughts),
                estimated: false,
            }));
        }
        Ok(())
    }

    fn finish(&mut self, reason: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        let failure = |fault| Err(Failure::with(fault, &format!("finish reason {reason}")));
        let finish = match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => return Ok(()),
            "STOP" => Finish::Stop,
            "MAX_TOKENS" | "CONTINUATION" => Finish::Length,
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
            | "MODEL_ARMOR" | "ESCALATION" => Finish::ContentFilter,
            image if image.starts_with("IMAGE_") => Finish::ContentFilter,
            "PUP_LIMITED_DISABLED" => return failure(Fault::Unauthorized),
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE"
            | "MISSING_THOUGHT_SIGNATURE"
            | "OTHER" => return failure(Fault::ServerError),
            other => unknown(other),
        };
        self.progress.finish(finish, out);
        Ok(())
    }
}

impl Reader for Answer {
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        if name == "error" {
            let error_body = Complaint::of(data.as_bytes());
            return Err(judge::event(&error_body, &self.model, fault));
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

/// Classifies by reason and quota in the details, then by message, then by status or status word.
fn fault(status: Option<u16>, error_body: &Complaint, _: &Model) -> Fault {
    let lower = error_body.lower();
    let infos = details(error_body, "google.rpc.ErrorInfo");
    let is_key_rejected = infos
        .into_iter()
        .any(|info| text(info, "/reason").starts_with("API_KEY_"));
    if is_key_rejected || lower.contains("api key not valid") || lower.contains("api key expired") {
        // Sent with status 400, like errors of the request.
        return Fault::Unauthorized;
    }
    if judge::overflow(status, error_body) {
        return Fault::TooLong;
    }
    match (error_body.kind.as_str(), status) {
        // The account's billing, or an unsupported country.
        ("FAILED_PRECONDITION", _) if lower.contains("billing") => Fault::QuotaSpent,
        ("FAILED_PRECONDITION", _) => Fault::Unauthorized,
        (_, Some(429)) | ("RESOURCE_EXHAUSTED", _) if spent_for_long(error_body, &lower) => {
            Fault::QuotaSpent
        }
        _ => judge::by_status(status, error_body),
    }
}

/// `true` if a daily quota, a quota of zero, or prepaid credit is exhausted, so that waiting for a
/// minute does not help.
fn spent_for_long(error_body: &Complaint, lower: &str) -> bool {
    let failures = details(error_body, "google.rpc.QuotaFailure");
    let violations = failures
        .into_iter()
        .filter_map(|failure| failure.get("violations")?.as_array());
    let is_long = violations.flatten().any(|violation| {
        text(violation, "/quotaId").contains("PerDay") || text(violation, "/quotaValue") == "0"
    });
    is_long || lower.contains("limit: 0,") || lower.contains("credits are depleted")
}

fn details<'a>(error_body: &'a Complaint, kind: &str) -> Vec<&'a Value> {
    let details = error_body.error.get("details").and_then(Value::as_array);
    let has_type = |detail: &&Value| text(detail, "/@type").ends_with(kind);
    details.into_iter().flatten().filter(has_type).collect()
}
