//! Drives one turn from attempt to attempt to its single `done` frame. If no provider is left, the
//! fallback chain answers.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::attempt::{self, Ended, Limits, Report};
use super::call::Call;
use super::desk::{Desk, Wishes};
use super::doze::Dozing;
use super::keep::Keeping;
use super::log::{Cancel, LogWriter};
use super::progress::{End, Progress};
use super::prompt::{self, Cut};
use super::quality;
use super::recall::Recall;
use super::seam::Start;
use crate::chat::{Ask, Class, Failure, Fault, Finish, Load, Outcome, Source};
use crate::provider::backend::Backend;
use crate::provider::breaker::Verdict;
use crate::router::actor::{Lease, Pick, Route};
use crate::router::plan::Failed;
use crate::settings::{MidStream, Settings};

/// No attempt starts if less time than this is left of the turn's limit.
pub(super) const TOO_LATE: Duration = Duration::from_millis(500);

/// Answers one turn. Its log ends with exactly one `done` frame, even after a panic.
pub async fn run(
    service: &Arc<Desk>,
    persistence: &Keeping,
    mut writer: LogWriter,
    options: Wishes,
) {
    let log = Arc::clone(writer.log());
    // Background turns have no waiting visitor: count their attempts, but not the turn.
    let is_background = options.late || matches!(persistence, Keeping::Aside(..));
    let in_flight = (!is_background).then(|| service.tally.began());
    let mut summary = Progress::begin();
    let mut cache_lookup = Recall::default();
    let settings = &*Arc::clone(&service.table().settings);
    let mut runner = Turn {
        desk: service,
        settings,
        writer: &mut writer,
        wishes: &options,
        progress: &mut summary,
        recall: &mut cache_lookup,
    };
    // `join!` moves its futures into itself. Boxing the large one keeps the task from reserving
    // space for it twice.
    let answered = Box::pin(AssertUnwindSafe(runner.answer(persistence)).catch_unwind());
    let checkpoints = pin!(persistence.checkpoints(service, &log));
    // The question is stored while the first provider is asked already. The checkpoint loop never
    // ends; it is dropped with the answer.
    let ((), answered) = tokio::select! {
        both = async { tokio::join!(persistence.confirm(service, &log), answered) } => both,
        never = Dozing::new(checkpoints) => match never {},
    };
    let end = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %log.turn(), "turn panicked, sending a fallback answer");
        Turn {
            desk: service,
            settings,
            writer: &mut writer,
            wishes: &options,
            progress: &mut summary,
            recall: &mut cache_lookup,
        }
        .fall()
    });
    let is_lost = match end {
        // A caller's own faulty request is not counted as a lost turn.
        End::Torn => log
            .last_failure()
            .is_none_or(|last| !last.fault.class().is_the_requests()),
        // Interrupted by a shutdown, not because all followers left.
        End::Cancelled(Cancel::Interrupted) => log.told_to_end().is_some(),
        End::Ai(_) | End::Without { .. } | End::Cancelled(Cancel::Stopped) => false,
    };
    let timings = summary.timings();
    let record = writer.ending(|record| summary.close(record, end, writer.speaker()));
    // A turn that an outage left without an AI answer gets a follow-up later, unless the caller
    // accepted one provider only.
    let needs_followup = match end {
        End::Without { source, .. } => source.degraded() && !options.only_first,
        _ => is_lost,
    };
    persistence.end(service, &record, needs_followup).await;
    tracing::info!(turn = %log.turn(), source = record.source.map(Source::name),
        finish = record.finish.map(Finish::name), attempts = record.attempts,
        ms = record.total_ms, "turn ended");
    if let Some(tracer) = &service.spans {
        tracer.turn(&record, &timings, is_background);
    }
    if let Some(in_flight) = in_flight {
        service.counts.count(&record, is_lost);
        in_flight.ended(&record, &writer.restarts());
    }
    writer.done(record);
    // Followers have seen `done` by now: writing to the cache delays nobody.
    cache_lookup.save(persistence, service, &log).await;
}

pub(super) struct Turn<'t> {
    pub(super) desk: &'t Arc<Desk>,
    /// The settings when the turn started. A reload does not affect it.
    pub(super) settings: &'t Settings,
    pub(super) writer: &'t mut LogWriter,
    pub(super) wishes: &'t Wishes,
    pub(super) progress: &'t mut Progress,
    pub(super) recall: &'t mut Recall,
}

/// The attempts of a turn so far, as the router needs to know them.
#[derive(Default)]
pub(super) struct Made {
    /// In the order of their ends.
    pub(super) failed: Vec<Failed>,
    /// Attempts that lost a hedged race. They are neither failures nor successes.
    pub(super) given_up: u32,
    waited: bool,
    /// The number of failed attempts when the history was halved. `None` if it was not.
    halved: Option<usize>,
    load: Load,
    served_by: Option<Arc<str>>,
}

impl Made {
    pub(super) fn pick(&self, options: &Wishes) -> Pick {
        Pick {
            failed: self.failed.as_slice().into(),
            first: options.first.clone(),
            only_first: options.only_first,
            waited: self.waited,
            before_halving: self.halved.unwrap_or_default(),
            load: self.load,
            served_by: self.served_by.clone(),
            given_up: self.given_up,
            hedge: None,
            late: options.late,
            waits: None,
        }
    }
}

/// An attempt whose provider call has started.
pub(super) struct Runner {
    pub(super) lease: Lease,
    pub(super) call: Call,
    pub(super) ask: Ask,
    pub(super) limits: Limits,
    /// The turn's deadline comes before the provider's own limit.
    hurried: bool,
    start: Start,
    /// Time from the start of the turn to the start of this attempt.
    before: Duration,
}

impl Turn<'_> {
    async fn answer(&mut self, persistence: &Keeping) -> End {
        let service = self.desk;
        let options = self.wishes;
        let log = Arc::clone(self.writer.log());
        let deadline = self.progress.begun + self.settings.timeouts.turn;
        let prepared = persistence.ask(service, &log).await;
        if let Some(end) = self.recall(persistence, &prepared).await {
            return end;
        }
        let request = prepared.ask;
        // History may be cut, so only the question has to fit. A caller's messages are never cut.
        let load = if options.pass_on {
            Load::of(&request)
        } else {
            Load::of_last(&request, 1)
        };
        let mut history = Made {
            served_by: prepared.served_by,
            load,
            ..Made::default()
        };
        loop {
            if deadline.saturating_duration_since(Instant::now()) < TOO_LATE {
                return self.descend().await;
            }
            let pick = history.pick(options);
            let route = tokio::select! {
                biased;
                cancel = log.cancelled(options.patience) => return End::Cancelled(cancel),
                route = service.pick(|| pick.clone()) => route,
            };
            let lease = match route {
                Route::Go(lease) => lease,
                // Sleep through the back-off, then ask the router again.
                Route::Wait(delay) => {
                    let until = deadline.min(Instant::now() + delay);
                    tokio::select! {
                        cancel = log.cancelled(options.patience) => return End::Cancelled(cancel),
                        () = tokio::time::sleep_until(until) => history.waited = true,
                    }
                    continue;
                }
                Route::Nobody { .. } => {
                    let is_too_long = |failed: &Failed| failed.failure.fault == Fault::TooLong;
                    if options.pass_on {
                        let was_too_long = history
                            .failed
                            .last()
                            .map_or_else(|| self.outgrown(load), is_too_long);
                        return if was_too_long {
                            End::Torn
                        } else {
                            self.descend().await
                        };
                    }
                    // Some provider may accept a shorter prompt: retry once with half the history.
                    let any_too_long = history.failed.iter().any(is_too_long);
                    if history.halved.is_some() || !prompt::has_history(&request) || !any_too_long {
                        return self.descend().await;
                    }
                    history.halved = Some(history.failed.len());
                    continue;
                }
            };
            history.waited = false;
            let first = self.runner(lease, &request, &history, deadline);
            self.open(&first);
            // Boxed so that the turn's future does not hold the race's space while it streams.
            let raced = Box::pin(self.race(first, &request, &mut history, deadline)).await;
            let attempt = match raced {
                Ok(attempt) => attempt,
                Err(cancel) => return End::Cancelled(cancel),
            };
            match self.finish(attempt).await {
                Ok(end) => return end,
                // After the first text the request is known to be good: such an error is caused by
                // our continuation of it, so it is not returned to the caller.
                Err(failed)
                    if options.pass_on
                        && failed.failure.fault.class() == Class::Caller
                        && !self.binding() =>
                {
                    return End::Torn;
                }
                Err(failed) => history.failed.push(failed),
            }
        }
    }

    /// Starts the call of a leased attempt. No frame is sent before `announce_attempt`.
    pub(super) fn runner(
        &self,
        lease: Lease,
        original: &Ask,
        history: &Made,
        deadline: Instant,
    ) -> Runner {
        let shown = self.writer.shown();
        let start = if shown.is_empty() {
            Start::Anew
        } else {
            self.start(&lease, &history.failed)
        };
        let backend = &lease.backend;
        let prepared = match start {
            Start::GoesOn => prompt::gone_on(original, &shown),
            Start::Repeats => prompt::repeated(original, &shown),
            Start::Anew if backend.prefill.load(Ordering::Relaxed) => prompt::taken_up(original),
            Start::Anew => original.clone(),
        };
        let request = self.fitted(prepared, original, backend, history.halved.is_some());
        let is_continuation = start != Start::Anew;
        let timeouts = &lease.backend.patience;
        let time_left = deadline.saturating_duration_since(Instant::now());
        let hurried = time_left < timeouts.attempt;
        let limits = Limits {
            first_token: timeouts.first_token(lease.attempt),
            stall: timeouts.stall,
            attempt: timeouts.attempt.min(time_left),
            // The text shown so far counts towards the minimum, so any continuation is long enough.
            min_chars: if is_continuation {
                1
            } else {
                self.settings.quality.min_chars
            },
            goes_on: is_continuation,
        };
        let before = self.progress.begun.elapsed();
        let call = Call::begin(&lease.backend.upstream, &request);
        Runner {
            lease,
            call,
            ask: request,
            limits,
            hurried,
            start,
            before,
        }
    }

    /// Chooses how the next attempt treats the shown text: as configured, but it restarts after a
    /// continuation that did not match.
    fn start(&self, lease: &Lease, failed: &[Failed]) -> Start {
        let has_mismatched = failed
            .iter()
            .any(|failed| failed.failure.fault == Fault::Diverged && !failed.started);
        let prefill = lease.backend.prefill.load(Ordering::Relaxed);
        match self.wishes.mid_stream {
            MidStream::Continue if prefill => Start::GoesOn,
            // Text that cannot be retracted can only be continued.
            MidStream::Continue if self.wishes.rigid || !has_mismatched => Start::Repeats,
            MidStream::Continue | MidStream::Restart => Start::Anew,
        }
    }

    /// Sends the `attempt` frame. Text pushed from now on belongs to this attempt.
    pub(super) fn open(&mut self, attempt: &Runner) {
        let lease = &attempt.lease;
        self.writer.attempt(
            lease.attempt,
            Arc::clone(&lease.backend.name),
            Arc::clone(&lease.backend.model),
            attempt.start,
        );
    }

    /// Streams the attempt to its end. The error tells how it failed.
    pub(super) async fn finish(&mut self, attempt: Runner) -> Result<End, Failed> {
        let Runner {
            mut lease,
            call,
            ask: request,
            limits,
            hurried,
            before,
            ..
        } = attempt;
        let log = Arc::clone(self.writer.log());
        let on_first_token = |after| {
            lease.permit.first_token(after);
            self.desk.tally.first_token(&lease.backend.name, after);
        };
        let cancelled = log.cancelled(self.wishes.patience);
        let report = attempt::drive(call, limits, self.writer, cancelled, on_first_token).await;
        let first_shown = report.first_shown.map(|after| before + after);
        self.progress.first_text = self.progress.first_text.or(first_shown);
        let (outcome, result) = match &report.ended {
            Ended::Whole(finish) => (Outcome::OK, Ok(End::Ai(*finish))),
            Ended::Cancelled(cancel) => (Outcome::STOPPED, Ok(End::Cancelled(*cancel))),
            Ended::Failed(failure) => {
                // The provider may have rejected the prefill or the rest of the request. For a
                // caller's own prefill, only the error text tells which.
                let is_prefill_rejection =
                    request.goes_on && (limits.goes_on || prompt::refuses_prefill(&failure.detail));
                let failed = self.failed(&lease, &report, failure, is_prefill_rejection);
                (Outcome::from(failed.failure.fault), Err(failed))
            }
        };
        self.desk
            .tally
            .attempt(&lease.backend.name, outcome, report.took);
        self.progress
            .attempted(&mut lease, &report, outcome, &request);
        // A continuation of another attempt's text has no score of its own.
        if let Some(score) = self.score(&report).filter(|_| !limits.goes_on) {
            lease.permit.scored(score);
        }
        // An attempt cut short by the turn's deadline or by a stall of this thread says nothing
        // about the provider.
        if report.ours || hurried && report.took >= limits.attempt {
            drop(lease.permit);
        } else {
            settle(lease, &report);
        }
        result
    }

    /// The quality score of the answer. `None` if there is no answer to judge.
    fn score(&self, report: &Report) -> Option<f64> {
        match &report.ended {
            Ended::Whole(Finish::ContentFilter) | Ended::Cancelled(_) => None,
            Ended::Whole(_) => Some(quality::score(
                &report.said,
                &self.settings.quality.keywords,
            )),
            Ended::Failed(failure) => {
                matches!(failure.fault, Fault::Empty | Fault::Poor).then_some(0.0)
            }
        }
    }

    fn failed(
        &mut self,
        lease: &Lease,
        report: &Report,
        failure: &Failure,
        is_prefill_rejection: bool,
    ) -> Failed {
        let backend = &lease.backend;
        tracing::warn!(turn = %self.writer.log().turn(), attempt = lease.attempt,
            provider = %backend.name, status = failure.status, failure = failure.for_logs(),
            started = report.started(), "attempt failed");
        let mut failure = failure.clone();
        let mut started = report.started();
        if is_prefill_rejection && failure.fault == Fault::BadRequest {
            // Retry the same provider without prefill. If the error names prefill, never send it to
            // this provider again.
            if prompt::refuses_prefill(&failure.detail) {
                backend.prefill.store(false, Ordering::Relaxed);
            }
            failure.fault = Fault::Diverged;
        } else if failure.fault == Fault::Diverged {
            // Where text can be retracted, a provider that did not match may answer anew.
            started = self.wishes.rigid;
        }
        self.writer
            .failed(Arc::clone(&backend.name), failure.clone());
        Failed {
            provider: Arc::clone(&backend.name),
            failure,
            started,
            took: report.took,
        }
    }

    /// Cuts `prepared` to the provider's context.
    ///
    /// The question and a partial answer always stay, and all of a caller's messages. `original` is
    /// the request without the partial answer.
    fn fitted(&self, prepared: Ask, original: &Ask, backend: &Backend, half: bool) -> Ask {
        let added = prepared
            .messages
            .len()
            .saturating_sub(original.messages.len());
        let kept = if self.wishes.pass_on {
            prepared.messages.len()
        } else {
            added + 1
        };
        prompt::fitted(
            prepared,
            Cut {
                kept,
                room: backend.context_tokens,
                half,
            },
        )
    }

    /// Returns `true`, and records it as the turn's failure, if no eligible provider has a context
    /// of this size.
    fn outgrown(&mut self, load: Load) -> bool {
        let options = self.wishes;
        let is_eligible = |backend: &&Arc<Backend>| {
            !options.only_first || options.first.as_ref() == Some(&backend.name)
        };
        let table = self.desk.table();
        let mut eligible = table.backends.iter().filter(is_eligible).peekable();
        let Some(first) = eligible.peek().map(|backend| Arc::clone(&backend.name)) else {
            return false;
        };
        let too_long = eligible.all(|backend| !load.fits(backend.context_tokens));
        if too_long {
            let detail = "the messages are longer than any provider has room for";
            self.writer
                .failed(first, Failure::with(Fault::TooLong, detail));
        }
        too_long
    }

    /// Text was shown that the client cannot retract.
    fn binding(&self) -> bool {
        self.wishes.rigid && !self.writer.shown().is_empty()
    }

    /// Ends the turn without a provider: with an expired cached answer, else from the fallback
    /// chain.
    async fn descend(&mut self) -> End {
        if self.binding() || !self.wishes.degraded {
            return End::Torn;
        }
        match self.recall_old().await {
            Some(end) => end,
            None => self.fall(),
        }
    }

    /// Ends the turn from the fallback chain, which needs neither a provider nor the store.
    fn fall(&mut self) -> End {
        if self.binding() || !self.wishes.degraded {
            return End::Torn;
        }
        let chain = Arc::clone(&self.desk.ladder.borrow());
        let answer = chain.answer(&self.writer.log().record().question);
        self.writer.replace(answer.source, &answer.text);
        End::Without {
            source: answer.source,
            age_s: answer.age_s,
        }
    }
}

fn settle(lease: Lease, report: &Report) {
    match &report.ended {
        // A refusal by a content filter is neither a failure nor a proof of health.
        Ended::Whole(Finish::ContentFilter) | Ended::Cancelled(_) => drop(lease.permit),
        Ended::Whole(_) => lease.permit.settle(Verdict::Whole),
        Ended::Failed(failure) => {
            // To the breaker, an answer starts with its first token, thinking included.
            let started = report.first_token.is_some();
            lease.permit.settle(Verdict::Failed {
                fault: failure.fault,
                started,
                retry_after: failure.retry_after,
            });
        }
    }
}

#[cfg(test)]
mod tests;
