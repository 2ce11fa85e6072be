//! Shared limits of two instances: a provider's rate limit and budget, the visitors' rate limit.

use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::service::Service;
use super::super::wait_for;
use super::{BETA, ExtraConfig, InstancePair};
use crate::harness::error_response;

#[tokio::test]
async fn a_provider_rate_limit_applies_to_all_instances() {
    let pair = InstancePair::start(ExtraConfig::default()).await;
    let limit = "content-type: application/json\r\nretry-after: 600\r\n";
    pair.alpha.script_default(vec![error_response(
        429,
        limit,
        r#"{"error":{"message":"slow down"}}"#,
    )]);
    assert_eq!(pair.ask(0).await["message"], BETA);
    pair.wait_for_alpha(1, |alpha| {
        alpha["retry_at"].is_string() && alpha["state"] == "closed"
    })
    .await;
    assert_eq!(
        (
            pair.ask(1).await["message"].clone(),
            pair.alpha.question_count()
        ),
        (json!(BETA), 1)
    );
    // An instance that starts later learns of it too.
    let folder = TempDir::new().unwrap();
    let config = std::fs::read_to_string(pair.folders[0].path().join("failsoft.toml")).unwrap();
    let third = Service::start(folder.path(), &config).await;
    let knows_limit = |status: &Value| status["providers"][0]["retry_at"].is_string();
    third
        .wait_for_status("the rate limit in the status", knows_limit)
        .await;
    assert_eq!(pair.alpha.question_count(), 1);
    pair.stop().await;
}

#[tokio::test]
async fn a_daily_budget_is_shared() {
    // A question has seven input and five output tokens: about half of the budget.
    let alpha_keys = "prices = { input = 50000.0, output = 50000.0 }\ndaily_budget_usd = 1.0";
    let pair = InstancePair::start(ExtraConfig {
        alpha_keys,
        ..ExtraConfig::default()
    })
    .await;
    assert_eq!(pair.ask(0).await["provider"], "alpha");
    assert_eq!(pair.ask(1).await["provider"], "alpha");
    let started = Instant::now();
    for index in 0..2 {
        pair.wait_for_alpha(index, |alpha| alpha["reason"] == "budget_spent")
            .await;
    }
    println!("both instances stopped after {:?}", started.elapsed());
    for index in 0..2 {
        assert_eq!(pair.ask(index).await["message"], BETA);
    }
    assert_eq!(pair.alpha.question_count(), 2);
    pair.stop().await;
}

#[tokio::test]
async fn the_visitor_rate_limit_is_shared() {
    const LIMIT: usize = 10;
    let tables = "[limits]\nmessages_per_minute_per_ip = 10";
    let pair = InstancePair::start(ExtraConfig {
        tables,
        ..ExtraConfig::default()
    })
    .await;
    let counted = |pair: &InstancePair| {
        let key = pair.redis.command(&["KEYS", "failsoft:fleet:rate:a*"]);
        if key.is_empty() {
            String::new()
        } else {
            pair.redis.command(&["GET", &key])
        }
    };
    let mut admitted = [0, 0];
    for round in 0..2 * LIMIT {
        let before = counted(&pair);
        let index = round % 2;
        let answer = pair.instances[index]
            .post("/api/chat", json!({ "message": "What?" }))
            .await;
        if answer.status == 429 {
            assert!(
                answer.head.to_ascii_lowercase().contains("retry-after"),
                "{}",
                answer.head
            );
            continue;
        }
        admitted[index] += 1;
        // Wait until this instance has synchronised, and so knows what the other one admitted.
        wait_for("the common count", async {
            while counted(&pair) == before {}
        })
        .await;
    }
    // The last message may be admitted before the previous one of the other instance is known.
    let total = admitted[0] + admitted[1];
    assert!(
        (LIMIT..=LIMIT + 1).contains(&total) && admitted[0] >= 4 && admitted[1] >= 4,
        "{admitted:?}"
    );
    pair.stop().await;
}
