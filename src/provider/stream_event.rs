//! The interface between a turn and a provider: a chat request goes in, stream events come out.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;

use crate::domain::{ChatRequest, Failure, FinishReason, TokenUsage};

#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// More text, never empty.
    Text(String),
    /// The model thinks or calls a tool: progress without text to show.
    Thinking,
    /// The token usage so far. The last one counts.
    Usage(TokenUsage),
    /// The dialect's proof of a complete answer: `Stop`, `Length` or `ContentFilter`. The last
    /// event.
    Finished(FinishReason),
}

/// The events of one answer: any number of `Text`, `Thinking` and `Usage`, then exactly one
/// `Finished` or one failure. Dropping the stream closes the connection to the provider, which is
/// the only way to cancel.
pub type EventStream = BoxStream<'static, Result<StreamEvent, Failure>>;

/// Sends requests to one provider. The real client speaks HTTP, the one for tests follows a script.
///
/// Each call makes one request and never retries, because only the router does. (Another request
/// follows only if the dialect corrected a mistake in its own mapping.) The connect timeout is the
/// only time limit; all others are the caller's.
pub trait ProviderClient: Send + Sync {
    /// Starts a streamed answer. Lazy: nothing is sent before the stream is first polled.
    fn stream_chat(&self, ask: &ChatRequest) -> EventStream;

    /// Makes the free model listing request. Success proves the address and the key, not that the
    /// model answers. Lazy, like [`ProviderClient::stream_chat`].
    ///
    /// # Errors
    /// As for a chat request.
    fn list_models(&self) -> BoxFuture<'static, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }
}
