//! Several instances on one real Redis: what they keep, replicate and leave unchanged.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Instant;

use tokio::time::timeout;

use super::client::HOT_PATH_TIMEOUT;
use super::server::RedisServer;
use super::test_server::{STEP_TIMEOUT, TestInstance};
use super::turn_streams::TurnStreams;
use crate::domain::{Feedback, Followup, Timestamp, TurnState, TurnUpdate};
use crate::store::contract::{
    cache_key, cached_answer, completed, conversation, message, record, turn, turn_id, with_text,
};
use crate::store::{AnswerStore as _, ConversationStore as _, DocumentStore as _, Store as _};

/// How long a busy machine may take to run a ready task.
const SLACK: std::time::Duration = std::time::Duration::from_millis(400);

#[tokio::test]
async fn instance_works_without_redis_and_replicates_once_it_is_up() {
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    let one = TestInstance::start(&redis.url());
    let id = conversation(1);
    one.store
        .create_conversation(id, record(1, Some("ann")))
        .await
        .unwrap();
    for ms in 1..=300 {
        drop(
            one.store
                .write_turn(id, completed(turn(ms, &ms.to_string(), "?"), "a")),
        );
    }
    let started = Instant::now();
    one.write_turn(id, turn(301, "m", "?")).await;
    assert_eq!(one.store.turns(id, None, 9).await.unwrap().len(), 9);
    assert!(
        started.elapsed() < HOT_PATH_TIMEOUT + SLACK,
        "{:?}",
        started.elapsed()
    );
    assert!(one.store.problem().is_some());
    redis.restart();
    one.wait_connected().await;
    one.wait_replicated().await;
    let other = TestInstance::start_connected(&redis).await;
    let turns = other.store.turns(id, None, 1000).await.unwrap();
    assert!(
        turns
            .iter()
            .map(|turn| turn.turn)
            .eq((1..=301).map(turn_id))
    );
    assert_eq!(
        other.store.conversation(id).await.unwrap().unwrap().subject,
        Some("ann".into())
    );
    assert_eq!(other.store.problem(), None);
}

#[tokio::test]
async fn stalled_redis_delays_only_the_first_read() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    one.write_turn(id, turn(5, "m", "?")).await;
    one.wait_replicated().await;
    redis.pause();
    for limit in [HOT_PATH_TIMEOUT + SLACK, SLACK, SLACK] {
        let started = Instant::now();
        assert_eq!(one.store.turns(id, None, 9).await.unwrap().len(), 1);
        assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    }
    redis.resume();
    one.wait_connected().await;
}

#[tokio::test]
async fn records_lost_by_redis_are_replicated_again() {
    let mut redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let other = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    for round in 1..=5 {
        one.store
            .write_turn(id, completed(turn(round, &round.to_string(), "?"), "a"))
            .await
            .unwrap();
        one.wait_replicated().await;
        redis.restart();
        one.wait_connected().await;
        other.wait_connected().await;
    }
    // The lost connection may be noticed only after a pass through the journal.
    let replicated_again = async {
        while other.store.turns(id, None, 9).await.unwrap().len() < 5 {
            one.wait_replicated().await;
        }
    };
    tokio::time::timeout(STEP_TIMEOUT, replicated_again)
        .await
        .unwrap();
}

#[tokio::test]
async fn missing_turn_is_an_error_while_redis_is_down() {
    let mut redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    assert_eq!(one.store.turn(conversation(1), turn_id(5)).await, Ok(None));
    redis.kill();
    one.wait_disconnected().await;
    assert!(one.store.turn(conversation(1), turn_id(5)).await.is_err());
    one.write_turn(conversation(1), turn(5, "m", "?")).await;
    assert!(
        one.store
            .turn(conversation(1), turn_id(5))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn update_on_one_instance_is_visible_on_all() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let other = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    let followup = Followup {
        text: "late".into(),
        provider: "p".into(),
        model: "m".into(),
        at: Timestamp(9),
    };
    one.write_turn(id, completed(turn(5, "m", "?"), "sorry"))
        .await;
    one.store
        .set_followup_pending(id, turn_id(5), true)
        .await
        .unwrap();
    one.wait_replicated().await;
    assert_eq!(
        other.store.pending_followups().await.unwrap(),
        [(id, turn_id(5))]
    );
    other
        .store
        .update_turn(id, turn_id(5), TurnUpdate::Feedback(Feedback::Down))
        .await
        .unwrap();
    other
        .store
        .update_turn(id, turn_id(5), TurnUpdate::Followup(followup.clone()))
        .await
        .unwrap();
    other.wait_replicated().await;
    let seen = one.store.turn(id, turn_id(5)).await.unwrap().unwrap();
    assert_eq!(
        (seen.feedback, seen.followup.as_ref()),
        (Some(Feedback::Down), Some(&followup))
    );
    // A repeated pending mark has no effect, since the turn has its follow-up.
    one.store
        .set_followup_pending(id, turn_id(5), true)
        .await
        .unwrap();
    one.wait_replicated().await;
    assert_eq!(other.store.pending_followups().await.unwrap(), []);
}

#[tokio::test]
async fn less_complete_view_does_not_replace_the_turn() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let other = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    let running = turn(5, "m", "?");
    one.write_turn(id, completed(running.clone(), "whole"))
        .await;
    one.wait_replicated().await;
    other
        .write_turn(id, with_text(running, "a part of it").into_interrupted())
        .await;
    other.wait_replicated().await;
    for instance in [&one, &other] {
        let seen = instance
            .store
            .turn_by_message(id, message("m"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((seen.text.as_str(), seen.state), ("whole", TurnState::Done));
    }
}

#[tokio::test]
async fn deletion_on_one_instance_also_removes_the_copy_on_another() {
    let mut redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let other = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    one.store
        .create_conversation(id, record(1, None))
        .await
        .unwrap();
    one.write_turn(id, completed(turn(5, "m", "secret"), "a"))
        .await;
    one.wait_replicated().await;
    other.store.delete_conversation(id).await.unwrap();
    other.wait_replicated().await;
    assert_eq!(one.store.turns(id, None, 9).await.unwrap(), []);
    assert_eq!(one.store.turn(id, turn_id(5)).await.unwrap(), None);
    // The reads dropped its local copy, so the turn stays gone without Redis.
    one.store
        .write_breaker("settled".into(), None)
        .await
        .unwrap();
    redis.kill();
    one.wait_disconnected().await;
    assert_eq!(one.store.turns(id, None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn records_of_an_unknown_version_stay_unchanged() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    let hash = format!("failsoft:c:{id}");
    let answer = format!("failsoft:a:{}", cache_key(1));
    for (field, place) in [
        (format!("t:{}", turn_id(5)), hash.as_str()),
        ("v".into(), answer.as_str()),
    ] {
        redis.command(&["HSET", place, &field, "9from tomorrow"]);
    }
    redis.command(&[
        "ZADD",
        &format!("failsoft:o:{id}"),
        "0",
        &turn_id(5).to_string(),
    ]);
    redis.command(&["SET", "failsoft:l", "9from tomorrow"]);
    assert_eq!(one.store.turns(id, None, 9).await.unwrap(), []);
    assert_eq!(one.store.get_answer(cache_key(1)).await.unwrap(), None);
    one.write_turn(id, completed(turn(5, "m", "?"), "mine"))
        .await;
    one.store
        .put_answer(cache_key(1), cached_answer(1, 5, "mine"))
        .await
        .unwrap();
    one.store.remove_answers(vec![cache_key(1)]).await.unwrap();
    one.store
        .save_service_lifetime(crate::domain::ServiceLifetime {
            first_start: Timestamp(1),
            last_seen: Timestamp(2),
        })
        .await
        .unwrap();
    one.wait_replicated().await;
    for (place, field) in [
        (hash.as_str(), format!("t:{}", turn_id(5))),
        (answer.as_str(), "v".into()),
    ] {
        assert_eq!(redis.command(&["HGET", place, &field]), "9from tomorrow");
    }
    assert_eq!(redis.command(&["GET", "failsoft:l"]), "9from tomorrow");
    // The owner must not be guessed.
    redis.command(&["HSET", &hash, "record", "9from tomorrow"]);
    assert!(one.store.conversation(id).await.is_err());
}

#[tokio::test]
async fn keys_of_another_type_disable_sharing_only() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let id = conversation(1);
    for place in [
        format!("failsoft:c:{id}"),
        format!("failsoft:o:{id}"),
        format!("failsoft:gone:{id}"),
    ]
    .into_iter()
    .chain(["w", "i", "ak", "v"].map(|name| format!("failsoft:{name}")))
    {
        redis.command(&["LPUSH", &place, "rubbish"]);
    }
    one.store
        .create_conversation(id, record(1, None))
        .await
        .unwrap();
    one.write_turn(id, completed(turn(5, "m", "?"), "mine"))
        .await;
    one.store
        .put_answer(cache_key(1), cached_answer(1, 5, "mine"))
        .await
        .unwrap();
    one.wait_replicated().await;
    assert_eq!(one.store.turns(id, None, 9).await.unwrap().len(), 1);
    assert_eq!(
        one.store
            .turn_by_message(id, message("m"))
            .await
            .unwrap()
            .unwrap()
            .text,
        "mine"
    );
    assert!(one.store.conversation(id).await.unwrap().is_some());
    assert_eq!(
        one.store
            .get_answer(cache_key(1))
            .await
            .unwrap()
            .unwrap()
            .text,
        "mine"
    );
    assert_eq!(
        (
            one.store.pending_followups().await,
            one.store.incidents().await
        ),
        (Ok(vec![]), Ok(vec![]))
    );
    // Other records are still shared.
    one.write_turn(conversation(2), turn(6, "m", "?")).await;
    one.wait_replicated().await;
    let other = TestInstance::start_connected(&redis).await;
    assert_eq!(
        other
            .store
            .turns(conversation(2), None, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn keys_expire_without_further_writes() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    one.write_turn(conversation(1), turn(5, "m", "?")).await;
    one.store
        .put_answer(cache_key(1), cached_answer(1, 5, "a"))
        .await
        .unwrap();
    one.wait_replicated().await;
    let names = redis.command(&["KEYS", "failsoft:[aco]:*"]);
    assert_eq!(names.lines().count(), 3, "{names}");
    for name in names.lines() {
        let left: u64 = redis.command(&["TTL", name]).parse().unwrap();
        assert!((80_000..=86_400).contains(&left), "{name} {left}");
    }
}

#[tokio::test]
async fn a_late_answer_that_an_instance_died_with_is_for_another() {
    let redis = RedisServer::start(&[]);
    let one = TestInstance::start_connected(&redis).await;
    let other = TestInstance::start_connected(&redis).await;
    let [one_turns, other_turns] = [(&one, "one"), (&other, "other")]
        .map(|(at, name)| TurnStreams::new(at.client.clone(), name.into()));
    assert!(one_turns.claim_followup(turn_id(1)).await);
    assert!(
        !other_turns.claim_followup(turn_id(1)).await,
        "the first instance is alive"
    );
    assert!(one_turns.claim_followup(turn_id(1)).await);
    // Both instances have the same name and write the same heartbeat. Delete it until neither has
    // had the time to write it again.
    let claimed = async {
        loop {
            redis.command(&["DEL", "failsoft:here:one"]);
            if other_turns.claim_followup(turn_id(1)).await {
                return;
            }
        }
    };
    timeout(STEP_TIMEOUT, claimed).await.unwrap();
}
