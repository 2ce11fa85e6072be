//! The wire formats of the simulators, and the types they share. Pure.

use serde_json::Value;

use super::heard::Heard;
use super::{speak_anthropic, speak_ollama, speak_openai};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// OpenAI chat completions: server-sent events, `[DONE]`.
    OpenAi,
    /// Anthropic messages: named server-sent events, `message_stop`.
    Anthropic,
    /// Ollama chat: JSON lines, `"done": true`.
    Ollama,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Saying<'a> {
    /// The number of the call, from which ids are made.
    pub call: u64,
    pub model: &'a str,
    /// The words of the answer, each with the white space before it.
    pub words: &'a [&'a str],
    /// Words were dropped because of the request's limit.
    pub shortened: bool,
    pub prompt_words: usize,
}

/// The bytes of an answer, in the pieces in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub content_type: &'static str,
    /// Sent together with the first word.
    pub opening: String,
    /// One piece for each word. An empty one takes its time and sends nothing.
    pub words: Vec<String>,
    /// Sent last; proves the answer complete.
    pub closing: String,
    /// Sent instead of the rest by the `garbage` fault: never valid in the format.
    pub garbage: String,
}

impl Script {
    /// An answer sent in one piece, after the time its words would take.
    pub fn whole(answer: &Value, words: usize) -> Self {
        let closing = answer.to_string();
        let first_half = closing.chars().take(closing.len() / 2).collect();
        let words = vec![String::new(); words];
        Self {
            content_type: "application/json",
            opening: String::new(),
            words,
            closing,
            garbage: first_half,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Invalid(String),
    NotFound,
    TooLarge,
    RateLimited,
    Unauthorized,
}

impl Refusal {
    /// The HTTP status, which all formats share.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 400,
            Self::Unauthorized => 401,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Self::Invalid(why) => why,
            Self::Unauthorized => "Incorrect API key provided (simulated).",
            Self::NotFound => "Unknown request URL.",
            Self::TooLarge => "The request body is too large.",
            Self::RateLimited => "Rate limit reached, please try again in 30s (simulated).",
        }
    }
}

impl Speaks {
    /// The path that a base URL of this format ends with.
    pub(super) const fn base_path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1",
            Self::Anthropic | Self::Ollama => "",
        }
    }

    pub(super) const fn chat_path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    pub(super) const fn list_path(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "/v1/models",
            Self::Ollama => "/api/tags",
        }
    }

    pub(super) fn list(self, model: &str) -> Value {
        match self {
            Self::OpenAi => speak_openai::list(model),
            Self::Anthropic => speak_anthropic::list(model),
            Self::Ollama => speak_ollama::list(model),
        }
    }

    /// # Errors
    /// `InvalidRequest` if the body is not JSON or not a chat.
    pub(super) fn hear(self, body: &[u8]) -> Result<Heard, Refusal> {
        let body = serde_json::from_slice(body)
            .map_err(|error| Refusal::Invalid(format!("The body is not valid JSON: {error}.")))?;
        let request = match self {
            Self::OpenAi => speak_openai::hear(&body),
            Self::Anthropic => speak_anthropic::hear(&body),
            Self::Ollama => speak_ollama::hear(&body),
        };
        request.map_err(Refusal::Invalid)
    }

    pub(super) fn script(self, chat: &Heard, spec: &Saying<'_>) -> Script {
        match (self, chat.stream) {
            (Self::OpenAi, true) => speak_openai::stream(spec, chat.usage),
            (Self::Anthropic, true) => speak_anthropic::stream(spec),
            (Self::Ollama, true) => speak_ollama::stream(spec),
            (Self::OpenAi, false) => Script::whole(&speak_openai::whole(spec), spec.words.len()),
            (Self::Anthropic, false) => {
                Script::whole(&speak_anthropic::whole(spec), spec.words.len())
            }
            (Self::Ollama, false) => Script::whole(&speak_ollama::whole(spec), spec.words.len()),
        }
    }

    pub(super) fn error(self, error: &Refusal, call: u64) -> Value {
        match self {
            Self::OpenAi => speak_openai::error(error),
            Self::Anthropic => speak_anthropic::error(error, call),
            Self::Ollama => speak_ollama::error(error),
        }
    }

    /// The name of the response header with the request id, if the format has one.
    pub(super) const fn id_header(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("x-request-id"),
            Self::Anthropic => Some("request-id"),
            Self::Ollama => None,
        }
    }
}

pub(super) fn request_id(call: u64) -> String {
    format!("req_sim_{call}")
}
