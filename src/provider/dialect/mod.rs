//! Wire formats without I/O: builds requests, decodes streamed answers, classifies errors. One file
//! per dialect, each in the order request, stream, errors. Shared parts have their own files.
//!
//! An answer is complete only with the dialect's own proof. Events are never repaired, failure
//! details never contain a key, and malformed input never panics. Size and time limits are left to
//! the transport and the attempt.
//!
//! A new dialect needs a file, fixtures and a match arm in [`new_dialect`].

mod anthropic;
mod azure;
mod config;
mod decoder;
mod decoder_state;
mod errors;
mod gemini;
mod messages;
mod ollama;
mod openai;
mod quirks;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::domain::{ChatRequest, Failure, FinishReason, Timestamp};

use super::stream_event::StreamEvent;

pub use anthropic::Anthropic;
pub use azure::Azure;
pub use config::{ModelConfig, Prefill};
pub use gemini::Gemini;
pub use ollama::Ollama;
pub use openai::OpenAi;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialectKind {
    OpenAi,
    Anthropic,
    Gemini,
    Azure,
    Ollama,
}

/// Creates the dialect of `kind`. Each provider needs its own instance, which remembers the
/// parameters that the server rejected.
pub fn new_dialect(kind: DialectKind, model: ModelConfig) -> Box<dyn Dialect> {
    match kind {
        DialectKind::OpenAi => Box::new(OpenAi::new(model)),
        DialectKind::Anthropic => Box::new(Anthropic::new(model)),
        DialectKind::Gemini => Box::new(Gemini::new(model)),
        DialectKind::Azure => Box::new(Azure::new(model)),
        DialectKind::Ollama => Box::new(Ollama::new(model)),
    }
}

/// A request in a dialect's format, independent of the HTTP client.
///
/// The API key appears in the headers only. `Debug` shows neither header values nor the body.
#[derive(Clone, PartialEq)]
pub struct ProviderRequest {
    /// Path and query, appended to the provider's base URL (which has no trailing slash).
    pub path: String,
    /// Headers besides `content-type: application/json`. Names are unique.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The JSON body. Empty for a GET.
    pub body: String,
    pub framing: Framing,
}

impl fmt::Debug for ProviderRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_ref()).collect();
        f.debug_struct("ProviderRequest")
            .field("path", &self.path)
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .field("framing", &self.framing)
            .finish()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    #[default]
    Sse,
    Lines,
}

#[derive(Clone, Copy)]
pub struct ErrorResponse<'a> {
    pub status: u16,
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// At most the first 16 KiB of the body.
    pub body: &'a [u8],
    /// The wall clock, needed for `Retry-After` dates.
    pub now: Timestamp,
}

pub trait Dialect: Send + Sync {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest;

    /// Builds the free model listing request. It proves the address and the key, not that the
    /// model answers.
    fn list_models_request(&self) -> ProviderRequest;

    fn decoder(&self) -> Box<dyn StreamDecoder + Send>;

    /// Classifies an HTTP error or a complete JSON error body. The detail quotes the provider's
    /// message with keys redacted.
    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure;

    /// Returns `true` if `sent` was rejected for a parameter of our own mapping that is now mapped
    /// differently. The caller then sends a new [`Dialect::chat_request`] at once, and the failure
    /// counts nowhere.
    ///
    /// This terminates: `true` means that no later request contains the rejected part again, or
    /// that the next request equals `sent`.
    fn adapt_to_rejection(&self, _sent: &ProviderRequest, _response: &ErrorResponse<'_>) -> bool {
        false
    }
}

/// Decodes one answer, event by event. Not used any more after it returned a failure.
pub trait StreamDecoder {
    /// Decodes one SSE event (`name` is "message" by default), one line, or a complete JSON body,
    /// and appends the result to `out`. Never appends an empty `Text` or a `Finished`: the caller
    /// derives that from [`StreamDecoder::finish_result`].
    ///
    /// # Errors
    /// The failure that ends the attempt: an error event, malformed data, or a finish reason that
    /// stands for an error.
    fn decode(&mut self, name: &str, data: &str, out: &mut Vec<StreamEvent>)
    -> Result<(), Failure>;

    /// `true` once the end mark was seen. Later events are ignored.
    fn is_finished(&self) -> bool;

    /// Returns how the answer finished. Valid at the end of the body or after the end mark.
    ///
    /// # Errors
    /// `Truncated` without the dialect's proof of completeness, `Empty` if the answer is complete
    /// but has no text.
    fn finish_result(&self) -> Result<FinishReason, Failure>;
}
