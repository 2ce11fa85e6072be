//! Drives one turn: from attempt to attempt, down the ladder where nobody is left, to its one `done`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::attempt::{self, Ended, Limits, Report};
use super::desk::{Desk, Wishes};
use super::keep::Keeping;
use super::log::LogWriter;
use super::progress::{End, Progress};
use super::prompt::{self, Cut};
use super::seam::Start;
use crate::chat::{Ask, Class, Failure, Fault, Finish, Load, Outcome};
use crate::provider::backend::Backend;
use crate::provider::breaker::Verdict;
use crate::router::actor::{Lease, Pick, Route};
use crate::router::plan::Failed;
use crate::settings::MidStream;

/// No attempt is begun with less time left than this.
const TOO_LATE: Duration = Duration::from_millis(500);

/// Answers one turn. Whatever happens, also a panic, its log ends with one `done`.
pub async fn run(desk: &Desk, keeping: &Keeping, mut writer: LogWriter, wishes: Wishes) {
    let log = Arc::clone(writer.log());
    let mut progress = Progress::begin();
    let mut turn = Turn { desk, writer: &mut writer, wishes: &wishes, progress: &mut progress };
    let answered = AssertUnwindSafe(turn.answer(keeping)).catch_unwind();
    let ((), answered) = tokio::select! {
        both = async { tokio::join!(keeping.confirm(desk, &log), answered) } => both,
        never = keeping.checkpoints(desk, &log) => match never {},
    };
    let end = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %log.turn(), "a turn panicked; it gets a degraded answer");
        Turn { desk, writer: &mut writer, wishes: &wishes, progress: &mut progress }.descend()
    });
    let record = writer.ending(|record| progress.close(record, end));
    keeping.end(desk, &record).await;
    tracing::info!(turn = %log.turn(), source = ?record.source, finish = ?record.finish,
        attempts = record.attempts, ms = record.total_ms, "turn ended");
    desk.counts.count(&record);
    writer.done(record);
}

/// A turn under way.
struct Turn<'t> {
    desk: &'t Desk,
    writer: &'t mut LogWriter,
    wishes: &'t Wishes,
    progress: &'t mut Progress,
}

impl Turn<'_> {
    async fn answer(&mut self, keeping: &Keeping) -> End {
        let (desk, wishes, log) = (self.desk, self.wishes, Arc::clone(self.writer.log()));
        let deadline = self.progress.begun + desk.manners.turn_limit;
        let ask = keeping.ask(desk, &log).await;
        // Of a conversation the question is enough; a caller's messages are used as they are.
        let load = if wishes.pass_on { Load::of(&ask) } else { Load::of_last(&ask, 1) };
        let mut failed: Vec<Failed> = Vec::new();
        let (mut waited, mut halved) = (false, None);
        loop {
            if deadline.saturating_duration_since(Instant::now()) < TOO_LATE {
                return self.descend();
            }
            let tried: Arc<[Failed]> = failed.as_slice().into();
            let pick = || Pick {
                failed: Arc::clone(&tried),
                first: wishes.first.clone(),
                only_first: wishes.only_first,
                waited,
                before_halving: halved.unwrap_or_default(),
                load,
            };
            let route = tokio::select! {
                biased;
                why = log.cancelled(wishes.patience) => return End::Cancelled(why),
                route = desk.pick(pick) => route,
            };
            let lease = match route {
                Route::Go(lease) => lease,
                Route::Wait(wait) => {
                    let until = deadline.min(Instant::now() + wait);
                    tokio::select! {
                        why = log.cancelled(wishes.patience) => return End::Cancelled(why),
                        () = tokio::time::sleep_until(until) => waited = true,
                    }
                    continue;
                }
                Route::Nobody { .. } => {
                    let too_long = |one: &Failed| one.failure.fault == Fault::TooLong;
                    if wishes.pass_on {
                        let refused = failed.last().map_or_else(|| self.outgrown(load), too_long);
                        return if refused { End::Torn } else { self.descend() };
                    }
                    if halved.is_some() || !prompt::has_history(&ask) || !failed.iter().any(too_long) {
                        return self.descend();
                    }
                    halved = Some(failed.len());
                    continue;
                }
            };
            waited = false;
            let start = self.start(&lease, &failed);
            let (report, result) = self.attempt(&lease, &ask, halved.is_some(), start, deadline).await;
            settle(lease, &report);
            match result {
                Ok(end) => return end,
                // In mid-answer it is our own doing: the caller's request was taken before.
                Err(one)
                    if wishes.pass_on && one.failure.fault.class() == Class::Caller && !self.binding() =>
                {
                    return End::Torn;
                }
                Err(one) => failed.push(one),
            }
        }
    }

    /// How an attempt begins where text stands: as the mode says, but anew once a continuation did not fit.
    fn start(&self, lease: &Lease, failed: &[Failed]) -> Start {
        let misfit = failed.iter().any(|one| one.failure.fault == Fault::Diverged && !one.started);
        let prefill = lease.backend.prefill.load(Ordering::Relaxed);
        match self.wishes.mid_stream {
            MidStream::Continue if prefill => Start::GoesOn,
            // What cannot be taken back can only be gone on with.
            MidStream::Continue if self.wishes.rigid || !misfit => Start::Repeats,
            MidStream::Continue | MidStream::Restart => Start::Anew,
        }
    }

    /// Makes the leased attempt. The error is how it failed.
    async fn attempt(
        &mut self,
        lease: &Lease,
        ask: &Ask,
        half: bool,
        start: Start,
        deadline: Instant,
    ) -> (Report, Result<End, Failed>) {
        let backend = &lease.backend;
        let log = Arc::clone(self.writer.log());
        let shown = self.writer.shown();
        let start = if shown.is_empty() { Start::Anew } else { start };
        let asked = match start {
            Start::GoesOn => prompt::gone_on(ask, &shown),
            Start::Repeats => prompt::repeated(ask, &shown),
            Start::Anew if backend.prefill.load(Ordering::Relaxed) => prompt::taken_up(ask),
            Start::Anew => ask.clone(),
        };
        let asked = self.fitted(asked, ask, backend, half);
        let goes_on = start != Start::Anew;
        self.writer.attempt(lease.attempt, Arc::clone(&backend.name), Arc::clone(&backend.model), start);
        let limits = Limits {
            first_token: backend.patience.first_token(lease.attempt),
            stall: backend.patience.stall,
            attempt: backend.patience.attempt.min(deadline.saturating_duration_since(Instant::now())),
            // Of what stands there is enough.
            min_chars: if goes_on { 1 } else { self.desk.manners.min_chars },
            goes_on,
        };
        let before = self.progress.begun.elapsed();
        let heard = |after| lease.permit.first_token(after);
        let cancelled = log.cancelled(self.wishes.patience);
        let report = attempt::drive(&*backend.upstream, &asked, limits, self.writer, cancelled, heard).await;
        let first_shown = report.first_shown.map(|after| before + after);
        self.progress.first_text = self.progress.first_text.or(first_shown);
        let (outcome, result) = match &report.ended {
            Ended::Whole(finish) => (Outcome::OK, Ok(End::Ai(*finish))),
            Ended::Cancelled(why) => (Outcome::STOPPED, Ok(End::Cancelled(*why))),
            Ended::Failed(failure) => {
                // A caller's own started answer may be refused, and so may the rest of the request, which is the caller's too.
                let prefilled = asked.goes_on && (goes_on || prompt::refuses_prefill(&failure.detail));
                let failed = self.failed(lease, &report, failure, prefilled);
                (Outcome::from(failed.failure.fault), Err(failed))
            }
        };
        self.progress.attempted(lease, &report, outcome, &asked);
        (report, result)
    }

    fn failed(&mut self, lease: &Lease, report: &Report, failure: &Failure, gone_on: bool) -> Failed {
        let (backend, log) = (&lease.backend, self.writer.log());
        tracing::warn!(turn = %log.turn(), attempt = lease.attempt, provider = %backend.name,
            status = failure.status, failure = failure.for_logs(), started = report.started, "attempt failed");
        let mut failure = failure.clone();
        let mut started = report.started;
        if gone_on && failure.fault == Fault::BadRequest {
            // It may not go on from a started answer: it is asked again without, and where it says so, not so again.
            if prompt::refuses_prefill(&failure.detail) {
                backend.prefill.store(false, Ordering::Relaxed);
            }
            failure.fault = Fault::Diverged;
        } else if failure.fault == Fault::Diverged {
            // Where text can be voided, who did not fit may answer anew.
            started = self.wishes.rigid;
        }
        self.writer.failed(Arc::clone(&backend.name), failure.clone());
        Failed { provider: Arc::clone(&backend.name), failure, started, took: report.took }
    }

    /// What is asked of this provider: the question and what was begun always, of the history what fits; a caller's messages all.
    fn fitted(&self, asked: Ask, ask: &Ask, backend: &Backend, half: bool) -> Ask {
        let begun = asked.messages.len().saturating_sub(ask.messages.len());
        let kept = if self.wishes.pass_on { asked.messages.len() } else { begun + 1 };
        prompt::fitted(asked, Cut { kept, room: backend.context_tokens, half })
    }

    /// Whether nobody who may be asked has room for this. Then that is how the turn failed.
    fn outgrown(&mut self, load: Load) -> bool {
        let (wishes, desk) = (self.wishes, self.desk);
        let may = |one: &&Arc<Backend>| !wishes.only_first || wishes.first.as_ref() == Some(&one.name);
        let mut asked = desk.backends.iter().filter(may).peekable();
        let Some(first) = asked.peek().map(|one| Arc::clone(&one.name)) else { return false };
        let too_long = asked.all(|one| !load.fits(one.context_tokens));
        if too_long {
            let detail = "the messages are longer than any provider has room for";
            self.writer.failed(first, Failure::with(Fault::TooLong, detail));
        }
        too_long
    }

    /// Whether text stands that cannot be taken back.
    fn binding(&self) -> bool {
        self.wishes.rigid && !self.writer.shown().is_empty()
    }

    /// Nobody is left: the best of what needs no provider.
    fn descend(&mut self) -> End {
        if self.binding() || !self.wishes.degraded {
            return End::Torn;
        }
        let ladder = Arc::clone(&self.desk.ladder.borrow());
        let answer = ladder.answer(&self.writer.log().record().question);
        self.writer.replace(answer.source, &answer.text);
        End::Degraded { source: answer.source, age_s: answer.age_s }
    }
}

fn settle(lease: Lease, report: &Report) {
    match &report.ended {
        // A refusal is no failure, and no proof of health either.
        Ended::Whole(Finish::ContentFilter) | Ended::Cancelled(_) => drop(lease.permit),
        Ended::Whole(_) => lease.permit.settle(Verdict::Whole),
        Ended::Failed(failure) => {
            let (fault, retry_after) = (failure.fault, failure.retry_after);
            // To the breaker an answer began with its first token, of whatever kind.
            let started = report.first_token.is_some();
            lease.permit.settle(Verdict::Failed { fault, started, retry_after });
        }
    }
}
