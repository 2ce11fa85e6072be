//! A running call to a provider whose first event can be awaited before the rest is streamed.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason, TokenUsage};
use crate::provider::stall_clock::StallAwareInstant;
use crate::provider::stream_event::{EventStream, ProviderClient, StreamEvent};

/// A running call. Dropping it closes the connection.
pub struct PendingCall {
    pub started_at: StallAwareInstant,
    steps: EventStream,
    /// Events received by `first_event` and not streamed yet, oldest first.
    buffered: VecDeque<Result<StreamEvent, Failure>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstEvent {
    /// A token (thinking included), or a content filter's refusal, which counts as an answer.
    Token,
    /// The call ended without an answer.
    End,
}

impl PendingCall {
    /// Starts the call. A panic in the client is returned as a failed event.
    pub fn start(client: &Arc<dyn ProviderClient>, request: &ChatRequest) -> Self {
        let client = Arc::clone(client);
        let request = request.clone();
        let asked = async move { client.stream_chat(&request) }.flatten_stream();
        let steps = AssertUnwindSafe(asked).catch_unwind().map(|step| {
            step.unwrap_or_else(|_| {
                tracing::error!("provider client panicked");
                Err(Failure::new(FaultKind::Malformed))
            })
        });
        Self {
            started_at: StallAwareInstant::now(),
            steps: steps.boxed(),
            buffered: VecDeque::new(),
        }
    }

    /// Waits for the first token or the end, at most `limit` from the start of the call. Time
    /// during which this thread was stalled does not count. Cancel-safe.
    ///
    /// Must not be called again after it has returned.
    pub async fn first_event(&mut self, limit: Duration) -> FirstEvent {
        loop {
            let step = match self.started_at.timeout(limit, self.steps.next()).await {
                Ok(Some(step)) => step,
                Ok(None) => Err(Failure::new(FaultKind::Truncated)),
                Err(_) => Err(Failure::new(FaultKind::Timeout)),
            };
            let first = match &step {
                Ok(StreamEvent::Usage(_)) => None,
                Ok(
                    StreamEvent::Text(_)
                    | StreamEvent::Thinking
                    | StreamEvent::Finished(FinishReason::ContentFilter),
                ) => Some(FirstEvent::Token),
                Err(failure) if failure.fault == FaultKind::Policy => Some(FirstEvent::Token),
                Ok(StreamEvent::Finished(_)) | Err(_) => Some(FirstEvent::End),
            };
            self.buffered.push_back(step);
            if let Some(first) = first {
                return first;
            }
        }
    }

    /// The latest token usage reported among the buffered events.
    pub fn usage(&self) -> Option<TokenUsage> {
        self.buffered.iter().rev().find_map(|step| match step {
            Ok(StreamEvent::Usage(usage)) => Some(*usage),
            _ => None,
        })
    }

    /// All events from the first on, including the buffered ones.
    pub fn steps(self) -> EventStream {
        if self.buffered.is_empty() {
            self.steps
        } else {
            stream::iter(self.buffered).chain(self.steps).boxed()
        }
    }
}
