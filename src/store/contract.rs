//! The contract of [`Store`]: tests that run against every implementation.

#![allow(clippy::unwrap_used)]

mod answers;
mod checkpoints;
mod conversations;
mod documents;
mod expiry;
mod updates;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use self::answers::*;
use self::checkpoints::*;
use self::conversations::*;
use self::documents::*;
use self::expiry::*;
use self::updates::*;
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

/// A conversation's record. The subject is `None` for an anonymous visitor.
pub(super) fn record(started_at: u64, subject: Option<&str>) -> ConversationRecord {
    ConversationRecord {
        started_at: Timestamp(started_at),
        subject: subject.map(str::to_owned),
    }
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

/// Waits until all earlier calls have taken effect.
pub(super) async fn drain_writes(store: &dyn Store) {
    store.write_breaker("settled".into(), None).await.unwrap();
}
