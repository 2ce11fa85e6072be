//! Answers that are generated in the background: refreshed when they age, or warmed ahead of time.

use tokio::time::timeout;

use super::{Found, READ_LIMIT, Shelf};
use crate::chat::{At, TurnRecord};
use crate::degradation::cache::key::{Scope, key};
use crate::degradation::cache::{sharing, warming};
use crate::store::{CacheKey, CachedAnswer};

/// A background question whose answer will be saved under `key`.
#[derive(Clone, Debug)]
pub struct Renewal {
    pub key: CacheKey,
    /// The answer to replace. The new one keeps its conversation and its asker count.
    pub before: CachedAnswer,
    drills: Option<u64>,
}

impl Shelf {
    pub fn renewal(&self, found: &Found) -> Renewal {
        Renewal {
            key: found.key,
            before: found.answer.clone(),
            drills: self.drills.undisturbed(),
        }
    }

    /// Returns the job that warms a configured question, or `None` if it is not due.
    pub async fn ahead(&self, question: &str, now: At) -> Option<Renewal> {
        self.asked_ahead(question, now, false).await
    }

    /// Returns the job that warms a configured question, due or not.
    pub async fn at_once(&self, question: &str, now: At) -> Option<Renewal> {
        self.asked_ahead(question, now, true).await
    }

    async fn asked_ahead(&self, question: &str, now: At, force: bool) -> Option<Renewal> {
        let policy = self.terms();
        let key = key(Scope::Shared, &policy.system_prompt, question)
            .filter(|_| policy.settings.enabled)?;
        let saved = timeout(READ_LIMIT, self.store.cached(key))
            .await
            .ok()?
            .ok()?;
        // A visitor's answer may not be shared with everybody: replace it.
        let saved = saved.filter(|answer| answer.conversation.is_none());
        let age = saved.as_ref().map(|answer| now.since(answer.saved));
        let unowned = CachedAnswer {
            text: String::new(),
            saved: now,
            conversation: None,
            turn: None,
            first: true,
            asked: 0,
        };
        let previous = saved.unwrap_or(unowned);
        (force || warming::is_due(age, &policy.settings)).then(|| Renewal {
            key,
            before: previous,
            drills: self.drills.undisturbed(),
        })
    }

    /// Saves a refreshed answer if it is shareable. Returns once it can be found.
    pub async fn keep_renewed(&self, job: &Renewal, record: &TurnRecord, now: At) {
        let may_save = sharing::is_tellable(record) && self.drills.undisturbed_since(job.drills);
        let answer = CachedAnswer {
            text: record.text.clone(),
            saved: now,
            ..job.before.clone()
        };
        self.write(may_save.then_some((job.key, answer))).await;
    }
}
