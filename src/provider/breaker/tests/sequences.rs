//! Random sequences of calls: the breaker compared with the model, and general invariants.

use proptest::prelude::*;

use super::model::{Call, Expected, Model};
use super::steps::{Step, any_config, ms, steps};
use super::*;

/// A breaker and its model.
struct Pair {
    rules: BreakerConfig,
    breaker: Breaker,
    model: Model,
    now: Duration,
    admitted: usize,
    flying: Vec<Flight>,
}

#[derive(Clone, Copy)]
struct Flight {
    call: Call,
    ticket: Ticket,
    started: bool,
    /// The expiry of a probe's slot.
    lease_ends: Option<Duration>,
}

impl Pair {
    fn new(rules: BreakerConfig) -> Self {
        Self {
            breaker: Breaker::new(rules.clone()),
            model: Model::new(rules.clone()),
            rules,
            now: Duration::ZERO,
            admitted: 0,
            flying: Vec::new(),
        }
    }

    fn state(&self) -> ProviderState {
        self.breaker.view(self.now).state
    }

    fn step(&mut self, step: Step, random: f64) {
        let before = self.breaker.view(self.now);
        match step {
            Step::Pass(time) => self.now += time,
            Step::Tick => {
                self.breaker.tick(self.now);
                self.model.tick(self.now);
            }
            Step::Reset => {
                self.breaker.reset(self.now);
                self.model.enters(ProviderState::Closed, Duration::ZERO);
                self.model.strikes = 0;
            }
            Step::Admit(origin) => self.admit(origin),
            Step::FirstToken(which, latency) => {
                let Some(flight) = which
                    .checked_rem(self.flying.len())
                    .map(|at| &mut self.flying[at])
                else {
                    return;
                };
                if std::mem::replace(&mut flight.started, true) {
                    return;
                }
                let Flight { call, ticket, .. } = *flight;
                let stale = call.phase != self.model.number;
                let expected = self.model.first_token(call, latency, self.now);
                let transition = self
                    .breaker
                    .record_first_token(ticket, latency, self.now, random);
                self.compare(expected, transition);
                assert!(!stale || self.breaker.view(self.now) == before);
            }
            Step::Settle(which, outcome) => {
                let Some(at) = which.checked_rem(self.flying.len()) else {
                    return;
                };
                let flight = self.flying.swap_remove(at);
                self.settle(flight, outcome, random, before);
            }
        }
        self.check();
    }

    fn admit(&mut self, origin: CallOrigin) {
        let id = self.admitted;
        let expected = self.model.admits(origin, self.now, id);
        let ticket = self.breaker.admit(self.now, origin);
        assert_eq!(
            ticket.is_ok(),
            expected,
            "{origin:?} at {:?}, {:?}",
            self.now,
            self.breaker
        );
        let view = self.breaker.view(self.now);
        match ticket {
            Ok(ticket) => {
                let probe = view.state != ProviderState::Closed;
                self.admitted += 1;
                self.flying.push(Flight {
                    call: Call {
                        id,
                        phase: self.model.number,
                    },
                    ticket,
                    started: false,
                    lease_ends: probe.then_some(self.now + self.rules.probe_lease),
                });
            }
            Err(rejection) => assert_eq!(
                (rejection.state, rejection.retry_at),
                (view.state, view.retry_at)
            ),
        }
    }

    fn settle(&mut self, flight: Flight, outcome: CallOutcome, random: f64, before: BreakerView) {
        let outcome = match outcome {
            CallOutcome::Failed {
                fault, retry_after, ..
            } => CallOutcome::Failed {
                fault,
                retry_after,
                had_text: flight.started,
            },
            other => other,
        };
        let stale = flight.call.phase != self.model.number;
        let expected = self.model.settle(flight.call, outcome, self.now);
        let transition = self
            .breaker
            .record_outcome(flight.ticket, outcome, self.now, random);
        self.compare(expected, transition);
        assert!(
            !stale || self.breaker.view(self.now) == before,
            "a stale ticket changed the view"
        );
        if transition.is_some_and(|to| to.to == ProviderState::Closed) {
            assert!(
                flight.lease_ends.is_some() && outcome == CallOutcome::Success,
                "closed without a good probe"
            );
        }
    }

    /// Compares the transition with the expected one, and takes over the randomly drawn time.
    fn compare(&mut self, expected: Expected, transition: Option<Transition>) {
        let view = self.breaker.view(self.now);
        let at = view.retry_at.unwrap_or(self.now);
        let tolerance = Duration::from_micros(1);
        let within = |min: Duration, max: Duration| {
            let wait = at - self.now;
            assert!(
                wait + tolerance >= min && wait <= max + tolerance,
                "waits {wait:?}, not {min:?} to {max:?}"
            );
        };
        let to = transition.map(|transition| transition.to);
        if let Some(transition) = transition {
            assert_eq!(transition.from, self.model.phase);
            assert_eq!(
                (
                    transition.retry_at,
                    transition.fault,
                    transition.trip_reason
                ),
                (view.retry_at, view.fault, view.trip_reason)
            );
        }
        match expected {
            Expected::Nothing => assert_eq!(to, None),
            Expected::Opens(cause, min, max) => {
                assert_eq!(
                    (to, view.trip_reason),
                    (Some(ProviderState::Open), Some(cause))
                );
                within(min, max);
                self.model.enters(ProviderState::Open, at);
            }
            Expected::Blocks(min, max) => {
                within(min, max);
                if self.model.phase == ProviderState::Blocked {
                    assert_eq!(to, None);
                    self.model.retry_at = at;
                } else {
                    assert_eq!(to, Some(ProviderState::Blocked));
                    self.model.enters(ProviderState::Blocked, at);
                }
            }
            Expected::Closes => {
                assert_eq!(to, Some(ProviderState::Closed));
                self.model.enters(ProviderState::Closed, Duration::ZERO);
                self.model.strikes = 0;
            }
        }
    }

    /// Checks the invariants that hold at every moment.
    fn check(&mut self) {
        let now = self.now;
        let view = self.breaker.view(now);
        let phase = match self.model.phase {
            ProviderState::Open if self.model.retry_at <= now => ProviderState::HalfOpen,
            phase => phase,
        };
        let strikes = if phase == ProviderState::Blocked {
            0
        } else {
            self.model.strikes
        };
        assert_eq!((view.state, view.failed_probes), (phase, strikes));
        assert_eq!(
            view.retry_at,
            Some(self.model.retry_at).filter(|at| *at > now)
        );

        let probes = self
            .flying
            .iter()
            .filter_map(|flight| flight.lease_ends)
            .filter(|ends| *ends > now);
        assert!(
            probes.count() <= self.rules.probes as usize,
            "too many probes in flight"
        );

        // The owner's timer must not spin: once all probes are admitted, the next is later or none.
        if view.state != ProviderState::Closed {
            let mut breaker = self.breaker.clone();
            while breaker.admit(now, CallOrigin::Probe).is_ok() {}
            assert_ne!(breaker.next_probe_at(now), Some(now));
        }
    }

    /// Assumes a healthy provider and an owner that probes when due, until a visitor is admitted.
    fn recovers(&mut self) {
        for _ in 0..40 {
            if self.state() == ProviderState::Closed {
                assert!(self.breaker.admit(self.now, CallOrigin::Turn).is_ok());
                return;
            }
            let origin = if let Some(due) = self.breaker.next_probe_at(self.now) {
                assert!(due >= self.now);
                self.now = due;
                CallOrigin::Probe
            } else {
                CallOrigin::Turn
            };
            self.breaker.tick(self.now);
            match self.breaker.admit(self.now, origin) {
                Ok(ticket) => {
                    self.breaker
                        .record_outcome(ticket, CallOutcome::Success, self.now, NO_JITTER);
                }
                // Another visitor comes at `retry_at`, or some time later.
                Err(rejection) => self.now = rejection.retry_at.unwrap_or(self.now + s(10)),
            }
        }
        panic!("stuck: {:?}", self.breaker);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn breaker_matches_the_model(rules in any_config(), steps in steps(), randoms in prop::collection::vec(0.0..=1.0, 1..20)) {
        let mut pair = Pair::new(rules);
        for (step, random) in steps.into_iter().zip(randoms.into_iter().cycle()) {
            pair.step(step, random);
        }
    }

    /// After any sequence, with calls still in flight and with or without a jump in time, the
    /// breaker is probed once all waits are over, and closes.
    #[test]
    fn is_never_stuck(rules in any_config(), steps in steps(), jump in prop::sample::select(vec![0, 3_600, 90_000])) {
        let mut pair = Pair::new(rules);
        steps.into_iter().for_each(|step| pair.step(step, NO_JITTER));
        pair.now += s(jump);
        let latest = pair.now + MAX_RATE_LIMIT_WAIT + s(3_600);
        let view = pair.breaker.view(pair.now);
        if view.state == ProviderState::Closed {
            pair.now = view.retry_at.unwrap_or(pair.now);
        }
        pair.recovers();
        prop_assert!(pair.now <= latest);
    }

    /// Successful calls, and calls that end through no fault of the provider, never open the
    /// breaker.
    #[test]
    fn without_failures_it_never_opens(
        rules in any_config(),
        calls in prop::collection::vec((0u64..5_000, 0u64..1_000, 0usize..3), 0..300),
    ) {
        let mut breaker = Breaker::new(rules);
        let mut now = Duration::ZERO;
        for (time, latency, end) in calls {
            now += ms(time);
            let ticket = breaker.admit(now, CallOrigin::Turn).unwrap();
            prop_assert_eq!(breaker.record_first_token(ticket, ms(latency), now, NO_JITTER), None);
            let outcome = [CallOutcome::Success, CallOutcome::Abandoned, broken_stream(FaultKind::Diverged)][end];
            prop_assert_eq!(breaker.record_outcome(ticket, outcome, now, NO_JITTER), None);
        }
    }

    /// Without a `Retry-After`, the open time is within a fifth of its middle and never above its
    /// max.
    #[test]
    fn open_time_stays_within_its_bounds(rules in any_config(), strikes in 0u32..40, random in 0.0..=1.0) {
        let time = rules.open_duration(strikes, random).as_secs_f64();
        let middle = (rules.open_for.as_secs_f64() * 2f64.powi(strikes as i32)).min(rules.open_max.as_secs_f64());
        prop_assert!(time >= 0.8 * middle - 1e-6 && time <= 1.2 * middle + 1e-6);
        prop_assert!(time <= rules.open_max.as_secs_f64());
    }
}
