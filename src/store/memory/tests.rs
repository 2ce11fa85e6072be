//! Eviction from the in-memory store.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::store::contract::{conversation, message, record, turn, turn_id, with_text};

fn write(store: &MemoryStore, n: u8, ms: u64, text: &str) {
    let turn = with_text(turn(ms, &ms.to_string(), "?"), text);
    drop(store.write_turn(conversation(n), turn));
}

fn remaining(store: &MemoryStore) -> Vec<u8> {
    let exists = |n: &u8| store.find(conversation(*n), |_| Some(())).is_some();
    (0..=u8::MAX).filter(exists).collect()
}

#[test]
fn the_conversation_written_to_least_recently_goes_first() {
    let store = MemoryStore::with_limits(3, usize::MAX);
    for n in 1..=3 {
        write(&store, n, 1, "");
    }
    write(&store, 1, 2, "");
    write(&store, 4, 1, "");
    assert_eq!(remaining(&store), [1, 3, 4]);
    let record = record(1, None);
    drop(store.create_conversation(conversation(5), record));
    assert_eq!(remaining(&store), [1, 4, 5]);
}

#[test]
fn text_limit_evicts_old_conversations_then_old_turns() {
    let store = MemoryStore::with_limits(100, 20_000);
    let text = "x".repeat(4_000);
    for n in 1..=10 {
        write(&store, n, 1, &text);
    }
    assert_eq!(remaining(&store), [7, 8, 9, 10]);
    for ms in 1..=10 {
        write(&store, 10, ms, &text);
    }
    assert_eq!(remaining(&store), [10]);
    let ids = store.find(conversation(10), |found| {
        Some(found.turns.keys().copied().collect())
    });
    assert_eq!(ids, Some(Vec::from([7, 8, 9, 10].map(turn_id))));
    let opened = store.find(conversation(10), |found| {
        Some(found.turn_by_message.contains_key(&message("6")))
    });
    assert_eq!(opened, Some(false));
}

#[test]
fn byte_count_matches_the_stored_turns_after_evictions_and_deletion() {
    let store = MemoryStore::with_limits(2, 20_000);
    for n in [1, 2, 3, 1, 2] {
        for (ms, text) in [(1, "short"), (2, "longer"), (1, "changed"), (3, "more")] {
            write(&store, n, ms, text);
        }
    }
    drop(store.delete_conversation(conversation(1)));
    let state = store.state.lock();
    let turns = state
        .conversations
        .values()
        .flat_map(|conversation| conversation.turns.values());
    assert_eq!(state.bytes, turns.map(turn_memory_bytes).sum::<usize>());
    assert_eq!(state.by_last_write.len(), state.conversations.len());
}
