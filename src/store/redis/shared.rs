//! The store over one instance's own tree and what several instances share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::handover::Handover;
use super::link::{BEHIND, Link, LinkError, Trouble};
use super::merge;
use super::remote::{Remote, Terms};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::sled::{Changed, SledStore};
use crate::store::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, INCIDENTS, Idle, Opened,
    SpentRecord, Store, StoreError,
};

/// The longest that is waited for the journal to be handed over when the service goes down: what is late is in it for the next start.
const LEAVING: Duration = Duration::from_secs(1);

/// A change that is on its way.
type Written<'s> = BoxFuture<'s, Result<(), StoreError>>;

/// Conversations on this instance's disk, shared with other instances over Redis.
pub struct SharedStore {
    local: Arc<SledStore>,
    remote: Remote,
    wake: Arc<Notify>,
    passes: watch::Receiver<(u64, u64)>,
    handover: AbortHandle,
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        self.handover.abort();
    }
}

impl SharedStore {
    /// Shares what `local` has from now on. To be called within the runtime whose thread is to hand over; `chance` gives numbers in 0..1.
    pub fn start(
        local: Arc<SledStore>,
        link: Link,
        terms: watch::Receiver<Terms>,
        chance: fn() -> f64,
    ) -> Self {
        local.keep_journal();
        let remote = Remote { link, terms };
        let wake = Arc::new(Notify::new());
        let (passes, seen) = watch::channel((0, 0));
        let (to, by) = (Arc::clone(&local), Arc::clone(&wake));
        let handover = Handover {
            local: to,
            remote: remote.clone(),
            wake: by,
            passes,
            chance,
        };
        let handover = tokio::spawn(handover.run()).abort_handle();
        Self {
            local,
            remote,
            wake,
            passes: seen,
            handover,
        }
    }

    /// Waits until all that was acknowledged before is handed over.
    pub(super) async fn all_handed_over(&self) {
        let mut passes = self.passes.clone();
        let begun = passes.borrow().0;
        self.wake.notify_one();
        // A pass that had begun already may have missed the last of it.
        let _ = passes.wait_for(|(_, clean)| *clean > begun).await;
    }

    /// A change of this instance's own tree, to be handed over once it is on disk.
    fn then_hand_over<'s>(&'s self, written: Written<'s>) -> Written<'s> {
        Box::pin(async move {
            let written = written.await;
            self.wake.notify_one();
            written
        })
    }

    /// The same, and waits for that while Redis is there: what was replaced or removed must not be read there any more.
    fn and_hand_over<'s>(&'s self, written: Written<'s>) -> Written<'s> {
        Box::pin(async move {
            written.await?;
            if self.remote.link.is_up() {
                // Too late, it is handed over all the same.
                let _ = timeout(BEHIND, self.all_handed_over()).await;
            }
            Ok(())
        })
    }

    /// What is known here of a conversation that was forgotten elsewhere goes too.
    fn outdated(&self, conversation: ConversationId, known: &[TurnRecord], gone: Option<TurnId>) {
        if let Some(gone) = gone
            && !known.is_empty()
            && known.iter().all(|turn| turn.turn <= gone)
        {
            self.local.outdate(conversation);
        }
    }
}

impl Opened {
    /// The same store, shared with other instances. One that is in memory alone cannot be: nothing would be handed over after a crash.
    pub fn shared(
        mut self,
        link: Link,
        terms: watch::Receiver<Terms>,
        chance: fn() -> f64,
    ) -> Self {
        let Some(local) = self.sled.take() else {
            self.problems
                .push("Without a data folder nothing is shared with other instances.".into());
            return self;
        };
        let shared = SharedStore::start(local, link, terms, chance);
        for (conversation, turn) in &self.interrupted {
            // It waits already; what it came to is news to the others.
            drop(shared.write_waiting(*conversation, *turn, true));
        }
        self.store = Arc::new(shared);
        self
    }
}

fn unreachable() -> StoreError {
    StoreError::Broken("it may be shared, and what is shared cannot be reached".into())
}

impl Store for SharedStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        Box::pin(async move {
            match join(self.local.conversation(id), self.remote.conversation(id)).await {
                (here, Ok((Ok(None), gone))) => {
                    // Forgotten elsewhere, unless it was begun anew here.
                    let stays = !gone
                        || self
                            .local
                            .is_marked(Changed::Conversation(id))
                            .await
                            .unwrap_or(true);
                    if stays { here } else { Ok(None) }
                }
                (_, Ok((there, _))) => there,
                (here, Err(_)) => here,
            }
        })
    }

    fn begin(&self, id: ConversationId, record: ConversationRecord) -> Written<'_> {
        self.then_hand_over(self.local.begin(id, record))
    }

    fn newest_of(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        Box::pin(async move {
            let (here, there) = join(
                self.local.newest_of(subject.clone()),
                self.remote.of_visitor(&subject),
            )
            .await;
            let there = match there {
                Ok(there) => there,
                Err(_) => return here,
            };
            let mut newest = None;
            // Whose a conversation is says its record alone.
            for id in here.ok().flatten().into_iter().chain(there) {
                if let Ok(Some(record)) = self.conversation(id).await
                    && record.subject.as_ref() == Some(&subject)
                {
                    newest = newest.max(Some((record.began, id)));
                }
            }
            Ok(newest.map(|(_, id)| id))
        })
    }

    fn write_turn(&self, conversation: ConversationId, turn: TurnRecord) -> Written<'_> {
        self.then_hand_over(self.local.write_turn(conversation, turn))
    }

    fn amend(&self, conversation: ConversationId, turn: TurnId, change: Amendment) -> Written<'_> {
        let queued = self.local.amend(conversation, turn, change.clone());
        self.and_hand_over(Box::pin(async move {
            queued.await?;
            if self.local.turn(conversation, turn).await?.is_some() {
                return Ok(());
            }
            // Another instance's: it is taken over, then changed.
            match self.remote.turn(conversation, turn).await {
                Ok((Some(record), _)) => {
                    let taken = self.local.write_turn(conversation, record);
                    let amended = self.local.amend(conversation, turn, change);
                    join(taken, amended).await.1
                }
                Ok((None, _)) => Ok(()),
                Err(_) => Err(unreachable()),
            }
        }))
    }

    fn write_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        waits: bool,
    ) -> Written<'_> {
        self.and_hand_over(self.local.write_waiting(conversation, turn, waits))
    }

    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        Box::pin(async move {
            let (here, there) = join(self.local.waiting(), self.remote.waiting()).await;
            let Ok(there) = there else { return here };
            let mut all: Vec<_> = here?
                .into_iter()
                .chain(there)
                .map(|(id, turn)| (turn, id))
                .collect();
            all.sort_unstable();
            all.dedup();
            Ok(all.into_iter().map(|(turn, id)| (id, turn)).collect())
        })
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        // Others read the text of a running turn from its stream.
        self.local.checkpoint(conversation, turn);
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        Box::pin(async move {
            match join(
                self.local.turn(conversation, turn),
                self.remote.turn(conversation, turn),
            )
            .await
            {
                (here, Ok((there, gone))) => {
                    let here = here
                        .unwrap_or_default()
                        .filter(|_| gone.is_none_or(|gone| turn > gone));
                    Ok(merge::views(here, there))
                }
                // Another instance may have it: that is not known, which is not the same as that there is none.
                (Ok(None), Err(LinkError::Away)) => Err(unreachable()),
                (here, Err(_)) => here,
            }
        })
    }

    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        Box::pin(async move {
            let there = self.remote.turn_of(conversation, &message);
            match join(self.local.turn_of(conversation, message.clone()), there).await {
                (Ok(Some(here)), Ok(Some(there))) if here.turn == there.turn => {
                    Ok(Some(merge::turns(here, there)))
                }
                // Of two it is the first.
                (Ok(Some(here)), Ok(Some(there))) if here.turn < there.turn => Ok(Some(here)),
                (_, Ok(Some(there))) => Ok(Some(there)),
                (Ok(Some(here)), Ok(None)) => self.turn(conversation, here.turn).await,
                (here, Ok(None) | Err(_)) => here,
            }
        })
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        Box::pin(async move {
            let there = self.remote.turns(conversation, before, limit);
            let (here, there) = join(self.local.turns(conversation, before, limit), there).await;
            let Ok(there) = there else { return here };
            let here = here.unwrap_or_default();
            self.outdated(conversation, &here, there.gone);
            let mut all: BTreeMap<_, _> = there
                .turns
                .into_iter()
                .map(|turn| (turn.turn, turn))
                .collect();
            for turn in here
                .into_iter()
                .filter(|turn| there.gone.is_none_or(|gone| turn.turn > gone))
            {
                let known = all.remove(&turn.turn);
                all.extend(merge::views(Some(turn), known).map(|turn| (turn.turn, turn)));
            }
            let skip = all.len().saturating_sub(limit);
            Ok(all.into_values().skip(skip).collect())
        })
    }

    /// Those of this instance's own tree; Redis lets go by itself what nobody wrote to. Others may have gone on with one of them, so without Redis none is told.
    fn idle(
        &self,
        before: At,
        after: Option<ConversationId>,
        look: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        Box::pin(async move {
            let Idle { found: known, next } = self.local.idle(before, after, look).await?;
            let mut found = Vec::new();
            for id in known {
                let there = self.remote.turns(id, None, 1).await;
                let there = there.map_err(|_| {
                    StoreError::Broken("it is shared, and cannot be reached".into())
                })?;
                if there.turns.iter().all(|turn| turn.turn.at() < before) {
                    found.push(id);
                }
            }
            Ok(Idle { found, next })
        })
    }

    fn forget(&self, conversation: ConversationId) -> Written<'_> {
        self.and_hand_over(self.local.forget(conversation))
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        self.local.breakers()
    }

    fn write_breaker(&self, provider: String, record: Option<BreakerRecord>) -> Written<'_> {
        self.local.write_breaker(provider, record)
    }

    fn spent(&self) -> BoxFuture<'_, Result<Vec<SpentRecord>, StoreError>> {
        self.local.spent()
    }

    fn write_spent(&self, record: SpentRecord) -> Written<'_> {
        self.local.write_spent(record)
    }

    fn note(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        self.local.note(name)
    }

    fn write_note(&self, name: String, text: String) -> Written<'_> {
        self.local.write_note(name, text)
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        Box::pin(async move {
            let (here, there) = join(self.local.incidents(), self.remote.incidents()).await;
            let Ok(there) = there else { return here };
            // As it is known here is newer where it is known here: each instance writes its own.
            let all = there.into_iter().chain(here?);
            let all: BTreeMap<_, _> = all
                .map(|one| ((one.started, one.id.clone()), one))
                .collect();
            let skip = all.len().saturating_sub(INCIDENTS);
            Ok(all.into_values().skip(skip).collect())
        })
    }

    fn write_incident(&self, incident: Incident) -> Written<'_> {
        self.then_hand_over(self.local.write_incident(incident))
    }

    fn life(&self) -> BoxFuture<'_, Result<Option<Life>, StoreError>> {
        Box::pin(async move {
            match join(self.local.life(), self.remote.life()).await {
                (Ok(Some(here)), Ok(Some(there))) => Ok(Some(merge::lives(here, there))),
                (Ok(None), Ok(there)) => Ok(there),
                (here, _) => here,
            }
        })
    }

    fn write_life(&self, life: Life) -> Written<'_> {
        self.then_hand_over(self.local.write_life(life))
    }

    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        Box::pin(async move {
            match join(self.local.cached(key), self.remote.cached(key)).await {
                // Asked at once, so that nobody waits for both. What is not handed over yet is newer; what is, may have been removed elsewhere.
                (_, Ok(there)) if !self.local.is_marked(Changed::Answer(key)).await? => Ok(there),
                (here, Ok(_) | Err(LinkError::Away | LinkError::Refused)) => here,
            }
        })
    }

    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        Box::pin(async move {
            let (here, there) = join(self.local.cached_keys(), self.remote.cached_keys()).await;
            let (mut here, there) = (here?, there.unwrap_or_default());
            here.retain(|key| !there.contains(key));
            here.extend(there);
            Ok(here)
        })
    }

    fn write_cached(&self, key: CacheKey, answer: CachedAnswer) -> Written<'_> {
        self.and_hand_over(self.local.write_cached(key, answer))
    }

    fn remove_cached(&self, keys: Vec<CacheKey>) -> Written<'_> {
        self.and_hand_over(self.local.remove_cached(keys))
    }

    fn handed_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.remote.link.is_up() {
                let _ = timeout(LEAVING, self.all_handed_over()).await;
            }
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn hangs(&self) -> bool {
        self.local.hangs()
    }

    fn problem(&self) -> Option<&'static str> {
        self.local.problem().or_else(|| {
            self.remote
                .link
                .health()
                .borrow()
                .trouble
                .map(Trouble::sentence)
        })
    }
}
