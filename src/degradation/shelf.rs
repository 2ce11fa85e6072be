//! Where saved answers are looked for and put: the store, with what is decided about them beside it.
//!
//! A store that fails or is slow costs saved answers, never a turn: it is as if there were none.
//!
//! From how many conversations a question came is counted here, in memory, by the hash of the question and a part of the hash of the
//! conversation; no question's text is kept for it. What an answer had reached is saved with it.

mod drills;
mod look;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{join, join_all};
use sha2::{Digest as _, Sha256};

use self::drills::Drills;
use self::look::Looks;
use super::cache::age::{Age, age};
use super::cache::bounded::Bounded;
use super::cache::key::{Scope, key};
use super::cache::{personal, sharing, warming};
use crate::chat::{At, ConversationId, TurnRecord};
use crate::settings::{CacheSettings, Share};
use crate::store::{CacheKey, CachedAnswer, Store, StoreError};

pub use self::look::Unread;

/// How long an answer may be looked for.
pub const READ_LIMIT: Duration = Duration::from_millis(50);

/// How long a change is waited for, by who waits.
const WRITE_LIMIT: Duration = Duration::from_millis(250);

/// How long the service's start waits for the keys of what is saved.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Answers that are removed at once, of all.
const AT_ONCE: usize = 1_000;

/// Saved answers.
pub struct Shelf {
    store: Arc<dyn Store>,
    terms: RwLock<Arc<Terms>>,
    /// Which keys are saved, by when they were last used.
    kept: Mutex<Bounded<()>>,
    /// Whether nothing is saved under other keys.
    all_known: AtomicBool,
    /// Which conversations asked alike, up to as many as it takes.
    askers: Mutex<Bounded<Vec<u64>>>,
    drills: Drills,
    looks: Looks,
}

/// How answers are saved and told; a reload may change it.
struct Terms {
    settings: CacheSettings,
    /// They are told under the same one only.
    system_prompt: Arc<str>,
}

/// A question's place on the shelf.
#[derive(Clone, Debug)]
pub struct Place {
    conversation: ConversationId,
    own: CacheKey,
    /// Where others find the answer, or theirs is found; none where it is nobody else's business.
    shared: Option<CacheKey>,
    /// Whether the model sees nothing of the conversation but the question.
    alone: bool,
    /// From how many conversations the question came so far, this one included.
    asked: u32,
    /// How many drills had begun; none while one ran.
    drills: Option<u64>,
}

/// Who asks, and with what before.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The conversation.
    pub conversation: ConversationId,
    /// Whether it belongs to no known visitor.
    pub anonymous: bool,
    /// Whether it is known to be the conversation's first message.
    pub first: bool,
    /// Whether it is known that the model sees nothing but the question.
    pub alone: bool,
}

/// A saved answer that will do.
#[derive(Clone, Debug)]
pub struct Found {
    /// It.
    pub answer: CachedAnswer,
    /// Where it lies.
    pub key: CacheKey,
    /// How old it is.
    pub old: Duration,
    /// Whether it is to be renewed behind.
    pub renew: bool,
}

/// What a saved answer is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To ask no provider.
    Fresh,
    /// No provider can answer.
    Outage,
}

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
    /// Saved answers of this store, told as the settings say. They are told under the same system prompt only.
    pub fn new(store: Arc<dyn Store>, settings: CacheSettings, system_prompt: Arc<str>) -> Self {
        let kept = Mutex::new(Bounded::new(settings.max_entries));
        let askers = Mutex::new(Bounded::new(settings.max_entries));
        let terms = RwLock::new(Arc::new(Terms { settings, system_prompt }));
        let (all_known, drills, looks) = Default::default();
        Self { store, terms, kept, all_known, askers, drills, looks }
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes by other settings, or another system prompt, from now on. Where answers are saved again after a time in which none were, it finds
    /// out what there is.
    pub async fn set_terms(&self, settings: CacheSettings, system_prompt: Arc<str>) {
        let (enabled, most) = (settings.enabled, settings.max_entries);
        let terms = Arc::new(Terms { settings, system_prompt });
        let before =
            std::mem::replace(&mut *self.terms.write().unwrap_or_else(PoisonError::into_inner), terms);
        drop(lock(&self.askers).set_most(most));
        self.drop_all(lock(&self.kept).set_most(most));
        if enabled && !before.settings.enabled {
            self.open().await;
        }
    }

    /// Finds out what is saved already, and removes what is too much of it. To be awaited once, before the first question. Where nothing is to be
    /// saved nothing is looked for.
    pub async fn open(&self) {
        if !self.terms().settings.enabled {
            return;
        }
        // Compiles its patterns, which is not for the first visitor to wait for.
        personal::find("");
        match tokio::time::timeout(START_LIMIT, self.store.cached_keys()).await {
            Ok(Ok(keys)) => {
                let gone: Vec<_> = keys.into_iter().filter_map(|key| self.use_of(key)).collect();
                if !gone.is_empty() {
                    drop(self.store.remove_cached(gone));
                }
                self.all_known.store(!self.store.is_shared(), Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => tracing::warn!("which answers are saved was not read"),
        }
    }

    /// The question's place, and that it was asked; none for a question without a word, or where nothing is to be saved.
    pub fn place(&self, question: &str, asker: Asker) -> Option<Place> {
        let Asker { conversation, anonymous, first, alone } = asker;
        let terms = self.terms();
        if !terms.settings.enabled {
            return None;
        }
        let own = key(Scope::Own(conversation), &terms.system_prompt, question)?;
        let open = sharing::is_open(question, first, anonymous);
        let shared = if open { key(Scope::Shared, &terms.system_prompt, question) } else { None };
        let asked = shared.map_or(0, |shared| self.asked(shared, conversation, &terms.settings));
        Some(Place { conversation, own, shared, alone, asked, drills: self.drills.undisturbed() })
    }

    /// From how many conversations this came, this one included; counted up to as many as it takes.
    fn asked(&self, key: CacheKey, conversation: ConversationId, settings: &CacheSettings) -> u32 {
        if settings.share != Share::Repeated {
            return 1;
        }
        let asker = fingerprint(conversation);
        let most = usize::try_from(settings.repeated_min).unwrap_or(usize::MAX);
        let mut askers = lock(&self.askers);
        let (known, _) = askers.used(key);
        if known.len() < most && !known.contains(&asker) {
            known.push(asker);
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }

    /// Whether many ask this, so that one answer will do for those who ask now.
    pub fn common(&self, place: &Place) -> Option<CacheKey> {
        place.shared.filter(|_| sharing::is_common(place.asked, &self.terms().settings))
    }

    /// The youngest saved answer that will do. Within 50 ms: who is slower has none.
    pub async fn find(&self, place: &Place, need: Need, now: At) -> Option<Found> {
        let terms = self.terms();
        let own = async {
            let found = self.read(Some(place.own).filter(|_| place.alone || need == Need::Outage)).await?;
            let fits = need == Need::Outage || found.1.first;
            Some(found).filter(|_| fits)
        };
        let shared = async {
            let found = self.read(place.shared).await?;
            let told = sharing::may_tell(&found.1, place.asked, &terms.settings);
            Some(found).filter(|_| told)
        };
        let (own, shared) = tokio::time::timeout(READ_LIMIT, join(own, shared)).await.ok()?;
        let found = [own, shared].into_iter().flatten().filter_map(|(key, answer)| {
            let old = now.since(answer.saved);
            let age = age(old, &terms.settings);
            let will_do = match need {
                Need::Fresh => matches!(age, Age::Fresh | Age::Renewable),
                Need::Outage => age != Age::Gone,
            };
            will_do.then_some(Found { answer, key, old, renew: age == Age::Renewable })
        });
        let found = found.min_by_key(|found| found.old)?;
        self.told(&found, place);
        Some(found)
    }

    /// Notes that an answer was used, and how often it was asked for by then.
    fn told(&self, found: &Found, place: &Place) {
        self.drop_all(self.use_of(found.key));
        if Some(found.key) == place.shared && found.answer.asked < place.asked {
            let answer = CachedAnswer { asked: place.asked, ..found.answer.clone() };
            drop(self.store.write_cached(found.key, answer));
        }
    }

    /// Saves a turn's answer, if it may be, and returns when it can be found.
    pub async fn keep(&self, place: &Place, record: &TurnRecord, now: At) {
        let mut writes = Vec::new();
        if sharing::is_whole(record) && self.drills.undisturbed_since(place.drills) {
            let answer = CachedAnswer {
                text: record.text.clone(),
                saved: now,
                conversation: Some(place.conversation),
                turn: Some(record.turn),
                first: place.alone,
                asked: place.asked,
            };
            if let Some(shared) = place.shared.filter(|_| self.is_tellable(place, record)) {
                writes.push((shared, answer.clone()));
            }
            writes.push((place.own, answer));
        }
        self.write(writes).await;
    }

    /// Whether a turn's answer may be told to the others who ask alike.
    pub fn is_tellable(&self, place: &Place, record: &TurnRecord) -> bool {
        let shares = self.terms().settings.share != Share::Never;
        shares && sharing::is_tellable(record) && self.drills.undisturbed_since(place.drills)
    }

    /// What is to be asked to renew an answer.
    pub fn renewal(&self, found: &Found) -> Renewal {
        Renewal { key: found.key, before: found.answer.clone(), drills: self.drills.undisturbed() }
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
        let key = key(Scope::Shared, &terms.system_prompt, question).filter(|_| terms.settings.enabled)?;
        let saved = tokio::time::timeout(READ_LIMIT, self.store.cached(key)).await.ok()?.ok()?;
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
        let answer = CachedAnswer { text: record.text.clone(), saved: now, ..renewal.before.clone() };
        self.write(may.then_some((renewal.key, answer))).await;
    }

    async fn write(&self, writes: impl IntoIterator<Item = (CacheKey, CachedAnswer)>) {
        let writes = writes.into_iter().map(|(key, answer)| {
            // First, so that the store never has more than there may be.
            self.drop_all(self.use_of(key));
            self.store.write_cached(key, answer)
        });
        let written = join_all(writes.collect::<Vec<_>>());
        if tokio::time::timeout(WRITE_LIMIT, written).await.is_err() {
            tracing::debug!("an answer is saved late");
        }
    }

    /// A visitor was not helped by this answer: it is told to nobody any more.
    pub async fn evict(&self, conversation: ConversationId, record: &TurnRecord) {
        let terms = self.terms();
        for scope in [Scope::Own(conversation), Scope::Shared] {
            let key = key(scope, &terms.system_prompt, &record.question);
            let found = tokio::time::timeout(WRITE_LIMIT, self.read(key)).await;
            if let Ok(Some((key, answer))) = found
                && answer.text == record.text
            {
                lock(&self.kept).remove(&key);
                drop(tokio::time::timeout(WRITE_LIMIT, self.store.remove_cached(vec![key])).await);
            }
        }
    }

    /// Removes all saved answers, and forgets who asked what; what is being answered at this moment is not saved either. Gives how many there were.
    ///
    /// # Errors
    /// The store does not do it, or does not say that it did: some may be left.
    pub async fn clear(&self) -> Result<usize, StoreError> {
        self.disturb();
        let late = |_| StoreError::Broken("no answer in time".into());
        let keys = tokio::time::timeout(START_LIMIT, self.store.cached_keys()).await.map_err(late)??;
        for some in keys.chunks(AT_ONCE) {
            // These alone: what is saved meanwhile stays.
            some.iter().for_each(|key| lock(&self.kept).remove(key));
            let removed = self.store.remove_cached(some.to_vec());
            tokio::time::timeout(START_LIMIT, removed).await.map_err(late)??;
        }
        lock(&self.askers).clear();
        Ok(keys.len())
    }

    /// What is being answered at this moment is not saved.
    pub fn disturb(&self) {
        self.drills.pass();
    }

    /// An outage drill begins: what is answered from now on is not saved, until it ends.
    pub fn drill_begins(&self) {
        self.drills.begin();
    }

    /// An outage drill ends.
    pub fn drill_ends(&self) {
        self.drills.end();
    }

    /// Notes the use of a key; gives the one that has to go for it.
    fn use_of(&self, key: CacheKey) -> Option<CacheKey> {
        lock(&self.kept).used(key).1
    }

    fn drop_all(&self, keys: impl IntoIterator<Item = CacheKey>) {
        let keys: Vec<_> = keys.into_iter().collect();
        if !keys.is_empty() {
            drop(self.store.remove_cached(keys));
        }
    }
}

/// A part of the conversation's hash: enough to tell some thousand apart, and no key to the conversation.
fn fingerprint(conversation: ConversationId) -> u64 {
    let hash = Sha256::digest(conversation.to_string());
    hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
