//! What a drill leaves: nothing, however it ends.

use std::time::Duration;

use failsoft::config::CacheSharing;
use failsoft::domain::ProviderState;
use failsoft::provider::fault_injection::TOKENS_BEFORE_FAULT;
use serde_json::json;

use super::{BETA, Ground, counts, told};
use crate::harness::{TestApp, WsClient, settings, soon};

#[tokio::test]
async fn it_ends_by_itself_and_the_breaker_is_closed_again() {
    let ground = Ground::of(counts(), |_| {}).await;
    assert_eq!(TOKENS_BEFORE_FAULT, 10);
    let begun = ground
        .begin_with(&json!({ "provider": "alpha", "fault": "unauthorized", "for": "1500ms" }))
        .await;
    let mut client = WsClient::open(&ground.app).await;
    client.answered("Who?").await;
    assert_eq!(ground.app.provider("alpha").await["state"], "blocked");
    ground
        .app
        .vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    let report = ground.report().await;
    assert_eq!(
        (&report["from"], &report["ended_by"]),
        (&begun["from"], &json!("time"))
    );
    assert_eq!(ground.list().await["running"], json!([]));
    assert_eq!(ground.alpha.counts().probes, 0, "no probe closed it");
    ground.is_lifted().await;
}

#[tokio::test]
async fn probes_and_health_checks_feel_it_too() {
    let ground = Ground::of(counts(), |settings| {
        settings.providers[0].health.interval = Duration::from_millis(200);
        settings.providers[0].breaker.consecutive_failures = 1;
    })
    .await;
    ground.alpha.until(|counts| counts.listings > 0).await;
    ground.begin("down").await;
    ground
        .app
        .vitals("alpha", |vitals| vitals.failed_checks > 0)
        .await;
    let listings = ground.alpha.counts().listings;
    WsClient::open(&ground.app).await.answered("Who?").await;
    // Its own completions fail as the visitors' calls do: it opens again and again.
    ground
        .app
        .vitals("alpha", |vitals| vitals.failed_probes >= 3)
        .await;
    assert_eq!(
        (
            ground.alpha.asked(),
            ground.alpha.counts().probes,
            ground.alpha.counts().listings
        ),
        (0, 0, listings)
    );
    ground.end().await;
    assert_eq!(ground.app.provider("alpha").await["healthy"], true);
    ground.is_lifted().await;
}

#[tokio::test]
async fn a_restart_ends_it_and_finds_nothing_open() {
    let ground = Ground::of(counts(), |settings| {
        settings.providers[0].breaker.consecutive_failures = 1
    })
    .await;
    ground.begin("down").await;
    WsClient::open(&ground.app).await.answered("Who?").await;
    assert_ne!(ground.app.provider("alpha").await["state"], "closed");
    let Ground { alpha, beta, app } = ground;
    let data = app.stopped().await;
    let app = TestApp::in_folder(settings(&[("alpha", &alpha), ("beta", &beta)]), data).await;
    let state = app.provider("alpha").await;
    assert_eq!(
        (&state["state"], &state["drill"]),
        (&json!("closed"), &json!(null))
    );
    assert_eq!(
        WsClient::open(&app).await.answered("Who?").await.text,
        told(20)
    );
}

#[tokio::test]
async fn what_is_answered_under_it_is_not_saved() {
    let ground = Ground::of(counts(), |settings| {
        settings.cache.enabled = true;
        settings.cache.share = CacheSharing::Always;
    })
    .await;
    ground.begin("down").await;
    let under = WsClient::open(&ground.app)
        .await
        .answered("What are your opening hours?")
        .await
        .text
        .clone();
    assert_eq!(under, BETA);
    ground.end().await;
    let after = WsClient::open(&ground.app)
        .await
        .answered("What are your opening hours?")
        .await
        .done
        .clone()
        .unwrap();
    assert_eq!(
        (&after["source"], &after["provider"]),
        (&json!("ai"), &json!("alpha"))
    );
    // And what is answered afterwards is.
    soon("it to be saved", async {
        while ground
            .app
            .lobby
            .turns
            .store
            .answer_keys()
            .await
            .unwrap()
            .is_empty()
        {}
    })
    .await;
    let saved = WsClient::open(&ground.app)
        .await
        .answered("What are your opening hours?")
        .await
        .done
        .clone()
        .unwrap();
    assert_eq!(saved["source"], "cache");
}
