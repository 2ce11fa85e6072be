//! The contract for conversations and their turns.

use super::{completed, conversation, drain_writes, message, record, turn, turn_id, with_text};
use crate::domain::TurnRecord;
use crate::store::Store;

fn questions(turns: &[TurnRecord]) -> Vec<&str> {
    turns.iter().map(|turn| turn.question.as_str()).collect()
}

pub(super) async fn unknown_conversation_is_empty(store: &dyn Store) {
    let unknown = conversation(1);
    assert_eq!(store.conversation(unknown).await, Ok(None));
    assert_eq!(store.turn(unknown, turn_id(1)).await, Ok(None));
    assert_eq!(store.turn_by_message(unknown, message("m")).await, Ok(None));
    assert_eq!(store.turns(unknown, None, 100).await, Ok(vec![]));
    assert_eq!(store.delete_conversation(unknown).await, Ok(()));
    assert_eq!(store.breakers().await, Ok(vec![]));
}

pub(super) async fn create_conversation_keeps_an_existing_record(store: &dyn Store) {
    let first = record(1, Some("ann"));
    let second = record(2, None);
    store
        .create_conversation(conversation(1), first.clone())
        .await
        .unwrap();
    store
        .create_conversation(conversation(1), second)
        .await
        .unwrap();
    assert_eq!(store.conversation(conversation(1)).await, Ok(Some(first)));
}

pub(super) async fn latest_conversation_is_found_by_subject(store: &dyn Store) {
    let create = async |n: u8, started: u64, subject: Option<&str>| {
        let record = record(started, subject);
        store
            .create_conversation(conversation(n), record)
            .await
            .unwrap();
    };
    let newest = async |subject: &str| store.latest_conversation(subject.into()).await.unwrap();
    assert_eq!(newest("ann").await, None);
    create(9, 2, Some("ann")).await;
    create(1, 300, Some("ann")).await;
    create(5, 10, Some("ann")).await;
    create(6, 999, Some("ann/x")).await;
    create(7, 999, None).await;
    assert_eq!(newest("ann").await, Some(conversation(1)));
    assert_eq!(newest("ann/x").await, Some(conversation(6)));
    for other in ["an", "", "ann/", "Ann"] {
        assert_eq!(newest(other).await, None, "{other}");
    }
    // The owner of a conversation never changes.
    create(7, 9999, Some("ann")).await;
    assert_eq!(newest("ann").await, Some(conversation(1)));
    store.delete_conversation(conversation(1)).await.unwrap();
    assert_eq!(newest("ann").await, Some(conversation(5)));
    create(1, 20, Some("bob")).await;
    assert_eq!(
        (newest("ann").await, newest("bob").await),
        (Some(conversation(5)), Some(conversation(1)))
    );
}

pub(super) async fn turn_reads_back_as_written(store: &dyn Store) {
    let written = with_text(turn(5, "m", "what?\u{0}\n\u{1F980}"), "that").into_interrupted();
    store
        .write_turn(conversation(1), written.clone())
        .await
        .unwrap();
    assert_eq!(
        store.turn(conversation(1), turn_id(5)).await,
        Ok(Some(written))
    );
    // A turn needs no conversation record and creates none.
    assert_eq!(store.conversation(conversation(1)).await, Ok(None));
}

pub(super) async fn writes_of_a_turn_apply_in_call_order(store: &dyn Store) {
    let write =
        |text: String| store.write_turn(conversation(1), with_text(turn(5, "m", "?"), &text));
    let calls = (0..100).map(|n| write(n.to_string())).collect::<Vec<_>>();
    // Polled in reverse: only the order of the calls may matter.
    for call in calls.into_iter().rev() {
        call.await.unwrap();
    }
    let last = store
        .turn(conversation(1), turn_id(5))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.text, "99");
}

pub(super) async fn dropped_write_still_takes_effect(store: &dyn Store) {
    drop(store.write_turn(conversation(1), turn(5, "m", "what?")));
    // This write is acknowledged later, so the read also sees the first one.
    store
        .write_turn(conversation(2), turn(5, "m", "what?"))
        .await
        .unwrap();
    assert!(
        store
            .turn(conversation(1), turn_id(5))
            .await
            .unwrap()
            .is_some()
    );
}

pub(super) async fn turns_are_paged_oldest_first(store: &dyn Store) {
    for ms in [3, 1, 5, 2, 4] {
        let name = ms.to_string();
        store
            .write_turn(conversation(1), turn(ms, &name, &name))
            .await
            .unwrap();
    }
    let page = async |before: Option<u64>, limit| {
        let turns = store
            .turns(conversation(1), before.map(turn_id), limit)
            .await
            .unwrap();
        questions(&turns).join(" ")
    };
    assert_eq!(page(None, 100).await, "1 2 3 4 5");
    assert_eq!(page(None, 2).await, "4 5");
    assert_eq!(page(Some(4), 2).await, "2 3");
    assert_eq!(page(Some(2), 2).await, "1");
    assert_eq!(page(Some(1), 2).await, "");
    assert_eq!(page(Some(9), 1).await, "5");
    assert_eq!(page(None, 0).await, "");
}

pub(super) async fn turn_by_message_returns_the_first_turn(store: &dyn Store) {
    let first = turn(5, "a/b", "what?");
    store
        .write_turn(conversation(1), first.clone())
        .await
        .unwrap();
    store
        .write_turn(conversation(1), turn(6, "a/b", "again?"))
        .await
        .unwrap();
    store
        .write_turn(conversation(1), turn(7, "a", "other"))
        .await
        .unwrap();
    let by_message = async |name| {
        store
            .turn_by_message(conversation(1), message(name))
            .await
            .unwrap()
    };
    assert_eq!(by_message("a/b").await, Some(first.clone()));
    assert_eq!(
        by_message("a").await.map(|turn| turn.turn),
        Some(turn_id(7))
    );
    assert_eq!(by_message("a/").await, None);
    // It returns the current state of the turn.
    store
        .write_turn(conversation(1), completed(first, "that"))
        .await
        .unwrap();
    assert_eq!(
        by_message("a/b").await.map(|turn| turn.text),
        Some("that".into())
    );
}

pub(super) async fn conversations_are_isolated(store: &dyn Store) {
    store
        .write_turn(conversation(1), turn(5, "m", "mine"))
        .await
        .unwrap();
    store
        .write_turn(conversation(2), turn(5, "m", "yours"))
        .await
        .unwrap();
    for (n, question) in [(1, "mine"), (2, "yours")] {
        let turns = store.turns(conversation(n), None, 100).await.unwrap();
        assert_eq!(questions(&turns), [question]);
        let found = store
            .turn_by_message(conversation(n), message("m"))
            .await
            .unwrap();
        assert_eq!(found.unwrap().question, question);
    }
}

pub(super) async fn delete_conversation_removes_everything(store: &dyn Store) {
    for n in [1, 2] {
        let record = record(1, None);
        store
            .create_conversation(conversation(n), record)
            .await
            .unwrap();
        for ms in 1..=50 {
            store
                .write_turn(conversation(n), turn(ms, &ms.to_string(), "?"))
                .await
                .unwrap();
        }
    }
    store.checkpoint(conversation(1), with_text(turn(1, "1", "?"), "so far"));
    store.delete_conversation(conversation(1)).await.unwrap();
    drain_writes(store).await;
    assert_eq!(store.conversation(conversation(1)).await, Ok(None));
    assert_eq!(store.turn(conversation(1), turn_id(1)).await, Ok(None));
    assert_eq!(
        store.turn_by_message(conversation(1), message("7")).await,
        Ok(None)
    );
    assert_eq!(store.turns(conversation(1), None, 100).await, Ok(vec![]));
    // The other conversation is untouched.
    assert!(store.conversation(conversation(2)).await.unwrap().is_some());
    assert_eq!(
        store.turns(conversation(2), None, 100).await.unwrap().len(),
        50
    );
    // A message of the deleted conversation may be sent again.
    store
        .write_turn(conversation(1), turn(99, "7", "new"))
        .await
        .unwrap();
    let found = store
        .turn_by_message(conversation(1), message("7"))
        .await
        .unwrap();
    assert_eq!(found.unwrap().turn, turn_id(99));
}

pub(super) async fn working_store_reports_no_problem(store: &dyn Store) {
    store
        .write_turn(conversation(1), turn(5, "m", "what?"))
        .await
        .unwrap();
    assert_eq!(store.problem(), None);
}
