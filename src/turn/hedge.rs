//! Hedging: a second provider is started when the first is silent for too long. The first one to
//! send a token goes on, the other is abandoned.
//!
//! The abandoned attempt is `stopped` in the turn's report and does not count for its breaker. A
//! provider that hangs is still detected by the turns that the retry budget does not let hedge. An
//! overtaken first provider reports how long it was waited for as a lower bound of its latency.
//!
//! The second attempt's `attempt` frame is sent when it has won or the first has failed. Until then
//! the first may still send text, and no text of an earlier attempt may follow the frame of a later
//! one. So the attempt numbers in the frames may have gaps; those in the report have none.

use std::sync::Arc;
use std::time::Duration;

use super::active_attempt::ActiveAttempt;
use super::attempt::{AttemptEnd, AttemptReport, FirstEvent};
use super::log::Cancel;
use super::running_turn::RunningTurn;
use super::selection::{AttemptHistory, MIN_TIME_FOR_ATTEMPT, select_provider};
use crate::domain::{AttemptOutcome, ChatRequest};
use crate::router::actor::{SelectProvider, Selection};

impl RunningTurn<'_> {
    /// Returns the attempt to go on with: `first`, or a second one that was faster.
    ///
    /// # Errors
    /// The turn was cancelled. No attempt is left.
    pub(super) async fn hedge(
        &mut self,
        mut first: ActiveAttempt,
        request: &ChatRequest,
        history: &mut AttemptHistory,
    ) -> Result<ActiveAttempt, Cancel> {
        let hedge_after = self.settings.routing.hedge_after;
        let due = first.call.started_at.wall_deadline(hedge_after);
        let is_too_late = hedge_after >= first_event_timeout(&first)
            || due + MIN_TIME_FOR_ATTEMPT > self.deadline;
        if hedge_after.is_zero() || is_too_late || self.options.no_failover {
            return Ok(first);
        }
        let log = Arc::clone(self.writer.log());
        let mut cancelled = std::pin::pin!(log.cancelled(self.options.orphan_grace));
        let silent = Arc::clone(&first.lease.provider.name);
        let pick = SelectProvider {
            hedging_against: Some(Arc::clone(&silent)),
            ..history.select_request(&self.options)
        };
        let picked = async {
            tokio::time::sleep_until(due).await;
            select_provider(self.deps, &pick).await
        };
        // The first has until `due` to send a token, and while the router looks for a second.
        let first_timeout = first_event_timeout(&first);
        let route = tokio::select! {
            biased;
            cancel = &mut cancelled => Err(cancel),
            _ = first.call.first_event(first_timeout) => return Ok(first),
            route = picked => Ok(route),
        };
        let lease = match route {
            Err(cancel) => {
                self.record_abandoned(first);
                return Err(cancel);
            }
            Ok(Selection::Provider(lease)) => lease,
            Ok(Selection::RetryAfter(_) | Selection::Unavailable { .. }) => return Ok(first),
        };
        let mut second = self.prepare_attempt(lease, request, history);
        tracing::info!(turn = %log.turn(), attempt = second.lease.attempt_number, silent = %silent,
            provider = %second.lease.provider.name, "hedging with a second provider");
        let second_timeout = first_event_timeout(&second);
        let (is_first, event) = tokio::select! {
            biased;
            cancel = &mut cancelled => {
                self.record_abandoned(first);
                self.record_abandoned(second);
                return Err(cancel);
            }
            event = first.call.first_event(first_timeout) => (true, event),
            event = second.call.first_event(second_timeout) => (false, event),
        };
        match (is_first, event) {
            (true, FirstEvent::Token) => {
                history.hedges_abandoned += 1;
                self.record_abandoned(second);
                Ok(first)
            }
            (false, FirstEvent::Token) => {
                history.hedges_abandoned += 1;
                let waited = first.call.started_at.elapsed_awake();
                first.lease.permit.record_min_latency(waited);
                self.record_abandoned(first);
                self.announce_attempt(&second);
                Ok(second)
            }
            (true, FirstEvent::End) => {
                self.drive_to_failure(first, history).await;
                self.announce_attempt(&second);
                Ok(second)
            }
            (false, FirstEvent::End) => {
                self.drive_to_failure(second, history).await;
                Ok(first)
            }
        }
    }

    /// Ends an attempt whose first event was not a token, and records its failure.
    async fn drive_to_failure(&mut self, attempt: ActiveAttempt, history: &mut AttemptHistory) {
        if let Err(failed) = self.drive_attempt(attempt).await {
            history.failed.push(failed);
        }
    }

    /// Records an attempt that is abandoned before its first token. Dropping it ends its call.
    fn record_abandoned(&mut self, mut attempt: ActiveAttempt) {
        let report = AttemptReport {
            end: AttemptEnd::Cancelled(Cancel::Stopped),
            text: String::new(),
            first_token: None,
            first_shown: None,
            usage: attempt.call.usage(),
            elapsed: attempt.call.started_at.elapsed(),
            caused_by_local_stall: false,
        };
        let ActiveAttempt { lease, request, .. } = &mut attempt;
        self.record_attempt(lease, &report, AttemptOutcome::STOPPED, request);
    }
}

fn first_event_timeout(attempt: &ActiveAttempt) -> Duration {
    attempt.limits.first_token.min(attempt.limits.total)
}

#[cfg(test)]
mod tests;
