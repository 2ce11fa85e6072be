//! The circuit breaker of one provider (Michael Nygard, "Release It!"). Pure: time since process
//! start and random numbers (0 to 1) are arguments.
//!
//! - `Closed` admits all calls and counts them.
//! - `Open` admits none, for a time that doubles with each failed probe.
//! - `HalfOpen` admits a few probes at once. Enough good ones close it, a bad one opens it again.
//! - `Blocked` follows a refused key or a spent quota: rare probes without doubling, until one is
//!   good.
//!
//! While a rate limit is waited out, the breaker stays closed but admits nothing.
//!
//! Every ticket carries the generation of its state (as in sony/gobreaker); an outcome of an older
//! generation changes no state. Outcomes that say nothing about the provider's health (a fault of
//! the caller, an abandoned call) are not counted.
//!
//! Guarantees: at most `probes` probes run at any time, including those of earlier probations; the
//! breaker never closes without a good probe, a peer's good probe or [`Breaker::reset`]; there is
//! always a time from which it can be probed. It does not limit concurrency, retry, or know of
//! disabled providers.

mod closed;
mod rules;
mod slow;
mod state;
mod terms;
mod told;
mod trial;

use std::time::Duration;

use crate::chat::{Fault, Weight};

use closed::Closed;
pub use rules::{LONGEST_FLOOR, LONGEST_HOLD, Rules};
use state::{State, Why};
pub use terms::{Cause, Refusal, Saved, Ticket, Transition, Verdict, View, Who};
use trial::{Found, Places, Trial};

/// A blocked provider gets one probe at a time, and one good probe closes the breaker.
const BLOCKED_PROBES: u32 = 1;

#[derive(Clone, Debug)]
pub struct Breaker {
    rules: Rules,
    state: State,
    since: Duration,
    generation: u64,
    issued: u64,
    places: Places,
}

impl Breaker {
    pub fn new(rules: Rules) -> Self {
        Self {
            state: State::Closed(Box::new(Closed::new(&rules))),
            rules,
            since: Duration::ZERO,
            generation: 0,
            issued: 0,
            places: Places::default(),
        }
    }

    /// Continues from a snapshot. The breaker is open, half-open or blocked, never closed.
    pub fn restored(rules: Rules, now: Duration, saved: Saved) -> Self {
        let mut breaker = Self::new(rules);
        breaker.adopt(saved, now);
        breaker.tick(now);
        breaker
    }

    /// Creates a closed breaker that admits nothing before `until`, to continue a rate limit. The
    /// wait is at most [`MAX_RATE_LIMIT_WAIT`].
    pub fn held(rules: Rules, now: Duration, until: Duration) -> Self {
        let mut breaker = Self::new(rules);
        if let State::Closed(closed) = &mut breaker.state {
            closed.held_until = until.min(now.saturating_add(LONGEST_HOLD));
        }
        breaker
    }

    /// Replaces the configuration. The state and a running wait stay; the counts start anew if the
    /// length of the window changed.
    ///
    /// For another key, model or address call [`Breaker::reset`], because nothing known still
    /// holds.
    pub fn set_rules(&mut self, rules: Rules) {
        let window_changed = rules.window != self.rules.window;
        self.rules = rules;
        if let State::Closed(closed) = &mut self.state
            && window_changed
        {
            closed.recount(&self.rules);
        }
    }

    /// Closes the breaker and discards its counts. Earlier tickets become stale.
    pub fn reset(&mut self, now: Duration) -> Option<Transition> {
        let was_closed = matches!(self.state, State::Closed(_));
        let transition = self.close(now);
        (!was_closed).then_some(transition)
    }

    /// Makes the breaker half-open if its open time is over. To report that change in time, call
    /// this at [`Breaker::next_probe_at`].
    pub fn tick(&mut self, now: Duration) -> Option<Transition> {
        match self.state {
            State::Open {
                until,
                strikes,
                why,
            } if until <= now => {
                let probation = Trial::from(until);
                Some(self.enter(
                    State::HalfOpen {
                        trial: probation,
                        strikes,
                        why,
                    },
                    until,
                ))
            }
            _ => None,
        }
    }

    /// Admits or rejects a call.
    ///
    /// If `recovery_probe` is set, visitors are admitted only while closed, and the actor's own
    /// probe once the open time is over. If not, a visitor's call is the probe, and the actor has
    /// none.
    pub fn admit(&mut self, now: Duration, origin: Who) -> Result<Ticket, Refusal> {
        self.tick(now);
        self.places.expire(now);
        let is_admitted = match &self.state {
            State::Closed(closed) => origin == Who::Visitor && closed.held_until <= now,
            State::Open { .. } => false,
            State::HalfOpen { trial, .. } => {
                trial.lets_in(origin, self.rules.probes(), &self.places, now, &self.rules)
            }
            State::Blocked { trial, .. } => {
                trial.lets_in(origin, BLOCKED_PROBES, &self.places, now, &self.rules)
            }
        };
        if !is_admitted {
            let View {
                state, retry_at, ..
            } = self.view(now);
            return Err(Refusal { state, retry_at });
        }
        let ticket = Ticket {
            generation: self.generation,
            id: self.issued,
        };
        self.issued = self.issued.wrapping_add(1);
        // Only probes occupy slots; calls while closed are limited by the ProviderActor.
        if !matches!(self.state, State::Closed(_)) {
            let lease_ends = now.saturating_add(self.rules.probe_lease);
            self.places.take(ticket, origin, lease_ends);
        }
        Ok(ticket)
    }

    /// Records the latency of the first token: the first outcome of a call, to be reported before
    /// the last one, at most once.
    pub fn first_token(
        &mut self,
        ticket: Ticket,
        latency: Duration,
        now: Duration,
        random: f64,
    ) -> Option<Transition> {
        match &mut self.state {
            State::Closed(closed) if ticket.generation == self.generation => {
                let cause = closed.first_token(latency, now, &self.rules)?;
                let held_until = closed.held_until;
                let why = Why { fault: None, cause };
                Some(self.open(0, why, held_until, now, random))
            }
            _ => None,
        }
    }

    /// Records the end of a call, at most once. Call [`Breaker::next_probe_at`] afterwards even if
    /// nothing changed, because a slot may have become free.
    pub fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Verdict,
        now: Duration,
        random: f64,
    ) -> Option<Transition> {
        let probe_origin = self.places.give_back(ticket, now);
        if ticket.generation != self.generation {
            return None;
        }
        match &mut self.state {
            State::Closed(closed) => match outcome {
                Verdict::Failed {
                    fault,
                    started,
                    retry_after,
                } => self.failed(fault, started, retry_after, now, random),
                Verdict::Whole => {
                    closed.whole(now);
                    None
                }
                Verdict::Abandoned => None,
            },
            State::Open { .. } => None,
            State::HalfOpen { trial, strikes, .. } => {
                let failed_probes = strikes.saturating_add(1);
                match trial.hear(probe_origin?, outcome, now, self.rules.open_for)? {
                    Found::Well(successes) => {
                        (successes >= self.rules.probes()).then(|| self.close(now))
                    }
                    Found::Unwell(fault, retry_after) if fault.weight() == Weight::Block => {
                        Some(self.block(fault, retry_after, now, random))
                    }
                    Found::Unwell(fault, retry_after) => {
                        let min_open = self.rules.floor(fault, retry_after, random);
                        let why = Why {
                            fault: Some(fault),
                            cause: Cause::Probe,
                        };
                        let not_before = now.saturating_add(min_open);
                        Some(self.open(failed_probes, why, not_before, now, random))
                    }
                }
            }
            State::Blocked { trial, why } => {
                match trial.hear(probe_origin?, outcome, now, self.rules.blocked_for)? {
                    Found::Well(_) => Some(self.close(now)),
                    // Any other fault does not prove that the key or quota is good again.
                    Found::Unwell(fault, retry_after) => {
                        if fault.weight() == Weight::Block {
                            why.fault = Some(fault);
                        }
                        trial.not_before =
                            now.saturating_add(self.rules.blocked_time(fault, retry_after, random));
                        None
                    }
                }
            }
        }
    }

    fn failed(
        &mut self,
        fault: Fault,
        started: bool,
        retry_after: Option<Duration>,
        now: Duration,
        random: f64,
    ) -> Option<Transition> {
        let State::Closed(closed) = &mut self.state else {
            return None;
        };
        let is_hard = match fault.weight() {
            Weight::Hard => true,
            Weight::RateOnly => false,
            Weight::Block => return Some(self.block(fault, retry_after, now, random)),
            Weight::Nothing => return None,
        };
        if rules::is_limit(fault) {
            let until = now.saturating_add(rules::asked(fault, retry_after));
            closed.held_until = closed.held_until.max(until);
        }
        let cause = closed.failed(is_hard, started, now, &self.rules)?;
        let min_open = now.saturating_add(self.rules.floor(fault, retry_after, random));
        let not_before = closed.held_until.max(min_open);
        let why = Why {
            fault: Some(fault),
            cause,
        };
        Some(self.open(0, why, not_before, now, random))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
