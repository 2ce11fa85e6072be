//! The contract for finding expired conversations.

use std::collections::BTreeSet;

use super::{cache_key, completed, conversation, record, turn, turn_id};
use crate::domain::{ConversationId, Timestamp};
use crate::store::{ExpiredPage, Store};

/// Scans all pages of `limit` conversations.
async fn scan(store: &dyn Store, before: u64, limit: usize) -> BTreeSet<ConversationId> {
    let mut expired = BTreeSet::new();
    let mut cursor = None;
    loop {
        let ExpiredPage {
            conversations: found,
            next_cursor: next,
        } = store
            .expired_conversations(Timestamp(before), cursor, limit)
            .await
            .unwrap();
        assert!(found.len() <= limit);
        for id in found {
            assert!(expired.insert(id), "returned twice");
        }
        match next {
            Some(next) => cursor = Some(next),
            None => return expired,
        }
    }
}

pub(super) async fn expired_conversations_are_found_in_pages(store: &dyn Store) {
    assert_eq!(
        store.expired_conversations(Timestamp(9), None, 5).await,
        Ok(ExpiredPage::default())
    );
    for (n, ms) in [(1, 100), (1, 5_000), (2, 100), (3, 4_999), (200, 1)] {
        store
            .write_turn(
                conversation(n),
                completed(turn(ms, &ms.to_string(), "?"), "!"),
            )
            .await
            .unwrap();
    }
    for (n, started) in [(1, 1), (3, 1), (4, 50), (5, 6_000)] {
        let record = record(started, None);
        store
            .create_conversation(conversation(n), record)
            .await
            .unwrap();
    }
    let expected = |numbers: &[u8]| {
        numbers
            .iter()
            .map(|n| conversation(*n))
            .collect::<BTreeSet<_>>()
    };
    for limit in [1, 2, 100] {
        assert_eq!(
            scan(store, 5_000, limit).await,
            expected(&[2, 3, 4, 200]),
            "{limit}"
        );
        assert_eq!(scan(store, 0, limit).await, expected(&[]), "{limit}");
        assert_eq!(
            scan(store, 10_000, limit).await,
            expected(&[1, 2, 3, 4, 5, 200]),
            "{limit}"
        );
    }
    // Deleted conversations and records of other kinds are not returned.
    store.delete_conversation(conversation(2)).await.unwrap();
    store
        .put_answer(cache_key(7), super::cached_answer(3, 1, "saved"))
        .await
        .unwrap();
    store
        .set_followup_pending(conversation(3), turn_id(4_999), true)
        .await
        .unwrap();
    assert_eq!(scan(store, 5_000, 1).await, expected(&[3, 4, 200]));
}
