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
use crate::store::sled::{JournalEntry, RecordState, SledStore};

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

#[derive(Default)]
struct DeferredRecords {
    records: HashMap<String, DeferredRecord>,
    /// The number of the current connection.
    connection: u64,
}

impl DeferredRecords {
    fn insert(&mut self, entry: JournalEntry, is_replicated: bool) {
        let pause = if is_replicated {
            CONFIRM_AFTER
        } else {
            RETRY_REJECTED_AFTER
        };
        let record = DeferredRecord {
            connection: self.connection,
            until: Instant::now() + pause,
            is_replicated,
            entry,
        };
        self.records.insert(record.entry.key(), record);
    }

    /// Returns the entries to remove and the entries to replicate, without those to leave alone.
    fn sort(&mut self, page: Vec<JournalEntry>) -> (Vec<JournalEntry>, Vec<JournalEntry>) {
        let mut done = Vec::new();
        let mut due = Vec::new();
        for entry in page {
            // A record acknowledged over an earlier connection may be lost: it is sent again.
            let known = self.records.get(&entry.key()).filter(|known| {
                known.entry == entry
                    && (known.connection == self.connection || !known.is_replicated)
            });
            match known {
                Some(known) if known.until > Instant::now() => {}
                Some(known) if known.is_replicated => {
                    self.records.remove(&entry.key());
                    done.push(entry);
                }
                Some(_) | None => due.push(entry),
            }
        }
        (done, due)
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
        let mut deferred = DeferredRecords::default();
        loop {
            let _ = timeout(MAX_PASS_INTERVAL, self.wake.notified()).await;
            if !self.reader.client.is_up() {
                continue;
            }
            let current = self.reader.client.connection_number();
            if current != deferred.connection {
                deferred.connection = current;
                sleep(RECONNECT_JITTER.mul_f64((self.random_unit)().clamp(0.0, 1.0))).await;
            }
            self.passes.send_modify(|(started, _)| *started += 1);
            let is_complete = self.run_pass(&mut deferred).await.unwrap_or(false);
            self.passes.send_if_modified(|(started, clean)| {
                if is_complete {
                    *clean = *started;
                }
                is_complete
            });
            if deferred.records.len() > MAX_DEFERRED {
                deferred.records.clear();
            }
            sleep(MIN_PASS_INTERVAL).await;
        }
    }

    /// Goes through the journal once. Returns `true` if nothing is left to replicate for now, and
    /// `None` if the disk or Redis fails.
    async fn run_pass(&self, deferred: &mut DeferredRecords) -> Option<bool> {
        let mut after = None;
        let mut is_complete = true;
        loop {
            let page = self.local.journal_entries(after, PAGE_SIZE).await.ok()?;
            let Some(last) = page.last() else {
                return Some(is_complete);
            };
            after = Some(last.clone());
            let (done, due) = deferred.sort(page);
            self.local.clear_entries(done);
            let mut due = self
                .local
                .read_states(due)
                .await
                .ok()?
                .into_iter()
                .peekable();
            while due.peek().is_some() {
                let batch = due.by_ref().take(BATCH_SIZE);
                // Deletions come first: the conversation may have been created again since.
                let (deletions, others) = batch.partition(|(entry, _)| entry.is_deletion());
                is_complete &= self.replicate_group(deletions, deferred).await?;
                is_complete &= self.replicate_group(others, deferred).await?;
            }
        }
    }

    /// Replicates records concurrently. Returns `false` if some changed meanwhile.
    async fn replicate_group(
        &self,
        group: Vec<(JournalEntry, RecordState)>,
        deferred: &mut DeferredRecords,
    ) -> Option<bool> {
        let (entries, states): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let calls = states.into_iter().map(|state| self.reader.replicate(state));
        let results = join_all(calls).await;
        let mut is_complete = true;
        for (entry, result) in entries.into_iter().zip(results) {
            match result {
                Err(RedisCallError::Unavailable) => return None,
                Ok(false) => {
                    is_complete = false;
                    self.wake.notify_one();
                }
                // Not deferred: a second deletion would also delete what was created since.
                Ok(true) if entry.is_deletion() => self.local.clear_entries(vec![entry]),
                Ok(true) | Err(RedisCallError::Rejected) => deferred.insert(entry, result.is_ok()),
            }
        }
        Some(is_complete)
    }
}
