//! The contract for checkpoints of running turns.

use super::{completed, conversation, drain_writes, turn, turn_id, with_text};
use crate::domain::TurnState;
use crate::store::Store;

async fn text_and_state(store: &dyn Store, ms: u64) -> Option<(String, TurnState)> {
    let found = store.turn(conversation(1), turn_id(ms)).await.unwrap();
    found.map(|turn| (turn.text, turn.state))
}

pub(super) async fn checkpoint_updates_the_running_text(store: &dyn Store) {
    let running = turn(5, "m", "what?");
    store
        .write_turn(conversation(1), running.clone())
        .await
        .unwrap();
    for text in ["a", "ab", "abc"] {
        store.checkpoint(conversation(1), with_text(running.clone(), text));
    }
    drain_writes(store).await;
    assert_eq!(
        text_and_state(store, 5).await,
        Some(("abc".into(), TurnState::Running))
    );
}

pub(super) async fn checkpoint_is_ordered_with_writes(store: &dyn Store) {
    let running = turn(5, "m", "what?");
    let first = store.write_turn(conversation(1), running.clone());
    store.checkpoint(conversation(1), with_text(running.clone(), "a"));
    let second = store.write_turn(conversation(1), with_text(running.clone(), "ab"));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(
        text_and_state(store, 5).await,
        Some(("ab".into(), TurnState::Running))
    );
    drop(store.write_turn(conversation(1), with_text(running.clone(), "abc")));
    store.checkpoint(conversation(1), with_text(running.clone(), "abcd"));
    drain_writes(store).await;
    assert_eq!(
        text_and_state(store, 5).await,
        Some(("abcd".into(), TurnState::Running))
    );
    store.checkpoint(conversation(1), with_text(running.clone(), "abcde"));
    let end = store.write_turn(conversation(1), completed(running.clone(), "whole"));
    store.checkpoint(conversation(1), with_text(running, "late"));
    end.await.unwrap();
    drain_writes(store).await;
    assert_eq!(
        text_and_state(store, 5).await,
        Some(("whole".into(), TurnState::Done))
    );
}

pub(super) async fn checkpoint_does_not_restore_a_missing_turn(store: &dyn Store) {
    let running = with_text(turn(5, "m", "what?"), "a");
    store.checkpoint(conversation(1), running.clone());
    drain_writes(store).await;
    assert_eq!(text_and_state(store, 5).await, None);
    store
        .write_turn(conversation(1), running.clone())
        .await
        .unwrap();
    store.delete_conversation(conversation(1)).await.unwrap();
    store.checkpoint(conversation(1), running);
    drain_writes(store).await;
    assert_eq!(text_and_state(store, 5).await, None);
}
