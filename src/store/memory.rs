//! The store that keeps everything in memory: for tests, and where no disk can be used.
//!
//! It is bounded: the conversation that was written to least recently goes first.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::answers::Answers;
use super::record::weight;
use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, INCIDENTS, SpentRecord, Store, StoreError,
};
use crate::chat::{At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord, TurnState};

/// The most conversations kept.
const MOST: usize = 10_000;

/// The most bytes of text kept, over all conversations.
const MOST_BYTES: usize = 256 << 20;

/// Conversations in memory. Its calls are done when they return; the futures are ready.
pub struct MemoryStore {
    kept: Mutex<Kept>,
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
    /// When it was last written to, as a count of writes.
    touched: u64,
    bytes: usize,
}

struct Kept {
    conversations: HashMap<ConversationId, Conversation>,
    /// The conversations by when they were last written to.
    order: BTreeMap<u64, ConversationId>,
    breakers: BTreeMap<String, BreakerRecord>,
    spent: BTreeMap<String, SpentRecord>,
    incidents: BTreeMap<(At, String), Incident>,
    life: Option<Life>,
    answers: Answers,
    writes: u64,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Kept {
    /// The conversation, made where there is none, and now the last to go.
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
        let opened = conversation.opened.entry(turn.client_msg_id.clone());
        opened.or_insert(turn.turn);
        let old = conversation.turns.insert(turn.turn, turn);
        let removed = old.as_ref().map_or(0, weight);
        conversation.bytes = conversation.bytes + added - removed;
        self.bytes = self.bytes + added - removed;
        self.make_room(id);
    }

    fn forget(&mut self, id: ConversationId) {
        if let Some(gone) = self.conversations.remove(&id) {
            self.order.remove(&gone.touched);
            self.bytes -= gone.bytes;
        }
    }

    fn over(&self) -> bool {
        self.conversations.len() > self.most || self.bytes > self.most_bytes
    }

    /// Lets the oldest conversations go, and where `last` alone is too much, its oldest turns.
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
    /// A store of at most so many conversations and so many bytes of text.
    pub fn bounded(conversations: usize, bytes: usize) -> Self {
        Self {
            kept: Mutex::new(Kept {
                conversations: HashMap::new(),
                order: BTreeMap::new(),
                breakers: BTreeMap::new(),
                spent: BTreeMap::new(),
                incidents: BTreeMap::new(),
                life: None,
                answers: Answers::default(),
                writes: 0,
                bytes: 0,
                most: conversations,
                most_bytes: bytes,
            }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, id: ConversationId, look: impl FnOnce(&Conversation) -> T) -> Option<T> {
        self.kept().conversations.get(&id).map(look)
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

    fn begin(&self, id: ConversationId, record: ConversationRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.kept();
        kept.touch(id).record.get_or_insert(record);
        kept.make_room(id);
        done(())
    }

    fn newest_of(&self, subject: String) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        let kept = self.kept();
        let began = |(id, of): (&ConversationId, &Conversation)| {
            let record = of.record.as_ref().filter(|record| record.subject.as_ref() == Some(&subject))?;
            Some((record.began, *id))
        };
        let newest = kept.conversations.iter().filter_map(began).max();
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

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        let mut kept = self.kept();
        let known = kept.conversations.get(&conversation).and_then(|of| of.turns.get(&turn.turn));
        let runs = known.is_some_and(|known| known.state == TurnState::Running);
        if runs && turn.state == TurnState::Running {
            kept.write(conversation, turn);
        }
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        done(self.of(conversation, |found| found.turns.get(&turn).cloned()).flatten())
    }

    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        let look = |found: &Conversation| found.turns.get(found.opened.get(&message)?).cloned();
        done(self.of(conversation, look).flatten())
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        let look = |found: &Conversation| {
            let end = before.map_or(Bound::Unbounded, Bound::Excluded);
            let earlier = found.turns.range((Bound::Unbounded, end)).rev();
            let mut last = earlier.map(|(_, turn)| turn.clone()).take(limit).collect::<Vec<_>>();
            last.reverse();
            last
        };
        done(self.of(conversation, look).unwrap_or_default())
    }

    fn forget(&self, conversation: ConversationId) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.kept();
        kept.forget(conversation);
        kept.answers.forget(conversation);
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
        let mut kept = self.kept();
        match record {
            Some(record) => drop(kept.breakers.insert(provider, record)),
            None => drop(kept.breakers.remove(&provider)),
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
        let mut kept = self.kept();
        kept.incidents.insert((incident.started, incident.id.clone()), incident);
        if kept.incidents.len() > INCIDENTS {
            kept.incidents.pop_first();
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

    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        done(self.kept().answers.get(key))
    }

    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        done(self.kept().answers.keys())
    }

    fn write_cached(&self, key: CacheKey, answer: CachedAnswer) -> BoxFuture<'_, Result<(), StoreError>> {
        self.kept().answers.write(key, answer);
        done(())
    }

    fn remove_cached(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.kept();
        keys.into_iter().for_each(|key| kept.answers.remove(key));
        done(())
    }

    fn lasting(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::chat::At;
    use crate::store::contract::{conversation, message, saying, turn, turn_id};

    fn write(store: &MemoryStore, n: u8, ms: u64, text: &str) {
        let turn = saying(turn(ms, &ms.to_string(), "?"), text);
        drop(store.write_turn(conversation(n), turn));
    }

    fn kept(store: &MemoryStore) -> Vec<u8> {
        let there = |n: &u8| store.of(conversation(*n), |_| ()).is_some();
        (0..=u8::MAX).filter(there).collect()
    }

    #[test]
    fn the_conversation_written_to_least_recently_goes_first() {
        let store = MemoryStore::bounded(3, usize::MAX);
        for n in 1..=3 {
            write(&store, n, 1, "");
        }
        write(&store, 1, 2, "");
        write(&store, 4, 1, "");
        assert_eq!(kept(&store), [1, 3, 4]);
        let record = ConversationRecord { began: At(1), subject: None };
        drop(store.begin(conversation(5), record));
        assert_eq!(kept(&store), [1, 4, 5]);
    }

    #[test]
    fn text_is_bounded_over_all_conversations_and_within_one() {
        let store = MemoryStore::bounded(100, 20_000);
        let text = "x".repeat(4_000);
        for n in 1..=10 {
            write(&store, n, 1, &text);
        }
        assert_eq!(kept(&store), [7, 8, 9, 10]);
        for ms in 1..=10 {
            write(&store, 10, ms, &text);
        }
        assert_eq!(kept(&store), [10]);
        let ids = store.of(conversation(10), |of| of.turns.keys().copied().collect());
        assert_eq!(ids, Some(Vec::from([7, 8, 9, 10].map(turn_id))));
        let opened = store.of(conversation(10), |of| of.opened.contains_key(&message("6")));
        assert_eq!(opened, Some(false));
    }

    #[test]
    fn its_count_of_bytes_is_right_after_everything() {
        let store = MemoryStore::bounded(2, 20_000);
        for n in [1, 2, 3, 1, 2] {
            for (ms, text) in [(1, "short"), (2, "longer"), (1, "changed"), (3, "more")] {
                write(&store, n, ms, text);
            }
        }
        drop(store.forget(conversation(1)));
        let kept = store.kept();
        let turns = kept.conversations.values().flat_map(|of| of.turns.values());
        assert_eq!(kept.bytes, turns.map(weight).sum::<usize>());
        assert_eq!(kept.order.len(), kept.conversations.len());
    }
}
