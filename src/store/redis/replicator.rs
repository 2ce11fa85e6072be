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

use super::client::RedisCallError;
use super::reader::RedisReader;
use crate::store::sled::{JournalEntry, SledStore};

/// The time that a replicated record stays in the journal. It exceeds the second of writes that a
/// Redis with `appendfsync everysec` may lose.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// Delay before a rejected record is retried.
const RETRY_REJECTED_AFTER: Duration = Duration::from_secs(60);

const MIN_PASS_INTERVAL: Duration = Duration::from_millis(20);
const MAX_PASS_INTERVAL: Duration = Duration::from_secs(1);

/// After a reconnect, each instance waits a random part of this before it replicates.
const RECONNECT_JITTER: Duration = Duration::from_millis(200);

const PAGE_SIZE: usize = 256;
const BATCH_SIZE: usize = 32;

/// Limit on the deferred records kept in memory. When it is exceeded, all are replicated again.
const MAX_DEFERRED: usize = 50_000;

/// A journal entry that needs no replication before `until`.
struct DeferredRecord {
    entry: JournalEntry,
    connection: u64,
    until: Instant,
    /// It was replicated, so its entry is removed at `until`. Otherwise it is retried then.
    is_replicated: bool,
}

impl DeferredRecord {
    fn new(entry: JournalEntry, connection: u64, is_replicated: bool) -> Self {
        let pause = if is_replicated {
            CONFIRM_AFTER
        } else {
            RETRY_REJECTED_AFTER
        };
        Self {
            entry,
            connection,
            until: Instant::now() + pause,
            is_replicated,
        }
    }
}

pub(super) struct Replicator {
    pub(super) local: Arc<SledStore>,
    pub(super) reader: RedisReader,
    /// Signalled when the journal has new entries.
    pub(super) wake: Arc<Notify>,
    /// The number of passes started, and of the last one that left nothing to replicate.
    pub(super) passes: watch::Sender<(u64, u64)>,
    pub(super) random_unit: fn() -> f64,
}

impl Replicator {
    pub(super) async fn run(self) {
        let mut deferred: HashMap<String, DeferredRecord> = HashMap::new();
        let mut connection = 0;
        loop {
            let _ = timeout(MAX_PASS_INTERVAL, self.wake.notified()).await;
            if !self.reader.client.is_up() {
                continue;
            }
            let current = self.reader.client.connection_number();
            if current != connection {
                connection = current;
                sleep(RECONNECT_JITTER.mul_f64((self.random_unit)().clamp(0.0, 1.0))).await;
            }
            self.passes.send_modify(|(started, _)| *started += 1);
            let is_complete = self.run_pass(&mut deferred, connection).await;
            self.passes.send_if_modified(|(started, clean)| {
                if is_complete {
                    *clean = *started;
                }
                is_complete
            });
            if deferred.len() > MAX_DEFERRED {
                deferred.clear();
            }
            sleep(MIN_PASS_INTERVAL).await;
        }
    }

    /// Goes through the journal once. Returns `true` if nothing is left to replicate for now.
    async fn run_pass(
        &self,
        deferred: &mut HashMap<String, DeferredRecord>,
        connection: u64,
    ) -> bool {
        let mut after = None;
        let mut is_complete = true;
        loop {
            let Ok(page) = self.local.journal_entries(after.clone(), PAGE_SIZE).await else {
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
                let known = deferred.get(&entry.key()).filter(|known| {
                    known.entry == entry && (known.connection == connection || !known.is_replicated)
                });
                match known {
                    Some(known) if known.until > Instant::now() => {}
                    Some(known) if known.is_replicated => {
                        deferred.remove(&entry.key());
                        done.push(entry);
                    }
                    Some(_) | None => due.push(entry),
                }
            }
            self.local.clear_entries(done);
            let Ok(due) = self.local.read_states(due).await else {
                return false;
            };
            let mut due = due.into_iter().peekable();
            while due.peek().is_some() {
                let batch: Vec<_> = due.by_ref().take(BATCH_SIZE).collect();
                // Deletions come first: the conversation may have been created again since.
                let (deletions, others): (Vec<_>, Vec<_>) = batch
                    .into_iter()
                    .partition(|(entry, _)| entry.is_deletion());
                for group in [deletions, others] {
                    let (entries, states): (Vec<_>, Vec<_>) = group.into_iter().unzip();
                    let results =
                        join_all(states.into_iter().map(|state| self.reader.replicate(state)))
                            .await;
                    for (entry, result) in entries.into_iter().zip(results) {
                        match result {
                            Err(RedisCallError::Unavailable) => return false,
                            Ok(false) => {
                                is_complete = false;
                                self.wake.notify_one();
                            }
                            // Not deferred: a second deletion would also delete what was created
                            // since.
                            Ok(true) if entry.is_deletion() => {
                                self.local.clear_entries(vec![entry]);
                            }
                            Ok(true) | Err(RedisCallError::Rejected) => {
                                let record = DeferredRecord::new(entry, connection, result.is_ok());
                                deferred.insert(record.entry.key(), record);
                            }
                        }
                    }
                }
            }
        }
    }
}
