//! A small model of the breaker, which keeps a log of all events and counts it anew each time.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Token(Duration),
    Early { hard: bool },
    Whole,
    Broken { hard: bool },
}

type Log = Vec<(Duration, Event)>;

pub(super) struct Model {
    rules: BreakerConfig,
    pub(super) phase: ProviderState,
    /// The number of the present phase; the fields down to `unsure` are reset with each phase.
    pub(super) number: usize,
    log: Log,
    pub(super) retry_at: Duration,
    good: u32,
    unsure: bool,
    pub(super) strikes: u32,
    /// Probes in flight: the call, its origin, and the expiry of its slot.
    probes: Vec<(usize, CallOrigin, Duration)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) id: usize,
    /// The number of the phase in which it was admitted.
    pub(super) phase: usize,
}

/// The expected effect of an outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    Nothing,
    /// Opens for a time between these bounds.
    Opens(TripReason, Duration, Duration),
    /// Blocks, or stays blocked, for a time between these bounds.
    Blocks(Duration, Duration),
    Closes,
}

impl Model {
    pub(super) fn new(rules: BreakerConfig) -> Self {
        Self {
            rules,
            phase: ProviderState::Closed,
            number: 0,
            log: Log::new(),
            retry_at: Duration::ZERO,
            good: 0,
            unsure: false,
            strikes: 0,
            probes: Vec::new(),
        }
    }

    pub(super) fn enters(&mut self, phase: ProviderState, retry_at: Duration) {
        self.phase = phase;
        self.retry_at = retry_at;
        self.number += 1;
        self.log.clear();
        self.good = 0;
        self.unsure = false;
    }

    pub(super) fn tick(&mut self, now: Duration) {
        self.probes.retain(|probe| probe.2 > now);
        if self.phase == ProviderState::Open && now >= self.retry_at {
            self.enters(ProviderState::HalfOpen, self.retry_at);
        }
    }

    pub(super) fn admits(&mut self, origin: CallOrigin, now: Duration, id: usize) -> bool {
        self.tick(now);
        let needed = match self.phase {
            ProviderState::Closed => return origin == CallOrigin::Turn && now >= self.retry_at,
            ProviderState::HalfOpen => self.rules.probes - self.good,
            ProviderState::Blocked => 1,
            _ => return false,
        };
        let own = self.rules.recovery_probe;
        let may_probe = (origin == CallOrigin::Probe) == (own && !self.unsure);
        let admitted = may_probe && now >= self.retry_at && self.probes.len() < needed as usize;
        if admitted {
            self.probes.push((id, origin, now + self.rules.probe_lease));
        }
        admitted
    }

    pub(super) fn first_token(&mut self, call: Call, latency: Duration, now: Duration) -> Expected {
        if call.phase != self.number || self.phase != ProviderState::Closed {
            return Expected::Nothing;
        }
        self.log.push((now, Event::Token(latency)));
        self.judge(None, now)
    }

    pub(super) fn settle(&mut self, call: Call, outcome: CallOutcome, now: Duration) -> Expected {
        self.probes.retain(|probe| probe.2 > now);
        let probe = self.probes.iter().find(|probe| probe.0 == call.id).copied();
        self.probes.retain(|probe| probe.0 != call.id);
        if call.phase != self.number {
            return Expected::Nothing;
        }
        let closed = self.phase == ProviderState::Closed;
        if !closed && probe.is_none() {
            return Expected::Nothing;
        }
        let (fault, started, asked) = match outcome {
            CallOutcome::Success if closed => {
                self.log.push((now, Event::Whole));
                return Expected::Nothing;
            }
            CallOutcome::Success => {
                self.good += 1;
                let is_enough =
                    self.phase == ProviderState::Blocked || self.good == self.rules.probes;
                return if is_enough {
                    Expected::Closes
                } else {
                    Expected::Nothing
                };
            }
            CallOutcome::Failed {
                fault,
                had_text: started,
                retry_after,
            } if fault.breaker_impact() != BreakerImpact::Ignored => {
                (fault, started, retry_after.unwrap_or_default())
            }
            _ => {
                if probe.is_some_and(|probe| probe.1 == CallOrigin::Probe) {
                    self.unsure |= outcome != CallOutcome::Abandoned;
                    let blocked = self.phase == ProviderState::Blocked;
                    self.retry_at = now
                        + if blocked {
                            self.rules.blocked_for
                        } else {
                            self.rules.open_for
                        };
                }
                return Expected::Nothing;
            }
        };
        let limit = matches!(fault, FaultKind::RateLimited | FaultKind::Overloaded);
        let asked = asked.min(s(if limit { 86_400 } else { 300 }));
        let jitter = self.rules.open_for / 5;
        if self.phase == ProviderState::Blocked || fault.breaker_impact() == BreakerImpact::Block {
            let pause = self.rules.blocked_for;
            return Expected::Blocks(pause.max(asked), pause.max(asked + jitter));
        }
        if closed {
            let hard = fault.breaker_impact() == BreakerImpact::Failure;
            self.log.push((
                now,
                if started {
                    Event::Broken { hard }
                } else {
                    Event::Early { hard }
                },
            ));
            if limit {
                self.retry_at = self.retry_at.max(now + asked);
            }
            return self.judge(Some(asked), now);
        }
        self.strikes += 1;
        self.opens(TripReason::ProbeFailed, self.strikes, asked, now)
    }

    fn opens(&self, cause: TripReason, strikes: u32, asked: Duration, now: Duration) -> Expected {
        let mut middle = self.rules.open_for;
        (0..strikes).for_each(|_| middle = (middle * 2).min(s(1_000)));
        let middle = middle.min(self.rules.open_max);
        let jitter = if asked.is_zero() {
            s(0)
        } else {
            self.rules.open_for / 5
        };
        let closed = self.phase == ProviderState::Closed;
        let held = self
            .retry_at
            .saturating_sub(if closed { now } else { self.retry_at });
        let min = (middle * 4 / 5).max(asked).max(held);
        let max = (middle * 6 / 5)
            .min(self.rules.open_max)
            .max(asked + jitter)
            .max(held);
        Expected::Opens(cause, min, max)
    }

    /// Returns the effect of the last event of the log.
    fn judge(&self, asked: Option<Duration>, now: Duration) -> Expected {
        let rules = &self.rules;
        let run = |counts: fn(&Event) -> Option<(bool, bool)>| {
            let outcomes = self.log.iter().rev().filter_map(|(_, event)| counts(event));
            outcomes
                .take_while(|(bad, _)| *bad)
                .filter(|(_, hard)| *hard)
                .count()
        };
        let rate = |counts: fn(&Event) -> Option<(bool, bool)>, rate: f64| {
            let recent = self.log.iter().filter(|(at, _)| self.recent(*at, now));
            let bad: Vec<_> = recent
                .filter_map(|(_, event)| counts(event))
                .map(|(bad, _)| bad)
                .collect();
            self.reaches(&bad, rate)
        };
        let (_, last) = self.log.last().unwrap();
        let cause = match *last {
            Event::Whole => None,
            Event::Token(_) => self.slow(now).then_some(TripReason::SlowCalls),
            Event::Early { hard } if hard && run(call) >= rules.consecutive_failures as usize => {
                Some(TripReason::ConsecutiveFailures)
            }
            Event::Early { .. } => {
                rate(call, rules.failure_rate).then_some(TripReason::FailureRate)
            }
            Event::Broken { hard } if hard && run(stream) >= 3 => Some(TripReason::BrokenStreams),
            Event::Broken { .. } => {
                rate(stream, rules.stream_failure_rate).then_some(TripReason::BrokenStreams)
            }
        };
        cause.map_or(Expected::Nothing, |cause| {
            self.opens(cause, 0, asked.unwrap_or_default(), now)
        })
    }

    fn slow(&self, now: Duration) -> bool {
        let is_enough = self.rules.min_calls as usize;
        let mut baseline = None;
        let mut batch = Vec::new();
        let mut compared = Vec::new();
        for (at, event) in &self.log {
            let Event::Token(latency) = *event else {
                continue;
            };
            if batch.len() >= is_enough
                && *at - batch.first().map_or(s(0), |(at, _)| *at) >= self.rules.window
            {
                let mut latencies: Vec<Duration> =
                    batch.drain(..).map(|(_, latency)| latency).collect();
                latencies.sort();
                baseline = Some(latencies[latencies.len() / 2]);
            }
            let slow = baseline.is_some_and(|baseline| latency >= s(1).max(baseline * 5));
            if baseline.is_some() {
                compared.push((*at, slow));
            }
            if !slow {
                batch.push((*at, latency));
            }
        }
        let last = compared.last().is_some_and(|(_, slow)| *slow);
        let recent = compared.into_iter().filter(|(at, _)| self.recent(*at, now));
        last && self.reaches(
            &recent.map(|(_, slow)| slow).collect::<Vec<_>>(),
            self.rules.slow_rate,
        )
    }

    fn recent(&self, at: Duration, now: Duration) -> bool {
        let bucket = |time: Duration| time.as_nanos() / (self.rules.window.as_nanos() / 10);
        bucket(now) - bucket(at) < 10
    }

    /// Compares in whole tenths, to avoid rounding.
    fn reaches(&self, bad: &[bool], rate: f64) -> bool {
        let share = bad.iter().filter(|bad| **bad).count() * 10;
        bad.len() >= self.rules.min_calls as usize
            && share >= bad.len() * (rate * 10.0).round() as usize
    }
}

/// The event in the statistics of calls: (is it bad, is it hard).
fn call(event: &Event) -> Option<(bool, bool)> {
    match event {
        Event::Token(_) => Some((false, false)),
        Event::Early { hard } => Some((true, *hard)),
        _ => None,
    }
}

/// The event in the statistics of streams: (is it bad, is it hard).
fn stream(event: &Event) -> Option<(bool, bool)> {
    match event {
        Event::Whole => Some((false, false)),
        Event::Broken { hard } => Some((true, *hard)),
        _ => None,
    }
}
