//! The store over one instance's own tree and the records shared over Redis.

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

/// Limit on the wait for replication at shutdown. Later records stay in the journal.
const LEAVING: Duration = Duration::from_secs(1);

type Written<'s> = BoxFuture<'s, Result<(), StoreError>>;

/// A store on this instance's disk that is replicated to other instances over Redis.
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
    /// Starts replicating `local`. The replication task runs on the runtime of the caller.
    ///
    /// `random_unit` returns numbers in 0..1.
    pub fn start(
        local: Arc<SledStore>,
        client: Link,
        terms: watch::Receiver<Terms>,
        random_unit: fn() -> f64,
    ) -> Self {
        local.keep_journal();
        let remote = Remote {
            link: client,
            terms,
        };
        let wake = Arc::new(Notify::new());
        let (passes, passes_receiver) = watch::channel((0, 0));
        let handover = Handover {
            local: Arc::clone(&local),
            remote: remote.clone(),
            wake: Arc::clone(&wake),
            passes,
            chance: random_unit,
        };
        let handover = tokio::spawn(handover.run()).abort_handle();
        Self {
            local,
            remote,
            wake,
            passes: passes_receiver,
            handover,
        }
    }

    /// Waits until every change acknowledged before the call is replicated.
    pub(super) async fn all_handed_over(&self) {
        let mut passes = self.passes.clone();
        let started = passes.borrow().0;
        self.wake.notify_one();
        // A pass that is already running may have missed the last changes, so wait for a later one.
        let _ = passes.wait_for(|(_, clean)| *clean > started).await;
    }

    /// Wakes the replication once the local write is on disk.
    fn then_hand_over<'s>(&'s self, write: Written<'s>) -> Written<'s> {
        Box::pin(async move {
            let result = write.await;
            self.wake.notify_one();
            result
        })
    }

    /// Also waits for the replication while Redis is up, so that other instances stop reading what
    /// was replaced or removed.
    fn and_hand_over<'s>(&'s self, write: Written<'s>) -> Written<'s> {
        Box::pin(async move {
            write.await?;
            if self.remote.link.is_up() {
                // After the timeout it is replicated in the background.
                let _ = timeout(BEHIND, self.all_handed_over()).await;
            }
            Ok(())
        })
    }

    /// Drops the local copy of a conversation that another instance deleted.
    ///
    /// That is the case if all `known` turns are at or before the last `deleted` one.
    fn outdated(&self, id: ConversationId, known: &[TurnRecord], deleted: Option<TurnId>) {
        if let Some(deleted) = deleted
            && !known.is_empty()
            && known.iter().all(|turn| turn.turn <= deleted)
        {
            self.local.outdate(id);
        }
    }
}

impl Opened {
    /// Replicates the store to other instances.
    ///
    /// A store in memory cannot be replicated: a crash would lose changes before they are sent.
    pub fn shared(
        mut self,
        client: Link,
        terms: watch::Receiver<Terms>,
        random_unit: fn() -> f64,
    ) -> Self {
        let Some(local) = self.sled.take() else {
            self.problems
                .push("Without a data folder nothing is shared with other instances.".into());
            return self;
        };
        let shared = SharedStore::start(local, client, terms, random_unit);
        for (conversation, turn) in &self.interrupted {
            // Its mark is set already. Setting it again journals the interrupted turn.
            drop(shared.write_waiting(*conversation, *turn, true));
        }
        self.store = Arc::new(shared);
        self
    }
}

fn unreachable() -> StoreError {
    StoreError::Broken("the record may be on another instance, and Redis is unavailable".into())
}

impl Store for SharedStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        Box::pin(async move {
            match join(self.local.conversation(id), self.remote.conversation(id)).await {
                (local, Ok((Ok(None), is_deleted))) => {
                    // Another instance deleted it, unless it was created again here.
                    let exists = !is_deleted
                        || self
                            .local
                            .is_marked(Changed::Conversation(id))
                            .await
                            .unwrap_or(true);
                    if exists { local } else { Ok(None) }
                }
                (_, Ok((shared, _))) => shared,
                (local, Err(_)) => local,
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
            let (local, shared) = join(
                self.local.newest_of(subject.clone()),
                self.remote.of_visitor(&subject),
            )
            .await;
            let shared = match shared {
                Ok(shared) => shared,
                Err(_) => return local,
            };
            let mut newest = None;
            // The index entries are hints. Only a conversation's record tells who owns it.
            for id in local.ok().flatten().into_iter().chain(shared) {
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
            // It belongs to another instance: copy it here, then update the copy.
            match self.remote.turn(conversation, turn).await {
                Ok((Some(record), _)) => {
                    let copied = self.local.write_turn(conversation, record);
                    let updated = self.local.amend(conversation, turn, change);
                    join(copied, updated).await.1
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
        is_pending: bool,
    ) -> Written<'_> {
        self.and_hand_over(self.local.write_waiting(conversation, turn, is_pending))
    }

    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        Box::pin(async move {
            let (local, shared) = join(self.local.waiting(), self.remote.waiting()).await;
            let Ok(shared) = shared else { return local };
            let mut pending: Vec<_> = local?
                .into_iter()
                .chain(shared)
                .map(|(id, turn)| (turn, id))
                .collect();
            pending.sort_unstable();
            pending.dedup();
            Ok(pending.into_iter().map(|(turn, id)| (id, turn)).collect())
        })
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        // Other instances read the text of a running turn from its stream.
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
                (local, Ok((shared, deleted))) => {
                    let local = local
                        .unwrap_or_default()
                        .filter(|_| deleted.is_none_or(|deleted| turn > deleted));
                    Ok(merge::views(local, shared))
                }
                // Another instance may have the turn, so `None` would be a guess.
                (Ok(None), Err(LinkError::Away)) => Err(unreachable()),
                (local, Err(_)) => local,
            }
        })
    }

    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        Box::pin(async move {
            let shared = self.remote.turn_of(conversation, &message);
            match join(self.local.turn_of(conversation, message.clone()), shared).await {
                (Ok(Some(local)), Ok(Some(shared))) if local.turn == shared.turn => {
                    Ok(Some(merge::turns(local, shared)))
                }
                // Two turns have the same message: the first one counts.
                (Ok(Some(local)), Ok(Some(shared))) if local.turn < shared.turn => Ok(Some(local)),
                (_, Ok(Some(shared))) => Ok(Some(shared)),
                (Ok(Some(local)), Ok(None)) => self.turn(conversation, local.turn).await,
                (local, Ok(None) | Err(_)) => local,
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
            let shared = self.remote.turns(conversation, before, limit);
            let (local, shared) = join(self.local.turns(conversation, before, limit), shared).await;
            let Ok(shared) = shared else { return local };
            let local = local.unwrap_or_default();
            self.outdated(conversation, &local, shared.gone);
            let mut merged: BTreeMap<_, _> = shared
                .turns
                .into_iter()
                .map(|turn| (turn.turn, turn))
                .collect();
            for turn in local
                .into_iter()
                .filter(|turn| shared.gone.is_none_or(|deleted| turn.turn > deleted))
            {
                let shared_turn = merged.remove(&turn.turn);
                merged.extend(merge::views(Some(turn), shared_turn).map(|turn| (turn.turn, turn)));
            }
            let skip = merged.len().saturating_sub(limit);
            Ok(merged.into_values().skip(skip).collect())
        })
    }

    /// Scans this instance's own tree; shared copies expire in Redis by themselves.
    ///
    /// Another instance may have continued a conversation, so it fails while Redis is unavailable.
    fn idle(
        &self,
        before: At,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        Box::pin(async move {
            let Idle { found: known, next } = self.local.idle(before, cursor, limit).await?;
            let mut found = Vec::new();
            for id in known {
                let shared = self.remote.turns(id, None, 1).await;
                let shared = shared.map_err(|_| {
                    StoreError::Broken("it is shared, and Redis is unavailable".into())
                })?;
                if shared.turns.iter().all(|turn| turn.turn.at() < before) {
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
            let (local, shared) = join(self.local.incidents(), self.remote.incidents()).await;
            let Ok(shared) = shared else { return local };
            // The local view wins: each instance writes its own incidents.
            let incidents: BTreeMap<_, _> = shared
                .into_iter()
                .chain(local?)
                .map(|incident| ((incident.started, incident.id.clone()), incident))
                .collect();
            let skip = incidents.len().saturating_sub(INCIDENTS);
            Ok(incidents.into_values().skip(skip).collect())
        })
    }

    fn write_incident(&self, incident: Incident) -> Written<'_> {
        self.then_hand_over(self.local.write_incident(incident))
    }

    fn life(&self) -> BoxFuture<'_, Result<Option<Life>, StoreError>> {
        Box::pin(async move {
            match join(self.local.life(), self.remote.life()).await {
                (Ok(Some(local)), Ok(Some(shared))) => Ok(Some(merge::lives(local, shared))),
                (Ok(None), Ok(shared)) => Ok(shared),
                (local, _) => local,
            }
        })
    }

    fn write_life(&self, life: Life) -> Written<'_> {
        self.then_hand_over(self.local.write_life(life))
    }

    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        Box::pin(async move {
            match join(self.local.cached(key), self.remote.cached(key)).await {
                // A journaled local answer is newer than the shared one. Otherwise the shared view
                // counts, since another instance may have removed the answer.
                (_, Ok(shared)) if !self.local.is_marked(Changed::Answer(key)).await? => Ok(shared),
                (local, Ok(_) | Err(LinkError::Away | LinkError::Refused)) => local,
            }
        })
    }

    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        Box::pin(async move {
            let (local, shared) = join(self.local.cached_keys(), self.remote.cached_keys()).await;
            let mut keys = local?;
            let shared = shared.unwrap_or_default();
            keys.retain(|key| !shared.contains(key));
            keys.extend(shared);
            Ok(keys)
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
