//! Behaviour specific to sled: unreadable records, timeouts, database faults, shared flushes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::tree::open_tree;
use super::*;
use crate::store::contract::{completed, conversation, message, record, turn, turn_id};

fn new_store() -> (SledStore, TempDir) {
    let folder = TempDir::new().unwrap();
    let lock = File::create(folder.path().join("lock")).unwrap();
    let tree = folder.path().join("store");
    let store = SledStore::start(open_tree(&tree).unwrap(), tree, lock).unwrap();
    (store, folder)
}

/// A store without a tree whose writer thread never runs.
fn stalled_store() -> SledStore {
    SledStore::with_state(Arc::default())
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

#[tokio::test]
async fn unreadable_records_are_skipped() {
    let (store, _folder) = new_store();
    for ms in [1, 2, 3] {
        let turn = turn(ms, &ms.to_string(), "?");
        store.write_turn(conversation(1), turn).await.unwrap();
    }
    let db = store.state.tree().unwrap();
    let overwrite = |key: String, bytes: &[u8]| drop(db.insert(key, bytes).unwrap());
    let id = conversation(1);
    overwrite(format!("t/{id}/{}", turn_id(2)), b"\x09{}");
    overwrite(format!("m/{id}/3"), b"");
    overwrite("b/one".into(), b"\x01{}");
    let turns = store.turns(id, None, 100).await.unwrap();
    assert_eq!(
        turns.iter().map(|turn| turn.turn).collect::<Vec<_>>(),
        [1, 3].map(turn_id)
    );
    assert_eq!(store.turn(id, turn_id(2)).await, Ok(None));
    assert_eq!(store.turn_by_message(id, message("2")).await, Ok(None));
    assert_eq!(store.turn_by_message(id, message("3")).await, Ok(None));
    assert_eq!(store.breakers().await, Ok(vec![]));
    // A new write replaces the unreadable record.
    let again = completed(turn(3, "3", "?"), "that");
    store.write_turn(id, again.clone()).await.unwrap();
    assert_eq!(
        store.turn_by_message(id, message("3")).await,
        Ok(Some(again))
    );
    assert_eq!(store.problem(), None);
}

#[tokio::test]
async fn every_partial_write_after_a_crash_is_consistent() {
    let (store, _folder) = new_store();
    let id = conversation(1);
    for ms in 1..=4 {
        let running = turn(ms, &ms.to_string(), "?");
        store.write_turn(id, running).await.unwrap();
    }
    let db = store.state.tree().unwrap();
    let put = |ms, turn: TurnRecord| {
        let bytes = super::super::codec::encode(&turn).unwrap();
        db.insert(format!("t/{id}/{}", turn_id(ms)), bytes).unwrap();
    };
    // Turn 1 was only in the index, turn 2 also had its message; turn 3 ended and turn 4 was
    // interrupted by an earlier start, but both are still in the index.
    for key in [
        format!("t/{id}/{}", turn_id(1)),
        format!("m/{id}/1"),
        format!("t/{id}/{}", turn_id(2)),
    ] {
        db.remove(key).unwrap();
    }
    put(3, completed(turn(3, "3", "?"), "that"));
    put(4, turn(4, "4", "?").into_interrupted());

    let interrupted = interrupt_running(&db).unwrap();
    assert_eq!(interrupted, [(id, turn_id(4))]);
    assert_eq!(db.scan_prefix("r/").count(), 0);
    let turns = store.turns(id, None, 100).await.unwrap();
    assert_eq!(
        turns.iter().map(|turn| turn.turn).collect::<Vec<_>>(),
        [3, 4].map(turn_id)
    );
    assert_eq!(turns[0].text, "that");
    for name in ["1", "2"] {
        assert_eq!(store.turn_by_message(id, message(name)).await, Ok(None));
        // The same message starts a new turn.
        store.write_turn(id, turn(9, name, "again?")).await.unwrap();
        let found = store.turn_by_message(id, message(name)).await.unwrap();
        assert_eq!(found.map(|turn| turn.turn), Some(turn_id(9)));
    }
}

#[tokio::test]
async fn conversation_with_unreadable_owner_returns_damaged() {
    let (store, _folder) = new_store();
    let db = store.state.tree().unwrap();
    db.insert(format!("c/{}", conversation(1)), b"\x02{}")
        .unwrap();
    let record = record(1, None);
    store
        .create_conversation(conversation(1), record)
        .await
        .unwrap();
    let found = store.conversation(conversation(1)).await;
    assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    assert!(store.problem().is_some());
    store.delete_conversation(conversation(1)).await.unwrap();
    assert_eq!(store.conversation(conversation(1)).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn calls_time_out_at_the_limit() {
    let store = stalled_store();
    let started = tokio::time::Instant::now();
    assert!(is_unavailable(
        &store.write_turn(conversation(1), turn(1, "m", "?")).await
    ));
    assert_eq!(started.elapsed().as_secs(), CALL_TIMEOUT.as_secs());
    let mut reads = Vec::new();
    while let Some(Some(read)) = store.read_pool.start().now_or_never() {
        reads.push(read);
    }
    assert_eq!(reads.len(), 64);
    assert!(is_unavailable(&store.turns(conversation(1), None, 1).await));
    assert_eq!(started.elapsed().as_secs(), 2 * CALL_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn full_queue_and_missing_tree_fail_at_once() {
    let store = stalled_store();
    while store
        .state
        .queue
        .push(WriteOp::DeleteConversation(conversation(1)))
        .is_ok()
    {}
    let started = tokio::time::Instant::now();
    assert!(is_unavailable(
        &store.write_turn(conversation(1), turn(1, "m", "?")).await
    ));
    assert!(is_unavailable(&store.breakers().await));
    assert_eq!(started.elapsed().as_secs(), 0);
}

#[tokio::test]
async fn database_panic_loses_only_the_change_that_caused_it() {
    let folder = TempDir::new().unwrap();
    let tree = folder.path().join("store");
    let db = open_tree(&tree).unwrap();
    let store = stalled_store();
    // All three are queued before the thread starts, so they form one batch.
    let before = store.queue_write(WriteOp::WriteTurn(conversation(1), turn(1, "m", "before")));
    let culprit = store.queue_write(WriteOp::Panic);
    let after = store.queue_write(WriteOp::WriteTurn(conversation(2), turn(1, "m", "after")));
    let lock = File::create(folder.path().join("lock")).unwrap();
    writer::start(Arc::clone(&store.state), db, tree, lock).unwrap();
    for write in [before, culprit, after] {
        assert!(is_unavailable(&write.await));
    }
    // The other two are applied after the tree is reopened, and new writes succeed.
    let deadline = Instant::now() + Duration::from_secs(20);
    while store
        .write_turn(conversation(3), turn(1, "m", "new"))
        .await
        .is_err()
    {
        assert!(Instant::now() < deadline, "the store does not reopen");
        tokio::task::yield_now().await;
    }
    for n in [1, 2, 3] {
        let found = store.turn(conversation(n), turn_id(1)).await.unwrap();
        assert!(found.is_some(), "{n}");
    }
    assert_eq!(store.problem(), None);
}

#[test]
fn health_reports_damage_and_slow_flushes() {
    let state = WriterState::default();
    assert_eq!(state.health.problem(), None);
    state.health.mark_damaged();
    let damaged = state.health.problem().unwrap();
    state.health.set_flush_started(Some(Instant::now()));
    assert_eq!(state.health.problem(), Some(damaged));
    state
        .health
        .set_flush_started(Instant::now().checked_sub(CALL_TIMEOUT));
    let slow = state.health.problem().unwrap();
    assert_ne!(slow, damaged);
}

/// Lets `writers` tasks write `each` turns concurrently.
///
/// Returns the sorted latencies, the number of flushes and the total time.
async fn measure_writes(writers: u8, each: u64) -> (Vec<Duration>, u64, Duration) {
    let (store, _folder) = new_store();
    let all_started = Instant::now();
    let writer = async |n: u8| {
        let mut took = Vec::new();
        for ms in 0..each {
            let turn = completed(turn(ms, &ms.to_string(), "what?"), &"x".repeat(1000));
            let started = Instant::now();
            store.write_turn(conversation(n), turn).await.unwrap();
            took.push(started.elapsed());
        }
        took
    };
    let took = futures_util::future::join_all((0..writers).map(writer)).await;
    let total = all_started.elapsed();
    let mut took = took.concat();
    took.sort();
    (took, store.state.flush_count.load(Ordering::Relaxed), total)
}

#[tokio::test]
async fn concurrent_writes_share_flushes() {
    for (writers, each) in [(1, 400), (200, 20)] {
        let (took, flushes, total) = measure_writes(writers, each).await;
        let writes = u64::from(writers) * each;
        let rate = |count: u64| count as f64 / total.as_secs_f64();
        println!(
            "{writers} writers: {:.0} writes/s, {:.0} flushes/s, p50 {:?}, p99 {:?}, max {:?}",
            rate(writes),
            rate(flushes),
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            took[took.len() - 1],
        );
        if writers == 1 {
            assert_eq!(flushes, writes);
        } else {
            assert!(
                flushes * 10 < writes,
                "{flushes} flushes for {writes} writes"
            );
        }
    }
}
