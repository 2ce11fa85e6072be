//! What a store promises of conversations that were quiet for long.

use std::collections::BTreeSet;

use super::{conversation, done, key, turn, turn_id};
use crate::chat::{At, ConversationId};
use crate::store::{ConversationRecord, Idle, Store};

/// All that a pass finds, in steps of `look`.
async fn pass(store: &dyn Store, before: u64, look: usize) -> BTreeSet<ConversationId> {
    let (mut all, mut after) = (BTreeSet::new(), None);
    loop {
        let Idle { found, next } = store.idle(At(before), after, look).await.unwrap();
        assert!(found.len() <= look);
        for id in found {
            assert!(all.insert(id), "told twice");
        }
        match next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

pub(in crate::store) async fn who_was_quiet_is_told_in_bounded_steps(store: &dyn Store) {
    assert_eq!(store.idle(At(9), None, 5).await, Ok(Idle::default()));
    for (n, ms) in [(1, 100), (1, 5_000), (2, 100), (3, 4_999), (200, 1)] {
        store
            .write_turn(conversation(n), done(turn(ms, &ms.to_string(), "?"), "!"))
            .await
            .unwrap();
    }
    for (n, began) in [(1, 1), (3, 1), (4, 50), (5, 6_000)] {
        let record = ConversationRecord {
            began: At(began),
            subject: None,
        };
        store.begin(conversation(n), record).await.unwrap();
    }
    let expected = |all: &[u8]| {
        all.iter()
            .map(|n| conversation(*n))
            .collect::<BTreeSet<_>>()
    };
    for look in [1, 2, 100] {
        assert_eq!(
            pass(store, 5_000, look).await,
            expected(&[2, 3, 4, 200]),
            "{look}"
        );
        assert_eq!(pass(store, 0, look).await, expected(&[]), "{look}");
        assert_eq!(
            pass(store, 10_000, look).await,
            expected(&[1, 2, 3, 4, 5, 200]),
            "{look}"
        );
    }
    // What is forgotten is not told any more, and nothing else of the store's is taken for a conversation.
    store.forget(conversation(2)).await.unwrap();
    store
        .write_cached(key(7), super::cached(3, 1, "saved"))
        .await
        .unwrap();
    store
        .write_waiting(conversation(3), turn_id(4_999), true)
        .await
        .unwrap();
    assert_eq!(pass(store, 5_000, 1).await, expected(&[3, 4, 200]));
}
