//! One attempt: reads a provider's events within the time limits and writes the text to the log.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::call::Call;
use super::doze::Dozing;
use super::log::{Cancel, LogWriter};
use super::quality;
use crate::chat::{Failure, Fault, Finish, Usage};
use crate::provider::standstill::Mark;
use crate::provider::upstream::{Step, Steps};

/// The time limits of an attempt, and what counts as an answer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the start to the first token. Thinking counts, keep-alives do not.
    pub first_token: Duration,
    /// From one token to the next.
    pub stall: Duration,
    pub attempt: Duration,
    /// An answer with fewer characters, white space at its ends excluded, is a failure. At least 1.
    pub min_chars: usize,
    pub goes_on: bool,
}

#[derive(Debug, PartialEq)]
pub enum Ended {
    /// The provider sent its end mark: the answer is complete.
    Whole(Finish),
    Failed(Failure),
    /// Cancelled by the turn. The provider is not to blame.
    Cancelled(Cancel),
}

#[derive(Debug)]
pub struct Report {
    pub ended: Ended,
    /// All text received, also if it was not shown.
    pub said: String,
    /// Time to the first token, thinking included. `None` if no token arrived.
    pub first_token: Option<Duration>,
    /// Time to the first shown text. `None` if there was too little text to show.
    pub first_shown: Option<Duration>,
    pub usage: Option<Usage>,
    pub took: Duration,
    /// The attempt timed out while this thread was stalled for most of the time. The provider is
    /// not to blame.
    pub ours: bool,
}

impl Report {
    pub fn started(&self) -> bool {
        !self.said.is_empty()
    }
}

/// Text events that are ready together become one frame of up to this many bytes.
const JOINED_BYTES: usize = 16 * 1024;

/// Shown if a provider's content filter refuses without any text.
pub(super) const REFUSAL: &str = "The provider's content filter refused to answer this message.";

/// Reads a call to its end and writes its text to the log.
///
/// `on_first_token` is called once with the time to the first token, excluding time during which
/// this thread was stalled. Returning or dropping the future closes the provider's connection.
pub async fn drive(
    call: Call,
    limits: Limits,
    writer: &mut LogWriter,
    cancelled: impl Future<Output = Cancel>,
    on_first_token: impl FnOnce(Duration),
) -> Report {
    let mut attempt = Attempt {
        limits,
        begun: call.begun,
        last_token: None,
        tell: Some(on_first_token),
        first_token: None,
        first_shown: None,
        held: Some(String::new()),
        said: String::new(),
        usage: None,
        ours: false,
    };
    let ended = attempt.run(call.steps(), writer, cancelled).await;
    Report {
        first_token: attempt.first_token,
        first_shown: attempt.first_shown,
        usage: attempt.usage,
        took: attempt.begun.elapsed(),
        ours: attempt.ours,
        said: attempt.said,
        ended,
    }
}

struct Attempt<F> {
    limits: Limits,
    begun: Mark,
    last_token: Option<Mark>,
    tell: Option<F>,
    first_token: Option<Duration>,
    first_shown: Option<Duration>,
    /// The start of the text, until it is long enough to be an answer. `None` from then on.
    held: Option<String>,
    said: String,
    usage: Option<Usage>,
    ours: bool,
}

impl<F: FnOnce(Duration)> Attempt<F> {
    async fn run(
        &mut self,
        mut steps: Steps,
        writer: &mut LogWriter,
        cancelled: impl Future<Output = Cancel>,
    ) -> Ended {
        let cancelled = pin!(cancelled);
        let mut cancelled = Dozing::new(cancelled);
        // The timer is not reset at each token. When it fires, the limit is computed again; it is
        // only reset earlier if the limit has moved closer.
        let mut timer = pin!(tokio::time::sleep_until(self.limit().0));
        loop {
            let (limit, _) = self.limit();
            if limit < timer.deadline() {
                timer.as_mut().reset(limit);
            }
            let step = tokio::select! {
                biased;
                cancel = &mut cancelled => return Ended::Cancelled(cancel),
                step = steps.next() => step,
                () = &mut timer => {
                    let (limit, fault) = self.limit();
                    if Instant::now() >= limit {
                        return Ended::Failed(Failure::of(fault));
                    }
                    timer.as_mut().reset(limit);
                    continue;
                }
            };
            // Collect the text that is available without waiting into one frame.
            let mut next = Some(step);
            let mut joined = String::new();
            while let Some(step) = next.take() {
                match step {
                    Some(Ok(Step::Text(text))) => {
                        if joined.is_empty() {
                            joined = text;
                        } else {
                            joined.push_str(&text);
                        }
                        if joined.len() < JOINED_BYTES {
                            next = steps.next().now_or_never();
                        }
                    }
                    other => {
                        if !self.say(&joined, writer) {
                            return misfit();
                        }
                        joined.clear();
                        if let Some(ended) = self.other(other, writer) {
                            return ended;
                        }
                    }
                }
            }
            if !self.say(&joined, writer) {
                return misfit();
            }
        }
    }

    /// The next time limit, and the fault to report when it passes.
    fn limit(&self) -> (Instant, Fault) {
        let total = self.begun.after(self.limits.attempt);
        let token = match self.last_token {
            None => (self.begun.plus(self.limits.first_token), Fault::Timeout),
            Some(last) => (last.plus(self.limits.stall), Fault::Stalled),
        };
        if total < token.0 {
            (total, Fault::Timeout)
        } else {
            token
        }
    }

    fn token(&mut self) {
        self.last_token = Some(Mark::now());
        if let Some(on_first_token) = self.tell.take() {
            self.first_token = Some(self.begun.elapsed());
            on_first_token(self.begun.awake());
        }
    }

    /// Shows text, or holds it back while it is too short. Returns `false` if it does not match the
    /// shown text.
    fn say(&mut self, text: &str, writer: &mut LogWriter) -> bool {
        if text.is_empty() {
            return true;
        }
        self.token();
        self.said.push_str(text);
        let Some(held) = &mut self.held else {
            return writer.text(text);
        };
        held.push_str(text);
        if held.trim().chars().count() >= self.limits.min_chars.max(1) {
            let held = self.held.take().unwrap_or_default();
            return self.show_first(&held, writer);
        }
        true
    }

    /// Shows the text that was held back. Returns `false` if it does not match the shown text.
    fn show_first(&mut self, text: &str, writer: &mut LogWriter) -> bool {
        self.first_shown = Some(self.begun.elapsed());
        writer.text(text)
    }

    /// Handles an event that is not text. Returns `Some` if the attempt has ended.
    fn other(
        &mut self,
        step: Option<Result<Step, Failure>>,
        writer: &mut LogWriter,
    ) -> Option<Ended> {
        match step {
            Some(Ok(Step::Text(_))) => None,
            Some(Ok(Step::Thinking)) => {
                self.token();
                None
            }
            Some(Ok(Step::Usage(usage))) => {
                self.usage = Some(usage);
                None
            }
            Some(Ok(Step::End(finish))) => Some(self.end(finish, writer)),
            Some(Err(failure)) if failure.fault == Fault::Policy => {
                Some(self.end(Finish::ContentFilter, writer))
            }
            Some(Err(failure)) => {
                // The connect timeout runs on a plain timer, which includes this thread's stalls.
                self.ours =
                    failure.fault == Fault::Timeout && self.begun.awake() < self.begun.still();
                Some(Ended::Failed(failure))
            }
            // The client promises a final event. Without one the answer may be incomplete.
            None => Some(Ended::Failed(Failure::of(Fault::Truncated))),
        }
    }

    fn end(&mut self, finish: Finish, writer: &mut LogWriter) -> Ended {
        let held = self.held.take();
        let is_refusal = finish == Finish::ContentFilter;
        if !is_refusal && (held.is_some() || quality::is_one_token_to_the_limit(&self.said, finish))
        {
            let is_empty = self.said.trim().is_empty();
            return Ended::Failed(Failure::of(if is_empty {
                Fault::Empty
            } else {
                Fault::Poor
            }));
        }
        let mut fits = true;
        if let Some(held) = held {
            if self.limits.goes_on && held.trim().is_empty() {
                // Do not append our refusal text to a partial answer.
                return Ended::Whole(finish);
            }
            let text = if held.trim().is_empty() {
                REFUSAL
            } else {
                &held
            };
            fits = self.show_first(text, writer);
        }
        if fits && writer.whole() {
            Ended::Whole(finish)
        } else {
            misfit()
        }
    }
}

fn misfit() -> Ended {
    Ended::Failed(Failure::of(Fault::Diverged))
}
