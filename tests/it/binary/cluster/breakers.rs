//! Breakers of two instances: a trip or a hint of one is known to the other, and they share probes.

use std::time::Duration;

use serde_json::Value;

use super::super::{exclusive, wait_for};
use super::{BETA, ExtraConfig, InstancePair, refuses};
use crate::harness::{ScriptGate, full_answer};

/// The longest that an event may take to the other instance, as the median of three.
const MAX_PROPAGATION: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_refused_key_and_its_recovery_reach_the_other_instance() {
    let _exclusive = exclusive().await;
    let alpha_keys = r#"breaker = { blocked_for = "1s" }"#;
    let pair = InstancePair::start(ExtraConfig {
        alpha_keys,
        ..ExtraConfig::default()
    })
    .await;
    let mut took = Vec::new();
    for (first, second) in [(0, 1), (1, 0), (0, 1)] {
        pair.alpha.script_default(refuses(401));
        let asked = pair.alpha.question_count();
        let answer_to_first = pair.ask(first);
        let both_blocked = async {
            (
                pair.wait_for_alpha_state(first, "blocked").await,
                pair.wait_for_alpha_state(second, "blocked").await,
            )
        };
        let (answered, (first_blocked, second_blocked)) =
            tokio::join!(answer_to_first, both_blocked);
        assert_eq!(answered["message"], BETA);
        took.push(second_blocked.saturating_duration_since(first_blocked));
        assert_eq!(pair.ask(second).await["message"], BETA);
        assert_eq!(
            pair.alpha.question_count(),
            asked + 1,
            "the other instance did not ask the provider itself"
        );
        pair.alpha.script_default(full_answer("Recovered."));
        pair.wait_for_alpha_state(first, "closed").await;
        pair.wait_for_alpha_state(second, "closed").await;
        assert_eq!(pair.ask(second).await["message"], "Recovered.");
        assert_eq!(pair.ask(first).await["message"], "Recovered.");
    }
    took.sort();
    println!("known to the other instance after {took:?}");
    assert!(took[1] < MAX_PROPAGATION, "{took:?}");
    pair.stop().await;
}

#[tokio::test]
async fn an_unreachable_provider_is_only_a_hint_to_the_other_instance() {
    let pair = InstancePair::start(ExtraConfig::default()).await;
    pair.alpha.stop_listening().await;
    for _ in 0..5 {
        assert_eq!(pair.ask(0).await["message"], BETA);
    }
    pair.wait_for_alpha_state(0, "open").await;
    // Wait for the hint: after it a single failure opens the breaker.
    let hint = async {
        while !pair
            .redis
            .command(&["KEYS", "failsoft:fleet:hint:*"])
            .contains("hint")
        {}
    };
    wait_for("the hint", hint).await;
    assert_eq!(
        pair.instances[1].get("/status.json").await.json()["providers"][0]["state"],
        "closed"
    );
    let asking = async {
        for _ in 0..4 {
            assert_eq!(pair.ask(1).await["message"], BETA);
        }
    };
    wait_for("answers of the second provider", asking).await;
    pair.wait_for_alpha_state(1, "open").await;
    pair.stop().await;
}

#[tokio::test]
async fn instances_probe_one_at_a_time_and_share_the_result() {
    let alpha_keys =
        r#"breaker = { open_for = "500ms", open_max = "1s", consecutive_failures = 1 }"#;
    let pair = InstancePair::start(ExtraConfig {
        alpha_keys,
        ..ExtraConfig::default()
    })
    .await;
    pair.alpha.script_default(refuses(500));
    assert_eq!(pair.ask(0).await["message"], BETA);
    pair.wait_for_alpha_state(1, "open").await;
    // The next probe is not answered until the other instance waits for it.
    let gate = ScriptGate::default();
    let mut script = vec![gate.wait_step()];
    script.extend(full_answer("pong"));
    pair.alpha.script_default(script);
    let before = pair.alpha.counts().probes;
    let held = pair
        .alpha
        .wait_for(|counts| counts.probes > before && counts.in_flight == 1)
        .await;
    let waits = |alpha: &Value| alpha["state"] == "half_open" && alpha["retry_at"].is_string();
    let waiting = async {
        loop {
            for index in 0..2 {
                if waits(&pair.instances[index].get("/status.json").await.json()["providers"][0]) {
                    return;
                }
            }
        }
    };
    wait_for("the other instance to wait", waiting).await;
    assert_eq!(pair.alpha.counts().probes, held.probes);
    gate.let_one_through();
    for index in 0..2 {
        pair.wait_for_alpha_state(index, "closed").await;
    }
    assert_eq!(
        (
            pair.alpha.counts().probes,
            pair.alpha.counts().max_in_flight
        ),
        (held.probes, 1)
    );
    pair.stop().await;
}
