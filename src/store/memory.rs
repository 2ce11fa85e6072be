//! The in-memory store, for tests and for when no disk is usable.
//!
//! It is bounded: the conversation written to least recently is evicted first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::answers::Answers;
use super::record::weight;
use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, INCIDENTS, Idle, SpentRecord, Store,
    StoreError,
};
use crate::chat::{
    Amendment, At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord, TurnState,
};

const MOST: usize = 10_000;

const MOST_BYTES: usize = 256 << 20;

/// A store in memory. Each call is done when it returns; its future is ready.
pub struct MemoryStore {
    state: Mutex<Kept>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::bounded(MOST, MOST_BYTES)
    }
}

#[derive(Default)]
struct Conversation {
    record: Option<ConversationRecord>,
    turns: BTreeMap<TurnId, TurnRecord>,
    opened: HashMap<ClientMsgId, TurnId>,
    waiting: BTreeSet<TurnId>,
    /// The value of `MemoryState::writes` at the last write.
    touched: u64,
    bytes: usize,
}

struct Kept {
    conversations: HashMap<ConversationId, Conversation>,
    /// Conversations by their last write, least recent first.
    order: BTreeMap<u64, ConversationId>,
    breakers: BTreeMap<String, BreakerRecord>,
    spent: BTreeMap<String, SpentRecord>,
    incidents: BTreeMap<(At, String), Incident>,
    life: Option<Life>,
    notes: BTreeMap<String, String>,
    answers: Answers,
    writes: u64,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Kept {
    /// Returns the conversation, creating it if needed, and marks it as most recently written.
    fn touch(&mut self, id: ConversationId) -> &mut Conversation {
        self.writes += 1;
        let conversation = self.conversations.entry(id).or_default();
        self.order.remove(&conversation.touched);
        self.order.insert(self.writes, id);
        conversation.touched = self.writes;
        conversation
    }

    fn write(&mut self, id: ConversationId, turn: TurnRecord) {
        let added = weight(&turn);
        let conversation = self.touch(id);
        let first = conversation.opened.entry(turn.client_msg_id.clone());
        first.or_insert(turn.turn);
        let old = conversation.turns.insert(turn.turn, turn);
        let removed = old.as_ref().map_or(0, weight);
        conversation.bytes = conversation.bytes + added - removed;
        self.bytes = self.bytes + added - removed;
        self.make_room(id);
    }

    fn forget(&mut self, id: ConversationId) {
        if let Some(removed) = self.conversations.remove(&id) {
            self.order.remove(&removed.touched);
            self.bytes -= removed.bytes;
        }
    }

    fn over(&self) -> bool {
        self.conversations.len() > self.most || self.bytes > self.most_bytes
    }

    /// Evicts the oldest conversations, then, if `last` alone is over the limit, its oldest turns.
    fn make_room(&mut self, last: ConversationId) {
        while self.over() {
            match self.order.first_key_value() {
                Some((_, &oldest)) if oldest != last => self.forget(oldest),
                _ => break,
            }
        }
        while self.over() {
            let Some(conversation) = self.conversations.get_mut(&last) else {
                break;
            };
            let Some((id, turn)) = conversation.turns.pop_first() else {
                break;
            };
            conversation.opened.retain(|_, opened| *opened != id);
            conversation.bytes -= weight(&turn);
            self.bytes -= weight(&turn);
        }
    }
}

impl MemoryStore {
    pub fn bounded(conversations: usize, bytes: usize) -> Self {
        Self {
            state: Mutex::new(Kept {
                conversations: HashMap::new(),
                order: BTreeMap::new(),
                breakers: BTreeMap::new(),
                spent: BTreeMap::new(),
                incidents: BTreeMap::new(),
                life: None,
                notes: BTreeMap::new(),
                answers: Answers::default(),
                writes: 0,
                bytes: 0,
                most: conversations,
                most_bytes: bytes,
            }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, id: ConversationId, read: impl FnOnce(&Conversation) -> T) -> Option<T> {
        self.kept().conversations.get(&id).map(read)
    }
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, StoreError>> {
    ready(Ok(value)).boxed()
}

impl Store for MemoryStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        done(self.of(id, |found| found.record.clone()).flatten())
    }

    fn begin(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        state.touch(id).record.get_or_insert(record);
        state.make_room(id);
        done(())
    }

    fn newest_of(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        let state = self.kept();
        let start = |(id, conversation): (&ConversationId, &Conversation)| {
            let record = conversation
                .record
                .as_ref()
                .filter(|record| record.subject.as_ref() == Some(&subject))?;
            Some((record.began, *id))
        };
        let newest = state.conversations.iter().filter_map(start).max();
        done(newest.map(|(_, id)| id))
    }

    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.kept().write(conversation, turn);
        done(())
    }

    fn amend(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: Amendment,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        let found = state.conversations.get_mut(&conversation);
        if let Some(found) = found {
            if matches!(change, Amendment::Followup(_)) {
                found.waiting.remove(&turn);
            }
            if let Some(mut record) = found.turns.get(&turn).cloned() {
                record.amend(change);
                state.write(conversation, record);
            }
        }
        done(())
    }

    fn write_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        if is_pending {
            state.touch(conversation).waiting.insert(turn);
            state.make_room(conversation);
        } else if let Some(found) = state.conversations.get_mut(&conversation) {
            found.waiting.remove(&turn);
        }
        done(())
    }

    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        let state = self.kept();
        let pending_in = |(id, conversation): (&ConversationId, &Conversation)| {
            conversation
                .waiting
                .iter()
                .map(|turn| (*id, *turn))
                .collect::<Vec<_>>()
        };
        let mut pending: Vec<_> = state.conversations.iter().flat_map(pending_in).collect();
        pending.sort_by_key(|(id, turn)| (*turn, *id));
        done(pending)
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        let mut state = self.kept();
        let stored = state
            .conversations
            .get(&conversation)
            .and_then(|conversation| conversation.turns.get(&turn.turn));
        let is_running = stored.is_some_and(|stored| stored.state == TurnState::Running);
        if is_running && turn.state == TurnState::Running {
            state.write(conversation, turn);
        }
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        done(
            self.of(conversation, |found| found.turns.get(&turn).cloned())
                .flatten(),
        )
    }

    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        let find = |found: &Conversation| found.turns.get(found.opened.get(&message)?).cloned();
        done(self.of(conversation, find).flatten())
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        let last_page = |found: &Conversation| {
            let end = before.map_or(Bound::Unbounded, Bound::Excluded);
            let earlier = found.turns.range((Bound::Unbounded, end)).rev();
            let mut last = earlier
                .map(|(_, turn)| turn.clone())
                .take(limit)
                .collect::<Vec<_>>();
            last.reverse();
            last
        };
        done(self.of(conversation, last_page).unwrap_or_default())
    }

    fn idle(
        &self,
        before: At,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        let state = self.kept();
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
                last.map(|turn| turn.at())
                    .or(conversation.record.as_ref().map(|record| record.began))
                    .is_some_and(|last| last < before)
            })
        };
        ids.retain(is_expired);
        done(Idle { found: ids, next })
    }

    fn forget(&self, conversation: ConversationId) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        state.forget(conversation);
        state.answers.forget(conversation);
        done(())
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        done(self.kept().breakers.values().cloned().collect())
    }

    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        match record {
            Some(record) => drop(state.breakers.insert(provider, record)),
            None => drop(state.breakers.remove(&provider)),
        }
        done(())
    }

    fn spent(&self) -> BoxFuture<'_, Result<Vec<SpentRecord>, StoreError>> {
        done(self.kept().spent.values().cloned().collect())
    }

    fn write_spent(&self, record: SpentRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.kept().spent.insert(record.provider.clone(), record);
        done(())
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        done(self.kept().incidents.values().cloned().collect())
    }

    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        state
            .incidents
            .insert((incident.started, incident.id.clone()), incident);
        if state.incidents.len() > INCIDENTS {
            state.incidents.pop_first();
        }
        done(())
    }

    fn life(&self) -> BoxFuture<'_, Result<Option<Life>, StoreError>> {
        done(self.kept().life)
    }

    fn write_life(&self, life: Life) -> BoxFuture<'_, Result<(), StoreError>> {
        self.kept().life = Some(life);
        done(())
    }

    fn note(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        done(self.kept().notes.get(&name).cloned())
    }

    fn write_note(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.kept().notes.insert(name, text);
        done(())
    }

    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        done(self.kept().answers.get(key))
    }

    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        done(self.kept().answers.keys())
    }

    fn write_cached(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.kept().answers.write(key, answer);
        done(())
    }

    fn remove_cached(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.kept();
        keys.into_iter().for_each(|key| state.answers.remove(key));
        done(())
    }

    fn lasting(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
