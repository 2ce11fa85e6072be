//! The circuit breaker of one provider (Michael Nygard, "Release It!"). Pure: time since the start of the process and chance (0 to
//! 1) are arguments.
//!
//! `Closed` lets everyone through and counts. `Open` lets nobody through for a time that doubles with each failed probe. `HalfOpen`
//! lets probes through, a few at once: enough good ones close it, a bad one opens it again. `Blocked` is for a refused key or a
//! spent quota: a rare probe, no doubling, until one goes well. A rate limit being waited out is none of these: the breaker stays
//! closed and admits nobody until then.
//!
//! Every ticket carries the generation of the state it was given in (the idea of sony/gobreaker); a verdict of an older one changes
//! no state. A verdict that says nothing of the provider's health (the caller's own fault, an abandoned call) counts nothing.
//!
//! It promises: at most `probes` probes in flight at every moment, those of earlier trials included; never closed without a good
//! probe or [`Breaker::reset`]; always a moment from which it can be tried. It does not limit calls, retry, or know of `disabled`.

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

/// A blocked provider is tried by one probe at a time, and one good one closes it.
const BLOCKED_PROBES: u32 = 1;

/// A breaker.
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
    /// A closed breaker that knows nothing yet.
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

    /// A breaker that was not closed when it was last seen: it is open, half-open or blocked, never closed.
    pub fn restored(rules: Rules, now: Duration, saved: Saved) -> Self {
        let mut breaker = Self::new(rules);
        breaker.adopt(saved, now);
        breaker.tick(now);
        breaker
    }

    /// A closed breaker that admits nobody before `until`: a rate limit was being waited out when it was last seen. Waits for no longer
    /// than [`LONGEST_HOLD`].
    pub fn held(rules: Rules, now: Duration, until: Duration) -> Self {
        let mut breaker = Self::new(rules);
        if let State::Closed(closed) = &mut breaker.state {
            closed.held_until = until.min(now.saturating_add(LONGEST_HOLD));
        }
        breaker
    }

    /// Goes by other rules from now on. Its state and a wait under way stay; counts begin anew if the window's length changed.
    /// For another key, model or address call [`Breaker::reset`]: then what is known no longer holds.
    pub fn set_rules(&mut self, rules: Rules) {
        let recount = rules.window != self.rules.window;
        self.rules = rules;
        if let State::Closed(closed) = &mut self.state
            && recount
        {
            closed.recount(&self.rules);
        }
    }

    /// Closed, with everything forgotten; tickets given before are of an older generation now.
    pub fn reset(&mut self, now: Duration) -> Option<Transition> {
        let was_closed = matches!(self.state, State::Closed(_));
        let transition = self.close(now);
        (!was_closed).then_some(transition)
    }

    /// Half-open, if its open time has ended. Whoever wants to hear of that calls it at [`Breaker::due`]; the others need not.
    pub fn tick(&mut self, now: Duration) -> Option<Transition> {
        match self.state {
            State::Open {
                until,
                strikes,
                why,
            } if until <= now => {
                let trial = Trial::from(until);
                Some(self.enter(
                    State::HalfOpen {
                        trial,
                        strikes,
                        why,
                    },
                    until,
                ))
            }
            _ => None,
        }
    }

    /// Leave to call the provider, or why not. Where `recovery_probe` is on, the owner's probe is admitted once the open time has
    /// ended, and visitors only while it is closed; where it is off, a visitor is the probe and the owner has none.
    pub fn admit(&mut self, now: Duration, who: Who) -> Result<Ticket, Refusal> {
        self.tick(now);
        self.places.expire(now);
        let admitted = match &self.state {
            State::Closed(closed) => who == Who::Visitor && closed.held_until <= now,
            State::Open { .. } => false,
            State::HalfOpen { trial, .. } => {
                trial.lets_in(who, self.rules.probes(), &self.places, now, &self.rules)
            }
            State::Blocked { trial, .. } => {
                trial.lets_in(who, BLOCKED_PROBES, &self.places, now, &self.rules)
            }
        };
        if !admitted {
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
        if !matches!(self.state, State::Closed(_)) {
            let lease_ends = now.saturating_add(self.rules.probe_lease);
            self.places.take(ticket, who, lease_ends);
        }
        Ok(ticket)
    }

    /// The first verdict on a call: its first token came, after `latency`. To be told once, before the call is settled.
    pub fn first_token(
        &mut self,
        ticket: Ticket,
        latency: Duration,
        now: Duration,
        chance: f64,
    ) -> Option<Transition> {
        match &mut self.state {
            State::Closed(closed) if ticket.generation == self.generation => {
                let cause = closed.first_token(latency, now, &self.rules)?;
                let held_until = closed.held_until;
                let why = Why { fault: None, cause };
                Some(self.open(0, why, held_until, now, chance))
            }
            _ => None,
        }
    }

    /// The last verdict on a call. To be told once. Ask [`Breaker::due`] again afterwards, also where nothing changed: a place may
    /// be free.
    pub fn settle(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        now: Duration,
        chance: f64,
    ) -> Option<Transition> {
        let probe = self.places.give_back(ticket, now);
        if ticket.generation != self.generation {
            return None;
        }
        match &mut self.state {
            State::Closed(closed) => match verdict {
                Verdict::Failed {
                    fault,
                    started,
                    retry_after,
                } => self.failed(fault, started, retry_after, now, chance),
                Verdict::Whole => {
                    closed.whole(now);
                    None
                }
                Verdict::Abandoned => None,
            },
            State::Open { .. } => None,
            State::HalfOpen { trial, strikes, .. } => {
                let strikes = strikes.saturating_add(1);
                match trial.hear(probe?, verdict, now, self.rules.open_for)? {
                    Found::Well(so_many) => {
                        (so_many >= self.rules.probes()).then(|| self.close(now))
                    }
                    Found::Unwell(fault, asked) if fault.weight() == Weight::Block => {
                        Some(self.block(fault, asked, now, chance))
                    }
                    Found::Unwell(fault, asked) => {
                        let floor = self.rules.floor(fault, asked, chance);
                        let why = Why {
                            fault: Some(fault),
                            cause: Cause::Probe,
                        };
                        Some(self.open(strikes, why, now.saturating_add(floor), now, chance))
                    }
                }
            }
            State::Blocked { trial, why } => {
                match trial.hear(probe?, verdict, now, self.rules.blocked_for)? {
                    Found::Well(_) => Some(self.close(now)),
                    // Whatever else it fails with, that does not say that the key is good again.
                    Found::Unwell(fault, asked) => {
                        if fault.weight() == Weight::Block {
                            why.fault = Some(fault);
                        }
                        trial.not_before =
                            now.saturating_add(self.rules.blocked_time(fault, asked, chance));
                        None
                    }
                }
            }
        }
    }

    /// A call failed while closed.
    fn failed(
        &mut self,
        fault: Fault,
        started: bool,
        asked: Option<Duration>,
        now: Duration,
        chance: f64,
    ) -> Option<Transition> {
        let State::Closed(closed) = &mut self.state else {
            return None;
        };
        let hard = match fault.weight() {
            Weight::Hard => true,
            Weight::RateOnly => false,
            Weight::Block => return Some(self.block(fault, asked, now, chance)),
            Weight::Nothing => return None,
        };
        if rules::is_limit(fault) {
            let hold = now.saturating_add(rules::asked(fault, asked));
            closed.held_until = closed.held_until.max(hold);
        }
        let cause = closed.failed(hard, started, now, &self.rules)?;
        let floor = now.saturating_add(self.rules.floor(fault, asked, chance));
        let not_before = closed.held_until.max(floor);
        let why = Why {
            fault: Some(fault),
            cause,
        };
        Some(self.open(0, why, not_before, now, chance))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
