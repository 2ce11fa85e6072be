//! Drives one turn: from attempt to attempt, down the ladder where nobody is left, to its one `done`.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::attempt::{self, Ended, Limits, Report};
use super::desk::{Desk, Wishes};
use super::log::{Cancel, LogWriter, TurnLog};
use super::prompt::{self, Shape};
use super::rooms::Room;
use crate::chat::{Ask, Fault, Finish, Outcome, Source, Tried, TurnRecord, TurnState, Usage};
use crate::provider::breaker::Verdict;
use crate::router::actor::{Lease, Pick, Route};
use crate::router::plan::Failed;

/// How long frames wait for the disk to confirm the question.
const DURABLE_LIMIT: Duration = Duration::from_millis(250);

/// How long reading the history, or writing the end, may hold an answer up.
const STORE_LIMIT: Duration = Duration::from_millis(250);

/// How often the text so far is saved.
const CHECKPOINT: Duration = Duration::from_millis(500);

/// No attempt is begun with less time left than this.
const TOO_LATE: Duration = Duration::from_millis(500);

/// Answers one turn. Whatever happens, also a panic, its log ends with one `done`.
pub async fn run(desk: &Desk, room: &Room, mut writer: LogWriter, wishes: Wishes) {
    let log = Arc::clone(writer.log());
    let mut progress = Progress::new();
    let answered = AssertUnwindSafe(answer(desk, room, &mut writer, &wishes, &mut progress)).catch_unwind();
    let ((), answered) = tokio::select! {
        both = async { tokio::join!(confirm(desk, room, &log), answered) } => both,
        never = checkpoints(desk, room, &log) => match never {},
    };
    let end = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %log.turn(), "a turn panicked; it gets a degraded answer");
        descend(desk, &log, &mut writer)
    });
    let record = writer.ending(|record| progress.close(record, end));
    let written = desk.store.write_turn(room.id(), record.clone());
    if !matches!(tokio::time::timeout(STORE_LIMIT, written).await, Ok(Ok(()))) {
        desk.durable.send_if_modified(|durable| std::mem::replace(durable, false));
    }
    tracing::info!(turn = %log.turn(), source = ?record.source, finish = ?record.finish,
        attempts = record.attempts, ms = record.total_ms, "turn ended");
    desk.counts.count(&record);
    writer.done(record);
}

/// How a turn ends.
enum End {
    Ai(Finish),
    Degraded { source: Source, age_s: Option<u64> },
    Cancelled(Cancel),
}

/// What a turn's end will report.
struct Progress {
    begun: Instant,
    tried: Vec<Tried>,
    usage: Option<Usage>,
    cost: Option<f64>,
    first_text: Option<Duration>,
}

impl Progress {
    fn new() -> Self {
        Self { begun: Instant::now(), tried: Vec::new(), usage: None, cost: None, first_text: None }
    }

    fn attempted(&mut self, lease: &Lease, report: &Report, outcome: Outcome, ask: &Ask) {
        self.tried.push(Tried {
            attempt: lease.attempt,
            provider: Arc::clone(&lease.backend.name),
            model: Arc::clone(&lease.backend.model),
            outcome,
            ms: millis(report.took),
        });
        let Some(used) = report.usage.or_else(|| report.started.then(|| estimate(ask, report.chars))) else {
            return;
        };
        let sum = self.usage.get_or_insert_default();
        sum.input_tokens += used.input_tokens;
        sum.output_tokens += used.output_tokens;
        sum.estimated |= used.estimated;
        if let Some(cost) = lease.backend.cost(used) {
            *self.cost.get_or_insert_default() += cost;
        }
    }

    fn close(self, record: &mut TurnRecord, end: End) {
        record.state = TurnState::Done;
        let (source, finish) = match end {
            End::Ai(finish) => (Source::Ai, finish),
            End::Degraded { source, age_s } => {
                record.age_s = age_s;
                (source, Finish::Stop)
            }
            End::Cancelled(Cancel::Stopped) => (Source::Ai, Finish::Stopped),
            End::Cancelled(Cancel::Interrupted) => {
                record.state = TurnState::Interrupted;
                (Source::Ai, Finish::Interrupted)
            }
        };
        record.source = Some(source);
        record.degraded = source.degraded();
        record.finish = Some(finish);
        record.tried = self.tried;
        record.usage = self.usage;
        record.cost_usd = self.cost;
        record.first_token_ms = self.first_text.map(millis);
        record.total_ms = millis(self.begun.elapsed());
    }
}

/// About four characters a token: the rule of thumb that the providers' own documentation gives for English.
fn estimate(ask: &Ask, chars: usize) -> Usage {
    let asked: usize = ask.messages.iter().map(|message| message.text.chars().count()).sum();
    let tokens = |chars: usize| (chars as u64).div_ceil(4);
    let input_tokens = tokens(asked + ask.system.chars().count());
    Usage { input_tokens, output_tokens: tokens(chars), estimated: true }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the question to the store, then lets the frames be seen.
async fn confirm(desk: &Desk, room: &Room, log: &TurnLog) {
    let written = desk.store.write_turn(room.id(), log.record());
    let durable = matches!(tokio::time::timeout(DURABLE_LIMIT, written).await, Ok(Ok(())));
    desk.durable.send_if_modified(|known| std::mem::replace(known, durable) != durable);
    LogWriter::confirm(log, durable);
}

/// Saves the text so far, now and then, until it is dropped.
async fn checkpoints(desk: &Desk, room: &Room, log: &TurnLog) -> Infallible {
    let mut saved = log.progress();
    loop {
        tokio::time::sleep(CHECKPOINT).await;
        let now = log.progress();
        if now != saved {
            saved = now;
            desk.store.checkpoint(room.id(), log.record());
        }
    }
}

async fn answer(
    desk: &Desk,
    room: &Room,
    writer: &mut LogWriter,
    wishes: &Wishes,
    progress: &mut Progress,
) -> End {
    let log = Arc::clone(writer.log());
    let deadline = progress.begun + desk.manners.turn_limit;
    let mut ask = compose(desk, room, &log).await;
    let mut failed: Vec<Failed> = Vec::new();
    let (mut waited, mut halved) = (false, None);
    loop {
        if deadline.saturating_duration_since(Instant::now()) < TOO_LATE {
            return descend(desk, &log, writer);
        }
        let tried: Arc<[Failed]> = failed.as_slice().into();
        let pick = || Pick {
            failed: Arc::clone(&tried),
            first: wishes.first.clone(),
            only_first: wishes.only_first,
            waited,
            before_halving: halved.unwrap_or_default(),
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
                let too_long = failed.iter().any(|one| one.failure.fault == Fault::TooLong);
                match prompt::halved(&ask).filter(|_| too_long && halved.is_none()) {
                    Some(half) => {
                        (ask, halved) = (half, Some(failed.len()));
                        continue;
                    }
                    None => return descend(desk, &log, writer),
                }
            }
        };
        waited = false;
        match attempt(desk, &lease, &ask, writer, wishes, progress, deadline).await {
            (report, Ok(end)) => {
                settle(lease, &report);
                return end;
            }
            (report, Err(one)) => {
                settle(lease, &report);
                failed.push(one);
            }
        }
    }
}

/// Makes the leased attempt. The error is how it failed.
async fn attempt(
    desk: &Desk,
    lease: &Lease,
    ask: &Ask,
    writer: &mut LogWriter,
    wishes: &Wishes,
    progress: &mut Progress,
    deadline: Instant,
) -> (Report, Result<End, Failed>) {
    let backend = &lease.backend;
    writer.attempt(lease.attempt, Arc::clone(&backend.name), Arc::clone(&backend.model));
    let log = Arc::clone(writer.log());
    let limits = Limits {
        first_token: backend.patience.first_token(lease.attempt),
        stall: backend.patience.stall,
        attempt: backend.patience.attempt.min(deadline.saturating_duration_since(Instant::now())),
        min_chars: desk.manners.min_chars,
    };
    let before = progress.begun.elapsed();
    let heard = |after| lease.permit.first_token(after);
    let report =
        attempt::drive(&*backend.upstream, ask, limits, writer, log.cancelled(wishes.patience), heard).await;
    progress.first_text = progress.first_text.or(report.first_shown.map(|after| before + after));
    let (outcome, result) = match &report.ended {
        Ended::Whole(finish) => (Outcome::OK, Ok(End::Ai(*finish))),
        Ended::Cancelled(why) => (Outcome::STOPPED, Ok(End::Cancelled(*why))),
        Ended::Failed(failure) => {
            let outcome = Outcome::from(failure.fault);
            tracing::warn!(turn = %log.turn(), attempt = lease.attempt, provider = %backend.name,
                status = failure.status, failure = %failure, started = report.started, "attempt failed");
            writer.failed(Arc::clone(&backend.name), outcome);
            let provider = Arc::clone(&backend.name);
            (
                outcome,
                Err(Failed {
                    provider,
                    failure: failure.clone(),
                    started: report.started,
                    took: report.took,
                }),
            )
        }
    };
    progress.attempted(lease, &report, outcome, ask);
    (report, result)
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

/// The question with its history. A store that does not answer in time costs the history, not the answer.
async fn compose(desk: &Desk, room: &Room, log: &TurnLog) -> Ask {
    let record = log.record();
    let manners = &desk.manners;
    // Turns that are left out of the history still take a place in what is read, so some more are read.
    let limit = manners.history_turns.saturating_mul(2);
    let read = desk.store.turns(room.id(), Some(record.turn), limit);
    let history = match tokio::time::timeout(STORE_LIMIT, read).await {
        Ok(Ok(history)) => history,
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(turn = %record.turn, "history not read in time; the model sees the question alone");
            Vec::new()
        }
    };
    let shape = Shape {
        history_turns: manners.history_turns,
        max_tokens: manners.max_tokens,
        retry_of: record.retry_of,
    };
    prompt::ask(Arc::clone(&manners.system_prompt), &history, &record.question, shape)
}

/// Nobody is left: the best of what needs no provider.
fn descend(desk: &Desk, log: &TurnLog, writer: &mut LogWriter) -> End {
    let ladder = Arc::clone(&desk.ladder.borrow());
    let answer = ladder.answer(&log.record().question);
    writer.replace(answer.source.name(), &answer.text);
    End::Degraded { source: answer.source, age_s: answer.age_s }
}
