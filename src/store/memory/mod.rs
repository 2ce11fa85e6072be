//! The in-memory store, for tests and for when no disk is usable.
//!
//! It is bounded: the conversation written to least recently is evicted first.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::codec::turn_memory_bytes;
use super::memory::answers::AnswerMap;
use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, DailySpendRecord, ExpiredPage,
    MAX_INCIDENTS, Store, StoreError,
};
use crate::domain::{
    ClientMsgId, ConversationId, Incident, ServiceLifetime, Timestamp, TurnId, TurnRecord,
    TurnState, TurnUpdate,
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

struct MemoryState {
    conversations: HashMap<ConversationId, StoredConversation>,
    /// Conversations by their last write, least recent first.
    by_last_write: BTreeMap<u64, ConversationId>,
    breakers: BTreeMap<String, BreakerRecord>,
    daily_spend: BTreeMap<String, DailySpendRecord>,
    incidents: BTreeMap<(Timestamp, String), Incident>,
    lifetime: Option<ServiceLifetime>,
    documents: BTreeMap<String, String>,
    answers: AnswerMap,
    writes: u64,
    bytes: usize,
    max_conversations: usize,
    max_bytes: usize,
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
        let first = conversation
            .turn_by_message
            .entry(turn.client_msg_id.clone());
        first.or_insert(turn.turn);
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
            let Some(conversation) = self.conversations.get_mut(&last) else {
                break;
            };
            let Some((id, turn)) = conversation.turns.pop_first() else {
                break;
            };
            conversation
                .turn_by_message
                .retain(|_, opened| *opened != id);
            conversation.bytes -= turn_memory_bytes(&turn);
            self.bytes -= turn_memory_bytes(&turn);
        }
    }
}

impl MemoryStore {
    pub fn with_limits(conversations: usize, bytes: usize) -> Self {
        Self {
            state: Mutex::new(MemoryState {
                conversations: HashMap::new(),
                by_last_write: BTreeMap::new(),
                breakers: BTreeMap::new(),
                daily_spend: BTreeMap::new(),
                incidents: BTreeMap::new(),
                lifetime: None,
                documents: BTreeMap::new(),
                answers: AnswerMap::default(),
                writes: 0,
                bytes: 0,
                max_conversations: conversations,
                max_bytes: bytes,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock()
    }

    fn with_conversation<T>(
        &self,
        id: ConversationId,
        read: impl FnOnce(&StoredConversation) -> T,
    ) -> Option<T> {
        self.state().conversations.get(&id).map(read)
    }
}

fn ready_ok<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, StoreError>> {
    ready(Ok(value)).boxed()
}

impl Store for MemoryStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        ready_ok(
            self.with_conversation(id, |found| found.record.clone())
                .flatten(),
        )
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        state.touch(id).record.get_or_insert(record);
        state.evict_to_fit(id);
        ready_ok(())
    }

    fn latest_conversation(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        let state = self.state();
        let start = |(id, conversation): (&ConversationId, &StoredConversation)| {
            let record = conversation
                .record
                .as_ref()
                .filter(|record| record.subject.as_ref() == Some(&subject))?;
            Some((record.started_at, *id))
        };
        let newest = state.conversations.iter().filter_map(start).max();
        ready_ok(newest.map(|(_, id)| id))
    }

    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.state().write_turn(conversation, turn);
        ready_ok(())
    }

    fn update_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: TurnUpdate,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        let found = state.conversations.get_mut(&conversation);
        if let Some(found) = found {
            if matches!(change, TurnUpdate::Followup(_)) {
                found.pending_followups.remove(&turn);
            }
            if let Some(mut record) = found.turns.get(&turn).cloned() {
                record.apply(change);
                state.write_turn(conversation, record);
            }
        }
        ready_ok(())
    }

    fn set_followup_pending(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        if is_pending {
            state.touch(conversation).pending_followups.insert(turn);
            state.evict_to_fit(conversation);
        } else if let Some(found) = state.conversations.get_mut(&conversation) {
            found.pending_followups.remove(&turn);
        }
        ready_ok(())
    }

    fn pending_followups(
        &self,
    ) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        let state = self.state();
        let pending_in = |(id, conversation): (&ConversationId, &StoredConversation)| {
            conversation
                .pending_followups
                .iter()
                .map(|turn| (*id, *turn))
                .collect::<Vec<_>>()
        };
        let mut pending: Vec<_> = state.conversations.iter().flat_map(pending_in).collect();
        pending.sort_by_key(|(id, turn)| (*turn, *id));
        ready_ok(pending)
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        let mut state = self.state();
        let stored = state
            .conversations
            .get(&conversation)
            .and_then(|conversation| conversation.turns.get(&turn.turn));
        let is_running = stored.is_some_and(|stored| stored.state == TurnState::Running);
        if is_running && turn.state == TurnState::Running {
            state.write_turn(conversation, turn);
        }
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        ready_ok(
            self.with_conversation(conversation, |found| found.turns.get(&turn).cloned())
                .flatten(),
        )
    }

    fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        let find = |found: &StoredConversation| {
            found
                .turns
                .get(found.turn_by_message.get(&message)?)
                .cloned()
        };
        ready_ok(self.with_conversation(conversation, find).flatten())
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        let last_page = |found: &StoredConversation| {
            let end = before.map_or(Bound::Unbounded, Bound::Excluded);
            let earlier = found.turns.range((Bound::Unbounded, end)).rev();
            let mut last = earlier
                .map(|(_, turn)| turn.clone())
                .take(limit)
                .collect::<Vec<_>>();
            last.reverse();
            last
        };
        ready_ok(
            self.with_conversation(conversation, last_page)
                .unwrap_or_default(),
        )
    }

    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ExpiredPage, StoreError>> {
        let state = self.state();
        let mut ids: Vec<_> = state
            .conversations
            .keys()
            .filter(|id| cursor.is_none_or(|cursor| **id > cursor))
            .copied()
            .collect();
        ids.sort_unstable();
        let has_more = ids.len() > limit;
        ids.truncate(limit);
        let next = ids.last().copied().filter(|_| has_more);
        let is_expired = |id: &ConversationId| {
            state.conversations.get(id).is_some_and(|conversation| {
                let last = conversation.turns.keys().next_back();
                last.map(|turn| turn.timestamp())
                    .or(conversation.record.as_ref().map(|record| record.started_at))
                    .is_some_and(|last| last < before)
            })
        };
        ids.retain(is_expired);
        ready_ok(ExpiredPage {
            conversations: ids,
            next_cursor: next,
        })
    }

    fn delete_conversation(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        state.remove_conversation(conversation);
        state.answers.remove_from_conversation(conversation);
        ready_ok(())
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        ready_ok(self.state().breakers.values().cloned().collect())
    }

    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        match record {
            Some(record) => drop(state.breakers.insert(provider, record)),
            None => drop(state.breakers.remove(&provider)),
        }
        ready_ok(())
    }

    fn daily_spend(&self) -> BoxFuture<'_, Result<Vec<DailySpendRecord>, StoreError>> {
        ready_ok(self.state().daily_spend.values().cloned().collect())
    }

    fn save_daily_spend(&self, record: DailySpendRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.state()
            .daily_spend
            .insert(record.provider.clone(), record);
        ready_ok(())
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        ready_ok(self.state().incidents.values().cloned().collect())
    }

    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        state
            .incidents
            .insert((incident.started, incident.id.clone()), incident);
        if state.incidents.len() > MAX_INCIDENTS {
            state.incidents.pop_first();
        }
        ready_ok(())
    }

    fn service_lifetime(&self) -> BoxFuture<'_, Result<Option<ServiceLifetime>, StoreError>> {
        ready_ok(self.state().lifetime)
    }

    fn save_service_lifetime(
        &self,
        life: ServiceLifetime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.state().lifetime = Some(life);
        ready_ok(())
    }

    fn get_document(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        ready_ok(self.state().documents.get(&name).cloned())
    }

    fn put_document(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.state().documents.insert(name, text);
        ready_ok(())
    }

    fn get_answer(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        ready_ok(self.state().answers.get(key))
    }

    fn answer_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        ready_ok(self.state().answers.keys())
    }

    fn put_answer(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.state().answers.insert(key, answer);
        ready_ok(())
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        keys.into_iter().for_each(|key| state.answers.remove(key));
        ready_ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

mod answers;
#[cfg(test)]
mod tests;
