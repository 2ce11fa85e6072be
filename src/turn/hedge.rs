//! A second provider, started when the first is silent for too long: whoever speaks first goes on, the other is given up.
//!
//! The loser is `stopped` in the turn's report, and no breaker hears of it. One that hangs for ever is known by the turns that the retry budget
//! lets nobody race in; and since a first that was overtaken waited at least so long, its latency is known to be no less.
//!
//! The second's `attempt` frame is sent when it has won, or when the first has failed, and not before: until then the first may still speak, and
//! nothing of an earlier attempt comes after the frame of a later one. So the numbers of attempts in the frames may have gaps; those in the
//! report have none.

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
    /// Gives the attempt to go on with: `first`, or the one that was started beside it and spoke before.
    ///
    /// # Errors
    /// The turn was cancelled; no attempt is left.
    pub(super) async fn race(
        &mut self,
        mut first: Runner,
        ask: &Ask,
        made: &mut Made,
        deadline: Instant,
    ) -> Result<Runner, Cancel> {
        let after = self.settings.routing.hedge_after;
        let due = first.call.begun.after(after);
        let late = after >= limit(&first) || due + TOO_LATE > deadline;
        if after.is_zero() || late || self.wishes.only_first {
            return Ok(first);
        }
        let log = Arc::clone(self.writer.log());
        let mut cancelled = std::pin::pin!(log.cancelled(self.wishes.patience));
        let silent = Arc::clone(&first.lease.backend.name);
        let pick = made.pick(self.wishes);
        let pick = || Pick {
            hedge: Some(Arc::clone(&silent)),
            ..pick.clone()
        };
        let desk = self.desk;
        let picked = async {
            tokio::time::sleep_until(due).await;
            desk.pick(pick).await
        };
        let patience = limit(&first);
        let route = tokio::select! {
            biased;
            why = &mut cancelled => Err(why),
            _ = first.call.first_word(patience) => return Ok(first),
            route = picked => Ok(route),
        };
        let lease = match route {
            Err(why) => {
                self.stopped(first);
                return Err(why);
            }
            Ok(Route::Go(lease)) => lease,
            Ok(Route::Wait(_) | Route::Nobody { .. }) => return Ok(first),
        };
        let mut second = self.runner(lease, ask, made, deadline);
        tracing::info!(turn = %log.turn(), attempt = second.lease.attempt, silent = %silent,
            provider = %second.lease.backend.name, "a second provider is asked");
        let (patience, hedged) = (limit(&first), limit(&second));
        let (of_first, word) = tokio::select! {
            biased;
            why = &mut cancelled => {
                self.stopped(first);
                self.stopped(second);
                return Err(why);
            }
            word = first.call.first_word(patience) => (true, word),
            word = second.call.first_word(hedged) => (false, word),
        };
        match (of_first, word) {
            (true, Word::Token) => {
                made.given_up += 1;
                self.stopped(second);
                Ok(first)
            }
            (false, Word::Token) => {
                made.given_up += 1;
                first.lease.permit.overtaken(first.call.begun.awake());
                self.stopped(first);
                self.open(&second);
                Ok(second)
            }
            (true, Word::End) => {
                self.fail(first, made).await;
                self.open(&second);
                Ok(second)
            }
            (false, Word::End) => {
                self.fail(second, made).await;
                Ok(first)
            }
        }
    }

    /// One that ended without a word.
    async fn fail(&mut self, runner: Runner, made: &mut Made) {
        if let Err(failed) = self.finish(runner).await {
            made.failed.push(failed);
        }
    }

    /// One that is given up before its first word.
    fn stopped(&mut self, mut runner: Runner) {
        let report = Report {
            ended: Ended::Cancelled(Cancel::Stopped),
            said: String::new(),
            first_token: None,
            first_shown: None,
            usage: runner.call.usage(),
            took: runner.call.begun.elapsed(),
            ours: false,
        };
        self.desk
            .tally
            .attempt(&runner.lease.backend.name, Outcome::STOPPED, report.took);
        self.progress
            .attempted(&mut runner.lease, &report, Outcome::STOPPED, &runner.ask);
    }
}

/// How long its first word is waited for.
fn limit(runner: &Runner) -> Duration {
    runner.limits.first_token.min(runner.limits.attempt)
}

#[cfg(test)]
mod tests;
