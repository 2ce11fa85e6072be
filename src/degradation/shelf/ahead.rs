//! Answers that are asked for by nobody: in the place of one that grows old, or ahead of time.

use tokio::time::timeout;

use super::{Found, READ_LIMIT, Shelf};
use crate::chat::{At, TurnRecord};
use crate::degradation::cache::key::{Scope, key};
use crate::degradation::cache::{sharing, warming};
use crate::store::{CacheKey, CachedAnswer};

/// An answer that is asked for by nobody: in the place of an old one, or ahead of time.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Where it will lie.
    pub key: CacheKey,
    /// What it takes the place of; of that stays whose it is.
    pub before: CachedAnswer,
    drills: Option<u64>,
}

impl Shelf {
    /// What is to be asked to renew an answer.
    pub fn renewal(&self, found: &Found) -> Renewal {
        Renewal {
            key: found.key,
            before: found.answer.clone(),
            drills: self.drills.undisturbed(),
        }
    }

    /// What is to be asked ahead of time for this question, if it is due.
    pub async fn ahead(&self, question: &str, now: At) -> Option<Renewal> {
        self.asked_ahead(question, now, false).await
    }

    /// The same, due or not.
    pub async fn at_once(&self, question: &str, now: At) -> Option<Renewal> {
        self.asked_ahead(question, now, true).await
    }

    async fn asked_ahead(&self, question: &str, now: At, at_once: bool) -> Option<Renewal> {
        let terms = self.terms();
        let key = key(Scope::Shared, &terms.system_prompt, question)
            .filter(|_| terms.settings.enabled)?;
        let saved = timeout(READ_LIMIT, self.store.cached(key))
            .await
            .ok()?
            .ok()?;
        // A visitor's is not told to all.
        let saved = saved.filter(|answer| answer.conversation.is_none());
        let old = saved.as_ref().map(|answer| now.since(answer.saved));
        let nobodys = CachedAnswer {
            text: String::new(),
            saved: now,
            conversation: None,
            turn: None,
            first: true,
            asked: 0,
        };
        let before = saved.unwrap_or(nobodys);
        (at_once || warming::is_due(old, &terms.settings)).then(|| Renewal {
            key,
            before,
            drills: self.drills.undisturbed(),
        })
    }

    /// Saves a renewed answer, if it may be, and returns when it can be found.
    pub async fn keep_renewed(&self, renewal: &Renewal, record: &TurnRecord, now: At) {
        let may = sharing::is_tellable(record) && self.drills.undisturbed_since(renewal.drills);
        let answer = CachedAnswer {
            text: record.text.clone(),
            saved: now,
            ..renewal.before.clone()
        };
        self.write(may.then_some((renewal.key, answer))).await;
    }
}
