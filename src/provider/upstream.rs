//! What the rest of the house sees of a provider's wire: a question goes in, steps come out.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;

use crate::chat::{Ask, Failure, Finish, Usage};

/// One step of an answer under way.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// More text; never empty.
    Text(String),
    /// The model thinks, or calls a tool: progress, but nothing to show.
    Thinking,
    /// Tokens used so far; the last one counts.
    Usage(Usage),
    /// The dialect's proof that the answer is whole: `Stop`, `Length` or `ContentFilter`. Nothing follows.
    End(Finish),
}

/// The steps of one answer: any number of `Text`, `Thinking` and `Usage`, then exactly one `End` or one failure.
/// Dropping it closes the connection to the provider; there is no other way to cancel.
pub type Steps = BoxStream<'static, Result<Step, Failure>>;

/// A way to ask a provider. The real one speaks HTTP; the tests' one follows a script.
///
/// It makes one request per call and never retries: the router is the only one who does. (One more follows only where the dialect
/// has found its own mapping at fault and mended it.) It has no limit of time but for the connect; the caller keeps all others.
pub trait Upstream: Send + Sync {
    /// Asks. The stream is lazy: nothing is sent before its first poll.
    fn ask(&self, ask: &Ask) -> Steps;

    /// Makes the free listing call. Good says that address and key are, not that the model answers. Nothing is sent before its first poll.
    ///
    /// # Errors
    /// As for a question.
    fn list(&self) -> BoxFuture<'static, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }
}
