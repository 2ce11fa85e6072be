//! Reads the answer counters: every five seconds into the hourly history, and every five minutes
//! into a window of the anomaly detector.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::alerts::Finding;
use super::early::{Early, WINDOW_MINUTES, Window};
use super::history::{self, History, Hour, Reasons};
use crate::store::{Store, StoreError};
use crate::turn::counts::Served;
use crate::turn::desk::Desk;

/// The counters are read at this interval, so the status page is no older.
const READ: Duration = Duration::from_secs(5);

/// The current day is saved at this interval if it changed. A crash loses what came since.
const NOTE: Duration = Duration::from_secs(30);

const WINDOW: Duration = Duration::from_secs(WINDOW_MINUTES * 60);

/// The detector's baseline is saved after this many windows (half an hour).
const NOTED_WINDOWS: u32 = 6;

const USUAL: &str = "early";

const RECALL_LIMIT: Duration = Duration::from_secs(5);

const LAST_NOTES: Duration = Duration::from_secs(1);

/// Handle to the statistics task, with what it publishes.
#[derive(Clone)]
pub struct Answered {
    pub history: watch::Receiver<Arc<History>>,
    /// The current state of each anomaly metric.
    pub warnings: watch::Receiver<Arc<[Finding]>>,
    stop: Arc<Notify>,
    stopped: watch::Receiver<bool>,
}

impl Answered {
    pub fn start(service: Arc<Desk>) -> Self {
        let (history, history_receiver) = watch::channel(Arc::default());
        let (warnings, warnings_receiver) = watch::channel(Arc::from(Vec::new()));
        let (ended, stopped) = watch::channel(false);
        let stop = Arc::new(Notify::new());
        let stop_signal = Arc::clone(&stop);
        actix::spawn(async move {
            Counting::begin(service, history, warnings)
                .await
                .run(&stop_signal)
                .await;
            ended.send_replace(true);
        });
        Self {
            history: history_receiver,
            warnings: warnings_receiver,
            stop,
            stopped,
        }
    }

    /// Collects and saves once more, waiting at most `SHUTDOWN_TIMEOUT`.
    pub async fn stop(mut self) {
        self.stop.notify_one();
        drop(tokio::time::timeout(LAST_NOTES, self.stopped.wait_for(|stopped| *stopped)).await);
    }
}

struct Counting {
    desk: Arc<Desk>,
    history: watch::Sender<Arc<History>>,
    warnings: watch::Sender<Arc<[Finding]>>,
    early: Early,
    /// The counters when they were last added to the history.
    counted: Served,
    window: Served,
    /// Each provider's total cost when it was last read.
    costs: HashMap<Arc<str>, f64>,
    /// Failed attempts by reason when they were last read.
    failures: BTreeMap<&'static str, u64>,
    window_usd: f64,
    windows: u32,
    /// The number of outage drills started before the window; `None` if one was running.
    drills: Option<u64>,
    changed: bool,
}

impl Counting {
    async fn begin(
        service: Arc<Desk>,
        history: watch::Sender<Arc<History>>,
        warnings: watch::Sender<Arc<[Finding]>>,
    ) -> Self {
        let loading = async { (hours(&*service.store).await, usual(&*service.store).await) };
        let (hours, baseline) = tokio::time::timeout(RECALL_LIMIT, loading)
            .await
            .unwrap_or_default();
        history.send_replace(Arc::new(History::recalled(hours, service.clock.wall())));
        Self {
            drills: service.shelf.drills(),
            desk: service,
            history,
            warnings,
            early: Early::recalled(baseline),
            counted: Served::default(),
            window: Served::default(),
            costs: HashMap::new(),
            failures: BTreeMap::new(),
            window_usd: 0.0,
            windows: 0,
            changed: false,
        }
    }

    async fn run(mut self, stop: &Notify) {
        let interval =
            |period| tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        let mut read = interval(READ);
        let mut save = interval(NOTE);
        let mut window = interval(WINDOW);
        loop {
            tokio::select! {
                () = stop.notified() => break,
                _ = read.tick() => self.read(),
                _ = save.tick() => drop(self.note()),
                _ = window.tick() => self.close(),
            }
        }
        self.read();
        if let Some(saving) = self.note() {
            drop(saving.await);
        }
    }

    fn read(&mut self) {
        let now = self.desk.counts.read();
        let usd = self.spent();
        let failed = self.failed();
        let since = now.since(&self.counted);
        self.counted = now;
        self.window_usd += usd;
        if since.total() > 0 || usd > 0.0 || !failed.is_empty() {
            let at = self.desk.clock.wall();
            self.history.send_modify(|history| {
                let history = Arc::make_mut(history);
                history.add(at, &since, usd);
                history.add_failed(at, failed);
            });
            self.changed = true;
        }
    }

    /// Returns the failed attempts since the last call, by reason.
    fn failed(&mut self) -> Reasons {
        let now = self.desk.tally.failed();
        let before = std::mem::replace(&mut self.failures, now.clone());
        let new = now.into_iter().map(|(reason, count)| {
            (
                Cow::Borrowed(reason),
                count.saturating_sub(before.get(reason).copied().unwrap_or_default()),
            )
        });
        new.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns what all providers cost in USD since the last call.
    fn spent(&mut self) -> f64 {
        let mut total = 0.0;
        let config = self.desk.table();
        let current = config
            .backends
            .iter()
            .map(|provider| (&provider.name, &provider.vitals));
        for (name, vitals) in current.chain(
            config
                .departed
                .iter()
                .map(|provider| (&provider.name, &provider.vitals)),
        ) {
            let usd = vitals.borrow().used.cost_usd;
            let before = self.costs.insert(Arc::clone(name), usd).unwrap_or_default();
            // A provider that was removed and added again starts at zero.
            total += if usd < before { usd } else { usd - before };
        }
        total
    }

    /// Starts saving the current day's hours if they changed. Dropping the future does not cancel
    /// the save.
    fn note(&mut self) -> Option<futures_util::future::BoxFuture<'_, Result<(), StoreError>>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let (name, hours) = self.history.borrow().newest_day()?;
        Some(
            self.desk
                .store
                .write_note(name, serde_json::to_string(&hours).unwrap_or_default()),
        )
    }

    fn close(&mut self) {
        self.read();
        let served = self.counted.since(&self.window);
        self.window = self.counted;
        let usd = std::mem::take(&mut self.window_usd);
        let drills = self.desk.shelf.drills();
        let before = std::mem::replace(&mut self.drills, drills);
        // Windows with a drill in them are discarded: they are neither baseline nor anomaly.
        if drills.is_none() || drills != before {
            return;
        }
        let conditions = self.early.close(&served, usd);
        self.warnings.send_replace(Arc::new(conditions));
        self.windows += 1;
        if self.windows.is_multiple_of(NOTED_WINDOWS) {
            let past: Vec<_> = self.early.past().collect();
            let past = serde_json::to_string(&past).unwrap_or_default();
            // The write is queued when the call returns.
            drop(self.desk.store.write_note(USUAL.to_owned(), past));
        }
    }
}

/// Loads the hours saved by earlier processes. Documents that cannot be decoded are skipped.
async fn hours(store: &dyn Store) -> Vec<Hour> {
    let mut loaded = Vec::new();
    for number in 0..history::NOTES {
        let document = match store.note(history::note(number)).await {
            Err(StoreError::Damaged(_)) => continue,
            Err(_) => break,
            Ok(document) => document,
        };
        let hours: Option<Vec<Hour>> = document.and_then(|text| serde_json::from_str(&text).ok());
        loaded.extend(hours.unwrap_or_default());
    }
    loaded
}

async fn usual(store: &dyn Store) -> Vec<Window> {
    let document = store.note(USUAL.to_owned()).await.ok().flatten();
    document
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::paused::{Paused, pass};
    use crate::provider::scripted::says;
    use crate::turn::stage::House;

    #[actix_rt::test(system = "Paused")]
    async fn windows_with_a_drill_are_discarded() {
        let stage = House::following([vec![says("Hello.")]]).open();
        let service = &stage.desk;
        let _stats = Answered::start(Arc::clone(service));
        let saved_windows = async || usual(&*service.store).await.len();
        pass(WINDOW / 2).await;
        // One drill within a window, then one that covers two windows and ends in a third.
        service.shelf.drill_begins();
        service.shelf.drill_ends();
        pass(WINDOW).await;
        service.shelf.drill_begins();
        pass(WINDOW * 2).await;
        service.shelf.drill_ends();
        pass(WINDOW * 6).await;
        assert_eq!(
            saved_windows().await,
            0,
            "four windows were discarded, five were kept"
        );
        pass(WINDOW).await;
        assert_eq!(saved_windows().await, 6);
    }

    #[tokio::test]
    async fn a_damaged_day_does_not_affect_other_days() {
        let store = crate::store::flaky::Flaky::default();
        let hour = |hour| Hour {
            hour,
            ..Hour::default()
        };
        for number in [3, 4, 5] {
            let text = serde_json::to_string(&[hour(number * 24)]).unwrap();
            store.write_note(history::note(number), text).await.unwrap();
        }
        store.damage(&history::note(4));
        assert_eq!(hours(&store).await, [hour(3 * 24), hour(5 * 24)]);
    }
}
