//! Drives one turn: from attempt to attempt, down the ladder where nobody is left, to its one `done`.

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
use super::keep::{Asked, Keeping};
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

/// No attempt is begun with less time left than this.
pub(super) const TOO_LATE: Duration = Duration::from_millis(500);

/// Answers one turn. Whatever happens, also a panic, its log ends with one `done`.
pub async fn run(desk: &Arc<Desk>, keeping: &Keeping, mut writer: LogWriter, wishes: Wishes) {
    let log = Arc::clone(writer.log());
    // What no visitor waits for is no turn to be counted; its attempts are.
    let aside = wishes.late || matches!(keeping, Keeping::Aside(..));
    let underway = (!aside).then(|| desk.tally.began());
    let (mut progress, mut recall) = (Progress::begin(), Recall::default());
    let (writing, recalling) = (&mut writer, &mut recall);
    let settings = &*Arc::clone(&desk.table().settings);
    let mut turn = Turn {
        desk,
        settings,
        writer: writing,
        wishes: &wishes,
        progress: &mut progress,
        recall: recalling,
    };
    // Boxed: else it would have its place twice, as what is joined is moved once.
    let answered = Box::pin(AssertUnwindSafe(turn.answer(keeping)).catch_unwind());
    let checkpoints = pin!(keeping.checkpoints(desk, &log));
    let ((), answered) = tokio::select! {
        both = async { tokio::join!(keeping.confirm(desk, &log), answered) } => both,
        never = Dozing::new(checkpoints) => match never {},
    };
    let end = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %log.turn(), "a turn panicked; it gets a degraded answer");
        let (writing, recalling) = (&mut writer, &mut recall);
        Turn {
            desk,
            settings,
            writer: writing,
            wishes: &wishes,
            progress: &mut progress,
            recall: recalling,
        }
        .fall()
    });
    let lost = match end {
        End::Torn => log
            .last_failure()
            .is_none_or(|last| !last.fault.class().is_the_requests()),
        End::Cancelled(Cancel::Interrupted) => log.told_to_end().is_some(),
        End::Ai(_) | End::Without { .. } | End::Cancelled(Cancel::Stopped) => false,
    };
    let timings = progress.timings();
    let record = writer.ending(|record| progress.close(record, end, writer.speaker()));
    // What an outage left without an AI's answer gets it later; but for who wanted that of one provider alone.
    let owed = match end {
        End::Without { source, .. } => source.degraded() && !wishes.only_first,
        _ => lost,
    };
    keeping.end(desk, &record, owed).await;
    tracing::info!(turn = %log.turn(), source = record.source.map(Source::name), finish = record.finish.map(Finish::name),
        attempts = record.attempts, ms = record.total_ms, "turn ended");
    if let Some(spans) = &desk.spans {
        spans.turn(&record, &timings, aside);
    }
    if let Some(underway) = underway {
        desk.counts.count(&record, lost);
        underway.ended(&record, &writer.restarts());
    }
    writer.done(record);
    recall.save(keeping, desk, &log).await;
}

/// A turn under way.
pub(super) struct Turn<'t> {
    pub(super) desk: &'t Arc<Desk>,
    /// As they were when it began.
    pub(super) settings: &'t Settings,
    pub(super) writer: &'t mut LogWriter,
    pub(super) wishes: &'t Wishes,
    pub(super) progress: &'t mut Progress,
    pub(super) recall: &'t mut Recall,
}

/// What a turn's attempts came to so far, as the router is told it.
#[derive(Default)]
pub(super) struct Made {
    /// Those that failed, in order.
    pub(super) failed: Vec<Failed>,
    /// How many were given up for a faster one.
    pub(super) given_up: u32,
    waited: bool,
    /// How many had failed when the history was halved, where it was.
    halved: Option<usize>,
    /// What must fit whom it is asked of.
    load: Load,
    served_by: Option<Arc<str>>,
}

impl Made {
    /// The question to the router: who is next?
    pub(super) fn pick(&self, wishes: &Wishes) -> Pick {
        Pick {
            failed: self.failed.as_slice().into(),
            first: wishes.first.clone(),
            only_first: wishes.only_first,
            waited: self.waited,
            before_halving: self.halved.unwrap_or_default(),
            load: self.load,
            served_by: self.served_by.clone(),
            given_up: self.given_up,
            hedge: None,
            late: wishes.late,
            waits: None,
        }
    }
}

/// An attempt under way.
pub(super) struct Runner {
    pub(super) lease: Lease,
    pub(super) call: Call,
    pub(super) ask: Ask,
    pub(super) limits: Limits,
    /// Whether it is the turn's own limit that ends it, before the provider's.
    hurried: bool,
    start: Start,
    /// From the question to its beginning.
    before: Duration,
}

impl Turn<'_> {
    async fn answer(&mut self, keeping: &Keeping) -> End {
        let (desk, wishes, log) = (self.desk, self.wishes, Arc::clone(self.writer.log()));
        let deadline = self.progress.begun + self.settings.timeouts.turn;
        let asked = keeping.ask(desk, &log).await;
        if let Some(end) = self.recall(keeping, &asked).await {
            return end;
        }
        let Asked { ask, served_by, .. } = asked;
        // Of a conversation the question is enough; a caller's messages are used as they are.
        let load = if wishes.pass_on {
            Load::of(&ask)
        } else {
            Load::of_last(&ask, 1)
        };
        let mut made = Made {
            served_by,
            load,
            ..Made::default()
        };
        loop {
            if deadline.saturating_duration_since(Instant::now()) < TOO_LATE {
                return self.descend().await;
            }
            let pick = made.pick(wishes);
            let route = tokio::select! {
                biased;
                why = log.cancelled(wishes.patience) => return End::Cancelled(why),
                route = desk.pick(|| pick.clone()) => route,
            };
            let lease = match route {
                Route::Go(lease) => lease,
                Route::Wait(wait) => {
                    let until = deadline.min(Instant::now() + wait);
                    tokio::select! {
                        why = log.cancelled(wishes.patience) => return End::Cancelled(why),
                        () = tokio::time::sleep_until(until) => made.waited = true,
                    }
                    continue;
                }
                Route::Nobody { .. } => {
                    let too_long = |one: &Failed| one.failure.fault == Fault::TooLong;
                    if wishes.pass_on {
                        let refused = made
                            .failed
                            .last()
                            .map_or_else(|| self.outgrown(load), too_long);
                        return if refused {
                            End::Torn
                        } else {
                            self.descend().await
                        };
                    }
                    let long = made.failed.iter().any(too_long);
                    if made.halved.is_some() || !prompt::has_history(&ask) || !long {
                        return self.descend().await;
                    }
                    made.halved = Some(made.failed.len());
                    continue;
                }
            };
            made.waited = false;
            let first = self.runner(lease, &ask, &made, deadline);
            self.open(&first);
            // Boxed, so that a turn is not as large as its race for as long as it reads.
            let runner = match Box::pin(self.race(first, &ask, &mut made, deadline)).await {
                Ok(runner) => runner,
                Err(why) => return End::Cancelled(why),
            };
            match self.finish(runner).await {
                Ok(end) => return end,
                // In mid-answer it is our own doing: the caller's request was taken before.
                Err(one)
                    if wishes.pass_on
                        && one.failure.fault.class() == Class::Caller
                        && !self.binding() =>
                {
                    return End::Torn;
                }
                Err(one) => made.failed.push(one),
            }
        }
    }

    /// Begins the leased attempt; nobody is shown it before it is opened.
    pub(super) fn runner(&self, lease: Lease, ask: &Ask, made: &Made, deadline: Instant) -> Runner {
        let shown = self.writer.shown();
        let start = if shown.is_empty() {
            Start::Anew
        } else {
            self.start(&lease, &made.failed)
        };
        let backend = &lease.backend;
        let asked = match start {
            Start::GoesOn => prompt::gone_on(ask, &shown),
            Start::Repeats => prompt::repeated(ask, &shown),
            Start::Anew if backend.prefill.load(Ordering::Relaxed) => prompt::taken_up(ask),
            Start::Anew => ask.clone(),
        };
        let ask = self.fitted(asked, ask, backend, made.halved.is_some());
        let goes_on = start != Start::Anew;
        let patience = &lease.backend.patience;
        let left = deadline.saturating_duration_since(Instant::now());
        let hurried = left < patience.attempt;
        let limits = Limits {
            first_token: patience.first_token(lease.attempt),
            stall: patience.stall,
            attempt: patience.attempt.min(left),
            // Of what stands there is enough.
            min_chars: if goes_on {
                1
            } else {
                self.settings.quality.min_chars
            },
            goes_on,
        };
        let before = self.progress.begun.elapsed();
        let call = Call::begin(&lease.backend.upstream, &ask);
        Runner {
            lease,
            call,
            ask,
            limits,
            hurried,
            start,
            before,
        }
    }

    /// How an attempt begins where text stands: as the mode says, but anew once a continuation did not fit.
    fn start(&self, lease: &Lease, failed: &[Failed]) -> Start {
        let misfit = failed
            .iter()
            .any(|one| one.failure.fault == Fault::Diverged && !one.started);
        let prefill = lease.backend.prefill.load(Ordering::Relaxed);
        match self.wishes.mid_stream {
            MidStream::Continue if prefill => Start::GoesOn,
            // What cannot be taken back can only be gone on with.
            MidStream::Continue if self.wishes.rigid || !misfit => Start::Repeats,
            MidStream::Continue | MidStream::Restart => Start::Anew,
        }
    }

    /// Shows that the attempt begins; what is said from now on is its.
    pub(super) fn open(&mut self, runner: &Runner) {
        let Lease {
            backend, attempt, ..
        } = &runner.lease;
        self.writer.attempt(
            *attempt,
            Arc::clone(&backend.name),
            Arc::clone(&backend.model),
            runner.start,
        );
    }

    /// Reads the attempt to its end. The error is how it failed.
    pub(super) async fn finish(&mut self, runner: Runner) -> Result<End, Failed> {
        let Runner {
            mut lease,
            call,
            ask,
            limits,
            hurried,
            before,
            ..
        } = runner;
        let log = Arc::clone(self.writer.log());
        let heard = |after| {
            lease.permit.first_token(after);
            self.desk.tally.first_token(&lease.backend.name, after);
        };
        let cancelled = log.cancelled(self.wishes.patience);
        let report = attempt::drive(call, limits, self.writer, cancelled, heard).await;
        let first_shown = report.first_shown.map(|after| before + after);
        self.progress.first_text = self.progress.first_text.or(first_shown);
        let (outcome, result) = match &report.ended {
            Ended::Whole(finish) => (Outcome::OK, Ok(End::Ai(*finish))),
            Ended::Cancelled(why) => (Outcome::STOPPED, Ok(End::Cancelled(*why))),
            Ended::Failed(failure) => {
                // A caller's own started answer may be refused, and so may the rest of the request, which is the caller's too.
                let prefilled =
                    ask.goes_on && (limits.goes_on || prompt::refuses_prefill(&failure.detail));
                let failed = self.failed(&lease, &report, failure, prefilled);
                (Outcome::from(failed.failure.fault), Err(failed))
            }
        };
        self.desk
            .tally
            .attempt(&lease.backend.name, outcome, report.took);
        self.progress.attempted(&mut lease, &report, outcome, &ask);
        // What goes on from another's text is no answer of its own.
        if let Some(score) = self.score(&report).filter(|_| !limits.goes_on) {
            lease.permit.scored(score);
        }
        // That the turn had no time left, or that we stood still, says nothing of who was given what was left of it.
        if report.ours || hurried && report.took >= limits.attempt {
            drop(lease.permit);
        } else {
            settle(lease, &report);
        }
        result
    }

    /// How good the answer looks; none where there is none to look at.
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
        gone_on: bool,
    ) -> Failed {
        let (backend, log) = (&lease.backend, self.writer.log());
        tracing::warn!(turn = %log.turn(), attempt = lease.attempt, provider = %backend.name,
            status = failure.status, failure = failure.for_logs(), started = report.started(), "attempt failed");
        let mut failure = failure.clone();
        let mut started = report.started();
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
        self.writer
            .failed(Arc::clone(&backend.name), failure.clone());
        Failed {
            provider: Arc::clone(&backend.name),
            failure,
            started,
            took: report.took,
        }
    }

    /// What is asked of this provider: the question and what was begun always, of the history what fits; a caller's messages all.
    fn fitted(&self, asked: Ask, ask: &Ask, backend: &Backend, half: bool) -> Ask {
        let begun = asked.messages.len().saturating_sub(ask.messages.len());
        let kept = if self.wishes.pass_on {
            asked.messages.len()
        } else {
            begun + 1
        };
        prompt::fitted(
            asked,
            Cut {
                kept,
                room: backend.context_tokens,
                half,
            },
        )
    }

    /// Whether nobody who may be asked has room for this. Then that is how the turn failed.
    fn outgrown(&mut self, load: Load) -> bool {
        let (wishes, desk) = (self.wishes, self.desk);
        let may =
            |one: &&Arc<Backend>| !wishes.only_first || wishes.first.as_ref() == Some(&one.name);
        let table = desk.table();
        let mut asked = table.backends.iter().filter(may).peekable();
        let Some(first) = asked.peek().map(|one| Arc::clone(&one.name)) else {
            return false;
        };
        let too_long = asked.all(|one| !load.fits(one.context_tokens));
        if too_long {
            let detail = "the messages are longer than any provider has room for";
            self.writer
                .failed(first, Failure::with(Fault::TooLong, detail));
        }
        too_long
    }

    /// Whether text stands that cannot be taken back.
    fn binding(&self) -> bool {
        self.wishes.rigid && !self.writer.shown().is_empty()
    }

    /// Nobody is left: the best of what needs no provider.
    async fn descend(&mut self) -> End {
        if self.binding() || !self.wishes.degraded {
            return End::Torn;
        }
        match self.recall_old().await {
            Some(end) => end,
            None => self.fall(),
        }
    }

    /// The best of what needs nobody at all.
    fn fall(&mut self) -> End {
        if self.binding() || !self.wishes.degraded {
            return End::Torn;
        }
        let ladder = Arc::clone(&self.desk.ladder.borrow());
        let answer = ladder.answer(&self.writer.log().record().question);
        self.writer.replace(answer.source, &answer.text);
        End::Without {
            source: answer.source,
            age_s: answer.age_s,
        }
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
            lease.permit.settle(Verdict::Failed {
                fault,
                started,
                retry_after,
            });
        }
    }
}

#[cfg(test)]
mod tests;
