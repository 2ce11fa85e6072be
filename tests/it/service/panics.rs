//! A panic in each actor: the running turn ends well, and the next one is served.

use std::time::{Duration, Instant};

use failsoft::actor_exit::AddrWatch;
use failsoft::actor_exit::CrashForTest;
use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, eventually,
    full_answer, partial_answer, send_text, stream_end, test_settings, token_event,
};

const WHOLE: &str = "The whole answer.";

async fn service() -> (ScriptedProvider, TestApp, WsClient) {
    let alpha = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.ask_and_wait("One?").await.text, WHOLE);
    (alpha, app, client)
}

/// Makes the router panic and waits until it has.
async fn crash_router(app: &TestApp) {
    let router = app.chat_service.turns.router.borrow().clone().unwrap();
    assert!(
        eventually("the crash", router.send(CrashForTest))
            .await
            .is_err()
    );
}

async fn crash_provider(app: &TestApp, name: &str) {
    let actor = app.provider(name).actor.borrow().clone().unwrap();
    assert!(
        eventually("the crash", actor.send(CrashForTest))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn turns_are_served_after_a_panic_of_the_router() {
    let (alpha, app, mut client) = service().await;
    for _ in 0..3 {
        crash_router(&app).await;
        let shown = client.ask_and_wait("Two?").await;
        assert_eq!(
            (shown.text.as_str(), &shown.done.as_ref().unwrap()["source"]),
            (WHOLE, &json!("ai"))
        );
    }
    assert_eq!(alpha.question_count(), 4);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_turn_fails_over_after_a_panic_of_the_router() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["Torn"]),
        gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "Torn")
        .await;
    crash_router(&app).await;
    gate.let_one_through();
    let shown = client.wait_for_done(&turn).await;
    assert_eq!((shown.text.as_str(), shown.drafts.len()), (WHOLE, 1));
    app.wait_until_idle().await;
}

#[tokio::test]
async fn turns_wait_for_the_only_provider_actor_to_be_rebuilt() {
    let (alpha, app, mut client) = service().await;
    for _ in 0..3 {
        crash_provider(&app, "alpha").await;
        // The only provider's actor is being rebuilt; the turn waits for it.
        let shown = client.ask_and_wait("Two?").await;
        assert_eq!(
            (
                shown.text.as_str(),
                &shown.done.as_ref().unwrap()["degraded"]
            ),
            (WHOLE, &json!(false))
        );
    }
    assert_eq!(alpha.question_count(), 4);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn with_a_second_provider_a_panic_degrades_no_turn() {
    let alpha = ScriptedProvider::answering(WHOLE).await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    for _ in 0..5 {
        crash_provider(&app, "alpha").await;
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(
            (
                shown.text.as_str(),
                &shown.done.as_ref().unwrap()["degraded"]
            ),
            (WHOLE, &json!(false))
        );
    }
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_panic_of_a_provider_actor_in_mid_answer_loses_no_permit() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["The ", "whole "]),
        gate.wait_step(),
        send_text(&token_event("answer.")),
        send_text(&stream_end()),
    ])
    .await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.providers[0].max_concurrent = 1;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let mut actor = app.provider("alpha").actor.clone();
    for _ in 0..3 {
        let turn = client.ask("What?").await;
        client
            .wait_for_turn(&turn, |shown| shown.text == "The whole ")
            .await;
        actor.borrow_and_update();
        crash_provider(&app, "alpha").await;
        eventually("the actor to be rebuilt", actor.changed())
            .await
            .unwrap();
        // The new actor knows of the permit that the running call holds.
        assert_eq!(app.provider_status("alpha").await["in_flight"], 1);
        gate.let_one_through();
        assert_eq!(client.wait_for_done(&turn).await.text, WHOLE);
        app.wait_until_idle().await;
    }
    assert_eq!(alpha.question_count(), 3);
}

#[tokio::test]
async fn a_rebuilt_provider_actor_keeps_its_breaker_open() {
    let busy = error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    );
    let alpha = ScriptedProvider::start(vec![busy]).await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    let breaker = &mut settings.providers[0].breaker;
    breaker.consecutive_failures = 1;
    breaker.open_for = Duration::from_secs(60);
    breaker.open_max = Duration::from_secs(60);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.ask_and_wait("What?").await.attempts.len(), 2);
    let mut actor = app.provider("alpha").actor.clone();
    actor.borrow_and_update();
    crash_provider(&app, "alpha").await;
    eventually("the actor to be rebuilt", actor.changed())
        .await
        .unwrap();
    assert_eq!(client.ask_and_wait("What?").await.attempts.len(), 1);
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (&provider_status["state"], &provider_status["reason"]),
        (&json!("open"), &json!("overloaded"))
    );
    assert_eq!((alpha.question_count(), alpha.counts().probes), (1, 0));
}

#[tokio::test]
async fn fallbacks_are_served_after_a_panic_of_the_degradation_actor() {
    let alpha = ScriptedProvider::start(full_answer(WHOLE)).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    alpha.stop_listening().await;
    for _ in 0..2 {
        let actor = app.degradation.borrow().clone().unwrap();
        assert!(
            eventually("the crash", actor.send(CrashForTest))
                .await
                .is_err()
        );
        let shown = client.ask_and_wait("Xyzzy?").await;
        assert_eq!(shown.text, "Later, please.");
    }
    alpha.listen();
    assert_eq!(client.ask_and_wait("What?").await.text, WHOLE);
}

/// The median time from a crash of an actor until it runs again.
async fn median_recovery_time<A: actix::Actor>(
    mut actor: AddrWatch<A>,
    crash: impl AsyncFn() -> (),
) -> Duration {
    let mut times = Vec::new();
    for _ in 0..5 {
        actor.borrow_and_update();
        crash().await;
        let crashed = Instant::now();
        eventually("the actor to be rebuilt", actor.changed())
            .await
            .unwrap();
        times.push(crashed.elapsed());
    }
    times.sort();
    times[2]
}

#[tokio::test]
async fn each_actor_is_rebuilt_within_100_ms() {
    let (_alpha, app, _client) = service().await;
    let router = app.chat_service.turns.router.clone();
    let alpha = app.provider("alpha").actor.clone();
    let degradation = app.degradation.clone();
    let crash_degradation = async || {
        let actor = app.degradation.borrow().clone().unwrap();
        assert!(
            eventually("the crash", actor.send(CrashForTest))
                .await
                .is_err()
        );
    };
    let times = [
        median_recovery_time(router, async || crash_router(&app).await).await,
        median_recovery_time(alpha, async || crash_provider(&app, "alpha").await).await,
        median_recovery_time(degradation, crash_degradation).await,
    ];
    println!("the router, a provider's actor and the DegradationActor are back after {times:?}");
    assert!(
        times.iter().all(|time| *time < Duration::from_millis(100)),
        "{times:?}"
    );
}

#[tokio::test]
async fn repeated_panics_make_the_service_unready() {
    let (_alpha, app, mut client) = service().await;
    let mut router = app.chat_service.turns.router.clone();
    assert_eq!(app.request("GET", "/readyz").send().await.status, 200);
    for _ in 0..12 {
        router.borrow_and_update();
        crash_router(&app).await;
        eventually("the actor to be rebuilt", router.changed())
            .await
            .unwrap();
    }
    let ready = app.request("GET", "/readyz").send().await;
    assert_eq!(
        (ready.status, ready.header("retry-after").is_empty()),
        (503, false)
    );
    assert_eq!(app.request("GET", "/healthz").send().await.status, 200);
    // The service keeps answering.
    assert_eq!(client.ask_and_wait("Two?").await.text, WHOLE);
}
