//! Breakers as the status tells them: when a provider is left alone, and how it comes back with nobody asking.

use std::time::{Duration, Instant};

use failsoft::config::Settings;
use failsoft::domain::ProviderState;
use serde_json::json;

use crate::harness::{
    Act, Gate, ScriptedProvider, TestApp, WsClient, answer, refusal, settings, soon, spoken,
};

const LONG: Duration = Duration::from_secs(60);

fn busy() -> Vec<Act> {
    vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]
}

/// Alpha fails at first, beta answers. Two failures open a breaker.
async fn failing(
    change: impl FnOnce(&mut Settings),
) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let (alpha, beta) = (
        ScriptedProvider::start(busy()).await,
        ScriptedProvider::answering("Beta.").await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].breaker.consecutive_failures = 2;
    change(&mut settings);
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Turns until alpha's breaker has opened.
async fn trip(client: &mut WsClient) {
    for _ in 0..2 {
        let shown = client.answered("What?").await;
        assert_eq!(
            shown.path(),
            [
                ("alpha".into(), "".into()),
                ("beta".into(), "overloaded".into())
            ]
        );
    }
}

#[tokio::test]
async fn a_run_of_failures_opens_it_and_it_is_left_alone() {
    let (alpha, beta, app) = failing(|settings| {
        settings.providers[0].breaker.open_for = LONG;
        settings.providers[0].breaker.open_max = LONG;
    })
    .await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(app.provider("alpha").await["state"], "closed");
    trip(&mut client).await;
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Open)
        .await;
    for _ in 0..3 {
        assert_eq!(
            client.answered("What?").await.path(),
            [("beta".into(), "".into())]
        );
    }
    assert_eq!(
        (alpha.asked(), alpha.counts().probes, beta.asked()),
        (2, 0, 5)
    );
    let vitals = app.provider("alpha").await;
    for (key, value) in [
        ("state", json!("open")),
        ("healthy", json!(false)),
        ("reason", json!("overloaded")),
        (
            "counts",
            json!({ "success": 0, "failure": 2, "restarts": 0 }),
        ),
    ] {
        assert_eq!(vitals[key], value, "{key}");
    }
    assert!(
        vitals["retry_at"].is_string() && vitals["checked_at"].is_string(),
        "{vitals}"
    );
}

#[tokio::test]
async fn it_comes_back_with_nobody_asking() {
    let (alpha, beta, app) = failing(|_| ()).await;
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    // Its probes fail, and open it again, as long as it is down.
    alpha.until(|counts| counts.probes >= 3).await;
    alpha.usually(answer("Alpha."));
    let mended = Instant::now();
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    println!("found well {:?} after it was", mended.elapsed());
    assert!(
        mended.elapsed() < Duration::from_secs(3),
        "open_max is 400 ms"
    );
    assert_eq!(
        (alpha.asked(), beta.asked()),
        (2, 2),
        "no visitor was the probe"
    );
    let shown = client.answered("What?").await;
    assert_eq!((shown.text.as_str(), shown.attempts.len()), ("Alpha.", 1));
    assert_eq!(app.provider("alpha").await["healthy"], true);
}

#[tokio::test]
async fn while_it_is_tried_one_probe_is_under_way_and_visitors_go_elsewhere() {
    let (alpha, beta, app) = failing(|_| ()).await;
    let gate = Gate::default();
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    let mut held = vec![gate.hold()];
    held.extend(answer("Alpha."));
    alpha.usually(held);
    app.vitals("alpha", |vitals| vitals.state == ProviderState::HalfOpen)
        .await;
    alpha.until(|counts| counts.open == 1).await;
    assert_eq!(app.provider("alpha").await["state"], "half_open");
    let probes = alpha.counts().probes;
    // As when a crowd had waited for it.
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut visitor = WsClient::open(&app).await;
        let turn = visitor.ask("What?").await;
        crowd.push((visitor, turn));
    }
    for (visitor, turn) in &mut crowd {
        assert_eq!(
            visitor.done(turn).await.path(),
            [("beta".into(), "".into())]
        );
    }
    assert_eq!(
        (alpha.counts().open, alpha.counts().probes, alpha.asked()),
        (1, probes, 2)
    );
    gate.open();
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    gate.open();
    assert_eq!(client.answered("What?").await.text, "Alpha.");
    assert_eq!(beta.asked(), 22);
}

#[tokio::test]
async fn a_visitor_is_the_probe_where_the_operator_wants_it_so() {
    let (alpha, _, app) =
        failing(|settings| settings.providers[0].health.recovery_probe = false).await;
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    app.vitals("alpha", |vitals| vitals.state == ProviderState::HalfOpen)
        .await;
    // It fails still: the visitor has the next one at hand.
    let shown = client.answered("What?").await;
    assert_eq!(
        shown.path(),
        [
            ("alpha".into(), "".into()),
            ("beta".into(), "overloaded".into())
        ]
    );
    alpha.usually(answer("Alpha."));
    app.vitals("alpha", |vitals| vitals.state == ProviderState::HalfOpen)
        .await;
    assert_eq!(client.answered("What?").await.text, "Alpha.");
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    assert_eq!((alpha.asked(), alpha.counts().probes), (4, 0));
}

#[tokio::test]
async fn three_torn_answers_in_a_row_open_it() {
    let (alpha, _, app) = failing(|settings| {
        settings.providers[0].breaker.open_for = LONG;
        settings.providers[0].breaker.open_max = LONG;
    })
    .await;
    let mut client = WsClient::open(&app).await;
    let gate = Gate::default();
    alpha.usually(vec![spoken(["Torn "]), gate.hold(), Act::Reset]);
    for _ in 0..3 {
        let turn = client.ask("What?").await;
        client.shows(&turn, |shown| !shown.text.is_empty()).await;
        gate.open();
        assert_eq!(client.done(&turn).await.restarts.len(), 1);
    }
    assert_eq!(
        client.answered("What?").await.path(),
        [("beta".into(), "".into())]
    );
    let vitals = app.provider("alpha").await;
    assert_eq!(
        (&vitals["state"], &vitals["counts"]["restarts"]),
        (&json!("open"), &json!(3))
    );
}

#[tokio::test]
async fn it_remembers_over_a_restart() {
    let (alpha, beta, app) = failing(|settings| {
        settings.providers[0].breaker.open_for = LONG;
        settings.providers[0].breaker.open_max = LONG;
    })
    .await;
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Open)
        .await;
    let folder = app.stopped().await;
    alpha.usually(answer("Alpha."));
    let app = TestApp::in_folder(settings(&[("alpha", &alpha), ("beta", &beta)]), folder).await;
    let vitals = app.provider("alpha").await;
    assert_eq!(
        (&vitals["state"], &vitals["reason"]),
        (&json!("open"), &json!("overloaded"))
    );
    let mut client = WsClient::open(&app).await;
    assert_eq!(
        client.answered("What?").await.path(),
        [("beta".into(), "".into())]
    );
    assert_eq!(alpha.asked(), 2);
}

#[tokio::test]
async fn a_full_provider_is_passed_over_and_no_failure() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![spoken(["One "]), gate.hold(), Act::Silence]).await;
    let beta = ScriptedProvider::answering("Beta.").await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].max_concurrent = 1;
    let app = TestApp::start(settings).await;
    let (mut one, mut two) = (WsClient::open(&app).await, WsClient::open(&app).await);
    let turn = one.ask("What?").await;
    one.shows(&turn, |shown| shown.text == "One ").await;
    assert_eq!(
        two.answered("What?").await.path(),
        [("beta".into(), "".into())]
    );
    let vitals = app.provider("alpha").await;
    assert_eq!(
        (&vitals["state"], &vitals["in_flight"]),
        (&json!("closed"), &json!(1))
    );
    assert_eq!(vitals["counts"]["failure"], 0);
    assert_eq!(app.status().await["mode"], "normal");
    one.say(&json!({ "type": "stop", "turn": turn })).await;
    one.done(&turn).await;
    soon("the place to be free", app.at_rest()).await;
    alpha.usually(answer("Alpha."));
    assert_eq!(two.answered("What?").await.text, "Alpha.");
}
