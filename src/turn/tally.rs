//! Prometheus metrics of turns and attempts. Labels are fixed words and configured names only,
//! never anything that a visitor wrote.
//!
//! Each service has its own instance; nothing is global. Its size is bounded: all label values are
//! known at the start or come from the configuration.

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

/// Dense around the limits that operators usually set, 5 to 15 s.
const FIRST_TOKEN_S: [f64; 14] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0,
];

/// An attempt may take 90 s by default.
const ATTEMPT_S: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 90.0, 120.0, 300.0,
];

/// The `to` label of a restart without a next provider. No provider's name contains brackets.
const NOBODY: &str = "(none)";

pub struct Tally {
    started: IntCounter,
    in_flight: IntGauge,
    turns: IntCounterVec,
    attempts: IntCounterVec,
    restarts: IntCounterVec,
    cache: IntCounterVec,
    first_tokens: HistogramVec,
    totals: HistogramVec,
    /// Looked up here so that a first token allocates nothing. Changed by a reload only.
    provider_histograms: RwLock<HashMap<Arc<str>, Arc<Times>>>,
    /// Providers that are no longer configured, the last removed at the end. Each has about forty
    /// time series.
    gone: Mutex<VecDeque<Arc<str>>>,
    drill_observer: Witness,
}

/// Shown text was retracted in favour of another attempt or a fallback.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// The provider of the retracted text.
    pub from: Arc<str>,
    /// The provider that replaces it. `None` if none does.
    pub to: Option<Arc<str>>,
    pub reason: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    Hit,
    /// The answer of another turn, asking at the same time, was served.
    Joined,
    Miss,
    /// No provider could answer, so an expired answer was served. A miss was counted before.
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

/// A turn in progress. If dropped without `finish`, as by a panic, it counts as interrupted.
pub struct Underway<'t> {
    tally: &'t Tally,
    number: u64,
    counted: bool,
}

impl Underway<'_> {
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
            .drill_observer
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
            self.tally.drill_observer.ended(self.number, None, 0);
            self.count(Source::Ai, Finish::Interrupted);
        }
    }
}

struct Times {
    first_token: Histogram,
    total: Histogram,
}

impl Tally {
    /// Creates the metrics for these providers. All label values known by now start at 0, so that a
    /// first increment is visible as a change.
    ///
    /// # Errors
    /// Only if a metric's name or label below is invalid.
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
        for outcome in Recalled::ALL {
            cache.get_metric_with_label_values(&[outcome.name()])?;
        }
        let metrics = Self {
            started,
            in_flight,
            turns,
            attempts,
            restarts,
            cache,
            first_tokens,
            totals,
            provider_histograms: RwLock::default(),
            gone: Mutex::default(),
            drill_observer: Witness::default(),
        };
        metrics.follow(providers);
        Ok(metrics)
    }

    /// Sets the configured providers.
    ///
    /// Of removed providers, the last few keep their series, which their running calls still count
    /// in. Older ones are deleted, so that labels do not grow with each reload.
    pub fn follow<'p>(&self, providers: impl IntoIterator<Item = &'p Arc<str>>) {
        let mut histograms = self
            .provider_histograms
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed: Vec<_> = histograms
            .keys()
            .filter(|name| !gone.contains(*name))
            .cloned()
            .collect();
        for name in providers {
            removed.retain(|other| other != name);
            gone.retain(|other| other != name);
            // An error means a wrong number of labels, which no input can cause.
            if !histograms.contains_key(name)
                && let Ok(created) = self.begin(name)
            {
                histograms.insert(Arc::clone(name), Arc::new(created));
            }
        }
        gone.extend(removed);
        while gone.len() > REMEMBERED
            && let Some(oldest) = gone.pop_front()
        {
            histograms.remove(&oldest);
            self.forget(&oldest);
        }
    }

    fn begin(&self, name: &str) -> prometheus::Result<Times> {
        for outcome in outcomes() {
            self.attempts
                .get_metric_with_label_values(&[name, outcome])?;
        }
        let first_token = self.first_tokens.get_metric_with_label_values(&[name])?;
        let total = self.totals.get_metric_with_label_values(&[name])?;
        Ok(Times { first_token, total })
    }

    /// Deletes the series of a provider. Series that do not exist are no error.
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

    fn histograms_of(&self, provider: &str) -> Option<Arc<Times>> {
        self.provider_histograms
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(provider)
            .cloned()
    }

    pub fn began(&self) -> Underway<'_> {
        self.started.inc();
        self.in_flight.inc();
        Underway {
            tally: self,
            number: self.drill_observer.began(),
            counted: false,
        }
    }

    pub fn witness(&self) -> &Witness {
        &self.drill_observer
    }

    /// Records an attempt's first token. On the hot path: allocates nothing, and takes a lock that
    /// only a reload holds for writing.
    pub fn first_token(&self, provider: &str, after: Duration) {
        if let Some(histograms) = self.histograms_of(provider) {
            histograms.first_token.observe(after.as_secs_f64());
        }
    }

    pub fn attempt(&self, provider: &str, outcome: Outcome, took: Duration) {
        let Some(histograms) = self.histograms_of(provider) else {
            return;
        };
        histograms.total.observe(took.as_secs_f64());
        add(&self.attempts, &[provider, outcome.as_str()]);
    }

    /// The number of failed attempts by reason, over all providers. It may decrease when the series
    /// of a removed provider are deleted.
    pub fn failed(&self) -> BTreeMap<&'static str, u64> {
        let histograms = self
            .provider_histograms
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let reasons: BTreeSet<_> = Fault::ALL
            .into_iter()
            .map(|fault| Outcome::from(fault).as_str())
            .collect();
        let counter = |name: &Arc<str>, reason| {
            self.attempts
                .get_metric_with_label_values(&[&**name, reason])
                .ok()
        };
        let sum_of = |reason: &'static str| {
            let counts = histograms
                .keys()
                .filter_map(|name| Some(counter(name, reason)?.get()));
            (reason, counts.sum())
        };
        reasons.into_iter().map(sum_of).collect()
    }

    pub fn recalled(&self, outcome: Recalled) {
        add(&self.cache, &[outcome.name()]);
    }

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

/// All values of the `outcome` label.
fn outcomes() -> impl Iterator<Item = &'static str> {
    let outcomes = Fault::ALL
        .into_iter()
        .map(Outcome::from)
        .chain([Outcome::OK, Outcome::STOPPED]);
    outcomes.map(Outcome::as_str)
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

/// Increments a counter. An error means a wrong number of labels, which no input can cause.
fn add(counters: &IntCounterVec, labels: &[&str]) {
    if let Ok(counter) = counters.get_metric_with_label_values(labels) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests;
