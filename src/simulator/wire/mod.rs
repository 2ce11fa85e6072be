//! The wire formats of the simulators, and the types they share. Pure.

mod anthropic;
mod ollama;
mod openai;

use serde_json::Value;

use super::chat_request::SimulatedRequest;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// OpenAI chat completions: server-sent events, `[DONE]`.
    OpenAi,
    /// Anthropic messages: named server-sent events, `message_stop`.
    Anthropic,
    /// Ollama chat: JSON lines, `"done": true`.
    Ollama,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplySpec<'a> {
    /// The number of the call, from which ids are made.
    pub call_number: u64,
    pub model: &'a str,
    /// The words of the answer, each with the white space before it.
    pub words: &'a [&'a str],
    /// Words were dropped because of the request's limit.
    pub is_truncated: bool,
    pub prompt_words: usize,
}

/// The bytes of an answer, in the pieces in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScriptedReply {
    pub content_type: &'static str,
    /// Sent together with the first word.
    pub opening: String,
    /// One piece for each word. An empty one takes its time and sends nothing.
    pub words: Vec<String>,
    /// Sent last; proves the answer complete.
    pub closing: String,
}

impl ScriptedReply {
    /// An answer sent in one piece, after the time its words would take.
    pub fn single_piece(answer: &Value, words: usize) -> Self {
        Self {
            content_type: "application/json",
            opening: String::new(),
            words: vec![String::new(); words],
            closing: answer.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SimulatedError {
    InvalidRequest(String),
    NotFound,
    TooLarge,
}

impl SimulatedError {
    /// The HTTP status, which all formats share.
    pub const fn status(&self) -> u16 {
        match self {
            Self::InvalidRequest(_) => 400,
            Self::NotFound => 404,
            Self::TooLarge => 413,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Self::InvalidRequest(why) => why,
            Self::NotFound => "Unknown request URL.",
            Self::TooLarge => "The request body is too large.",
        }
    }
}

impl WireFormat {
    /// The path that a base URL of this format ends with.
    pub(crate) const fn base_path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1",
            Self::Anthropic | Self::Ollama => "",
        }
    }

    pub(crate) const fn chat_path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    pub(crate) const fn models_path(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "/v1/models",
            Self::Ollama => "/api/tags",
        }
    }

    pub(crate) fn models_json(self, model: &str) -> Value {
        match self {
            Self::OpenAi => openai::models_json(model),
            Self::Anthropic => anthropic::models_json(model),
            Self::Ollama => ollama::models_json(model),
        }
    }

    /// # Errors
    /// `InvalidRequest` if the body is not JSON or not a chat.
    pub(crate) fn parse_request(self, body: &[u8]) -> Result<SimulatedRequest, SimulatedError> {
        let body = serde_json::from_slice(body).map_err(|error| {
            SimulatedError::InvalidRequest(format!("The body is not valid JSON: {error}."))
        })?;
        let request = match self {
            Self::OpenAi => openai::parse_request(&body),
            Self::Anthropic => anthropic::parse_request(&body),
            Self::Ollama => ollama::parse_request(&body),
        };
        request.map_err(SimulatedError::InvalidRequest)
    }

    pub(crate) fn render(self, chat: &SimulatedRequest, reply: &ReplySpec<'_>) -> ScriptedReply {
        if chat.stream {
            return match self {
                Self::OpenAi => openai::render_stream(reply, chat.include_usage),
                Self::Anthropic => anthropic::render_stream(reply),
                Self::Ollama => ollama::render_stream(reply),
            };
        }
        let json = match self {
            Self::OpenAi => openai::complete_json(reply),
            Self::Anthropic => anthropic::complete_json(reply),
            Self::Ollama => ollama::complete_json(reply),
        };
        ScriptedReply::single_piece(&json, reply.words.len())
    }

    pub(crate) fn error_json(self, error: &SimulatedError, call: u64) -> Value {
        match self {
            Self::OpenAi => openai::error_json(error),
            Self::Anthropic => anthropic::error_json(error, call),
            Self::Ollama => ollama::error_json(error),
        }
    }

    /// The name of the response header with the request id, if the format has one.
    pub(crate) const fn request_id_header(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("x-request-id"),
            Self::Anthropic => Some("request-id"),
            Self::Ollama => None,
        }
    }
}

pub(crate) fn request_id(call: u64) -> String {
    format!("req_sim_{call}")
}
