//! The contract of [`Store`]: tests that run against every implementation.

#![allow(clippy::unwrap_used)]

mod amending;
mod quiet;
mod service;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use self::amending::{
    first_followup_wins, pending_followups_are_listed_oldest_first,
    update_turn_changes_only_its_field,
};
use self::quiet::expired_conversations_are_found_in_pages;
use self::service::{
    breakers_read_back_the_last_write, daily_spend_reads_back_the_last_write,
    documents_read_back_the_last_write, incidents_read_back_the_last_write_and_are_bounded,
    service_lifetime_reads_back_the_last_write,
};
use super::flaky::{FlakyStore, StoreFault};
use super::redis::server::RedisServer;
use super::redis::test_server::{RelayStore, TestInstance};
use super::{CacheKey, CachedAnswer, ConversationRecord, MemoryStore, Store, open};
use crate::domain::{ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnState};

pub(super) fn conversation(n: u8) -> ConversationId {
    ConversationId::from_random([n; 16])
}

pub(super) fn turn_id(ms: u64) -> TurnId {
    TurnId::next_after(None, ms, 42)
}

pub(super) fn message(name: &str) -> ClientMsgId {
    name.parse().unwrap()
}

pub(super) fn turn(ms: u64, name: &str, question: &str) -> TurnRecord {
    TurnRecord::new(
        turn_id(ms),
        message(name),
        Timestamp(ms),
        question.into(),
        None,
    )
}

pub(super) fn with_text(mut turn: TurnRecord, text: &str) -> TurnRecord {
    turn.text = text.into();
    turn
}

pub(super) fn completed(mut turn: TurnRecord, text: &str) -> TurnRecord {
    turn.state = TurnState::Done;
    with_text(turn, text)
}

pub(super) fn cache_key(n: u8) -> CacheKey {
    CacheKey([n; 32])
}

pub(super) fn cached_answer(n: u8, ms: u64, text: &str) -> CachedAnswer {
    CachedAnswer {
        text: text.into(),
        saved_at: Timestamp(ms),
        conversation: Some(conversation(n)),
        turn: Some(turn_id(ms)),
        is_context_free: true,
        asker_count: 1,
    }
}

fn questions(turns: &[TurnRecord]) -> Vec<&str> {
    turns.iter().map(|turn| turn.question.as_str()).collect()
}

/// A store and a guard that must outlive it.
type StoreAndGuard = (Arc<dyn Store>, Box<dyn Any>);

async fn in_memory() -> StoreAndGuard {
    (Arc::new(MemoryStore::default()), Box::new(()))
}

async fn on_disk() -> StoreAndGuard {
    let folder = TempDir::new().unwrap();
    (
        open(folder.path(), Timestamp(0)).unwrap().store,
        Box::new(folder),
    )
}

/// A replicated store with its own Redis.
async fn replicated() -> StoreAndGuard {
    let redis = RedisServer::start(&[]);
    let instance = TestInstance::start_connected(&redis).await;
    (
        Arc::clone(&instance.store) as _,
        Box::new((instance, redis)),
    )
}

/// A pair of instances: one is written to, the other is read from.
async fn relay() -> StoreAndGuard {
    let redis = RedisServer::start(&[]);
    let from = TestInstance::start_connected(&redis).await;
    let to = TestInstance::start_connected(&redis).await;
    let relay = RelayStore {
        from: Arc::clone(&from.store),
        to: Arc::clone(&to.store),
    };
    (Arc::new(relay), Box::new((from, to, redis)))
}

/// The wrapper must keep the contract too: other tests rely on it.
async fn flaky() -> StoreAndGuard {
    let flaky = FlakyStore::default();
    flaky.set_fault(StoreFault::Slow(Duration::from_micros(1)));
    (Arc::new(flaky), Box::new(()))
}

macro_rules! every_store {
    ($($check:ident),* $(,)?) => {
        every_store!(@ memory, in_memory, $($check),*);
        every_store!(@ sled, on_disk, $($check),*);
        every_store!(@ wrapped, flaky, $($check),*);
        every_store!(@ replicated, replicated, $($check),*);
    };
    (@ $store:ident, $make:ident, $($check:ident),*) => {
        mod $store {
            $(#[tokio::test]
            async fn $check() {
                let (store, _beside) = super::$make().await;
                super::$check(&*store).await;
            })*
        }
    };
}

every_store!(
    unknown_conversation_is_empty,
    create_conversation_keeps_an_existing_record,
    latest_conversation_is_found_by_subject,
    turn_reads_back_as_written,
    writes_of_a_turn_apply_in_call_order,
    dropped_write_still_takes_effect,
    turns_are_paged_oldest_first,
    turn_by_message_returns_the_first_turn,
    conversations_are_isolated,
    checkpoint_updates_the_running_text,
    checkpoint_is_ordered_with_writes,
    checkpoint_does_not_restore_a_missing_turn,
    delete_conversation_removes_everything,
    expired_conversations_are_found_in_pages,
    update_turn_changes_only_its_field,
    first_followup_wins,
    pending_followups_are_listed_oldest_first,
    breakers_read_back_the_last_write,
    daily_spend_reads_back_the_last_write,
    incidents_read_back_the_last_write_and_are_bounded,
    service_lifetime_reads_back_the_last_write,
    documents_read_back_the_last_write,
    answers_read_back_the_last_write,
    answers_are_deleted_with_their_conversation,
    working_store_reports_no_problem,
);

// Checkpoints, breakers, daily spends and documents are not replicated, so their tests do not run
// across instances.
every_store!(
    @ relay, relay,
    unknown_conversation_is_empty,
    create_conversation_keeps_an_existing_record,
    latest_conversation_is_found_by_subject,
    turn_reads_back_as_written,
    dropped_write_still_takes_effect,
    turns_are_paged_oldest_first,
    turn_by_message_returns_the_first_turn,
    conversations_are_isolated,
    delete_conversation_removes_everything,
    update_turn_changes_only_its_field,
    first_followup_wins,
    pending_followups_are_listed_oldest_first,
    incidents_read_back_the_last_write_and_are_bounded,
    service_lifetime_reads_back_the_last_write,
    answers_read_back_the_last_write,
    answers_are_deleted_with_their_conversation,
    working_store_reports_no_problem
);

async fn unknown_conversation_is_empty(store: &dyn Store) {
    let unknown = conversation(1);
    assert_eq!(store.conversation(unknown).await, Ok(None));
    assert_eq!(store.turn(unknown, turn_id(1)).await, Ok(None));
    assert_eq!(store.turn_by_message(unknown, message("m")).await, Ok(None));
    assert_eq!(store.turns(unknown, None, 100).await, Ok(vec![]));
    assert_eq!(store.delete_conversation(unknown).await, Ok(()));
    assert_eq!(store.breakers().await, Ok(vec![]));
}

async fn create_conversation_keeps_an_existing_record(store: &dyn Store) {
    let first = ConversationRecord {
        started_at: Timestamp(1),
        subject: Some("ann".into()),
    };
    let second = ConversationRecord {
        started_at: Timestamp(2),
        subject: None,
    };
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

async fn latest_conversation_is_found_by_subject(store: &dyn Store) {
    let create = async |n: u8, started: u64, subject: Option<&str>| {
        let record = ConversationRecord {
            started_at: Timestamp(started),
            subject: subject.map(str::to_owned),
        };
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

async fn turn_reads_back_as_written(store: &dyn Store) {
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

async fn writes_of_a_turn_apply_in_call_order(store: &dyn Store) {
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

async fn dropped_write_still_takes_effect(store: &dyn Store) {
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

async fn turns_are_paged_oldest_first(store: &dyn Store) {
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

async fn turn_by_message_returns_the_first_turn(store: &dyn Store) {
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

async fn conversations_are_isolated(store: &dyn Store) {
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

/// Waits until all earlier calls have taken effect.
async fn drain_writes(store: &dyn Store) {
    store.write_breaker("settled".into(), None).await.unwrap();
}

async fn text_and_state(store: &dyn Store, ms: u64) -> Option<(String, TurnState)> {
    let found = store.turn(conversation(1), turn_id(ms)).await.unwrap();
    found.map(|turn| (turn.text, turn.state))
}

async fn checkpoint_updates_the_running_text(store: &dyn Store) {
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

async fn checkpoint_is_ordered_with_writes(store: &dyn Store) {
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

async fn checkpoint_does_not_restore_a_missing_turn(store: &dyn Store) {
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

async fn delete_conversation_removes_everything(store: &dyn Store) {
    for n in [1, 2] {
        let record = ConversationRecord {
            started_at: Timestamp(1),
            subject: None,
        };
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

async fn answers_read_back_the_last_write(store: &dyn Store) {
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

async fn answers_are_deleted_with_their_conversation(store: &dyn Store) {
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

async fn working_store_reports_no_problem(store: &dyn Store) {
    store
        .write_turn(conversation(1), turn(5, "m", "what?"))
        .await
        .unwrap();
    assert_eq!(store.problem(), None);
}
