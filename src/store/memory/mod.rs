//! The in-memory store, for tests and for when no disk is usable.
//!
//! It is bounded: the conversation written to least recently is evicted first.

mod answers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use futures_util::future::ready;
use parking_lot::Mutex;

use self::answers::AnswerMap;
use super::codec::turn_memory_bytes;
use super::{
    AnswerStore, CacheKey, CachedAnswer, ConversationRecord, ConversationStore, DocumentKind,
    DocumentStore, ExpiredPage, Store, StoreFuture,
};
use crate::domain::{
    ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnState, TurnUpdate,
};

const MAX_CONVERSATIONS: usize = 10_000;

const MAX_TEXT_BYTES: usize = 256 << 20;

/// A store in memory. Each call is done when it returns; its future is ready.
pub struct MemoryStore {
    state: Mutex<MemoryState>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_limits(MAX_CONVERSATIONS, MAX_TEXT_BYTES)
    }
}

#[derive(Default)]
struct StoredConversation {
    record: Option<ConversationRecord>,
    turns: BTreeMap<TurnId, TurnRecord>,
    turn_by_message: HashMap<ClientMsgId, TurnId>,
    pending_followups: BTreeSet<TurnId>,
    /// The value of `MemoryState::writes` at the last write.
    last_write: u64,
    bytes: usize,
}

#[derive(Default)]
struct MemoryState {
    conversations: HashMap<ConversationId, StoredConversation>,
    /// Conversations by their last write, least recent first.
    by_last_write: BTreeMap<u64, ConversationId>,
    documents: BTreeMap<(DocumentKind, String), Vec<u8>>,
    answers: AnswerMap,
    writes: u64,
    bytes: usize,
    max_conversations: usize,
    max_bytes: usize,
}

impl StoredConversation {
    /// The start of the last turn, or else of the conversation.
    fn last_active(&self) -> Option<Timestamp> {
        match self.turns.last_key_value() {
            Some((turn, _)) => Some(turn.timestamp()),
            None => Some(self.record.as_ref()?.started_at),
        }
    }
}

impl MemoryState {
    /// Returns the conversation, creating it if needed, and marks it as most recently written.
    fn touch(&mut self, id: ConversationId) -> &mut StoredConversation {
        self.writes += 1;
        let conversation = self.conversations.entry(id).or_default();
        self.by_last_write.remove(&conversation.last_write);
        self.by_last_write.insert(self.writes, id);
        conversation.last_write = self.writes;
        conversation
    }

    fn write_turn(&mut self, id: ConversationId, turn: TurnRecord) {
        let added = turn_memory_bytes(&turn);
        let conversation = self.touch(id);
        let message = turn.client_msg_id.clone();
        conversation
            .turn_by_message
            .entry(message)
            .or_insert(turn.turn);
        let old = conversation.turns.insert(turn.turn, turn);
        let removed = old.as_ref().map_or(0, turn_memory_bytes);
        conversation.bytes = conversation.bytes + added - removed;
        self.bytes = self.bytes + added - removed;
        self.evict_to_fit(id);
    }

    fn remove_conversation(&mut self, id: ConversationId) {
        if let Some(removed) = self.conversations.remove(&id) {
            self.by_last_write.remove(&removed.last_write);
            self.bytes -= removed.bytes;
        }
    }

    fn is_over_limit(&self) -> bool {
        self.conversations.len() > self.max_conversations || self.bytes > self.max_bytes
    }

    /// Evicts the oldest conversations, then, if `last` alone is over the limit, its oldest turns.
    fn evict_to_fit(&mut self, last: ConversationId) {
        while self.is_over_limit() {
            match self.by_last_write.first_key_value() {
                Some((_, &oldest)) if oldest != last => self.remove_conversation(oldest),
                _ => break,
            }
        }
        while self.is_over_limit() {
            let Some(found) = self.conversations.get_mut(&last) else {
                break;
            };
            let Some((id, turn)) = found.turns.pop_first() else {
                break;
            };
            found.turn_by_message.retain(|_, opened| *opened != id);
            found.bytes -= turn_memory_bytes(&turn);
            self.bytes -= turn_memory_bytes(&turn);
        }
    }
}

impl MemoryStore {
    pub fn with_limits(conversations: usize, bytes: usize) -> Self {
        Self {
            state: Mutex::new(MemoryState {
                max_conversations: conversations,
                max_bytes: bytes,
                ..MemoryState::default()
            }),
        }
    }

    /// Reads from a conversation. `None` if it does not exist.
    fn find<T>(
        &self,
        id: ConversationId,
        read: impl FnOnce(&StoredConversation) -> Option<T>,
    ) -> Option<T> {
        read(self.state.lock().conversations.get(&id)?)
    }
}

fn ready_ok<T: Send + 'static>(value: T) -> StoreFuture<'static, T> {
    Box::pin(ready(Ok(value)))
}

impl Store for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }
}

impl ConversationStore for MemoryStore {
    fn conversation(&self, id: ConversationId) -> StoreFuture<'_, Option<ConversationRecord>> {
        ready_ok(self.find(id, |found| found.record.clone()))
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> StoreFuture<'_> {
        let mut state = self.state.lock();
        state.touch(id).record.get_or_insert(record);
        state.evict_to_fit(id);
        ready_ok(())
    }

    fn latest_conversation(&self, subject: String) -> StoreFuture<'_, Option<ConversationId>> {
        let state = self.state.lock();
        let start = |(id, conversation): (&ConversationId, &StoredConversation)| {
            let record = conversation.record.as_ref()?;
            (record.subject.as_ref() == Some(&subject)).then_some((record.started_at, *id))
        };
        let newest = state.conversations.iter().filter_map(start).max();
        ready_ok(newest.map(|(_, id)| id))
    }

    fn write_turn(&self, id: ConversationId, turn: TurnRecord) -> StoreFuture<'_> {
        self.state.lock().write_turn(id, turn);
        ready_ok(())
    }

    fn update_turn(&self, id: ConversationId, turn: TurnId, change: TurnUpdate) -> StoreFuture<'_> {
        let mut state = self.state.lock();
        if let Some(found) = state.conversations.get_mut(&id) {
            if matches!(change, TurnUpdate::Followup(_)) {
                found.pending_followups.remove(&turn);
            }
            if let Some(mut record) = found.turns.get(&turn).cloned() {
                record.apply(change);
                state.write_turn(id, record);
            }
        }
        ready_ok(())
    }

    fn set_followup_pending(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> StoreFuture<'_> {
        let mut state = self.state.lock();
        if is_pending {
            state.touch(id).pending_followups.insert(turn);
            state.evict_to_fit(id);
        } else if let Some(found) = state.conversations.get_mut(&id) {
            found.pending_followups.remove(&turn);
        }
        ready_ok(())
    }

    fn pending_followups(&self) -> StoreFuture<'_, Vec<(ConversationId, TurnId)>> {
        let mut pending = Vec::new();
        for (id, conversation) in &self.state.lock().conversations {
            pending.extend(
                conversation
                    .pending_followups
                    .iter()
                    .map(|turn| (*id, *turn)),
            );
        }
        pending.sort_by_key(|(id, turn)| (*turn, *id));
        ready_ok(pending)
    }

    fn checkpoint(&self, id: ConversationId, turn: TurnRecord) {
        let mut state = self.state.lock();
        let conversation = state.conversations.get(&id);
        let stored = conversation.and_then(|found| found.turns.get(&turn.turn));
        let is_running = stored.is_some_and(|stored| stored.state == TurnState::Running);
        if is_running && turn.state == TurnState::Running {
            state.write_turn(id, turn);
        }
    }

    fn turn(&self, id: ConversationId, turn: TurnId) -> StoreFuture<'_, Option<TurnRecord>> {
        ready_ok(self.find(id, |found| found.turns.get(&turn).cloned()))
    }

    fn turn_by_message(
        &self,
        id: ConversationId,
        message: ClientMsgId,
    ) -> StoreFuture<'_, Option<TurnRecord>> {
        let by_message = |found: &StoredConversation| {
            let turn = found.turn_by_message.get(&message)?;
            found.turns.get(turn).cloned()
        };
        ready_ok(self.find(id, by_message))
    }

    fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<TurnRecord>> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last: Vec<TurnRecord> = Vec::new();
        if let Some(found) = self.state.lock().conversations.get(&id) {
            let earlier = found.turns.range((Bound::Unbounded, end)).rev();
            last.extend(earlier.take(limit).map(|(_, turn)| turn.clone()));
        }
        last.reverse();
        ready_ok(last)
    }

    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> StoreFuture<'_, ExpiredPage> {
        let state = self.state.lock();
        let is_after = |id: &ConversationId| cursor.is_none_or(|cursor| *id > cursor);
        let mut ids: Vec<_> = state
            .conversations
            .keys()
            .copied()
            .filter(is_after)
            .collect();
        ids.sort_unstable();
        let has_more = ids.len() > limit;
        ids.truncate(limit);
        let next_cursor = ids.last().copied().filter(|_| has_more);
        ids.retain(|id| {
            let conversation = state.conversations.get(id);
            conversation
                .and_then(StoredConversation::last_active)
                .is_some_and(|at| at < before)
        });
        ready_ok(ExpiredPage {
            conversations: ids,
            next_cursor,
        })
    }

    fn delete_conversation(&self, id: ConversationId) -> StoreFuture<'_> {
        let mut state = self.state.lock();
        state.remove_conversation(id);
        state.answers.remove_from_conversation(id);
        ready_ok(())
    }
}

impl DocumentStore for MemoryStore {
    fn get(&self, kind: DocumentKind, key: String) -> StoreFuture<'_, Option<Vec<u8>>> {
        ready_ok(self.state.lock().documents.get(&(kind, key)).cloned())
    }

    fn list(&self, kind: DocumentKind) -> StoreFuture<'_, Vec<(String, Vec<u8>)>> {
        let state = self.state.lock();
        let of_kind = state.documents.iter().filter(|((of, _), _)| *of == kind);
        ready_ok(
            of_kind
                .map(|((_, key), bytes)| (key.clone(), bytes.clone()))
                .collect(),
        )
    }

    fn put(&self, kind: DocumentKind, key: String, document: Option<Vec<u8>>) -> StoreFuture<'_> {
        let documents = &mut self.state.lock().documents;
        match document {
            Some(bytes) => documents.insert((kind, key), bytes),
            None => documents.remove(&(kind, key)),
        };
        let of_kind: Vec<_> = documents
            .keys()
            .filter(|(of, _)| *of == kind)
            .cloned()
            .collect();
        let excess = of_kind.len().saturating_sub(kind.max_count());
        for oldest in of_kind.iter().take(excess) {
            documents.remove(oldest);
        }
        ready_ok(())
    }
}

impl AnswerStore for MemoryStore {
    fn get_answer(&self, key: CacheKey) -> StoreFuture<'_, Option<CachedAnswer>> {
        ready_ok(self.state.lock().answers.get(key))
    }

    fn answer_keys(&self) -> StoreFuture<'_, Vec<CacheKey>> {
        ready_ok(self.state.lock().answers.keys())
    }

    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> StoreFuture<'_> {
        self.state.lock().answers.insert(key, answer);
        ready_ok(())
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> StoreFuture<'_> {
        let mut state = self.state.lock();
        keys.into_iter().for_each(|key| state.answers.remove(key));
        ready_ok(())
    }
}
