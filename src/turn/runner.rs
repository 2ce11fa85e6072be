//! Drives one turn from attempt to attempt to its single `done` frame. If no provider is left, the
//! fallback chain answers.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::deps::{TurnDeps, TurnOptions};
use super::log::{Cancel, LogWriter, TurnLog};
use super::observer::TurnFinished;
use super::persistence::Persistence;
use super::poll_on_wake::PollOnWake;
use super::prompt;
use super::running_turn::{CacheLookup, RunningTurn, StartRefresh};
use super::selection::{self, AttemptHistory, MIN_TIME_FOR_ATTEMPT};
use super::summary::{TurnEnd, TurnSummary};
use crate::domain::{
    AnswerSource, ChatRequest, Failure, FaultKind, FinishReason, Recovery, TokenEstimate,
};
use crate::provider::handle::Provider;
use crate::router::actor::Selection;
use crate::router::retry_policy::FailedAttempt;

/// Answers one turn. Its log ends with exactly one `done` frame, even after a panic.
pub(super) async fn run_turn(
    deps: &TurnDeps,
    persistence: &Persistence,
    writer: LogWriter,
    options: TurnOptions,
    start_refresh: StartRefresh<'_>,
) {
    let log = Arc::clone(writer.log());
    // Background turns have no waiting visitor: count their attempts, but not the turn.
    let is_background =
        options.is_background || matches!(persistence, Persistence::CacheRefresh(..));
    let in_flight = (!is_background).then(|| deps.observer.turn_started());
    let settings = Arc::clone(&deps.config().settings);
    let summary = TurnSummary::start();
    let mut turn = RunningTurn {
        deps,
        start_refresh,
        deadline: summary.started_at + settings.timeouts.turn,
        settings,
        options,
        writer,
        summary,
        cache_lookup: CacheLookup::default(),
    };
    // `join!` moves its futures into itself. Boxing the large one keeps the task from reserving
    // space for it twice.
    let answered = Box::pin(AssertUnwindSafe(turn.answer(persistence)).catch_unwind());
    let checkpoints = pin!(persistence.checkpoint_loop(deps, &log));
    // The question is stored while the first provider is asked already. The checkpoint loop never
    // ends; it is dropped with the answer.
    let ((), answered) = tokio::select! {
        both = async { tokio::join!(persistence.persist_question(deps, &log), answered) } => both,
        never = PollOnWake::new(checkpoints) => match never {},
    };
    let end = match answered {
        Ok(Ok(end)) => end,
        Ok(Err(cancel)) => TurnEnd::Cancelled(cancel),
        Err(_) => {
            tracing::error!(turn = %log.turn(), "turn panicked, sending a fallback answer");
            turn.local_fallback()
        }
    };
    let is_lost = is_lost(end, &log);
    // A turn that an outage left without an AI answer gets a follow-up later, unless the caller
    // accepted one provider only.
    let needs_followup = match end {
        TurnEnd::WithoutProvider { source, .. } => {
            source.is_degraded() && !turn.options.no_failover
        }
        _ => is_lost,
    };
    let writer = turn.writer;
    let timings = turn.summary.timings();
    let record =
        writer.final_record(|record| turn.summary.fill_record(record, end, writer.text_attempt()));
    persistence.persist_end(deps, &record, needs_followup).await;
    tracing::info!(turn = %log.turn(), source = record.source.map(AnswerSource::as_str),
        finish = record.finish.map(FinishReason::as_str), attempts = record.attempts,
        ms = record.total_ms, "turn ended");
    if let Some(tracer) = &deps.tracer {
        tracer.record_turn(&record, &timings, is_background);
    }
    if let Some(in_flight) = in_flight {
        in_flight.finish(&TurnFinished {
            record: &record,
            restarts: &writer.restarts(),
            is_lost,
        });
    }
    writer.finish(record);
    // Followers have seen `done` by now: writing to the cache delays nobody.
    turn.cache_lookup
        .store_answer(persistence, deps, &log)
        .await;
}

/// Returns `true` if the turn did not get the answer that it should have had.
fn is_lost(end: TurnEnd, log: &TurnLog) -> bool {
    match end {
        // A caller's own faulty request is not counted as a lost turn.
        TurnEnd::Unanswered => log
            .last_failure()
            .is_none_or(|last| !last.fault.recovery().is_caller_fault()),
        // Interrupted by a shutdown, not because all followers left.
        TurnEnd::Cancelled(Cancel::Interrupted) => log.cancel_reason().is_some(),
        TurnEnd::Answered(_)
        | TurnEnd::WithoutProvider { .. }
        | TurnEnd::Cancelled(Cancel::Stopped) => false,
    }
}

impl RunningTurn<'_> {
    /// Answers the question, from the cache or with one attempt after the other.
    ///
    /// # Errors
    /// The turn was cancelled.
    async fn answer(&mut self, persistence: &Persistence) -> Result<TurnEnd, Cancel> {
        let prepared = persistence
            .build_request(self.deps, self.writer.log())
            .await;
        if let Some(end) = self.lookup_fresh(persistence, &prepared).await? {
            return Ok(end);
        }
        let request = prepared.request;
        // History may be cut, so only the question has to fit. A caller's messages are never cut.
        let token_estimate = if self.options.surface_caller_errors {
            TokenEstimate::for_request(&request)
        } else {
            TokenEstimate::for_last_messages(&request, 1)
        };
        let mut history = AttemptHistory {
            sticky_provider: prepared.last_provider,
            token_estimate,
            ..AttemptHistory::default()
        };
        loop {
            if self.deadline.saturating_duration_since(Instant::now()) < MIN_TIME_FOR_ATTEMPT {
                return Ok(self.degrade().await);
            }
            let pick = history.select_request(&self.options);
            let selecting = selection::select_provider(self.deps, &pick);
            let lease = match self.unless_cancelled(selecting).await? {
                Selection::Provider(lease) => lease,
                // Sleep through the back-off, then ask the router again.
                Selection::RetryAfter(delay) => {
                    let until = self.deadline.min(Instant::now() + delay);
                    self.unless_cancelled(tokio::time::sleep_until(until))
                        .await?;
                    history.backoff_elapsed = true;
                    continue;
                }
                Selection::Unavailable { .. } => {
                    match self.without_provider(&request, &mut history).await {
                        Some(end) => return Ok(end),
                        None => continue,
                    }
                }
            };
            history.backoff_elapsed = false;
            let first = self.prepare_attempt(lease, &request, &history);
            self.announce_attempt(&first);
            // Boxed so that the turn's future does not hold the race's space while it streams.
            let attempt = Box::pin(self.hedge(first, &request, &mut history)).await?;
            match self.drive_attempt(attempt).await {
                Ok(end) => return Ok(end),
                // After the first text the request is known to be good: such an error is caused by
                // our continuation of it, so it is not returned to the caller.
                Err(failed)
                    if self.options.surface_caller_errors
                        && failed.failure.fault.recovery() == Recovery::CallerError
                        && !self.must_not_retract() =>
                {
                    return Ok(TurnEnd::Unanswered);
                }
                Err(failed) => history.failed.push(failed),
            }
        }
    }

    /// Ends the turn if the router has no provider for it. `None` if it is to ask again with half
    /// the history, which some provider may accept.
    async fn without_provider(
        &mut self,
        request: &ChatRequest,
        history: &mut AttemptHistory,
    ) -> Option<TurnEnd> {
        let is_too_long = |failed: &FailedAttempt| failed.failure.fault == FaultKind::TooLong;
        if self.options.surface_caller_errors {
            let was_too_long = match history.failed.last() {
                Some(last) => is_too_long(last),
                None => self.exceeds_every_context(history.token_estimate),
            };
            if was_too_long {
                return Some(TurnEnd::Unanswered);
            }
        } else if history.history_halved_after.is_none()
            && prompt::has_history(request)
            && history.failed.iter().any(is_too_long)
        {
            history.history_halved_after = Some(history.failed.len());
            return None;
        }
        Some(self.degrade().await)
    }

    /// Returns `true`, and records it as the turn's failure, if no eligible provider has a context
    /// of this size.
    fn exceeds_every_context(&mut self, load: TokenEstimate) -> bool {
        let options = &self.options;
        let is_eligible = |provider: &&Arc<Provider>| {
            !options.no_failover || options.preferred_provider.as_ref() == Some(&provider.name)
        };
        let table = self.deps.config();
        let mut eligible = table.providers.iter().filter(is_eligible).peekable();
        let Some(first) = eligible.peek().map(|provider| Arc::clone(&provider.name)) else {
            return false;
        };
        let too_long = eligible.all(|provider| !load.fits(provider.context_tokens));
        if too_long {
            let detail = "the messages are longer than any provider has room for";
            self.writer
                .fail_attempt(first, Failure::with_detail(FaultKind::TooLong, detail));
        }
        too_long
    }

    /// Ends the turn without a provider: with an expired cached answer, else from the fallback
    /// chain.
    async fn degrade(&mut self) -> TurnEnd {
        if self.must_not_retract() || !self.options.allow_fallback {
            return TurnEnd::Unanswered;
        }
        match self.lookup_stale().await {
            Some(end) => end,
            None => self.local_fallback(),
        }
    }

    /// Ends the turn from the fallback chain, which needs neither a provider nor the store.
    fn local_fallback(&mut self) -> TurnEnd {
        if self.must_not_retract() || !self.options.allow_fallback {
            return TurnEnd::Unanswered;
        }
        let chain = Arc::clone(&self.deps.fallback_chain.borrow());
        let answer = chain.answer(&self.writer.log().record().question);
        self.writer.replace_text(answer.source, &answer.text);
        TurnEnd::WithoutProvider {
            source: answer.source,
            age_s: answer.age_s,
        }
    }
}

#[cfg(test)]
mod tests;
