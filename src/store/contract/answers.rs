//! The contract for cached answers.

use super::{cache_key, cached_answer, conversation};
use crate::store::{CachedAnswer, Store};

pub(super) async fn answers_read_back_the_last_write(store: &dyn Store) {
    assert_eq!(
        (
            store.get_answer(cache_key(1)).await,
            store.answer_keys().await
        ),
        (Ok(None), Ok(vec![]))
    );
    for (n, ms, text) in [
        (1, 9, "first"),
        (2, 5, "other"),
        (1, 7, "second"),
        (3, 6, "third"),
    ] {
        store
            .put_answer(cache_key(n), cached_answer(n, ms, text))
            .await
            .unwrap();
    }
    assert_eq!(
        store.get_answer(cache_key(1)).await,
        Ok(Some(cached_answer(1, 7, "second")))
    );
    assert_eq!(
        store.answer_keys().await,
        Ok(vec![cache_key(2), cache_key(3), cache_key(1)])
    );
    store
        .remove_answers(vec![cache_key(2), cache_key(9), cache_key(1)])
        .await
        .unwrap();
    assert_eq!(
        (
            store.get_answer(cache_key(1)).await,
            store.answer_keys().await
        ),
        (Ok(None), Ok(vec![cache_key(3)]))
    );
}

pub(super) async fn answers_are_deleted_with_their_conversation(store: &dyn Store) {
    let warmed = CachedAnswer {
        conversation: None,
        turn: None,
        ..cached_answer(1, 5, "warmed")
    };
    for (n, answer) in [
        (1, cached_answer(1, 5, "one")),
        (2, cached_answer(1, 6, "two")),
        (3, cached_answer(1, 7, "was")),
        (4, warmed),
    ] {
        store.put_answer(cache_key(n), answer).await.unwrap();
    }
    store
        .put_answer(cache_key(3), cached_answer(2, 8, "is"))
        .await
        .unwrap();
    store.delete_conversation(conversation(1)).await.unwrap();
    assert_eq!(
        store.answer_keys().await,
        Ok(vec![cache_key(4), cache_key(3)])
    );
    assert_eq!(
        store.get_answer(cache_key(3)).await,
        Ok(Some(cached_answer(2, 8, "is")))
    );
    // The store's index of answers is not mistaken for pending follow-ups.
    assert_eq!(store.pending_followups().await, Ok(vec![]));
}
