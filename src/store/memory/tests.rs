//! What the store in memory lets go, and when.

#![allow(clippy::unwrap_used)]

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
    let record = ConversationRecord {
        began: At(1),
        subject: None,
    };
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
