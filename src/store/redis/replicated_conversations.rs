//! Conversations of several instances: reads ask this instance's tree and Redis.

use std::collections::BTreeMap;

use futures_util::future::join;

use super::client::RedisCallError;
use super::merge;
use super::replicated_store::ReplicatedStore;
use crate::domain::{ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnUpdate};
use crate::store::sled::RecordKey;
use crate::store::{ConversationRecord, ConversationStore, ExpiredPage, StoreError, StoreFuture};

fn redis_unavailable() -> StoreError {
    StoreError::Unavailable(
        "the record may be on another instance, and Redis is unavailable".into(),
    )
}

impl ReplicatedStore {
    /// Drops the local copy of a conversation that another instance deleted.
    ///
    /// That is the case if all `known` turns are at or before the last `deleted` one.
    fn drop_deleted(&self, id: ConversationId, known: &[TurnRecord], deleted: Option<TurnId>) {
        if let Some(deleted) = deleted
            && !known.is_empty()
            && known.iter().all(|turn| turn.turn <= deleted)
        {
            self.local.drop_local(id);
        }
    }
}

impl ConversationStore for ReplicatedStore {
    fn conversation(&self, id: ConversationId) -> StoreFuture<'_, Option<ConversationRecord>> {
        Box::pin(async move {
            match join(self.local.conversation(id), self.reader.conversation(id)).await {
                (local, Ok((Ok(None), is_deleted))) => {
                    // Another instance deleted it, unless it was created again here.
                    let created = self.local.awaits_replication(RecordKey::Conversation(id));
                    let exists = !is_deleted || created.await.unwrap_or(true);
                    if exists { local } else { Ok(None) }
                }
                (_, Ok((shared, _))) => shared,
                (local, Err(_)) => local,
            }
        })
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> StoreFuture<'_> {
        self.replicate_after(self.local.create_conversation(id, record))
    }

    fn latest_conversation(&self, subject: String) -> StoreFuture<'_, Option<ConversationId>> {
        Box::pin(async move {
            let local = self.local.latest_conversation(subject.clone());
            let (local, shared) = join(local, self.reader.conversations_of(&subject)).await;
            let Ok(shared) = shared else { return local };
            let mut newest = None;
            // The index entries are hints. Only a conversation's record tells who owns it.
            for id in local.ok().flatten().into_iter().chain(shared) {
                if let Ok(Some(record)) = self.conversation(id).await
                    && record.subject.as_ref() == Some(&subject)
                {
                    newest = newest.max(Some((record.started_at, id)));
                }
            }
            Ok(newest.map(|(_, id)| id))
        })
    }

    fn write_turn(&self, id: ConversationId, turn: TurnRecord) -> StoreFuture<'_> {
        self.replicate_after(self.local.write_turn(id, turn))
    }

    fn update_turn(&self, id: ConversationId, turn: TurnId, change: TurnUpdate) -> StoreFuture<'_> {
        let queued = self.local.update_turn(id, turn, change.clone());
        self.replicate_and_wait(Box::pin(async move {
            queued.await?;
            if self.local.turn(id, turn).await?.is_some() {
                return Ok(());
            }
            // It belongs to another instance: copy it here, then update the copy.
            match self.reader.turn(id, turn).await {
                Ok((Some(record), _)) => {
                    let copied = self.local.write_turn(id, record);
                    let updated = self.local.update_turn(id, turn, change);
                    join(copied, updated).await.1
                }
                Ok((None, _)) => Ok(()),
                Err(_) => Err(redis_unavailable()),
            }
        }))
    }

    fn set_followup_pending(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> StoreFuture<'_> {
        self.replicate_and_wait(self.local.set_followup_pending(id, turn, is_pending))
    }

    fn pending_followups(&self) -> StoreFuture<'_, Vec<(ConversationId, TurnId)>> {
        Box::pin(async move {
            let shared = self.reader.pending_followups();
            let (local, shared) = join(self.local.pending_followups(), shared).await;
            let Ok(shared) = shared else { return local };
            let mut pending = [local?, shared].concat();
            pending.sort_unstable_by_key(|(id, turn)| (*turn, *id));
            pending.dedup();
            Ok(pending)
        })
    }

    fn checkpoint(&self, id: ConversationId, turn: TurnRecord) {
        // Other instances read the text of a running turn from its stream.
        self.local.checkpoint(id, turn);
    }

    fn turn(&self, id: ConversationId, turn: TurnId) -> StoreFuture<'_, Option<TurnRecord>> {
        Box::pin(async move {
            match join(self.local.turn(id, turn), self.reader.turn(id, turn)).await {
                (local, Ok((shared, deleted))) => {
                    let exists = deleted.is_none_or(|deleted| turn > deleted);
                    let local = local.unwrap_or_default().filter(|_| exists);
                    Ok(merge::merge_views(local, shared))
                }
                // Another instance may have the turn, so `None` would be a guess.
                (Ok(None), Err(RedisCallError::Unavailable)) => Err(redis_unavailable()),
                (local, Err(_)) => local,
            }
        })
    }

    fn turn_by_message(
        &self,
        id: ConversationId,
        message: ClientMsgId,
    ) -> StoreFuture<'_, Option<TurnRecord>> {
        Box::pin(async move {
            let shared = self.reader.turn_by_message(id, &message);
            match join(self.local.turn_by_message(id, message.clone()), shared).await {
                (Ok(Some(local)), Ok(Some(shared))) if local.turn == shared.turn => {
                    Ok(Some(merge::merge_turns(local, shared)))
                }
                // Two turns have the same message: the first one counts.
                (Ok(Some(local)), Ok(Some(shared))) if local.turn < shared.turn => Ok(Some(local)),
                (_, Ok(Some(shared))) => Ok(Some(shared)),
                (Ok(Some(local)), Ok(None)) => self.turn(id, local.turn).await,
                (local, Ok(None) | Err(_)) => local,
            }
        })
    }

    fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<TurnRecord>> {
        Box::pin(async move {
            let shared = self.reader.turns(id, before, limit);
            let (local, shared) = join(self.local.turns(id, before, limit), shared).await;
            let Ok(shared) = shared else { return local };
            let local = local.unwrap_or_default();
            self.drop_deleted(id, &local, shared.last_deleted);
            let is_deleted = |id: TurnId| shared.last_deleted.is_some_and(|deleted| id <= deleted);
            let shared_turns = shared.turns.into_iter();
            let mut merged: BTreeMap<_, _> = shared_turns.map(|turn| (turn.turn, turn)).collect();
            for local in local.into_iter().filter(|turn| !is_deleted(turn.turn)) {
                let shared = merged.remove(&local.turn);
                merged
                    .extend(merge::merge_views(Some(local), shared).map(|turn| (turn.turn, turn)));
            }
            let skip = merged.len().saturating_sub(limit);
            Ok(merged.into_values().skip(skip).collect())
        })
    }

    /// Scans this instance's own tree; shared copies expire in Redis by themselves.
    ///
    /// Another instance may have continued a conversation, so it fails while Redis is unavailable.
    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> StoreFuture<'_, ExpiredPage> {
        Box::pin(async move {
            let mut page = self
                .local
                .expired_conversations(before, cursor, limit)
                .await?;
            for id in std::mem::take(&mut page.conversations) {
                let shared = self.reader.turns(id, None, 1).await.map_err(|_| {
                    StoreError::Unavailable("it is shared, and Redis is unavailable".into())
                })?;
                let is_old = |turn: &TurnRecord| turn.turn.timestamp() < before;
                if shared.turns.iter().all(is_old) {
                    page.conversations.push(id);
                }
            }
            Ok(page)
        })
    }

    fn delete_conversation(&self, id: ConversationId) -> StoreFuture<'_> {
        self.replicate_and_wait(self.local.delete_conversation(id))
    }
}
