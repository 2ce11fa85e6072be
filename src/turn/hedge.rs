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

use tokio::time::Instant;

use super::attempt::{Ended, Report};
use super::call::Word;
use super::log::Cancel;
use super::run::{Made, Runner, TOO_LATE, Turn};
use crate::chat::{Ask, Outcome};
use crate::router::actor::{Pick, Route};

impl Turn<'_> {
    /// Returns the attempt to go on with: `first`, or a second one that was faster.
    ///
    /// # Errors
    /// The turn was cancelled. No attempt is left.
    pub(super) async fn race(
        &mut self,
        mut first: Runner,
        request: &Ask,
        history: &mut Made,
        deadline: Instant,
    ) -> Result<Runner, Cancel> {
        let hedge_after = self.settings.routing.hedge_after;
        let due = first.call.begun.after(hedge_after);
        let is_too_late = hedge_after >= limit(&first) || due + TOO_LATE > deadline;
        if hedge_after.is_zero() || is_too_late || self.wishes.only_first {
            return Ok(first);
        }
        let log = Arc::clone(self.writer.log());
        let mut cancelled = std::pin::pin!(log.cancelled(self.wishes.patience));
        let silent = Arc::clone(&first.lease.backend.name);
        let pick = history.pick(self.wishes);
        let pick = || Pick {
            hedge: Some(Arc::clone(&silent)),
            ..pick.clone()
        };
        let service = self.desk;
        let picked = async {
            tokio::time::sleep_until(due).await;
            service.pick(pick).await
        };
        // The first has until `due` to send a token, and while the router looks for a second.
        let first_timeout = limit(&first);
        let route = tokio::select! {
            biased;
            cancel = &mut cancelled => Err(cancel),
            _ = first.call.first_word(first_timeout) => return Ok(first),
            route = picked => Ok(route),
        };
        let lease = match route {
            Err(cancel) => {
                self.stopped(first);
                return Err(cancel);
            }
            Ok(Route::Go(lease)) => lease,
            Ok(Route::Wait(_) | Route::Nobody { .. }) => return Ok(first),
        };
        let mut second = self.runner(lease, request, history, deadline);
        tracing::info!(turn = %log.turn(), attempt = second.lease.attempt, silent = %silent,
            provider = %second.lease.backend.name, "hedging with a second provider");
        let second_timeout = limit(&second);
        let (is_first, event) = tokio::select! {
            biased;
            cancel = &mut cancelled => {
                self.stopped(first);
                self.stopped(second);
                return Err(cancel);
            }
            event = first.call.first_word(first_timeout) => (true, event),
            event = second.call.first_word(second_timeout) => (false, event),
        };
        match (is_first, event) {
            (true, Word::Token) => {
                history.given_up += 1;
                self.stopped(second);
                Ok(first)
            }
            (false, Word::Token) => {
                history.given_up += 1;
                first.lease.permit.overtaken(first.call.begun.awake());
                self.stopped(first);
                self.open(&second);
                Ok(second)
            }
            (true, Word::End) => {
                self.fail(first, history).await;
                self.open(&second);
                Ok(second)
            }
            (false, Word::End) => {
                self.fail(second, history).await;
                Ok(first)
            }
        }
    }

    /// Ends an attempt whose first event was not a token, and records its failure.
    async fn fail(&mut self, attempt: Runner, history: &mut Made) {
        if let Err(failed) = self.finish(attempt).await {
            history.failed.push(failed);
        }
    }

    /// Records an attempt that is abandoned before its first token. Dropping it ends its call.
    fn stopped(&mut self, mut attempt: Runner) {
        let report = Report {
            ended: Ended::Cancelled(Cancel::Stopped),
            said: String::new(),
            first_token: None,
            first_shown: None,
            usage: attempt.call.usage(),
            took: attempt.call.begun.elapsed(),
            ours: false,
        };
        self.desk
            .tally
            .attempt(&attempt.lease.backend.name, Outcome::STOPPED, report.took);
        self.progress
            .attempted(&mut attempt.lease, &report, Outcome::STOPPED, &attempt.ask);
    }
}

fn limit(attempt: &Runner) -> Duration {
    attempt.limits.first_token.min(attempt.limits.attempt)
}

#[cfg(test)]
mod tests;
