//! Insertion and removal of cached answers.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::probe::StoredAnswer;
use super::slot::CacheSlot;
use super::{AnswerCache, BULK_TIMEOUT, lock};
use crate::answer_cache::policy::key::{CacheScope, cache_key};
use crate::answer_cache::policy::sharing;
use crate::config::CacheSharing;
use crate::domain::{ConversationId, Timestamp, TurnRecord};
use crate::store::{CacheKey, CachedAnswer, StoreError};

/// The maximum time a caller waits for a write. The write itself continues.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);

const REMOVAL_BATCH_SIZE: usize = 1_000;

impl AnswerCache {
    /// Saves a turn's answer if it is cacheable. Returns once it can be found.
    pub async fn put(&self, place: &CacheSlot, record: &TurnRecord, now: Timestamp) {
        let mut writes = Vec::new();
        if sharing::is_cacheable(record) && self.pause_state.is_unchanged_since(place.pause_epoch) {
            let answer = CachedAnswer {
                text: record.text.clone(),
                saved_at: now,
                conversation: Some(place.conversation),
                turn: Some(record.turn),
                is_context_free: place.is_context_free,
                asker_count: place.asker_count,
            };
            if let Some(shared) = place
                .shared_key
                .filter(|_| self.is_shareable(place, record))
            {
                writes.push((shared, answer.clone()));
            }
            writes.push((place.conversation_key, answer));
        }
        self.write_all(writes).await;
    }

    pub fn is_shareable(&self, place: &CacheSlot, record: &TurnRecord) -> bool {
        let shares = self.policy().settings.share != CacheSharing::Never;
        shares
            && sharing::is_shareable_answer(record)
            && self.pause_state.is_unchanged_since(place.pause_epoch)
    }

    pub(crate) async fn write_all(
        &self,
        answers: impl IntoIterator<Item = (CacheKey, CachedAnswer)>,
    ) {
        let written = join_all(
            answers
                .into_iter()
                .map(|(key, answer)| self.index.put(key, answer)),
        );
        if timeout(WRITE_TIMEOUT, written).await.is_err() {
            tracing::debug!("cached answer not saved in time, continuing in the background");
        }
    }

    /// Removes an answer that a visitor reported as unhelpful, so that nobody gets it again.
    pub async fn remove(&self, conversation: ConversationId, record: &TurnRecord) {
        let terms = self.policy();
        for scope in [CacheScope::Conversation(conversation), CacheScope::Shared] {
            let key = cache_key(scope, &terms.system_prompt, &record.question);
            let found = timeout(WRITE_TIMEOUT, self.read_entry(key)).await;
            if let Ok(Some(StoredAnswer {
                key,
                version: edition,
                answer,
            })) = found
                && answer.text == record.text
                && let Some(removed) = self.index.remove_if_unchanged(key, edition)
            {
                drop(timeout(WRITE_TIMEOUT, removed).await);
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
        self.invalidate_in_flight();
        let timed_out = |_| StoreError::Unavailable("no answer in time".into());
        let keys = timeout(BULK_TIMEOUT, self.store.answer_keys())
            .await
            .map_err(timed_out)??;
        for batch in keys.chunks(REMOVAL_BATCH_SIZE) {
            // Remove only the listed keys: answers saved meanwhile stay.
            timeout(BULK_TIMEOUT, self.index.remove_all(batch))
                .await
                .map_err(timed_out)??;
        }
        lock(&self.askers).clear();
        Ok(keys.len())
    }
}
