//! What every store promises, as tests that each store runs.

#![allow(clippy::unwrap_used)]

mod amending;
mod quiet;
mod service;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use self::amending::{
    an_amendment_changes_what_is_there_and_nothing_else, the_first_late_answer_counts,
    who_waits_is_told_oldest_first,
};
use self::quiet::who_was_quiet_is_told_in_bounded_steps;
use self::service::{
    breakers_are_as_last_written, days_cost_what_was_last_written,
    incidents_are_as_last_written_and_bounded, life_is_as_last_written, notes_are_as_last_written,
};
use super::flaky::{Flaky, Trouble};
use super::redis::instance::{Instance, Relay};
use super::redis::server::Redis;
use super::{CacheKey, CachedAnswer, ConversationRecord, MemoryStore, Store, open};
use crate::chat::{At, ClientMsgId, ConversationId, TurnId, TurnRecord, TurnState};

pub(super) fn conversation(n: u8) -> ConversationId {
    ConversationId::from_random([n; 16])
}

pub(super) fn turn_id(ms: u64) -> TurnId {
    TurnId::after(None, ms, 42)
}

pub(super) fn message(name: &str) -> ClientMsgId {
    name.parse().unwrap()
}

pub(super) fn turn(ms: u64, name: &str, question: &str) -> TurnRecord {
    TurnRecord::asked(turn_id(ms), message(name), At(ms), question.into(), None)
}

pub(super) fn saying(mut turn: TurnRecord, text: &str) -> TurnRecord {
    turn.text = text.into();
    turn
}

pub(super) fn done(mut turn: TurnRecord, text: &str) -> TurnRecord {
    turn.state = TurnState::Done;
    saying(turn, text)
}

pub(super) fn key(n: u8) -> CacheKey {
    CacheKey([n; 32])
}

pub(super) fn cached(n: u8, ms: u64, text: &str) -> CachedAnswer {
    let (conversation, turn) = (Some(conversation(n)), Some(turn_id(ms)));
    CachedAnswer {
        text: text.into(),
        saved: At(ms),
        conversation,
        turn,
        first: true,
        asked: 1,
    }
}

fn texts(turns: &[TurnRecord]) -> Vec<&str> {
    turns.iter().map(|turn| turn.question.as_str()).collect()
}

/// A store with what must outlive it.
type Made = (Arc<dyn Store>, Box<dyn Any>);

async fn in_memory() -> Made {
    (Arc::new(MemoryStore::default()), Box::new(()))
}

async fn on_disk() -> Made {
    let folder = TempDir::new().unwrap();
    (open(folder.path(), At(0)).unwrap().store, Box::new(folder))
}

/// One of several instances, with a Redis of its own.
async fn shared() -> Made {
    let redis = Redis::start(&[]);
    let one = Instance::join(&redis).await;
    (Arc::clone(&one.store) as _, Box::new((one, redis)))
}

/// What one instance writes, another reads.
async fn handed_over() -> Made {
    let redis = Redis::start(&[]);
    let (from, to) = (Instance::join(&redis).await, Instance::join(&redis).await);
    let relay = Relay {
        from: Arc::clone(&from.store),
        to: Arc::clone(&to.store),
    };
    (Arc::new(relay), Box::new((from, to, redis)))
}

/// The wrapper must keep the contract too, or what is tested with it is tested with something else.
async fn flaky() -> Made {
    let flaky = Flaky::default();
    flaky.set(Trouble::Slow(Duration::from_micros(1)));
    (Arc::new(flaky), Box::new(()))
}

macro_rules! every_store {
    ($($promise:ident),* $(,)?) => {
        every_store!(@ memory, in_memory, $($promise),*);
        every_store!(@ sled, on_disk, $($promise),*);
        every_store!(@ wrapped, flaky, $($promise),*);
        every_store!(@ shared, shared, $($promise),*);
    };
    (@ $store:ident, $make:ident, $($promise:ident),*) => {
        mod $store {
            $(#[tokio::test]
            async fn $promise() {
                let (store, _beside) = super::$make().await;
                super::$promise(&*store).await;
            })*
        }
    };
}

every_store!(
    an_unknown_conversation_is_empty,
    begin_does_not_overwrite,
    a_visitors_newest_conversation_is_found,
    a_turn_is_read_as_it_was_written,
    writes_of_a_turn_take_effect_in_the_order_of_the_calls,
    a_write_nobody_waits_for_takes_effect,
    turns_come_oldest_first_and_in_pages,
    the_same_message_is_the_same_turn,
    conversations_do_not_mix,
    a_checkpoint_is_the_text_so_far,
    a_checkpoint_takes_its_place_among_the_writes,
    a_checkpoint_brings_nothing_back,
    forget_removes_everything,
    who_was_quiet_is_told_in_bounded_steps,
    an_amendment_changes_what_is_there_and_nothing_else,
    the_first_late_answer_counts,
    who_waits_is_told_oldest_first,
    breakers_are_as_last_written,
    days_cost_what_was_last_written,
    incidents_are_as_last_written_and_bounded,
    life_is_as_last_written,
    notes_are_as_last_written,
    saved_answers_are_as_last_written,
    saved_answers_go_with_their_conversation,
    a_store_that_works_has_no_problem,
);

// But for what is each instance's own: checkpoints, breakers, costs.
every_store!(
    @ handed_over, handed_over,
    an_unknown_conversation_is_empty,
    begin_does_not_overwrite,
    a_visitors_newest_conversation_is_found,
    a_turn_is_read_as_it_was_written,
    a_write_nobody_waits_for_takes_effect,
    turns_come_oldest_first_and_in_pages,
    the_same_message_is_the_same_turn,
    conversations_do_not_mix,
    forget_removes_everything,
    an_amendment_changes_what_is_there_and_nothing_else,
    the_first_late_answer_counts,
    who_waits_is_told_oldest_first,
    incidents_are_as_last_written_and_bounded,
    life_is_as_last_written,
    saved_answers_are_as_last_written,
    saved_answers_go_with_their_conversation,
    a_store_that_works_has_no_problem
);

async fn an_unknown_conversation_is_empty(store: &dyn Store) {
    let unknown = conversation(1);
    assert_eq!(store.conversation(unknown).await, Ok(None));
    assert_eq!(store.turn(unknown, turn_id(1)).await, Ok(None));
    assert_eq!(store.turn_of(unknown, message("m")).await, Ok(None));
    assert_eq!(store.turns(unknown, None, 100).await, Ok(vec![]));
    assert_eq!(store.forget(unknown).await, Ok(()));
    assert_eq!(store.breakers().await, Ok(vec![]));
}

async fn begin_does_not_overwrite(store: &dyn Store) {
    let first = ConversationRecord {
        began: At(1),
        subject: Some("ann".into()),
    };
    let second = ConversationRecord {
        began: At(2),
        subject: None,
    };
    store.begin(conversation(1), first.clone()).await.unwrap();
    store.begin(conversation(1), second).await.unwrap();
    assert_eq!(store.conversation(conversation(1)).await, Ok(Some(first)));
}

async fn a_visitors_newest_conversation_is_found(store: &dyn Store) {
    let begin = async |n: u8, began: u64, subject: Option<&str>| {
        let record = ConversationRecord {
            began: At(began),
            subject: subject.map(str::to_owned),
        };
        store.begin(conversation(n), record).await.unwrap();
    };
    let newest = async |subject: &str| store.newest_of(subject.into()).await.unwrap();
    assert_eq!(newest("ann").await, None);
    begin(9, 2, Some("ann")).await;
    begin(1, 300, Some("ann")).await;
    begin(5, 10, Some("ann")).await;
    begin(6, 999, Some("ann/x")).await;
    begin(7, 999, None).await;
    assert_eq!(newest("ann").await, Some(conversation(1)));
    assert_eq!(newest("ann/x").await, Some(conversation(6)));
    for other in ["an", "", "ann/", "Ann"] {
        assert_eq!(newest(other).await, None, "{other}");
    }
    // Whose a conversation is stays as it was written first.
    begin(7, 9999, Some("ann")).await;
    assert_eq!(newest("ann").await, Some(conversation(1)));
    store.forget(conversation(1)).await.unwrap();
    assert_eq!(newest("ann").await, Some(conversation(5)));
    begin(1, 20, Some("bob")).await;
    assert_eq!(
        (newest("ann").await, newest("bob").await),
        (Some(conversation(5)), Some(conversation(1)))
    );
}

async fn a_turn_is_read_as_it_was_written(store: &dyn Store) {
    let known = saying(turn(5, "m", "what?\u{0}\n\u{1F980}"), "that").interrupted();
    store
        .write_turn(conversation(1), known.clone())
        .await
        .unwrap();
    assert_eq!(
        store.turn(conversation(1), turn_id(5)).await,
        Ok(Some(known))
    );
    // A turn needs no conversation's record, and makes none.
    assert_eq!(store.conversation(conversation(1)).await, Ok(None));
}

async fn writes_of_a_turn_take_effect_in_the_order_of_the_calls(store: &dyn Store) {
    let write = |text: String| store.write_turn(conversation(1), saying(turn(5, "m", "?"), &text));
    let calls = (0..100).map(|n| write(n.to_string())).collect::<Vec<_>>();
    // Polled last to first: only the order of the calls may count.
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

async fn a_write_nobody_waits_for_takes_effect(store: &dyn Store) {
    drop(store.write_turn(conversation(1), turn(5, "m", "what?")));
    // Acknowledged after it, so it is seen after it.
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

async fn turns_come_oldest_first_and_in_pages(store: &dyn Store) {
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
        texts(&turns).join(" ")
    };
    assert_eq!(page(None, 100).await, "1 2 3 4 5");
    assert_eq!(page(None, 2).await, "4 5");
    assert_eq!(page(Some(4), 2).await, "2 3");
    assert_eq!(page(Some(2), 2).await, "1");
    assert_eq!(page(Some(1), 2).await, "");
    assert_eq!(page(Some(9), 1).await, "5");
    assert_eq!(page(None, 0).await, "");
}

async fn the_same_message_is_the_same_turn(store: &dyn Store) {
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
    let of = async |name| store.turn_of(conversation(1), message(name)).await.unwrap();
    assert_eq!(of("a/b").await, Some(first.clone()));
    assert_eq!(of("a").await.map(|turn| turn.turn), Some(turn_id(7)));
    assert_eq!(of("a/").await, None);
    // It is the turn as it stands, not as it was.
    store
        .write_turn(conversation(1), done(first, "that"))
        .await
        .unwrap();
    assert_eq!(of("a/b").await.map(|turn| turn.text), Some("that".into()));
}

async fn conversations_do_not_mix(store: &dyn Store) {
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
        assert_eq!(texts(&turns), [question]);
        let of = store.turn_of(conversation(n), message("m")).await.unwrap();
        assert_eq!(of.unwrap().question, question);
    }
}

/// Waits until all that was called before has taken effect.
async fn settled(store: &dyn Store) {
    store.write_breaker("settled".into(), None).await.unwrap();
}

async fn text_of(store: &dyn Store, ms: u64) -> Option<(String, TurnState)> {
    let found = store.turn(conversation(1), turn_id(ms)).await.unwrap();
    found.map(|turn| (turn.text, turn.state))
}

async fn a_checkpoint_is_the_text_so_far(store: &dyn Store) {
    let running = turn(5, "m", "what?");
    store
        .write_turn(conversation(1), running.clone())
        .await
        .unwrap();
    for text in ["a", "ab", "abc"] {
        store.checkpoint(conversation(1), saying(running.clone(), text));
    }
    settled(store).await;
    assert_eq!(
        text_of(store, 5).await,
        Some(("abc".into(), TurnState::Running))
    );
}

async fn a_checkpoint_takes_its_place_among_the_writes(store: &dyn Store) {
    let running = turn(5, "m", "what?");
    let first = store.write_turn(conversation(1), running.clone());
    store.checkpoint(conversation(1), saying(running.clone(), "a"));
    let second = store.write_turn(conversation(1), saying(running.clone(), "ab"));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(
        text_of(store, 5).await,
        Some(("ab".into(), TurnState::Running))
    );
    drop(store.write_turn(conversation(1), saying(running.clone(), "abc")));
    store.checkpoint(conversation(1), saying(running.clone(), "abcd"));
    settled(store).await;
    assert_eq!(
        text_of(store, 5).await,
        Some(("abcd".into(), TurnState::Running))
    );
    store.checkpoint(conversation(1), saying(running.clone(), "abcde"));
    let end = store.write_turn(conversation(1), done(running.clone(), "whole"));
    store.checkpoint(conversation(1), saying(running, "late"));
    end.await.unwrap();
    settled(store).await;
    assert_eq!(
        text_of(store, 5).await,
        Some(("whole".into(), TurnState::Done))
    );
}

async fn a_checkpoint_brings_nothing_back(store: &dyn Store) {
    let running = saying(turn(5, "m", "what?"), "a");
    store.checkpoint(conversation(1), running.clone());
    settled(store).await;
    assert_eq!(text_of(store, 5).await, None);
    store
        .write_turn(conversation(1), running.clone())
        .await
        .unwrap();
    store.forget(conversation(1)).await.unwrap();
    store.checkpoint(conversation(1), running);
    settled(store).await;
    assert_eq!(text_of(store, 5).await, None);
}

async fn forget_removes_everything(store: &dyn Store) {
    for n in [1, 2] {
        let record = ConversationRecord {
            began: At(1),
            subject: None,
        };
        store.begin(conversation(n), record).await.unwrap();
        for ms in 1..=50 {
            store
                .write_turn(conversation(n), turn(ms, &ms.to_string(), "?"))
                .await
                .unwrap();
        }
    }
    store.checkpoint(conversation(1), saying(turn(1, "1", "?"), "so far"));
    store.forget(conversation(1)).await.unwrap();
    settled(store).await;
    assert_eq!(store.conversation(conversation(1)).await, Ok(None));
    assert_eq!(store.turn(conversation(1), turn_id(1)).await, Ok(None));
    assert_eq!(store.turn_of(conversation(1), message("7")).await, Ok(None));
    assert_eq!(store.turns(conversation(1), None, 100).await, Ok(vec![]));
    // Nothing of anyone else's.
    assert!(store.conversation(conversation(2)).await.unwrap().is_some());
    assert_eq!(
        store.turns(conversation(2), None, 100).await.unwrap().len(),
        50
    );
    // Its messages may come again.
    store
        .write_turn(conversation(1), turn(99, "7", "new"))
        .await
        .unwrap();
    let of = store.turn_of(conversation(1), message("7")).await.unwrap();
    assert_eq!(of.unwrap().turn, turn_id(99));
}

async fn saved_answers_are_as_last_written(store: &dyn Store) {
    assert_eq!(
        (store.cached(key(1)).await, store.cached_keys().await),
        (Ok(None), Ok(vec![]))
    );
    for (n, ms, text) in [
        (1, 9, "first"),
        (2, 5, "other"),
        (1, 7, "second"),
        (3, 6, "third"),
    ] {
        store
            .write_cached(key(n), cached(n, ms, text))
            .await
            .unwrap();
    }
    assert_eq!(store.cached(key(1)).await, Ok(Some(cached(1, 7, "second"))));
    assert_eq!(store.cached_keys().await, Ok(vec![key(2), key(3), key(1)]));
    store
        .remove_cached(vec![key(2), key(9), key(1)])
        .await
        .unwrap();
    assert_eq!(
        (store.cached(key(1)).await, store.cached_keys().await),
        (Ok(None), Ok(vec![key(3)]))
    );
}

async fn saved_answers_go_with_their_conversation(store: &dyn Store) {
    let nobodys = CachedAnswer {
        conversation: None,
        turn: None,
        ..cached(1, 5, "nobody's")
    };
    for (n, answer) in [
        (1, cached(1, 5, "one")),
        (2, cached(1, 6, "two")),
        (3, cached(1, 7, "was")),
        (4, nobodys),
    ] {
        store.write_cached(key(n), answer).await.unwrap();
    }
    store
        .write_cached(key(3), cached(2, 8, "is"))
        .await
        .unwrap();
    store.forget(conversation(1)).await.unwrap();
    assert_eq!(store.cached_keys().await, Ok(vec![key(4), key(3)]));
    assert_eq!(store.cached(key(3)).await, Ok(Some(cached(2, 8, "is"))));
    // Nothing of theirs is taken for a turn that waits.
    assert_eq!(store.waiting().await, Ok(vec![]));
}

async fn a_store_that_works_has_no_problem(store: &dyn Store) {
    store
        .write_turn(conversation(1), turn(5, "m", "what?"))
        .await
        .unwrap();
    assert_eq!(store.problem(), None);
}
