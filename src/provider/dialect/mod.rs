//! Wire formats, sans-IO: what to send, how to read what comes back, how to judge an error. One file a dialect, each in the order
//! request, stream, errors.

use crate::chat::{Ask, Failure, Finish};

use super::upstream::Step;

/// A request as a dialect wants it, without the HTTP client's types.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What is added to the provider's base URL: path, and query where there is one.
    pub path: String,
    /// Headers besides `content-type: application/json`. The key stands in here and nowhere else: never log a `Call`.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body; empty for a GET.
    pub body: String,
    /// How the answer is cut into events.
    pub framing: Framing,
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
    pub now: crate::chat::At,
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

    /// true: the request was our own mapping's fault and is now mapped otherwise: it may be asked once more, at once.
    fn adapt(&self, _answer: &Refused<'_>) -> bool {
        false
    }
}

/// Reads one streamed answer, event by event.
pub trait Reader {
    /// One event (`name` is the SSE event name, "message" by default) or one line. Pushes what it means to `out`.
    ///
    /// # Errors
    /// The failure that ends the attempt: an error event, rubbish, a finish that is no answer.
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure>;

    /// Whether the end mark was seen, so that nothing more needs to be read.
    fn ended(&self) -> bool;

    /// The verdict at the end of the body or after the end mark: how the answer finished.
    ///
    /// # Errors
    /// `Truncated` where the dialect's proof of completeness is missing.
    fn verdict(&self) -> Result<Finish, Failure>;
}
