//! Wire formats, sans-IO: what to send, how to read what comes back, how to judge an error. One file a dialect, each in the order
//! request, stream, errors; what they share has files of its own.
//!
//! Promises: no answer is called whole without the dialect's own proof, no event is patched, no key leaves in a failure's words.
//! Rubbish never panics. What is not promised: limits of size and time, which are the transport's and the attempt's.
//!
//! To add a dialect: a file, a fixture, a match arm in [`of`].

mod anthropic;
mod azure;
mod complaint;
mod gemini;
mod hint;
mod judge;
mod learned;
mod model;
mod ollama;
mod openai;
mod progress;
mod redact;
mod said;
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

use crate::chat::{Ask, At, Failure, Finish};

use super::upstream::Step;

pub use anthropic::Anthropic;
pub use azure::Azure;
pub use gemini::Gemini;
pub use model::{Model, Prefill};
pub use ollama::Ollama;
pub use openai::Openai;

/// The wire formats that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OpenAI's chat completions, and the many servers that speak the same.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// OpenAI's models at Azure.
    Azure,
    /// Ollama's own API.
    Ollama,
}

/// The dialect of this kind for this model. One per provider: it remembers which parameters its server does not take.
pub fn of(kind: Kind, model: Model) -> Box<dyn Dialect> {
    match kind {
        Kind::Openai => Box::new(Openai::new(model)),
        Kind::Anthropic => Box::new(Anthropic::new(model)),
        Kind::Gemini => Box::new(Gemini::new(model)),
        Kind::Azure => Box::new(Azure::new(model)),
        Kind::Ollama => Box::new(Ollama::new(model)),
    }
}

/// A request as a dialect wants it, without the HTTP client's types.
///
/// The key stands in its headers and nowhere else; `Debug` shows neither them nor the body.
#[derive(Clone, PartialEq)]
pub struct Call {
    /// What is added to the provider's base URL (which has no slash at its end): path, and query where there is one.
    pub path: String,
    /// Headers besides `content-type: application/json`; no name twice.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The JSON body; empty for a GET.
    pub body: String,
    /// How the answer is cut into events.
    pub framing: Framing,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_ref()).collect();
        f.debug_struct("Call")
            .field("path", &self.path)
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .field("framing", &self.framing)
            .finish()
    }
}

/// How a streamed answer is cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON object a line.
    Lines,
}

/// The head and body of an HTTP answer that is not a stream.
#[derive(Clone, Copy)]
pub struct Refused<'a> {
    /// The status.
    pub status: u16,
    /// Looks up a header by its lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// At most 16 KiB of the body.
    pub body: &'a [u8],
    /// The wall clock, for `Retry-After` dates.
    pub now: At,
}

/// One provider's wire format.
pub trait Dialect: Send + Sync {
    /// The request of a streamed answer.
    fn request(&self, ask: &Ask) -> Call;

    /// The free listing call that proves address and key, not inference.
    fn listing(&self) -> Call;

    /// A reader for one streamed answer.
    fn reader(&self) -> Box<dyn Reader + Send>;

    /// What an HTTP error, or a whole JSON error body, means. The detail has the provider's words, keys already redacted.
    fn refused(&self, answer: &Refused<'_>) -> Failure;

    /// Whether `sent` was refused for a parameter that is our own mapping's choice and is now mapped otherwise: then, and at once,
    /// a new `request` of the same ask is worth sending, and the failure counts nowhere.
    ///
    /// It cannot go on for ever: true means that something was in `sent` which will be in no later request, or that nothing changes for it.
    fn adapt(&self, _sent: &Call, _answer: &Refused<'_>) -> bool {
        false
    }
}

/// Reads one answer, event by event. After a failure it is not asked again.
pub trait Reader {
    /// One event (`name` is the SSE event name, "message" by default) or one line, or a whole JSON body. Pushes what it means to
    /// `out`: never an empty `Text`, never an `End`, which is the caller's to make of [`Reader::verdict`].
    ///
    /// # Errors
    /// The failure that ends the attempt: an error event, rubbish, a finish that is no answer.
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure>;

    /// Whether the end mark was seen, so that nothing more needs to be read; what comes yet is ignored.
    fn ended(&self) -> bool;

    /// The verdict at the end of the body or after the end mark: how the answer finished.
    ///
    /// # Errors
    /// `Truncated` where the dialect's proof of completeness is missing, `Empty` where the answer is whole and shows nothing.
    fn verdict(&self) -> Result<Finish, Failure>;
}
