//! The simulated world: visitors, providers, the network, the lease, and the event queue.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scene;
use super::figures::Figures;
use super::instance::{Instance, NAMES, Turn};
use crate::chat::Failure;
use crate::provider::breaker::{Ticket, Transition, Verdict, Who};
use crate::provider::news::News;
use crate::router::backoff::Backoff;
use crate::router::plan::Failed;

const TRAVELS: Duration = Duration::from_millis(2);
/// The time until the end of a good answer, and until its first token.
const ANSWERS: Duration = Duration::from_millis(2_000);
const FIRST_TOKEN: Duration = Duration::from_millis(300);
/// The timeout of a probe, and the margin of its lease.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(1);
/// The spread of probes after a message: a fifth of the open time.
const SPREAD: Duration = Duration::from_secs(2);

enum Event {
    Arrives(usize),
    GoesOn(usize, Turn),
    /// The first token of a call, and the end of a call.
    FirstToken(usize, usize, Ticket),
    Ends(usize, usize, Ticket, Verdict, Turn),
    Alarm(usize),
    ProbeEnds(usize, Ticket, Verdict),
    /// A message arrives at all instances but its sender.
    News(usize, News),
    /// A breaker closes after a peer's successful probe.
    Relief(usize),
}

pub struct World {
    scene: Scene,
    now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    count: u64,
    rng_state: u64,
    instances: Vec<Instance>,
    lease: Option<(usize, Duration)>,
    probing: u64,
    cut_off_only: Option<usize>,
    figures: Figures,
}

impl World {
    pub fn new(scene: Scene) -> Self {
        let seconds = (scene.end - scene.well).as_secs() as usize;
        let usual = scene.instances as f64 / scene.between.as_secs_f64();
        let figures = Figures {
            calls_a_second: vec![0; seconds],
            usual: usual as u64,
            ..Figures::default()
        };
        Self {
            scene,
            now: Duration::ZERO,
            events: BTreeMap::new(),
            count: 0,
            rng_state: 0x5EED,
            instances: (0..scene.instances).map(|_| Instance::new()).collect(),
            lease: None,
            probing: 0,
            cut_off_only: None,
            figures,
        }
    }

    /// The provider works, but this instance alone cannot reach it.
    pub fn cut_off_only(&mut self, instance: usize) {
        self.cut_off_only = Some(instance);
    }

    pub fn play(mut self) -> Figures {
        for instance in 0..self.scene.instances {
            self.visitor_of(instance);
        }
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            match event {
                Event::Arrives(instance) => self.arrives(instance),
                Event::GoesOn(instance, turn) => self.ask(instance, turn),
                Event::FirstToken(instance, provider, ticket) => {
                    let random_unit = self.chance();
                    let breaker = &mut self.instances[instance].breakers[provider];
                    let transition = breaker.first_token(ticket, FIRST_TOKEN, at, random_unit);
                    self.after(instance, provider, transition);
                }
                Event::Ends(instance, provider, ticket, verdict, turn) => {
                    self.ends(instance, provider, ticket, verdict, turn);
                }
                Event::Alarm(instance) => self.alarm(instance),
                Event::ProbeEnds(instance, ticket, verdict) => {
                    self.probe_ends(instance, ticket, verdict)
                }
                Event::News(sender, event) => self.news(sender, event),
                Event::Relief(instance) => {
                    if !self.instances[instance].reliefs.take_due(at).is_empty() {
                        let transition = self.instances[instance].breakers[0].relieve(at);
                        self.after(instance, 0, transition);
                    }
                }
            }
        }
        self.figures
    }

    fn at(&mut self, wait: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + wait, self.count), event);
    }

    /// Deterministic random numbers (splitmix64).
    fn chance(&mut self) -> f64 {
        self.rng_state = self.rng_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.rng_state ^ (self.rng_state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Intervals are uniformly distributed between zero and twice the mean.
    fn visitor_of(&mut self, instance: usize) {
        let wait = self.scene.between.mul_f64(2.0 * self.chance());
        if self.now + wait < self.scene.end {
            self.at(wait, Event::Arrives(instance));
        }
    }

    fn is_down(&self, instance: usize, provider: usize) -> bool {
        let down = (self.scene.down..self.scene.well).contains(&self.now);
        provider == 0 && down && self.cut_off_only.is_none_or(|only| only == instance)
    }

    fn arrives(&mut self, instance: usize) {
        self.visitor_of(instance);
        self.figures.turns += 1;
        self.instances[instance].budget.deposit(self.now);
        self.ask(
            instance,
            Turn {
                failed: Vec::new(),
                again: None,
            },
        );
    }

    fn ask(&mut self, instance: usize, mut turn: Turn) {
        let now = self.now;
        let retried = turn.again.take();
        let (others, may_retry) = self.instances[instance].order(&turn, now);
        if may_retry && retried.is_none() {
            turn.again = Some(0);
            let wait = Backoff::default().wait(0, self.chance());
            return self.at(wait, Event::GoesOn(instance, turn));
        }
        let chosen = retried.into_iter().chain(others).find_map(|provider| {
            let ticket = self.instances[instance].breakers[provider]
                .admit(now, Who::Visitor)
                .ok()?;
            Some((provider, ticket))
        });
        let Some((provider, ticket)) = chosen else {
            self.figures.lost += 1;
            return;
        };
        self.called(provider);
        if self.is_down(instance, provider) {
            let fault = self.scene.fault;
            let wait = self.scene.fails_after;
            let verdict = Verdict::Failed {
                fault,
                started: false,
                retry_after: None,
            };
            self.at(wait, Event::Ends(instance, provider, ticket, verdict, turn));
        } else {
            self.at(FIRST_TOKEN, Event::FirstToken(instance, provider, ticket));
            self.at(
                ANSWERS,
                Event::Ends(instance, provider, ticket, Verdict::Whole, turn),
            );
        }
    }

    fn called(&mut self, provider: usize) {
        let Scene { down, well, .. } = self.scene;
        if provider != 0 || self.now < down {
            return;
        }
        if self.now < well {
            self.figures.calls += 1;
            self.figures.calls_at_first += u64::from(self.now < down + Duration::from_secs(10));
        } else if let Some(second) = self
            .figures
            .calls_a_second
            .get_mut((self.now - well).as_secs() as usize)
        {
            *second += 1;
        }
    }

    fn ends(
        &mut self,
        instance: usize,
        provider: usize,
        ticket: Ticket,
        verdict: Verdict,
        mut turn: Turn,
    ) {
        let random_unit = self.chance();
        let transition = self.instances[instance].breakers[provider].settle(
            ticket,
            verdict,
            self.now,
            random_unit,
        );
        self.after(instance, provider, transition);
        if let Verdict::Failed { fault, started, .. } = verdict {
            self.figures.delayed += u64::from(turn.failed.is_empty());
            let took = self.scene.fails_after;
            turn.failed.push(Failed {
                provider: NAMES[provider].into(),
                failure: Failure::of(fault),
                started,
                took,
            });
            self.ask(instance, turn);
        }
    }

    /// Does what the actor does after each change: publishes events and schedules probes.
    fn after(&mut self, instance: usize, provider: usize, transition: Option<Transition>) {
        if provider != 0 {
            return;
        }
        let now = self.now;
        if let Some(change) = &transition {
            let own = News::of(change, 0, now);
            if let (Some(News::Tripped { .. }), crate::chat::ProviderState::Closed) =
                (own, change.from)
            {
                self.figures.opened += 1;
            }
            if change.to == crate::chat::ProviderState::Closed && now >= self.scene.well {
                let after = now - self.scene.well;
                self.figures.closed_first.get_or_insert(after);
                self.figures.closed_last = Some(after);
            }
            if let Some(news) = own.filter(|_| self.scene.together) {
                let known = &mut self.instances[instance].known;
                if !known.covers(NAMES[0], news, now) {
                    known.note(NAMES[0], news, now);
                    self.figures.news += 1;
                    self.at(TRAVELS, Event::News(instance, news));
                }
            }
        }
        let due = self.instances[instance].breakers[0].due(now);
        if due != self.instances[instance].alarm {
            self.instances[instance].alarm = due;
            if let Some(due) = due {
                self.at(due - now, Event::Alarm(instance));
            }
        }
    }

    fn alarm(&mut self, instance: usize) {
        let now = self.now;
        if self.instances[instance].alarm != Some(now) {
            return;
        }
        self.instances[instance].alarm = None;
        let Ok(ticket) = self.instances[instance].breakers[0].admit(now, Who::Probe) else {
            return self.after(instance, 0, None);
        };
        if self.scene.together {
            if let Some((_, until)) = self.lease.filter(|(_, until)| *until > now) {
                let spread = SPREAD.mul_f64(self.chance());
                self.instances[instance].breakers[0].postpone(ticket, until + spread, now);
                return self.after(instance, 0, None);
            }
            self.lease = Some((instance, now + PROBE_LIMIT + MARGIN));
        }
        self.probing += 1;
        self.figures.probes += 1;
        self.figures.most_probes_at_once = self.figures.most_probes_at_once.max(self.probing);
        let (wait, verdict) = if self.is_down(instance, 0) {
            let fault = self.scene.fault;
            (
                self.scene.fails_after,
                Verdict::Failed {
                    fault,
                    started: false,
                    retry_after: None,
                },
            )
        } else {
            (FIRST_TOKEN, Verdict::Whole)
        };
        self.at(wait, Event::ProbeEnds(instance, ticket, verdict));
    }

    fn probe_ends(&mut self, instance: usize, ticket: Ticket, verdict: Verdict) {
        let now = self.now;
        let random_unit = self.chance();
        self.probing -= 1;
        let breaker = &mut self.instances[instance].breakers[0];
        let transition = breaker.settle(ticket, verdict, now, random_unit);
        let rest = breaker.rest_of_others(now);
        if self.lease.is_some_and(|(holder, _)| holder == instance) {
            self.lease = Some((instance, now + rest));
        }
        self.after(instance, 0, transition);
    }

    fn news(&mut self, sender: usize, event: News) {
        let now = self.now;
        for instance in (0..self.instances.len()).filter(|instance| *instance != sender) {
            let chance = self.chance();
            let instances = self.scene.instances as u32;
            let peer = &mut self.instances[instance];
            peer.known.note(NAMES[0], event, now);
            if event == News::Well {
                peer.reliefs.well(NAMES[0], instances, now, chance);
                let wait = peer.reliefs.next().map_or(Duration::ZERO, |at| at - now);
                self.at(wait, Event::Relief(instance));
                continue;
            }
            peer.reliefs.cancel(NAMES[0]);
            let until = now + event.lasts() + SPREAD.mul_f64(chance);
            let transition = event.apply(&mut peer.breakers[0], until, now);
            self.after(instance, 0, transition);
        }
    }
}
