//! What the three dialects have in common: what a simulator hears and says, before it is put into bytes. Pure.

use serde_json::Value;

use super::heard::Heard;
use super::{speak_anthropic, speak_ollama, speak_openai};

/// The wire format of a simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// OpenAI chat completions: server-sent events, `[DONE]`.
    OpenAi,
    /// Anthropic messages: named server-sent events, `message_stop`.
    Anthropic,
    /// Ollama chat: JSON lines, `"done": true`.
    Ollama,
}

/// What an answer is made of, apart from its words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saying<'a> {
    /// Number of the call; makes the ids.
    pub call: u64,
    /// The model that the answer names.
    pub model: &'a str,
    /// The answer; each word carries the white space before it.
    pub words: &'a [&'a str],
    /// Were words left out to keep to the request's limit?
    pub shortened: bool,
    /// Words of the prompt.
    pub prompt_words: usize,
}

/// An answer in bytes, in the pieces in which it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    /// The Content-Type.
    pub content_type: &'static str,
    /// Comes together with the first word.
    pub opening: String,
    /// One a word; empty ones take their time and send nothing.
    pub words: Vec<String>,
    /// The rest, which proves the answer complete.
    pub closing: String,
    /// Stands for the rest when the answer turns to garbage: never valid in the dialect.
    pub garbage: String,
}

impl Script {
    /// An answer in one piece, which takes as long as its words would.
    pub fn whole(answer: &Value, words: usize) -> Self {
        let closing = answer.to_string();
        let half = closing.chars().take(closing.len() / 2).collect();
        let words = vec![String::new(); words];
        Self {
            content_type: "application/json",
            opening: String::new(),
            words,
            closing,
            garbage: half,
        }
    }
}

/// Why a request gets an error and no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request makes no sense; why.
    Invalid(String),
    /// No such route.
    NotFound,
    /// The body is too large.
    TooLarge,
    /// [`super::Fault::RateLimit`].
    RateLimited,
    /// [`super::Fault::Unauthorized`].
    Unauthorized,
}

impl Refusal {
    /// The HTTP status, the same in all dialects.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 400,
            Self::Unauthorized => 401,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
        }
    }

    /// A sentence for the error object.
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
    /// What the dialect's base URL has after the authority.
    pub(super) const fn base_path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1",
            Self::Anthropic | Self::Ollama => "",
        }
    }

    /// Where chats are posted.
    pub(super) const fn chat_path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    /// Where the models are listed.
    pub(super) const fn list_path(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "/v1/models",
            Self::Ollama => "/api/tags",
        }
    }

    /// The listing of the one model there is.
    pub(super) fn list(self, model: &str) -> Value {
        match self {
            Self::OpenAi => speak_openai::list(model),
            Self::Anthropic => speak_anthropic::list(model),
            Self::Ollama => speak_ollama::list(model),
        }
    }

    /// Reads a chat request.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when it is not JSON or not a chat.
    pub(super) fn hear(self, body: &[u8]) -> Result<Heard, Refusal> {
        let body = serde_json::from_slice(body)
            .map_err(|error| Refusal::Invalid(format!("The body is not valid JSON: {error}.")))?;
        let heard = match self {
            Self::OpenAi => speak_openai::hear(&body),
            Self::Anthropic => speak_anthropic::hear(&body),
            Self::Ollama => speak_ollama::hear(&body),
        };
        heard.map_err(Refusal::Invalid)
    }

    /// Puts an answer into bytes as `heard` asks for it.
    pub(super) fn script(self, heard: &Heard, saying: &Saying<'_>) -> Script {
        match (self, heard.stream) {
            (Self::OpenAi, true) => speak_openai::stream(saying, heard.usage),
            (Self::Anthropic, true) => speak_anthropic::stream(saying),
            (Self::Ollama, true) => speak_ollama::stream(saying),
            (Self::OpenAi, false) => {
                Script::whole(&speak_openai::whole(saying), saying.words.len())
            }
            (Self::Anthropic, false) => {
                Script::whole(&speak_anthropic::whole(saying), saying.words.len())
            }
            (Self::Ollama, false) => {
                Script::whole(&speak_ollama::whole(saying), saying.words.len())
            }
        }
    }

    /// The error object of the dialect.
    pub(super) fn error(self, refusal: &Refusal, call: u64) -> Value {
        match self {
            Self::OpenAi => speak_openai::error(refusal),
            Self::Anthropic => speak_anthropic::error(refusal, call),
            Self::Ollama => speak_ollama::error(refusal),
        }
    }

    /// The response header that carries the dialect's request id, where it has one.
    pub(super) const fn id_header(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("x-request-id"),
            Self::Anthropic => Some("request-id"),
            Self::Ollama => None,
        }
    }
}

/// The id of a call's request, in headers and errors.
pub(super) fn request_id(call: u64) -> String {
    format!("req_sim_{call}")
}
