//! One attempt: reads a provider's events within the time limits and writes the text to the log.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;

use super::log::{Cancel, LogWriter};
use super::poll_on_wake::PollOnWake;
use super::quality;
use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason, TokenUsage};
use crate::provider::stall_clock::StallAwareInstant;
use crate::provider::stream_event::{EventStream, ProviderClient, StreamEvent};

/// The time limits of an attempt, and what counts as an answer.
#[derive(Clone, Copy, Debug)]
pub struct AttemptLimits {
    /// From the start to the first token. Thinking counts, keep-alives do not.
    pub first_token: Duration,
    /// From one token to the next.
    pub stall: Duration,
    pub total: Duration,
    /// An answer with fewer characters, white space at its ends excluded, is a failure. At least 1.
    pub min_chars: usize,
    pub is_continuation: bool,
}

#[derive(Debug, PartialEq)]
pub enum AttemptEnd {
    /// The provider sent its end mark: the answer is complete.
    Complete(FinishReason),
    Failed(Failure),
    /// Cancelled by the turn. The provider is not to blame.
    Cancelled(Cancel),
}

#[derive(Debug)]
pub struct AttemptReport {
    pub end: AttemptEnd,
    /// All text received, also if it was not shown.
    pub text: String,
    /// Time to the first token, thinking included. `None` if no token arrived.
    pub first_token: Option<Duration>,
    /// Time to the first shown text. `None` if there was too little text to show.
    pub first_shown: Option<Duration>,
    pub usage: Option<TokenUsage>,
    pub elapsed: Duration,
    /// The attempt timed out while this thread was stalled for most of the time. The provider is
    /// not to blame.
    pub caused_by_local_stall: bool,
}

impl AttemptReport {
    pub fn has_text(&self) -> bool {
        !self.text.is_empty()
    }
}

/// Text events that are ready together become one frame of up to this many bytes.
const MAX_COALESCED_BYTES: usize = 16 * 1024;

/// Shown if a provider's content filter refuses without any text.
pub(super) const CONTENT_FILTER_TEXT: &str =
    "The provider's content filter refused to answer this message.";

/// Reads a call to its end and writes its text to the log.
///
/// `on_first_token` is called once with the time to the first token, excluding time during which
/// this thread was stalled. Returning or dropping the future closes the provider's connection.
pub async fn drive(
    call: PendingCall,
    limits: AttemptLimits,
    writer: &mut LogWriter,
    cancelled: impl Future<Output = Cancel>,
    on_first_token: impl FnOnce(Duration),
) -> AttemptReport {
    let mut attempt = AttemptDriver {
        limits,
        started_at: call.started_at,
        last_token_at: None,
        on_first_token: Some(on_first_token),
        first_token: None,
        first_shown: None,
        held: Some(String::new()),
        text: String::new(),
        usage: None,
        caused_by_local_stall: false,
    };
    let ended = attempt.run(call.steps(), writer, cancelled).await;
    AttemptReport {
        first_token: attempt.first_token,
        first_shown: attempt.first_shown,
        usage: attempt.usage,
        elapsed: attempt.started_at.elapsed(),
        caused_by_local_stall: attempt.caused_by_local_stall,
        text: attempt.text,
        end: ended,
    }
}

struct AttemptDriver<F> {
    limits: AttemptLimits,
    started_at: StallAwareInstant,
    last_token_at: Option<StallAwareInstant>,
    on_first_token: Option<F>,
    first_token: Option<Duration>,
    first_shown: Option<Duration>,
    /// The start of the text, until it is long enough to be an answer. `None` from then on.
    held: Option<String>,
    text: String,
    usage: Option<TokenUsage>,
    caused_by_local_stall: bool,
}

impl<F: FnOnce(Duration)> AttemptDriver<F> {
    async fn run(
        &mut self,
        mut steps: EventStream,
        writer: &mut LogWriter,
        cancelled: impl Future<Output = Cancel>,
    ) -> AttemptEnd {
        let cancelled = pin!(cancelled);
        let mut cancelled = PollOnWake::new(cancelled);
        // The timer is not reset at each token. When it fires, the limit is computed again; it is
        // only reset earlier if the limit has moved closer.
        let mut timer = pin!(tokio::time::sleep_until(self.next_deadline().0));
        loop {
            let (limit, _) = self.next_deadline();
            if limit < timer.deadline() {
                timer.as_mut().reset(limit);
            }
            let step = tokio::select! {
                biased;
                cancel = &mut cancelled => return AttemptEnd::Cancelled(cancel),
                step = steps.next() => step,
                () = &mut timer => {
                    let (limit, fault) = self.next_deadline();
                    if Instant::now() >= limit {
                        return AttemptEnd::Failed(Failure::new(fault));
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
                    Some(Ok(StreamEvent::Text(text))) => {
                        if joined.is_empty() {
                            joined = text;
                        } else {
                            joined.push_str(&text);
                        }
                        if joined.len() < MAX_COALESCED_BYTES {
                            next = steps.next().now_or_never();
                        }
                    }
                    other => {
                        if !self.on_text(&joined, writer) {
                            return mismatch();
                        }
                        joined.clear();
                        if let Some(ended) = self.on_event(other, writer) {
                            return ended;
                        }
                    }
                }
            }
            if !self.on_text(&joined, writer) {
                return mismatch();
            }
        }
    }

    /// The next time limit, and the fault to report when it passes.
    fn next_deadline(&self) -> (Instant, FaultKind) {
        let total = self.started_at.wall_deadline(self.limits.total);
        let token = match self.last_token_at {
            None => (
                self.started_at.deadline(self.limits.first_token),
                FaultKind::Timeout,
            ),
            Some(last) => (last.deadline(self.limits.stall), FaultKind::Stalled),
        };
        if total < token.0 {
            (total, FaultKind::Timeout)
        } else {
            token
        }
    }

    fn on_token(&mut self) {
        self.last_token_at = Some(StallAwareInstant::now());
        if let Some(on_first_token) = self.on_first_token.take() {
            self.first_token = Some(self.started_at.elapsed());
            on_first_token(self.started_at.elapsed_awake());
        }
    }

    /// Shows text, or holds it back while it is too short. Returns `false` if it does not match the
    /// shown text.
    fn on_text(&mut self, text: &str, writer: &mut LogWriter) -> bool {
        if text.is_empty() {
            return true;
        }
        self.on_token();
        self.text.push_str(text);
        let Some(held) = &mut self.held else {
            return writer.push_text(text);
        };
        held.push_str(text);
        if held.trim().chars().count() >= self.limits.min_chars.max(1) {
            let held = self.held.take().unwrap_or_default();
            return self.flush_held(&held, writer);
        }
        true
    }

    /// Shows the text that was held back. Returns `false` if it does not match the shown text.
    fn flush_held(&mut self, text: &str, writer: &mut LogWriter) -> bool {
        self.first_shown = Some(self.started_at.elapsed());
        writer.push_text(text)
    }

    /// Handles an event that is not text. Returns `Some` if the attempt has ended.
    fn on_event(
        &mut self,
        step: Option<Result<StreamEvent, Failure>>,
        writer: &mut LogWriter,
    ) -> Option<AttemptEnd> {
        match step {
            Some(Ok(StreamEvent::Text(_))) => None,
            Some(Ok(StreamEvent::Thinking)) => {
                self.on_token();
                None
            }
            Some(Ok(StreamEvent::Usage(usage))) => {
                self.usage = Some(usage);
                None
            }
            Some(Ok(StreamEvent::Finished(finish))) => Some(self.on_end(finish, writer)),
            Some(Err(failure)) if failure.fault == FaultKind::Policy => {
                Some(self.on_end(FinishReason::ContentFilter, writer))
            }
            Some(Err(failure)) => {
                // The connect timeout runs on a plain timer, which includes this thread's stalls.
                self.caused_by_local_stall = failure.fault == FaultKind::Timeout
                    && self.started_at.elapsed_awake() < self.started_at.stalled();
                Some(AttemptEnd::Failed(failure))
            }
            // The client promises a final event. Without one the answer may be incomplete.
            None => Some(AttemptEnd::Failed(Failure::new(FaultKind::Truncated))),
        }
    }

    fn on_end(&mut self, finish: FinishReason, writer: &mut LogWriter) -> AttemptEnd {
        let held = self.held.take();
        let is_refusal = finish == FinishReason::ContentFilter;
        if !is_refusal && (held.is_some() || quality::is_degenerate(&self.text, finish)) {
            let is_empty = self.text.trim().is_empty();
            return AttemptEnd::Failed(Failure::new(if is_empty {
                FaultKind::Empty
            } else {
                FaultKind::Poor
            }));
        }
        let mut fits = true;
        if let Some(held) = held {
            if self.limits.is_continuation && held.trim().is_empty() {
                // Do not append our refusal text to a partial answer.
                return AttemptEnd::Complete(finish);
            }
            let text = if held.trim().is_empty() {
                CONTENT_FILTER_TEXT
            } else {
                &held
            };
            fits = self.flush_held(text, writer);
        }
        if fits && writer.finish_attempt() {
            AttemptEnd::Complete(finish)
        } else {
            mismatch()
        }
    }
}

fn mismatch() -> AttemptEnd {
    AttemptEnd::Failed(Failure::new(FaultKind::Diverged))
}

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
