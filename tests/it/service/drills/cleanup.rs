//! Drills leave nothing behind, however they end.

use std::time::Duration;

use failsoft::config::CacheSharing;
use failsoft::domain::ProviderState;
use failsoft::provider::fault_injection::TOKENS_BEFORE_FAULT;
use serde_json::json;

use super::{BETA, Drills, alpha_script, alpha_text};
use crate::harness::{TestApp, WsClient, eventually, test_settings};

#[tokio::test]
async fn a_drill_ends_by_itself_and_the_breaker_closes() {
    let drills = Drills::with_alpha(alpha_script(), |_| {}).await;
    assert_eq!(TOKENS_BEFORE_FAULT, 10);
    let order = drills
        .start_with(&json!({ "provider": "alpha", "fault": "unauthorized", "for": "1500ms" }))
        .await;
    let mut client = WsClient::open(&drills.app).await;
    client.ask_and_wait("Who?").await;
    assert_eq!(
        drills.app.provider_status("alpha").await["state"],
        "blocked"
    );
    drills
        .app
        .wait_for_status("alpha", |provider_status| {
            provider_status.state == ProviderState::Closed
        })
        .await;
    let report = drills.report().await;
    assert_eq!(
        (&report["from"], &report["ended_by"]),
        (&order["from"], &json!("time"))
    );
    assert_eq!(drills.list().await["running"], json!([]));
    assert_eq!(
        drills.alpha.counts().probes,
        0,
        "a probe closed the breaker"
    );
    drills.assert_no_trace().await;
}

#[tokio::test]
async fn probes_and_health_checks_fail_during_a_drill() {
    let drills = Drills::with_alpha(alpha_script(), |settings| {
        settings.providers[0].health.interval = Duration::from_millis(200);
        settings.providers[0].breaker.consecutive_failures = 1;
    })
    .await;
    drills.alpha.wait_for(|counts| counts.listings > 0).await;
    drills.start("down").await;
    drills
        .app
        .wait_for_status("alpha", |provider_status| provider_status.failed_checks > 0)
        .await;
    let listings = drills.alpha.counts().listings;
    WsClient::open(&drills.app).await.ask_and_wait("Who?").await;
    // Probes fail as the visitors' calls do, so the breaker keeps reopening.
    drills
        .app
        .wait_for_status("alpha", |provider_status| {
            provider_status.failed_probes >= 3
        })
        .await;
    assert_eq!(
        (
            drills.alpha.question_count(),
            drills.alpha.counts().probes,
            drills.alpha.counts().listings
        ),
        (0, 0, listings)
    );
    drills.end().await;
    assert_eq!(drills.app.provider_status("alpha").await["healthy"], true);
    drills.assert_no_trace().await;
}

#[tokio::test]
async fn a_restart_ends_a_drill_and_leaves_the_breaker_closed() {
    let drills = Drills::with_alpha(alpha_script(), |settings| {
        settings.providers[0].breaker.consecutive_failures = 1
    })
    .await;
    drills.start("down").await;
    WsClient::open(&drills.app).await.ask_and_wait("Who?").await;
    assert_ne!(drills.app.provider_status("alpha").await["state"], "closed");
    let Drills { alpha, beta, app } = drills;
    let data = app.shut_down().await;
    let app = TestApp::start_in(test_settings(&[("alpha", &alpha), ("beta", &beta)]), data).await;
    let state = app.provider_status("alpha").await;
    assert_eq!(
        (&state["state"], &state["drill"]),
        (&json!("closed"), &json!(null))
    );
    assert_eq!(
        WsClient::open(&app).await.ask_and_wait("Who?").await.text,
        alpha_text(20)
    );
}

#[tokio::test]
async fn answers_during_a_drill_are_not_cached() {
    let drills = Drills::with_alpha(alpha_script(), |settings| {
        settings.cache.enabled = true;
        settings.cache.share = CacheSharing::Always;
    })
    .await;
    drills.start("down").await;
    let during = WsClient::open(&drills.app)
        .await
        .ask_and_wait("What are your opening hours?")
        .await
        .text
        .clone();
    assert_eq!(during, BETA);
    drills.end().await;
    let after = WsClient::open(&drills.app)
        .await
        .ask_and_wait("What are your opening hours?")
        .await
        .done
        .clone()
        .unwrap();
    assert_eq!(
        (&after["source"], &after["provider"]),
        (&json!("ai"), &json!("alpha"))
    );
    // Answers after the drill are cached.
    eventually("the answer to be cached", async {
        while drills
            .app
            .chat_service
            .turns
            .store
            .answer_keys()
            .await
            .unwrap()
            .is_empty()
        {}
    })
    .await;
    let cached = WsClient::open(&drills.app)
        .await
        .ask_and_wait("What are your opening hours?")
        .await
        .done
        .clone()
        .unwrap();
    assert_eq!(cached["source"], "cache");
}
