//! Insertion and removal of cached answers.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::look::Saved;
use super::place::Place;
use super::{START_LIMIT, Shelf, lock};
use crate::chat::{At, ConversationId, TurnRecord};
use crate::degradation::cache::key::{Scope, key};
use crate::degradation::cache::sharing;
use crate::settings::Share;
use crate::store::{CacheKey, CachedAnswer, StoreError};

/// The maximum time a caller waits for a write. The write itself continues.
const WRITE_LIMIT: Duration = Duration::from_millis(250);

const AT_ONCE: usize = 1_000;

impl Shelf {
    /// Saves a turn's answer if it is cacheable. Returns once it can be found.
    pub async fn keep(&self, slot: &Place, record: &TurnRecord, now: At) {
        let mut writes = Vec::new();
        if sharing::is_whole(record) && self.drills.undisturbed_since(slot.drills) {
            let answer = CachedAnswer {
                text: record.text.clone(),
                saved: now,
                conversation: Some(slot.conversation),
                turn: Some(record.turn),
                first: slot.alone,
                asked: slot.asked,
            };
            if let Some(shared) = slot.shared.filter(|_| self.is_tellable(slot, record)) {
                writes.push((shared, answer.clone()));
            }
            writes.push((slot.own, answer));
        }
        self.write(writes).await;
    }

    pub fn is_tellable(&self, slot: &Place, record: &TurnRecord) -> bool {
        let shares = self.terms().settings.share != Share::Never;
        shares && sharing::is_tellable(record) && self.drills.undisturbed_since(slot.drills)
    }

    pub(super) async fn write(&self, answers: impl IntoIterator<Item = (CacheKey, CachedAnswer)>) {
        let written = join_all(
            answers
                .into_iter()
                .map(|(key, answer)| self.kept.save(key, answer)),
        );
        if timeout(WRITE_LIMIT, written).await.is_err() {
            tracing::debug!("cached answer not saved in time, continuing in the background");
        }
    }

    /// Removes an answer that a visitor reported as unhelpful, so that nobody gets it again.
    pub async fn evict(&self, conversation: ConversationId, record: &TurnRecord) {
        let policy = self.terms();
        for scope in [Scope::Own(conversation), Scope::Shared] {
            let key = key(scope, &policy.system_prompt, &record.question);
            let stored = timeout(WRITE_LIMIT, self.read(key)).await;
            if let Ok(Some(Saved {
                key,
                edition,
                answer,
            })) = stored
                && answer.text == record.text
                && let Some(removed) = self.kept.remove(key, edition)
            {
                drop(timeout(WRITE_LIMIT, removed).await);
            }
        }
    }

    /// Removes all saved answers and resets the asker counts. Returns the number of answers.
    ///
    /// Answers of turns that are running now are not saved either.
    ///
    /// # Errors
    /// The store failed or did not confirm in time: some answers may be left.
    pub async fn clear(&self) -> Result<usize, StoreError> {
        self.disturb();
        let timed_out = |_| StoreError::Broken("no answer in time".into());
        let keys = timeout(START_LIMIT, self.store.cached_keys())
            .await
            .map_err(timed_out)??;
        for batch in keys.chunks(AT_ONCE) {
            // Remove only the listed keys: answers saved meanwhile stay.
            timeout(START_LIMIT, self.kept.remove_all(batch))
                .await
                .map_err(timed_out)??;
        }
        lock(&self.askers).clear();
        Ok(keys.len())
    }
}
