//! Answers that are generated in the background: refreshed when they age, or warmed ahead of time.

use tokio::time::timeout;

use super::{AnswerCache, CACHE_READ_TIMEOUT, CacheHit};
use crate::answer_cache::policy::key::{CacheScope, cache_key};
use crate::answer_cache::policy::{sharing, warming};
use crate::domain::{Timestamp, TurnRecord};
use crate::store::{CacheKey, CachedAnswer};

/// A background question whose answer will be saved under `key`.
#[derive(Clone, Debug)]
pub struct RefreshJob {
    pub key: CacheKey,
    /// The answer to replace. The new one keeps its conversation and its asker count.
    pub previous: CachedAnswer,
    pause_epoch: Option<u64>,
}

impl AnswerCache {
    pub fn refresh_job(&self, found: &CacheHit) -> RefreshJob {
        RefreshJob {
            key: found.key,
            previous: found.answer.clone(),
            pause_epoch: self.pause_state.epoch(),
        }
    }

    /// Returns the job that warms a configured question, or `None` if it is not due.
    pub async fn due_refresh(&self, question: &str, now: Timestamp) -> Option<RefreshJob> {
        self.warming_job(question, now, false).await
    }

    /// Returns the job that warms a configured question, due or not.
    pub async fn forced_refresh(&self, question: &str, now: Timestamp) -> Option<RefreshJob> {
        self.warming_job(question, now, true).await
    }

    async fn warming_job(&self, question: &str, now: Timestamp, force: bool) -> Option<RefreshJob> {
        let terms = self.policy();
        let key = cache_key(CacheScope::Shared, &terms.system_prompt, question)
            .filter(|_| terms.settings.enabled)?;
        let saved = timeout(CACHE_READ_TIMEOUT, self.store.get_answer(key))
            .await
            .ok()?
            .ok()?;
        // A visitor's answer may not be shared with everybody: replace it.
        let saved = saved.filter(|answer| answer.conversation.is_none());
        let age = saved.as_ref().map(|answer| now.since(answer.saved_at));
        let unowned = CachedAnswer {
            text: String::new(),
            saved_at: now,
            conversation: None,
            turn: None,
            is_context_free: true,
            asker_count: 0,
        };
        let before = saved.unwrap_or(unowned);
        (force || warming::is_refresh_due(age, &terms.settings)).then(|| RefreshJob {
            key,
            previous: before,
            pause_epoch: self.pause_state.epoch(),
        })
    }

    /// Saves a refreshed answer if it is shareable. Returns once it can be found.
    pub async fn put_refreshed(&self, renewal: &RefreshJob, record: &TurnRecord, now: Timestamp) {
        let may_save = sharing::is_shareable_answer(record)
            && self.pause_state.is_unchanged_since(renewal.pause_epoch);
        let answer = CachedAnswer {
            text: record.text.clone(),
            saved_at: now,
            ..renewal.previous.clone()
        };
        self.write_all(may_save.then_some((renewal.key, answer)))
            .await;
    }
}
