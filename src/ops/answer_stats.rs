//! Reads the answer counters: every five seconds into the hourly history, and every five minutes
//! into a window of the anomaly detector.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::alerts::AlertCondition;
use super::anomaly::{AnomalyDetector, StatsWindow, WINDOW_MINUTES};
use super::hourly_history::{self, FaultCounts, HourStats, HourlyHistory};
use crate::store::{Store, StoreError};
use crate::turn::answer_counts::AnswerCounts;
use crate::turn::service::TurnService;

/// The counters are read at this interval, so the status page is no older.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// The current day is saved at this interval if it changed. A crash loses what came since.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

const WINDOW_LENGTH: Duration = Duration::from_secs(WINDOW_MINUTES * 60);

/// The detector's baseline is saved after this many windows (half an hour).
const WINDOWS_PER_SAVE: u32 = 6;

const BASELINE_DOCUMENT: &str = "early";

const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle to the statistics task, with what it publishes.
#[derive(Clone)]
pub struct AnswerStats {
    pub history: watch::Receiver<Arc<HourlyHistory>>,
    /// The current state of each anomaly metric.
    pub warnings: watch::Receiver<Arc<[AlertCondition]>>,
    shutdown: Arc<Notify>,
    stopped: watch::Receiver<bool>,
}

impl AnswerStats {
    pub fn start(service: Arc<TurnService>) -> Self {
        let (history, history_receiver) = watch::channel(Arc::default());
        let (warnings, warnings_receiver) = watch::channel(Arc::from(Vec::new()));
        let (ended, stopped) = watch::channel(false);
        let stop = Arc::new(Notify::new());
        let stop_signal = Arc::clone(&stop);
        actix::spawn(async move {
            StatsCollector::load(service, history, warnings)
                .await
                .run(&stop_signal)
                .await;
            ended.send_replace(true);
        });
        Self {
            history: history_receiver,
            warnings: warnings_receiver,
            shutdown: stop,
            stopped,
        }
    }

    /// Collects and saves once more, waiting at most `SHUTDOWN_TIMEOUT`.
    pub async fn shutdown(mut self) {
        self.shutdown.notify_one();
        drop(
            tokio::time::timeout(SHUTDOWN_TIMEOUT, self.stopped.wait_for(|stopped| *stopped)).await,
        );
    }
}

struct StatsCollector {
    service: Arc<TurnService>,
    history: watch::Sender<Arc<HourlyHistory>>,
    warnings: watch::Sender<Arc<[AlertCondition]>>,
    detector: AnomalyDetector,
    /// The counters when they were last added to the history.
    last_counts: AnswerCounts,
    counts_at_window_start: AnswerCounts,
    /// Each provider's total cost when it was last read.
    last_costs: HashMap<Arc<str>, f64>,
    /// Failed attempts by reason when they were last read.
    last_failures: BTreeMap<&'static str, u64>,
    window_cost_usd: f64,
    closed_windows: u32,
    /// The number of outage drills started before the window; `None` if one was running.
    drills_at_window_start: Option<u64>,
    has_unsaved_hours: bool,
}

impl StatsCollector {
    async fn load(
        service: Arc<TurnService>,
        history: watch::Sender<Arc<HourlyHistory>>,
        warnings: watch::Sender<Arc<[AlertCondition]>>,
    ) -> Self {
        let loading = async {
            (
                load_hours(&*service.store).await,
                load_baseline(&*service.store).await,
            )
        };
        let (hours, baseline) = tokio::time::timeout(LOAD_TIMEOUT, loading)
            .await
            .unwrap_or_default();
        history.send_replace(Arc::new(HourlyHistory::restore(
            hours,
            service.clock.wall(),
        )));
        Self {
            drills_at_window_start: service.answer_cache.drill_epoch(),
            service,
            history,
            warnings,
            detector: AnomalyDetector::restore(baseline),
            last_counts: AnswerCounts::default(),
            counts_at_window_start: AnswerCounts::default(),
            last_costs: HashMap::new(),
            last_failures: BTreeMap::new(),
            window_cost_usd: 0.0,
            closed_windows: 0,
            has_unsaved_hours: false,
        }
    }

    async fn run(mut self, stop: &Notify) {
        let interval =
            |period| tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        let mut read = interval(READ_INTERVAL);
        let mut save = interval(SAVE_INTERVAL);
        let mut window = interval(WINDOW_LENGTH);
        loop {
            tokio::select! {
                () = stop.notified() => break,
                _ = read.tick() => self.collect(),
                _ = save.tick() => drop(self.save()),
                _ = window.tick() => self.close_window(),
            }
        }
        self.collect();
        if let Some(saving) = self.save() {
            drop(saving.await);
        }
    }

    fn collect(&mut self) {
        let now = self.service.observer.answers();
        let usd = self.new_spend();
        let failed = self.new_failures();
        let since = now.since(&self.last_counts);
        self.last_counts = now;
        self.window_cost_usd += usd;
        if since.total() > 0 || usd > 0.0 || !failed.is_empty() {
            let at = self.service.clock.wall();
            self.history.send_modify(|history| {
                let history = Arc::make_mut(history);
                history.record_answers(at, &since, usd);
                history.record_failures(at, failed);
            });
            self.has_unsaved_hours = true;
        }
    }

    /// Returns the failed attempts since the last call, by reason.
    fn new_failures(&mut self) -> FaultCounts {
        let now = self.service.observer.metrics.failures_by_reason();
        let before = std::mem::replace(&mut self.last_failures, now.clone());
        let new = now.into_iter().map(|(reason, count)| {
            (
                Cow::Borrowed(reason),
                count.saturating_sub(before.get(reason).copied().unwrap_or_default()),
            )
        });
        new.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns what all providers cost in USD since the last call.
    fn new_spend(&mut self) -> f64 {
        let mut total = 0.0;
        let config = self.service.config();
        let current = config
            .providers
            .iter()
            .map(|provider| (&provider.name, &provider.status));
        for (name, provider_status) in current.chain(
            config
                .removed_providers
                .iter()
                .map(|provider| (&provider.name, &provider.status)),
        ) {
            let usd = provider_status.borrow().usage_totals.cost_usd;
            let before = self
                .last_costs
                .insert(Arc::clone(name), usd)
                .unwrap_or_default();
            // A provider that was removed and added again starts at zero.
            total += if usd < before { usd } else { usd - before };
        }
        total
    }

    /// Starts saving the current day's hours if they changed. Dropping the future does not cancel
    /// the save.
    fn save(&mut self) -> Option<futures_util::future::BoxFuture<'_, Result<(), StoreError>>> {
        if !std::mem::take(&mut self.has_unsaved_hours) {
            return None;
        }
        let (name, hours) = self.history.borrow().current_day()?;
        Some(
            self.service
                .store
                .write_note(name, serde_json::to_string(&hours).unwrap_or_default()),
        )
    }

    fn close_window(&mut self) {
        self.collect();
        let served = self.last_counts.since(&self.counts_at_window_start);
        self.counts_at_window_start = self.last_counts;
        let usd = std::mem::take(&mut self.window_cost_usd);
        let drills = self.service.answer_cache.drill_epoch();
        let before = std::mem::replace(&mut self.drills_at_window_start, drills);
        // Windows with a drill in them are discarded: they are neither baseline nor anomaly.
        if drills.is_none() || drills != before {
            return;
        }
        let conditions = self.detector.close_window(&served, usd);
        self.warnings.send_replace(Arc::new(conditions));
        self.closed_windows += 1;
        if self.closed_windows.is_multiple_of(WINDOWS_PER_SAVE) {
            let past: Vec<_> = self.detector.past().collect();
            let past = serde_json::to_string(&past).unwrap_or_default();
            // The write is queued when the call returns.
            drop(
                self.service
                    .store
                    .write_note(BASELINE_DOCUMENT.to_owned(), past),
            );
        }
    }
}

/// Loads the hours saved by earlier processes. Documents that cannot be decoded are skipped.
async fn load_hours(store: &dyn Store) -> Vec<HourStats> {
    let mut loaded = Vec::new();
    for number in 0..hourly_history::DOCUMENT_COUNT {
        let document = match store.note(hourly_history::document_name(number)).await {
            Err(StoreError::Damaged(_)) => continue,
            Err(_) => break,
            Ok(document) => document,
        };
        let hours: Option<Vec<HourStats>> =
            document.and_then(|text| serde_json::from_str(&text).ok());
        loaded.extend(hours.unwrap_or_default());
    }
    loaded
}

async fn load_baseline(store: &dyn Store) -> Vec<StatsWindow> {
    let document = store
        .note(BASELINE_DOCUMENT.to_owned())
        .await
        .ok()
        .flatten();
    document
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::paused_system::{Paused, advance};
    use crate::provider::scripted_client::reply;
    use crate::store::DocumentStore as _;
    use crate::turn::test_service::TestServiceBuilder;

    #[actix_rt::test(system = "Paused")]
    async fn windows_with_a_drill_are_discarded() {
        let stage = TestServiceBuilder::with_scripts([vec![reply("Hello.")]]).start();
        let service = &stage.turns;
        let _stats = AnswerStats::start(Arc::clone(service));
        let saved_windows = async || load_baseline(&*service.store).await.len();
        advance(WINDOW_LENGTH / 2).await;
        // One drill within a window, then one that covers two windows and ends in a third.
        service.answer_cache.pause();
        service.answer_cache.resume();
        advance(WINDOW_LENGTH).await;
        service.answer_cache.pause();
        advance(WINDOW_LENGTH * 2).await;
        service.answer_cache.resume();
        advance(WINDOW_LENGTH * 6).await;
        assert_eq!(
            saved_windows().await,
            0,
            "four windows were discarded, five were kept"
        );
        advance(WINDOW_LENGTH).await;
        assert_eq!(saved_windows().await, 6);
    }

    #[tokio::test]
    async fn a_damaged_day_does_not_affect_other_days() {
        let store = crate::store::flaky::FlakyStore::default();
        let hour = |hour| HourStats {
            hour,
            ..HourStats::default()
        };
        for number in [3, 4, 5] {
            let text = serde_json::to_string(&[hour(number * 24)]).unwrap();
            store
                .write_note(hourly_history::document_name(number), text)
                .await
                .unwrap();
        }
        store.damage_note(&hourly_history::document_name(4));
        assert_eq!(load_hours(&store).await, [hour(3 * 24), hour(5 * 24)]);
    }
}
