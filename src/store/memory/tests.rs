//! Eviction from the in-memory store.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::chat::At;
use crate::store::contract::{conversation, message, saying, turn, turn_id};

fn write(store: &MemoryStore, n: u8, ms: u64, text: &str) {
    let turn = saying(turn(ms, &ms.to_string(), "?"), text);
    drop(store.write_turn(conversation(n), turn));
}

fn remaining(store: &MemoryStore) -> Vec<u8> {
    let exists = |n: &u8| store.of(conversation(*n), |_| ()).is_some();
    (0..=u8::MAX).filter(exists).collect()
}

#[test]
fn the_conversation_written_to_least_recently_goes_first() {
    let store = MemoryStore::bounded(3, usize::MAX);
    for n in 1..=3 {
        write(&store, n, 1, "");
    }
    write(&store, 1, 2, "");
    write(&store, 4, 1, "");
    assert_eq!(remaining(&store), [1, 3, 4]);
    let record = ConversationRecord {
        began: At(1),
        subject: None,
    };
    drop(store.begin(conversation(5), record));
    assert_eq!(remaining(&store), [1, 4, 5]);
}

#[test]
fn text_limit_evicts_old_conversations_then_old_turns() {
    let store = MemoryStore::bounded(100, 20_000);
    let text = "x".repeat(4_000);
    for n in 1..=10 {
        write(&store, n, 1, &text);
    }
    assert_eq!(remaining(&store), [7, 8, 9, 10]);
    for ms in 1..=10 {
        write(&store, 10, ms, &text);
    }
    assert_eq!(remaining(&store), [10]);
    let ids = store.of(conversation(10), |found| {
        found.turns.keys().copied().collect()
    });
    assert_eq!(ids, Some(Vec::from([7, 8, 9, 10].map(turn_id))));
    let opened = store.of(conversation(10), |found| {
        found.opened.contains_key(&message("6"))
    });
    assert_eq!(opened, Some(false));
}

#[test]
fn byte_count_matches_the_stored_turns_after_evictions_and_deletion() {
    let store = MemoryStore::bounded(2, 20_000);
    for n in [1, 2, 3, 1, 2] {
        for (ms, text) in [(1, "short"), (2, "longer"), (1, "changed"), (3, "more")] {
            write(&store, n, ms, text);
        }
    }
    drop(store.forget(conversation(1)));
    let state = store.kept();
    let turns = state
        .conversations
        .values()
        .flat_map(|conversation| conversation.turns.values());
    assert_eq!(state.bytes, turns.map(weight).sum::<usize>());
    assert_eq!(state.order.len(), state.conversations.len());
}
