//! One attempt: a provider's steps against the limits of time, into the log, until it is known how it ended.

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

/// How long an attempt may take, and what counts as an answer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To the first token; thinking counts, keep-alives do not.
    pub first_token: Duration,
    /// From one token to the next.
    pub stall: Duration,
    /// In all.
    pub attempt: Duration,
    /// Fewer characters than this (white space at the ends apart) are no answer. At least 1.
    pub min_chars: usize,
    /// Whether it goes on from text that stands.
    pub goes_on: bool,
}

/// How an attempt ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// With the dialect's proof that the answer is whole.
    Whole(Finish),
    /// Otherwise.
    Failed(Failure),
    /// By us. The provider is not to blame.
    Cancelled(Cancel),
}

/// What is known of an attempt after its end.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// All text that it said.
    pub said: String,
    /// How long its first token took, thinking included; none where none came.
    pub first_token: Option<Duration>,
    /// How long after its beginning its first text was shown; none where none was, as there was too little of it.
    pub first_shown: Option<Duration>,
    /// Tokens, where the provider told.
    pub usage: Option<Usage>,
    /// How long it took.
    pub took: Duration,
    /// Whether it failed by what this thread did, which stood still for most of it: no fault of the provider.
    pub ours: bool,
}

impl Report {
    /// Whether it had said any text.
    pub fn started(&self) -> bool {
        !self.said.is_empty()
    }
}

/// Steps that are ready together are joined into one frame, up to this many bytes.
const JOINED_BYTES: usize = 16 * 1024;

/// What is shown where a provider's filter refuses without a word.
pub(super) const REFUSAL: &str = "The provider's content filter refused to answer this message.";

/// Reads a call to its end and writes its text to the log. `first_token` hears, once, how long the first token took, as far as this thread was
/// there to see it.
///
/// Returning, or being dropped, closes the provider's connection.
pub async fn drive(
    call: Call,
    limits: Limits,
    writer: &mut LogWriter,
    cancelled: impl Future<Output = Cancel>,
    first_token: impl FnOnce(Duration),
) -> Report {
    let mut attempt = Attempt {
        limits,
        begun: call.begun,
        last_token: None,
        tell: Some(first_token),
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
    /// The beginning of the text, until there is enough of it to be an answer.
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
        // Set to the next limit and looked at when it fires, not reset at each token; only a nearer limit moves it.
        let mut timer = pin!(tokio::time::sleep_until(self.limit().0));
        loop {
            let (limit, _) = self.limit();
            if limit < timer.deadline() {
                timer.as_mut().reset(limit);
            }
            let step = tokio::select! {
                biased;
                why = &mut cancelled => return Ended::Cancelled(why),
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

    /// The nearest limit, and what it means to pass it.
    fn limit(&self) -> (Instant, Fault) {
        let all = self.begun.after(self.limits.attempt);
        let token = match self.last_token {
            None => (self.begun.plus(self.limits.first_token), Fault::Timeout),
            Some(last) => (last.plus(self.limits.stall), Fault::Stalled),
        };
        if all < token.0 {
            (all, Fault::Timeout)
        } else {
            token
        }
    }

    fn token(&mut self) {
        self.last_token = Some(Mark::now());
        if let Some(tell) = self.tell.take() {
            self.first_token = Some(self.begun.elapsed());
            tell(self.begun.awake());
        }
    }

    /// False where it does not fit to what stands.
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

    /// False where it does not fit to what stands.
    fn show_first(&mut self, text: &str, writer: &mut LogWriter) -> bool {
        self.first_shown = Some(self.begun.elapsed());
        writer.text(text)
    }

    /// A step that is not text. `Some` is the end.
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
                // A connect has its own limit, which knows nothing of standstills.
                self.ours =
                    failure.fault == Fault::Timeout && self.begun.awake() < self.begun.still();
                Some(Ended::Failed(failure))
            }
            // An upstream that ends without a verdict breaks its promise; the answer is not known to be whole.
            None => Some(Ended::Failed(Failure::of(Fault::Truncated))),
        }
    }

    fn end(&mut self, finish: Finish, writer: &mut LogWriter) -> Ended {
        let held = self.held.take();
        let refusal = finish == Finish::ContentFilter;
        if !refusal && (held.is_some() || quality::is_one_token_to_the_limit(&self.said, finish)) {
            let nothing = self.said.trim().is_empty();
            return Ended::Failed(Failure::of(if nothing {
                Fault::Empty
            } else {
                Fault::Poor
            }));
        }
        let mut fits = true;
        if let Some(held) = held {
            if self.limits.goes_on && held.trim().is_empty() {
                // The answer ends where it was refused; words of ours are no part of it.
                return Ended::Whole(finish);
            }
            fits = self.show_first(
                if held.trim().is_empty() {
                    REFUSAL
                } else {
                    &held
                },
                writer,
            );
        }
        if fits && writer.whole() {
            Ended::Whole(finish)
        } else {
            misfit()
        }
    }
}

/// What was said does not go on from what stands.
fn misfit() -> Ended {
    Ended::Failed(Failure::of(Fault::Diverged))
}
