//! What became of turns and attempts, counted for the metrics: by fixed words and configured names alone, nothing that a visitor said.
//!
//! Each service has its own; nothing is global. Of fixed size: buckets are fixed, and every label's values are known at the start.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
};

use super::witness::Witness;
use crate::chat::{Fault, Finish, Outcome, Source, TurnRecord};
use crate::router::departed::REMEMBERED;

/// Seconds to a first token: close together around the limits that operators set, 5 to 15 s.
const FIRST_TOKEN_S: [f64; 14] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0,
];

/// Seconds that an attempt takes; by default it may take 90.
const ATTEMPT_S: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 90.0, 120.0, 300.0,
];

/// Where a restart leads that leads to no provider. No provider can be called so: names have no brackets.
const NOBODY: &str = "(none)";

/// Counts since the start.
pub struct Tally {
    started: IntCounter,
    in_flight: IntGauge,
    turns: IntCounterVec,
    attempts: IntCounterVec,
    restarts: IntCounterVec,
    cache: IntCounterVec,
    first_tokens: HistogramVec,
    totals: HistogramVec,
    /// At hand, so that a first token makes nothing. Changed by a reload alone.
    times: RwLock<HashMap<Arc<str>, Arc<Times>>>,
    /// Those that are not configured any more, the one that went last at the end. Each has about forty lines.
    gone: Mutex<VecDeque<Arc<str>>>,
    /// Sees the same turns for the reports of outage drills.
    witness: Witness,
}

/// Shown text was voided.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// Whose it was.
    pub from: Arc<str>,
    /// Who follows; none where no provider does.
    pub to: Option<Arc<str>>,
    /// Why.
    pub reason: Outcome,
}

/// What a look at the saved answers came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// A fresh one was told.
    Hit,
    /// What another was being told at that moment was told.
    Joined,
    /// There was none.
    Miss,
    /// After a miss, as no provider could answer, an old one was told.
    Stale,
}

impl Recalled {
    const ALL: [Self; 4] = [Self::Hit, Self::Joined, Self::Miss, Self::Stale];

    const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

/// A turn that was begun. Dropped without an end, as by a panic, it counts as interrupted.
pub struct Underway<'t> {
    tally: &'t Tally,
    /// Its number for the witness.
    number: u64,
    counted: bool,
}

impl Underway<'_> {
    /// It ended so, having voided text so often.
    pub fn ended(mut self, record: &TurnRecord, restarts: &[Restart]) {
        let source = record.source.unwrap_or(Source::Ai);
        let finish = record.finish.unwrap_or(Finish::Interrupted);
        for Restart { from, to, reason } in restarts {
            add(
                &self.tally.restarts,
                &[from, to.as_deref().unwrap_or(NOBODY), reason.as_str()],
            );
        }
        self.tally
            .witness
            .ended(self.number, Some(record), restarts.len());
        self.count(source, finish);
    }

    fn count(&mut self, source: Source, finish: Finish) {
        add(&self.tally.turns, &[source.name(), finish.name()]);
        self.tally.in_flight.dec();
        self.counted = true;
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.tally.witness.ended(self.number, None, 0);
            self.count(Source::Ai, Finish::Interrupted);
        }
    }
}

/// One provider's times.
struct Times {
    first_token: Histogram,
    total: Histogram,
}

impl Tally {
    /// Nothing yet, for these providers. What can be known beforehand stands at 0, so that the first of its kind is seen as a change.
    ///
    /// # Errors
    /// None but a mistake in the names below.
    pub fn new<'p>(providers: impl IntoIterator<Item = &'p Arc<str>>) -> prometheus::Result<Self> {
        let started = IntCounter::new(
            "failsoft_turns_started_total",
            "Turns begun since the start.",
        )?;
        let in_flight =
            IntGauge::new("failsoft_turns_in_flight", "Turns that are being answered.")?;
        let cache = counters(
            "failsoft_cache_total",
            "Looks at the saved answers: hit, joined (another's, just being told), miss, stale (old, in an outage).",
            &["result"],
        )?;
        let turns = counters(
            "failsoft_turns_total",
            "Turns ended, by source and end.",
            &["source", "finish"],
        )?;
        let attempts = counters(
            "failsoft_attempts_total",
            "Attempts ended, by provider and outcome.",
            &["provider", "outcome"],
        )?;
        let restarts = counters(
            "failsoft_restarts_total",
            "Shown text that was voided, by whose it was, who follows, and why.",
            &["from", "to", "reason"],
        )?;
        let first_tokens = times(
            "failsoft_first_token_seconds",
            "From an attempt's beginning to its first token, thinking included.",
            &FIRST_TOKEN_S,
        )?;
        let totals = times(
            "failsoft_attempt_seconds",
            "From an attempt's beginning to its end, however.",
            &ATTEMPT_S,
        )?;
        for source in Source::ALL {
            turns.get_metric_with_label_values(&[source.name(), Finish::Stop.name()])?;
        }
        for what in Recalled::ALL {
            cache.get_metric_with_label_values(&[what.name()])?;
        }
        let (times, gone) = (RwLock::default(), Mutex::default());
        let tally = Self {
            started,
            in_flight,
            turns,
            attempts,
            restarts,
            cache,
            first_tokens,
            totals,
            times,
            gone,
            witness: Witness::default(),
        };
        tally.follow(providers);
        Ok(tally)
    }

    /// These are the providers from now on. Of those that are not among them the last few keep what was counted, and count on for what they are
    /// still asked; the lines of the others go, so that labels do not grow with each reload.
    pub fn follow<'p>(&self, providers: impl IntoIterator<Item = &'p Arc<str>>) {
        let mut times = self.times.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: Vec<_> = times
            .keys()
            .filter(|name| !gone.contains(*name))
            .cloned()
            .collect();
        for name in providers {
            left.retain(|one| one != name);
            gone.retain(|one| one != name);
            // The error is a wrong number of labels, which no input can bring about.
            if !times.contains_key(name)
                && let Ok(begun) = self.begin(name)
            {
                times.insert(Arc::clone(name), Arc::new(begun));
            }
        }
        gone.extend(left);
        while gone.len() > REMEMBERED
            && let Some(first) = gone.pop_front()
        {
            times.remove(&first);
            self.forget(&first);
        }
    }

    /// A new provider's lines.
    fn begin(&self, name: &str) -> prometheus::Result<Times> {
        for outcome in outcomes() {
            self.attempts
                .get_metric_with_label_values(&[name, outcome])?;
        }
        let first_token = self.first_tokens.get_metric_with_label_values(&[name])?;
        let total = self.totals.get_metric_with_label_values(&[name])?;
        Ok(Times { first_token, total })
    }

    /// Takes a provider's lines out. That one was not there is no error.
    fn forget(&self, name: &str) {
        for outcome in outcomes() {
            let _ = self.attempts.remove_label_values(&[name, outcome]);
        }
        let _ = self.first_tokens.remove_label_values(&[name]);
        let _ = self.totals.remove_label_values(&[name]);
        for family in self.restarts.collect() {
            for line in family.get_metric() {
                let value = |label: &str| {
                    let found = line.get_label().iter().find(|pair| pair.name() == label);
                    found.map_or("", |pair| pair.value())
                };
                if [value("from"), value("to")].contains(&name) {
                    let labels = [value("from"), value("to"), value("reason")];
                    let _ = self.restarts.remove_label_values(&labels);
                }
            }
        }
    }

    fn times(&self, provider: &str) -> Option<Arc<Times>> {
        self.times
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(provider)
            .cloned()
    }

    /// A turn began.
    pub fn began(&self) -> Underway<'_> {
        self.started.inc();
        self.in_flight.inc();
        Underway {
            tally: self,
            number: self.witness.began(),
            counted: false,
        }
    }

    /// Who sees what visitors get under an outage drill.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// An attempt's first token came. In the way of an answer: allocates nothing, and takes a lock that is held against it by a reload alone.
    pub fn first_token(&self, provider: &str, after: Duration) {
        if let Some(times) = self.times(provider) {
            times.first_token.observe(after.as_secs_f64());
        }
    }

    /// An attempt ended.
    pub fn attempt(&self, provider: &str, outcome: Outcome, took: Duration) {
        let Some(times) = self.times(provider) else {
            return;
        };
        times.total.observe(took.as_secs_f64());
        add(&self.attempts, &[provider, outcome.as_str()]);
    }

    /// How many attempts failed so, over all providers. It may become fewer where the lines of one that is long gone go.
    pub fn failed(&self) -> BTreeMap<&'static str, u64> {
        let times = self.times.read().unwrap_or_else(PoisonError::into_inner);
        let reasons: BTreeSet<_> = Fault::ALL
            .into_iter()
            .map(|fault| Outcome::from(fault).as_str())
            .collect();
        let counter = |name: &Arc<str>, reason| {
            self.attempts
                .get_metric_with_label_values(&[&**name, reason])
                .ok()
        };
        let of = |reason: &'static str| {
            let counts = times
                .keys()
                .filter_map(|name| Some(counter(name, reason)?.get()));
            (reason, counts.sum())
        };
        reasons.into_iter().map(of).collect()
    }

    /// The saved answers were looked through.
    pub fn recalled(&self, what: Recalled) {
        add(&self.cache, &[what.name()]);
    }

    /// All of it, to be shown.
    pub fn collectors(&self) -> [Box<dyn Collector>; 8] {
        [
            Box::new(self.started.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.cache.clone()),
            Box::new(self.turns.clone()),
            Box::new(self.attempts.clone()),
            Box::new(self.restarts.clone()),
            Box::new(self.first_tokens.clone()),
            Box::new(self.totals.clone()),
        ]
    }
}

/// All ends of an attempt.
fn outcomes() -> impl Iterator<Item = &'static str> {
    let all = Fault::ALL
        .into_iter()
        .map(Outcome::from)
        .chain([Outcome::OK, Outcome::STOPPED]);
    all.map(Outcome::as_str)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn times(name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        &["provider"],
    )
}

/// One more. The error is a wrong number of labels, which no input can bring about.
fn add(counters: &IntCounterVec, labels: &[&str]) {
    if let Ok(counter) = counters.get_metric_with_label_values(labels) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests;
