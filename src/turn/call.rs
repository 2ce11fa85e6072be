//! A call to a provider under way, whose first word can be waited for before its steps are read.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::chat::{Ask, Failure, Fault, Finish, Usage};
use crate::provider::standstill::Mark;
use crate::provider::upstream::{Step, Steps, Upstream};

/// A call. Dropping it closes the connection.
pub struct Call {
    /// When it was begun.
    pub begun: Mark,
    steps: Steps,
    /// Steps that were waited for and not read yet, oldest first.
    ahead: VecDeque<Result<Step, Failure>>,
}

/// What a call says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Something to go on with: a token, of whatever kind, or the refusal that is the answer.
    Token,
    /// Its end, and that is no answer.
    End,
}

impl Call {
    /// Asks. A panic of what reads the provider is a failure of the call.
    pub fn begin(upstream: &Arc<dyn Upstream>, ask: &Ask) -> Self {
        let (upstream, ask) = (Arc::clone(upstream), ask.clone());
        let asked = async move { upstream.ask(&ask) }.flatten_stream();
        let steps = AssertUnwindSafe(asked).catch_unwind().map(|step| {
            step.unwrap_or_else(|_| {
                tracing::error!("reading a provider panicked");
                Err(Failure::of(Fault::Malformed))
            })
        });
        Self {
            begun: Mark::now(),
            steps: steps.boxed(),
            ahead: VecDeque::new(),
        }
    }

    /// Waits for the first word, `limit` from the beginning at most (less what this thread stood still): later it is a failure. Cancel-safe; not to
    /// be called after it was told.
    pub async fn first_word(&mut self, limit: Duration) -> Word {
        loop {
            let step = match self.begun.timeout(limit, self.steps.next()).await {
                Ok(Some(step)) => step,
                Ok(None) => Err(Failure::of(Fault::Truncated)),
                Err(_) => Err(Failure::of(Fault::Timeout)),
            };
            let word = match &step {
                Ok(Step::Usage(_)) => None,
                Ok(Step::Text(_) | Step::Thinking | Step::End(Finish::ContentFilter)) => {
                    Some(Word::Token)
                }
                Err(failure) if failure.fault == Fault::Policy => Some(Word::Token),
                Ok(Step::End(_)) | Err(_) => Some(Word::End),
            };
            self.ahead.push_back(step);
            if let Some(word) = word {
                return word;
            }
        }
    }

    /// The tokens that it told of so far, by what was waited for.
    pub fn usage(&self) -> Option<Usage> {
        let told = self.ahead.iter().rev();
        told.into_iter().find_map(|step| match step {
            Ok(Step::Usage(usage)) => Some(*usage),
            _ => None,
        })
    }

    /// All its steps, from the first on.
    pub fn steps(self) -> Steps {
        if self.ahead.is_empty() {
            self.steps
        } else {
            stream::iter(self.ahead).chain(self.steps).boxed()
        }
    }
}
