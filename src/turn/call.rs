//! A running call to a provider whose first event can be awaited before the rest is streamed.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::chat::{Ask, Failure, Fault, Finish, Usage};
use crate::provider::standstill::Mark;
use crate::provider::upstream::{Step, Steps, Upstream};

/// A running call. Dropping it closes the connection.
pub struct Call {
    pub begun: Mark,
    steps: Steps,
    /// Events received by `first_event` and not streamed yet, oldest first.
    ahead: VecDeque<Result<Step, Failure>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A token (thinking included), or a content filter's refusal, which counts as an answer.
    Token,
    /// The call ended without an answer.
    End,
}

impl Call {
    /// Starts the call. A panic in the client is returned as a failed event.
    pub fn begin(client: &Arc<dyn Upstream>, request: &Ask) -> Self {
        let client = Arc::clone(client);
        let request = request.clone();
        let asked = async move { client.ask(&request) }.flatten_stream();
        let steps = AssertUnwindSafe(asked).catch_unwind().map(|step| {
            step.unwrap_or_else(|_| {
                tracing::error!("provider client panicked");
                Err(Failure::of(Fault::Malformed))
            })
        });
        Self {
            begun: Mark::now(),
            steps: steps.boxed(),
            ahead: VecDeque::new(),
        }
    }

    /// Waits for the first token or the end, at most `limit` from the start of the call. Time
    /// during which this thread was stalled does not count. Cancel-safe.
    ///
    /// Must not be called again after it has returned.
    pub async fn first_word(&mut self, limit: Duration) -> Word {
        loop {
            let step = match self.begun.timeout(limit, self.steps.next()).await {
                Ok(Some(step)) => step,
                Ok(None) => Err(Failure::of(Fault::Truncated)),
                Err(_) => Err(Failure::of(Fault::Timeout)),
            };
            let first = match &step {
                Ok(Step::Usage(_)) => None,
                Ok(Step::Text(_) | Step::Thinking | Step::End(Finish::ContentFilter)) => {
                    Some(Word::Token)
                }
                Err(failure) if failure.fault == Fault::Policy => Some(Word::Token),
                Ok(Step::End(_)) | Err(_) => Some(Word::End),
            };
            self.ahead.push_back(step);
            if let Some(first) = first {
                return first;
            }
        }
    }

    /// The latest token usage reported among the buffered events.
    pub fn usage(&self) -> Option<Usage> {
        self.ahead.iter().rev().find_map(|step| match step {
            Ok(Step::Usage(usage)) => Some(*usage),
            _ => None,
        })
    }

    /// All events from the first on, including the buffered ones.
    pub fn steps(self) -> Steps {
        if self.ahead.is_empty() {
            self.steps
        } else {
            stream::iter(self.ahead).chain(self.steps).boxed()
        }
    }
}
