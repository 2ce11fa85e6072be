//! Takes what was answered from the counts: into the history each few seconds, and a window of early warning each five minutes.

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

/// How often the counts are read: what the status says is no older.
const READ: Duration = Duration::from_secs(5);

/// How often the day's hours are noted, if they changed: a crash costs what was counted since.
const NOTE: Duration = Duration::from_secs(30);

/// A window of early warning.
const WINDOW: Duration = Duration::from_secs(WINDOW_MINUTES * 60);

/// After so many windows what is usual is noted: half an hour's.
const NOTED_WINDOWS: u32 = 6;

/// The note of what is usual.
const USUAL: &str = "early";

/// How long reading what earlier processes noted may take.
const RECALL_LIMIT: Duration = Duration::from_secs(5);

/// How long the last notes may take when the service stops.
const LAST_NOTES: Duration = Duration::from_secs(1);

/// What was answered lately, as others see it.
#[derive(Clone)]
pub struct Answered {
    /// The last month by the hour.
    pub history: watch::Receiver<Arc<History>>,
    /// How the figures of early warning stand.
    pub warnings: watch::Receiver<Arc<[Finding]>>,
    stop: Arc<Notify>,
    stopped: watch::Receiver<bool>,
}

impl Answered {
    /// Counts from now on, on a task of the calling thread.
    pub fn start(desk: Arc<Desk>) -> Self {
        let (history, shown) = watch::channel(Arc::default());
        let (warnings, told) = watch::channel(Arc::from(Vec::new()));
        let (ended, stopped) = watch::channel(false);
        let stop = Arc::new(Notify::new());
        let asked = Arc::clone(&stop);
        actix::spawn(async move {
            Counting::begin(desk, history, warnings)
                .await
                .run(&asked)
                .await;
            ended.send_replace(true);
        });
        Self {
            history: shown,
            warnings: told,
            stop,
            stopped,
        }
    }

    /// Counts what is left and notes it. Waits for that, but not for long.
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
    /// What was counted into the history, and into windows.
    counted: Served,
    window: Served,
    /// What each provider had cost when it was looked at last.
    costs: HashMap<Arc<str>, f64>,
    /// How many attempts had failed, by why.
    failures: BTreeMap<&'static str, u64>,
    window_usd: f64,
    windows: u32,
    /// How many outage drills had begun when the window did; none while one ran.
    drills: Option<u64>,
    changed: bool,
}

impl Counting {
    async fn begin(
        desk: Arc<Desk>,
        history: watch::Sender<Arc<History>>,
        warnings: watch::Sender<Arc<[Finding]>>,
    ) -> Self {
        let read = async { (hours(&*desk.store).await, usual(&*desk.store).await) };
        let (hours, usual) = tokio::time::timeout(RECALL_LIMIT, read)
            .await
            .unwrap_or_default();
        history.send_replace(Arc::new(History::recalled(hours, desk.clock.wall())));
        Self {
            drills: desk.shelf.drills(),
            desk,
            history,
            warnings,
            early: Early::recalled(usual),
            counted: Served::default(),
            window: Served::default(),
            costs: HashMap::new(),
            failures: BTreeMap::new(),
            window_usd: 0.0,
            windows: 0,
            changed: false,
        }
    }

    /// Counts until it is told to stop.
    async fn run(mut self, stop: &Notify) {
        let tick = |every| tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        let (mut read, mut note, mut window) = (tick(READ), tick(NOTE), tick(WINDOW));
        loop {
            tokio::select! {
                () = stop.notified() => break,
                _ = read.tick() => self.read(),
                _ = note.tick() => drop(self.note()),
                _ = window.tick() => self.close(),
            }
        }
        self.read();
        if let Some(noted) = self.note() {
            drop(noted.await);
        }
    }

    fn read(&mut self) {
        let now = self.desk.counts.read();
        let (usd, failed) = (self.spent(), self.failed());
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

    /// Why attempts failed since it was asked last.
    fn failed(&mut self) -> Reasons {
        let now = self.desk.tally.failed();
        let before = std::mem::replace(&mut self.failures, now.clone());
        let since = now.into_iter().map(|(reason, count)| {
            (
                Cow::Borrowed(reason),
                count.saturating_sub(before.get(reason).copied().unwrap_or_default()),
            )
        });
        since.filter(|(_, count)| *count > 0).collect()
    }

    /// What the providers cost since it was asked last.
    fn spent(&mut self) -> f64 {
        let mut sum = 0.0;
        let table = self.desk.table();
        let there = table.backends.iter().map(|one| (&one.name, &one.vitals));
        for (name, vitals) in there.chain(table.departed.iter().map(|one| (&one.name, &one.vitals)))
        {
            let usd = vitals.borrow().used.cost_usd;
            let before = self.costs.insert(Arc::clone(name), usd).unwrap_or_default();
            // One that was taken out and put in again begins at nothing.
            sum += if usd < before { usd } else { usd - before };
        }
        sum
    }

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
        let (usd, drills) = (
            std::mem::take(&mut self.window_usd),
            self.desk.shelf.drills(),
        );
        let before = std::mem::replace(&mut self.drills, drills);
        // What a drill brought about is neither usual nor a reason to warn.
        if drills.is_none() || drills != before {
            return;
        }
        let found = self.early.close(&served, usd);
        self.warnings.send_replace(Arc::new(found));
        self.windows += 1;
        if self.windows.is_multiple_of(NOTED_WINDOWS) {
            let past: Vec<_> = self.early.past().collect();
            let past = serde_json::to_string(&past).unwrap_or_default();
            // On its way when the call returns.
            drop(self.desk.store.write_note(USUAL.to_owned(), past));
        }
    }
}

/// The hours that earlier processes noted; what does not read is passed over.
async fn hours(store: &dyn Store) -> Vec<Hour> {
    let mut all = Vec::new();
    for number in 0..history::NOTES {
        let note = match store.note(history::note(number)).await {
            Err(StoreError::Damaged(_)) => continue,
            Err(_) => break,
            Ok(note) => note,
        };
        let hours: Option<Vec<Hour>> = note.and_then(|text| serde_json::from_str(&text).ok());
        all.extend(hours.unwrap_or_default());
    }
    all
}

/// What was usual to earlier processes.
async fn usual(store: &dyn Store) -> Vec<Window> {
    let note = store.note(USUAL.to_owned()).await.ok().flatten();
    note.and_then(|text| serde_json::from_str(&text).ok())
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
    async fn windows_in_which_a_drill_ran_are_left_out_of_early_warning() {
        let stage = House::following([vec![says("Hello.")]]).open();
        let desk = &stage.desk;
        let _answered = Answered::start(Arc::clone(desk));
        let noted = async || usual(&*desk.store).await.len();
        pass(WINDOW / 2).await;
        // One within a window, then one that runs over two of them and into a third.
        desk.shelf.drill_begins();
        desk.shelf.drill_ends();
        pass(WINDOW).await;
        desk.shelf.drill_begins();
        pass(WINDOW * 2).await;
        desk.shelf.drill_ends();
        pass(WINDOW * 6).await;
        assert_eq!(noted().await, 0, "four were left out, and five were not");
        pass(WINDOW).await;
        assert_eq!(noted().await, 6);
    }

    #[tokio::test]
    async fn a_day_that_cannot_be_read_costs_no_other_day() {
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
