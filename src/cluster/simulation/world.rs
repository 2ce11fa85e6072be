//! The simulated world: visitors, providers, the network, the lease, and the event queue.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scenario;
use super::figures::SimulationStats;
use super::instance::{NAMES, SimulatedInstance, SimulatedTurn};
use crate::domain::Failure;
use crate::provider::backoff::Backoff;
use crate::provider::breaker::{CallOrigin, CallOutcome, Ticket, Transition};
use crate::provider::event::ProviderEvent;
use crate::router::retry_policy::FailedAttempt;

const NETWORK_DELAY: Duration = Duration::from_millis(2);
/// The time until the end of a good answer, and until its first token.
const ANSWER_TIME: Duration = Duration::from_millis(2_000);
const FIRST_TOKEN_TIME: Duration = Duration::from_millis(300);
/// The timeout of a probe, and the margin of its lease.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// The spread of probes after a message: a fifth of the open time.
const PROBE_JITTER: Duration = Duration::from_secs(2);

enum SimulationEvent {
    VisitorArrives(usize),
    TurnContinues(usize, SimulatedTurn),
    /// The first token of a call, and the end of a call.
    FirstToken(usize, usize, Ticket),
    CallEnds(usize, usize, Ticket, CallOutcome, SimulatedTurn),
    ProbeDue(usize),
    ProbeEnds(usize, Ticket, CallOutcome),
    /// A message arrives at all instances but its sender.
    MessageArrives(usize, ProviderEvent),
    /// A breaker closes after a peer's successful probe.
    RecoveryDue(usize),
}

pub struct Simulation {
    scenario: Scenario,
    now: Duration,
    events: BTreeMap<(Duration, u64), SimulationEvent>,
    event_count: u64,
    rng_state: u64,
    instances: Vec<SimulatedInstance>,
    lease: Option<(usize, Duration)>,
    running_probes: u64,
    cut_off_only: Option<usize>,
    stats: SimulationStats,
}

impl Simulation {
    pub fn new(scene: Scenario) -> Self {
        let seconds = (scene.end - scene.outage_end).as_secs() as usize;
        let usual = scene.instances as f64 / scene.visitor_interval.as_secs_f64();
        let figures = SimulationStats {
            calls_per_second: vec![0; seconds],
            normal_calls_per_second: usual as u64,
            ..SimulationStats::default()
        };
        Self {
            scenario: scene,
            now: Duration::ZERO,
            events: BTreeMap::new(),
            event_count: 0,
            rng_state: 0x5EED,
            instances: (0..scene.instances)
                .map(|_| SimulatedInstance::new())
                .collect(),
            lease: None,
            running_probes: 0,
            cut_off_only: None,
            stats: figures,
        }
    }

    /// The provider works, but this instance alone cannot reach it.
    pub fn cut_off_only(&mut self, instance: usize) {
        self.cut_off_only = Some(instance);
    }

    pub fn run(mut self) -> SimulationStats {
        for instance in 0..self.scenario.instances {
            self.schedule_visitor(instance);
        }
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            match event {
                SimulationEvent::VisitorArrives(instance) => self.on_visitor(instance),
                SimulationEvent::TurnContinues(instance, turn) => {
                    self.call_provider(instance, turn)
                }
                SimulationEvent::FirstToken(instance, provider, ticket) => {
                    let random_unit = self.random_unit();
                    let breaker = &mut self.instances[instance].breakers[provider];
                    let transition =
                        breaker.record_first_token(ticket, FIRST_TOKEN_TIME, at, random_unit);
                    self.on_transition(instance, provider, transition);
                }
                SimulationEvent::CallEnds(instance, provider, ticket, verdict, turn) => {
                    self.on_call_end(instance, provider, ticket, verdict, turn);
                }
                SimulationEvent::ProbeDue(instance) => self.on_probe_due(instance),
                SimulationEvent::ProbeEnds(instance, ticket, verdict) => {
                    self.on_probe_end(instance, ticket, verdict)
                }
                SimulationEvent::MessageArrives(sender, event) => self.on_message(sender, event),
                SimulationEvent::RecoveryDue(instance) => {
                    if !self.instances[instance].recovery.drain_due(at).is_empty() {
                        let transition = self.instances[instance].breakers[0].close_from_peer(at);
                        self.on_transition(instance, 0, transition);
                    }
                }
            }
        }
        self.stats
    }

    fn schedule(&mut self, wait: Duration, event: SimulationEvent) {
        self.event_count += 1;
        self.events
            .insert((self.now + wait, self.event_count), event);
    }

    /// Deterministic random numbers (splitmix64).
    fn random_unit(&mut self) -> f64 {
        self.rng_state = self.rng_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.rng_state ^ (self.rng_state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Intervals are uniformly distributed between zero and twice the mean.
    fn schedule_visitor(&mut self, instance: usize) {
        let wait = self
            .scenario
            .visitor_interval
            .mul_f64(2.0 * self.random_unit());
        if self.now + wait < self.scenario.end {
            self.schedule(wait, SimulationEvent::VisitorArrives(instance));
        }
    }

    fn is_down(&self, instance: usize, provider: usize) -> bool {
        let down = (self.scenario.outage_start..self.scenario.outage_end).contains(&self.now);
        provider == 0 && down && self.cut_off_only.is_none_or(|only| only == instance)
    }

    fn on_visitor(&mut self, instance: usize) {
        self.schedule_visitor(instance);
        self.stats.turns += 1;
        self.instances[instance].budget.deposit(self.now);
        self.call_provider(
            instance,
            SimulatedTurn {
                failed_attempts: Vec::new(),
                retry_provider: None,
            },
        );
    }

    fn call_provider(&mut self, instance: usize, mut turn: SimulatedTurn) {
        let now = self.now;
        let retried = turn.retry_provider.take();
        let (others, may_retry) = self.instances[instance].order(&turn, now);
        if may_retry && retried.is_none() {
            turn.retry_provider = Some(0);
            let wait = Backoff::default().delay(0, self.random_unit());
            return self.schedule(wait, SimulationEvent::TurnContinues(instance, turn));
        }
        let chosen = retried.into_iter().chain(others).find_map(|provider| {
            let ticket = self.instances[instance].breakers[provider]
                .admit(now, CallOrigin::Turn)
                .ok()?;
            Some((provider, ticket))
        });
        let Some((provider, ticket)) = chosen else {
            self.stats.unanswered += 1;
            return;
        };
        self.count_call(provider);
        if self.is_down(instance, provider) {
            let fault = self.scenario.fault;
            let wait = self.scenario.failure_delay;
            let verdict = CallOutcome::Failed {
                fault,
                had_text: false,
                retry_after: None,
            };
            self.schedule(
                wait,
                SimulationEvent::CallEnds(instance, provider, ticket, verdict, turn),
            );
        } else {
            self.schedule(
                FIRST_TOKEN_TIME,
                SimulationEvent::FirstToken(instance, provider, ticket),
            );
            self.schedule(
                ANSWER_TIME,
                SimulationEvent::CallEnds(instance, provider, ticket, CallOutcome::Success, turn),
            );
        }
    }

    fn count_call(&mut self, provider: usize) {
        let Scenario {
            outage_start: down,
            outage_end: well,
            ..
        } = self.scenario;
        if provider != 0 || self.now < down {
            return;
        }
        if self.now < well {
            self.stats.calls += 1;
            self.stats.early_calls += u64::from(self.now < down + Duration::from_secs(10));
        } else if let Some(second) = self
            .stats
            .calls_per_second
            .get_mut((self.now - well).as_secs() as usize)
        {
            *second += 1;
        }
    }

    fn on_call_end(
        &mut self,
        instance: usize,
        provider: usize,
        ticket: Ticket,
        verdict: CallOutcome,
        mut turn: SimulatedTurn,
    ) {
        let random_unit = self.random_unit();
        let transition = self.instances[instance].breakers[provider].record_outcome(
            ticket,
            verdict,
            self.now,
            random_unit,
        );
        self.on_transition(instance, provider, transition);
        if let CallOutcome::Failed {
            fault,
            had_text: started,
            ..
        } = verdict
        {
            self.stats.delayed += u64::from(turn.failed_attempts.is_empty());
            let took = self.scenario.failure_delay;
            turn.failed_attempts.push(FailedAttempt {
                provider: NAMES[provider].into(),
                failure: Failure::new(fault),
                had_text: started,
                elapsed: took,
            });
            self.call_provider(instance, turn);
        }
    }

    /// Does what the actor does after each change: publishes events and schedules probes.
    fn on_transition(&mut self, instance: usize, provider: usize, transition: Option<Transition>) {
        if provider != 0 {
            return;
        }
        let now = self.now;
        if let Some(change) = &transition {
            let own = ProviderEvent::from_transition(change, 0, now);
            if let (Some(ProviderEvent::Opened { .. }), crate::domain::ProviderState::Closed) =
                (own, change.from)
            {
                self.stats.opened += 1;
            }
            if change.to == crate::domain::ProviderState::Closed && now >= self.scenario.outage_end
            {
                let after = now - self.scenario.outage_end;
                self.stats.closed_first.get_or_insert(after);
                self.stats.closed_last = Some(after);
            }
            if let Some(news) = own.filter(|_| self.scenario.is_clustered) {
                let known = &mut self.instances[instance].peer_state;
                if !known.already_known(NAMES[0], news, now) {
                    known.record(NAMES[0], news, now);
                    self.stats.messages += 1;
                    self.schedule(
                        NETWORK_DELAY,
                        SimulationEvent::MessageArrives(instance, news),
                    );
                }
            }
        }
        let due = self.instances[instance].breakers[0].next_probe_at(now);
        if due != self.instances[instance].next_probe_at {
            self.instances[instance].next_probe_at = due;
            if let Some(due) = due {
                self.schedule(due - now, SimulationEvent::ProbeDue(instance));
            }
        }
    }

    fn on_probe_due(&mut self, instance: usize) {
        let now = self.now;
        if self.instances[instance].next_probe_at != Some(now) {
            return;
        }
        self.instances[instance].next_probe_at = None;
        let Ok(ticket) = self.instances[instance].breakers[0].admit(now, CallOrigin::Probe) else {
            return self.on_transition(instance, 0, None);
        };
        if self.scenario.is_clustered {
            if let Some((_, until)) = self.lease.filter(|(_, until)| *until > now) {
                let spread = PROBE_JITTER.mul_f64(self.random_unit());
                self.instances[instance].breakers[0].postpone_probe(ticket, until + spread, now);
                return self.on_transition(instance, 0, None);
            }
            self.lease = Some((instance, now + PROBE_TIMEOUT + LEASE_MARGIN));
        }
        self.running_probes += 1;
        self.stats.probes += 1;
        self.stats.max_concurrent_probes =
            self.stats.max_concurrent_probes.max(self.running_probes);
        let (wait, verdict) = if self.is_down(instance, 0) {
            let fault = self.scenario.fault;
            (
                self.scenario.failure_delay,
                CallOutcome::Failed {
                    fault,
                    had_text: false,
                    retry_after: None,
                },
            )
        } else {
            (FIRST_TOKEN_TIME, CallOutcome::Success)
        };
        self.schedule(wait, SimulationEvent::ProbeEnds(instance, ticket, verdict));
    }

    fn on_probe_end(&mut self, instance: usize, ticket: Ticket, verdict: CallOutcome) {
        let now = self.now;
        let random_unit = self.random_unit();
        self.running_probes -= 1;
        let breaker = &mut self.instances[instance].breakers[0];
        let transition = breaker.record_outcome(ticket, verdict, now, random_unit);
        let rest = breaker.peer_probe_delay(now);
        if self.lease.is_some_and(|(holder, _)| holder == instance) {
            self.lease = Some((instance, now + rest));
        }
        self.on_transition(instance, 0, transition);
    }

    fn on_message(&mut self, sender: usize, event: ProviderEvent) {
        let now = self.now;
        for instance in (0..self.instances.len()).filter(|instance| *instance != sender) {
            let chance = self.random_unit();
            let instances = self.scenario.instances as u32;
            let peer = &mut self.instances[instance];
            peer.peer_state.record(NAMES[0], event, now);
            if event == ProviderEvent::Recovered {
                peer.recovery.schedule(NAMES[0], instances, now, chance);
                let wait = peer
                    .recovery
                    .next_due()
                    .map_or(Duration::ZERO, |at| at - now);
                self.schedule(wait, SimulationEvent::RecoveryDue(instance));
                continue;
            }
            peer.recovery.cancel(NAMES[0]);
            let until = now + event.ttl() + PROBE_JITTER.mul_f64(chance);
            let transition = event.apply_to(&mut peer.breakers[0], until, now);
            self.on_transition(instance, 0, transition);
        }
    }
}
