//! Prometheus metrics of turns and attempts. Labels are fixed words and configured names only,
//! never anything that a visitor wrote.
//!
//! Each service has its own instance; nothing is global. Its size is bounded: all label values are
//! known at the start or come from the configuration.

use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
};

use crate::domain::{AnswerSource, AttemptOutcome, FaultKind, FinishReason};
use crate::router::runtime_config::MAX_REMOVED_PROVIDERS;

/// Dense around the limits that operators usually set, 5 to 15 s.
const FIRST_TOKEN_BUCKETS_S: [f64; 14] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0,
];

/// An attempt may take 90 s by default.
const ATTEMPT_BUCKETS_S: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 90.0, 120.0, 300.0,
];

/// The `to` label of a restart without a next provider. No provider's name contains brackets.
const NO_PROVIDER_LABEL: &str = "(none)";

pub struct TurnMetrics {
    turns_started: IntCounter,
    turns_in_flight: IntGauge,
    turns_ended: IntCounterVec,
    attempts: IntCounterVec,
    restarts: IntCounterVec,
    cache_lookups: IntCounterVec,
    first_token_seconds: HistogramVec,
    attempt_seconds: HistogramVec,
    /// Looked up here so that a first token allocates nothing. Changed by a reload only.
    provider_histograms: RwLock<HashMap<Arc<str>, ProviderHistograms>>,
    /// Providers that are no longer configured, the last removed at the end. Each has about forty
    /// time series.
    removed_providers: Mutex<VecDeque<Arc<str>>>,
}

/// Shown text was retracted in favour of another attempt or a fallback.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartEvent {
    /// The provider of the retracted text.
    pub from: Arc<str>,
    /// The provider that replaces it. `None` if none does.
    pub to: Option<Arc<str>>,
    pub reason: AttemptOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    Hit,
    /// The answer of another turn, asking at the same time, was served.
    Joined,
    Miss,
    /// No provider could answer, so an expired answer was served. A miss was counted before.
    Stale,
}

impl CacheOutcome {
    const ALL: [Self; 4] = [Self::Hit, Self::Joined, Self::Miss, Self::Stale];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

#[derive(Clone)]
struct ProviderHistograms {
    first_token: Histogram,
    attempt: Histogram,
}

impl TurnMetrics {
    /// Creates the metrics for these providers. All label values known by now start at 0, so that a
    /// first increment is visible as a change.
    ///
    /// # Errors
    /// Only if a metric's name or label below is invalid.
    pub fn new<'p>(providers: impl IntoIterator<Item = &'p Arc<str>>) -> prometheus::Result<Self> {
        let metrics = Self {
            turns_started: IntCounter::new(
                "failsoft_turns_started_total",
                "Turns begun since the start.",
            )?,
            turns_in_flight: IntGauge::new(
                "failsoft_turns_in_flight",
                "Turns that are being answered.",
            )?,
            cache_lookups: counter_vec(
                "failsoft_cache_total",
                "Looks at the saved answers: hit, joined (another's, just being told), miss, stale (old, in an outage).",
                &["result"],
            )?,
            turns_ended: counter_vec(
                "failsoft_turns_total",
                "Turns ended, by source and end.",
                &["source", "finish"],
            )?,
            attempts: counter_vec(
                "failsoft_attempts_total",
                "Attempts ended, by provider and outcome.",
                &["provider", "outcome"],
            )?,
            restarts: counter_vec(
                "failsoft_restarts_total",
                "Shown text that was voided, by whose it was, who follows, and why.",
                &["from", "to", "reason"],
            )?,
            first_token_seconds: histogram_vec(
                "failsoft_first_token_seconds",
                "From an attempt's beginning to its first token, thinking included.",
                &FIRST_TOKEN_BUCKETS_S,
            )?,
            attempt_seconds: histogram_vec(
                "failsoft_attempt_seconds",
                "From an attempt's beginning to its end, however.",
                &ATTEMPT_BUCKETS_S,
            )?,
            provider_histograms: RwLock::default(),
            removed_providers: Mutex::default(),
        };
        let stop = FinishReason::Stop.as_str();
        for source in AnswerSource::ALL {
            let labels = [source.as_str(), stop];
            metrics.turns_ended.get_metric_with_label_values(&labels)?;
        }
        for outcome in CacheOutcome::ALL {
            let labels = [outcome.as_str()];
            metrics
                .cache_lookups
                .get_metric_with_label_values(&labels)?;
        }
        metrics.set_providers(providers);
        Ok(metrics)
    }

    /// Sets the configured providers.
    ///
    /// Of removed providers, the last few keep their series, which their running calls still count
    /// in. Older ones are deleted, so that labels do not grow with each reload.
    pub fn set_providers<'p>(&self, providers: impl IntoIterator<Item = &'p Arc<str>>) {
        let mut histograms = self.provider_histograms.write();
        let mut gone = self.removed_providers.lock();
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
                && let Ok(created) = self.register_provider(name)
            {
                histograms.insert(Arc::clone(name), created);
            }
        }
        gone.extend(removed);
        while gone.len() > MAX_REMOVED_PROVIDERS
            && let Some(oldest) = gone.pop_front()
        {
            histograms.remove(&oldest);
            self.remove_provider(&oldest);
        }
    }

    fn register_provider(&self, name: &str) -> prometheus::Result<ProviderHistograms> {
        for outcome in outcomes() {
            let labels = [name, outcome];
            self.attempts.get_metric_with_label_values(&labels)?;
        }
        let first_tokens = &self.first_token_seconds;
        Ok(ProviderHistograms {
            first_token: first_tokens.get_metric_with_label_values(&[name])?,
            attempt: self.attempt_seconds.get_metric_with_label_values(&[name])?,
        })
    }

    /// Deletes the series of a provider. Series that do not exist are no error.
    fn remove_provider(&self, name: &str) {
        for outcome in outcomes() {
            let _ = self.attempts.remove_label_values(&[name, outcome]);
        }
        let _ = self.first_token_seconds.remove_label_values(&[name]);
        let _ = self.attempt_seconds.remove_label_values(&[name]);
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

    fn histograms_of(&self, provider: &str) -> Option<ProviderHistograms> {
        self.provider_histograms.read().get(provider).cloned()
    }

    pub(super) fn turn_started(&self) {
        self.turns_started.inc();
        self.turns_in_flight.inc();
    }

    pub(super) fn turn_finished(
        &self,
        source: AnswerSource,
        finish: FinishReason,
        restarts: &[RestartEvent],
    ) {
        for RestartEvent { from, to, reason } in restarts {
            let to = to.as_deref().unwrap_or(NO_PROVIDER_LABEL);
            increment(&self.restarts, &[from, to, reason.as_str()]);
        }
        increment(&self.turns_ended, &[source.as_str(), finish.as_str()]);
        self.turns_in_flight.dec();
    }

    /// Records an attempt's first token. On the hot path: allocates nothing, and takes a lock that
    /// only a reload holds for writing.
    pub fn record_first_token(&self, provider: &str, after: Duration) {
        if let Some(histograms) = self.histograms_of(provider) {
            histograms.first_token.observe(after.as_secs_f64());
        }
    }

    pub fn record_attempt(&self, provider: &str, outcome: AttemptOutcome, took: Duration) {
        let Some(histograms) = self.histograms_of(provider) else {
            return;
        };
        histograms.attempt.observe(took.as_secs_f64());
        increment(&self.attempts, &[provider, outcome.as_str()]);
    }

    /// The number of failed attempts by reason, over all providers. It may decrease when the series
    /// of a removed provider are deleted.
    pub fn failures_by_reason(&self) -> BTreeMap<&'static str, u64> {
        let histograms = self.provider_histograms.read();
        let reasons: BTreeSet<_> = FaultKind::ALL
            .into_iter()
            .map(|fault| AttemptOutcome::from(fault).as_str())
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

    pub fn record_cache_lookup(&self, outcome: CacheOutcome) {
        increment(&self.cache_lookups, &[outcome.as_str()]);
    }

    pub fn collectors(&self) -> [Box<dyn Collector>; 8] {
        [
            Box::new(self.turns_started.clone()),
            Box::new(self.turns_in_flight.clone()),
            Box::new(self.cache_lookups.clone()),
            Box::new(self.turns_ended.clone()),
            Box::new(self.attempts.clone()),
            Box::new(self.restarts.clone()),
            Box::new(self.first_token_seconds.clone()),
            Box::new(self.attempt_seconds.clone()),
        ]
    }
}

/// All values of the `outcome` label.
fn outcomes() -> impl Iterator<Item = &'static str> {
    let outcomes = FaultKind::ALL
        .into_iter()
        .map(AttemptOutcome::from)
        .chain([AttemptOutcome::OK, AttemptOutcome::STOPPED]);
    outcomes.map(AttemptOutcome::as_str)
}

fn counter_vec(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn histogram_vec(name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        &["provider"],
    )
}

/// Increments a counter. An error means a wrong number of labels, which no input can cause.
fn increment(counters: &IntCounterVec, labels: &[&str]) {
    if let Ok(counter) = counters.get_metric_with_label_values(labels) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests;
