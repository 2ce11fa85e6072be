//! Replicates the journal to Redis, in journal order. Each record is sent in its current state, so
//! sending it twice does no harm.
//!
//! A replicated record stays in the journal for a little longer. If Redis dies and loses its last
//! seconds, the record is replicated again over the next connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::offer::Offered;
use super::remote::Remote;
use crate::store::sled::{Changed, Mark, SledStore};

/// The time that a replicated record stays in the journal. It exceeds the second of writes that a
/// Redis with `appendfsync everysec` may lose.
const SETTLES: Duration = Duration::from_secs(5);

/// Delay before a rejected record is retried.
const REFUSED: Duration = Duration::from_secs(60);

const AT_MOST: Duration = Duration::from_millis(20);
const AT_LEAST: Duration = Duration::from_secs(1);

/// After a reconnect, each instance waits a random part of this before it replicates.
const SPREAD: Duration = Duration::from_millis(200);

const PAGE: usize = 256;
const AT_ONCE: usize = 32;

/// Limit on the deferred records kept in memory. When it is exceeded, all are replicated again.
const REMEMBERED: usize = 50_000;

/// A journal entry that needs no replication before `until`.
struct Rest {
    mark: Mark,
    connection: u64,
    until: Instant,
    /// It was replicated, so its entry is removed at `until`. Otherwise it is retried then.
    taken: bool,
}

pub(super) struct Handover {
    pub(super) local: Arc<SledStore>,
    pub(super) remote: Remote,
    /// Signalled when the journal has new entries.
    pub(super) wake: Arc<Notify>,
    /// The number of passes started, and of the last one that left nothing to replicate.
    pub(super) passes: watch::Sender<(u64, u64)>,
    pub(super) chance: fn() -> f64,
}

impl Handover {
    pub(super) async fn run(self) {
        let mut deferred: HashMap<String, Rest> = HashMap::new();
        let mut connection = 0;
        loop {
            let _ = timeout(AT_LEAST, self.wake.notified()).await;
            if !self.remote.link.is_up() {
                continue;
            }
            let current = self.remote.link.connection();
            if current != connection {
                connection = current;
                sleep(SPREAD.mul_f64((self.chance)().clamp(0.0, 1.0))).await;
            }
            self.passes.send_modify(|(started, _)| *started += 1);
            let is_complete = self.pass(&mut deferred, connection).await;
            self.passes.send_if_modified(|(started, clean)| {
                if is_complete {
                    *clean = *started;
                }
                is_complete
            });
            if deferred.len() > REMEMBERED {
                deferred.clear();
            }
            sleep(AT_MOST).await;
        }
    }

    /// Goes through the journal once. Returns `true` if nothing is left to replicate for now.
    async fn pass(&self, deferred: &mut HashMap<String, Rest>, connection: u64) -> bool {
        let mut after = None;
        let mut is_complete = true;
        loop {
            let Ok(page) = self.local.marks(after.clone(), PAGE).await else {
                return false;
            };
            let Some(last) = page.last() else {
                return is_complete;
            };
            after = Some(last.clone());
            // Sort the page: entries to remove, entries to replicate, and entries to leave alone.
            let mut done = Vec::new();
            let mut due = Vec::new();
            for entry in page {
                // A record acknowledged over an earlier connection may be lost: it is sent again.
                let known = deferred.get(&entry.name()).filter(|known| {
                    known.mark == entry && (known.connection == connection || !known.taken)
                });
                match known {
                    Some(known) if known.until > Instant::now() => {}
                    Some(known) if known.taken => {
                        deferred.remove(&entry.name());
                        done.push(entry);
                    }
                    Some(_) | None => due.push(entry),
                }
            }
            self.local.unmark(done);
            let Ok(due) = self.local.standing(due).await else {
                return false;
            };
            let mut due = due.into_iter().peekable();
            while due.peek().is_some() {
                let batch: Vec<_> = due.by_ref().take(AT_ONCE).collect();
                // Deletions come first: the conversation may have been created again since.
                let (deletions, others): (Vec<_>, Vec<_>) = batch
                    .into_iter()
                    .partition(|(entry, _)| matches!(entry.changed, Changed::Forgotten(_)));
                for group in [deletions, others] {
                    let (entries, states): (Vec<_>, Vec<_>) = group.into_iter().unzip();
                    let results =
                        join_all(states.into_iter().map(|state| self.remote.offer(state))).await;
                    for (entry, result) in entries.into_iter().zip(results) {
                        match result {
                            Offered::Away => return false,
                            Offered::Changed => {
                                is_complete = false;
                                self.wake.notify_one();
                            }
                            // Not deferred: a second deletion would also delete what was created
                            // since.
                            Offered::Taken if matches!(entry.changed, Changed::Forgotten(_)) => {
                                self.local.unmark(vec![entry]);
                            }
                            Offered::Taken | Offered::Refused => {
                                let taken = result == Offered::Taken;
                                let until = Instant::now() + if taken { SETTLES } else { REFUSED };
                                deferred.insert(
                                    entry.name(),
                                    Rest {
                                        mark: entry,
                                        connection,
                                        until,
                                        taken,
                                    },
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
