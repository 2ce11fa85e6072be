//! Breakers that open although not every call fails, and crowds that meet recovering providers.

use std::time::{Duration, Instant};

use failsoft::config::Settings;
use failsoft::domain::ProviderState;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::interval;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, eventually,
    full_answer, question_body, test_settings,
};

const ALPHA: &str = "The first provider's answer.";

const BETA: &str = "The second provider's answer.";

/// An open time that no test waits for.
const NEVER: Duration = Duration::from_secs(60);

fn json_error(status: u16, headers: &str) -> Vec<ScriptStep> {
    let headers = format!("content-type: application/json\r\n{headers}");
    vec![error_response(
        status,
        &headers,
        r#"{"error":{"message":"not now"}}"#,
    )]
}

/// Starts alpha with the given script, and beta, which answers. Alpha's breaker stays open.
async fn service(
    alpha: Vec<ScriptStep>,
    change: impl FnOnce(&mut Settings),
) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::start(alpha).await;
    let beta = ScriptedProvider::answering(BETA).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.limits.connections_per_ip = 10_000;
    for provider in &mut settings.providers {
        provider.max_concurrent = 1000;
        provider.breaker.open_for = NEVER;
        provider.breaker.open_max = NEVER;
    }
    change(&mut settings);
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Asks over the API without streaming and returns the text.
async fn ask(app: &TestApp) -> String {
    let answer = app.completion_request(&question_body("What?")).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Asserts that alpha's breaker is open and that no turn calls it.
async fn assert_open_and_not_called(app: &TestApp, alpha: &ScriptedProvider) {
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Open
    })
    .await;
    let asked = alpha.question_count();
    let mut client = WsClient::open(app).await;
    assert_eq!(
        client.ask_and_wait("What?").await.provider_path(),
        [("beta".into(), "".into())]
    );
    assert_eq!(ask(app).await, BETA);
    assert_eq!((alpha.question_count(), alpha.counts().probes), (asked, 0));
}

#[tokio::test]
async fn alternating_successes_and_failures_open_the_breaker() {
    let (alpha, _beta, app) = service(full_answer(ALPHA), |_| ()).await;
    let mut client = WsClient::open(&app).await;
    for turn in 1..=10 {
        assert_eq!(
            app.provider_status("alpha").await["state"],
            "closed",
            "before turn {turn}"
        );
        let fails = turn % 2 == 0;
        if fails {
            alpha.script_next(json_error(503, ""));
        }
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(shown.text, if fails { BETA } else { ALPHA });
        assert_eq!(shown.done.as_ref().unwrap()["source"], "ai");
        // The end of a turn has to be counted before the next one starts.
        app.wait_for_status("alpha", |provider_status| {
            provider_status.successes + provider_status.failures == turn
        })
        .await;
    }
    assert_eq!(alpha.question_count(), 10);
    assert_open_and_not_called(&app, &alpha).await;
}

#[tokio::test]
async fn rate_limits_without_retry_after_open_the_breaker_by_rate() {
    let (alpha, _beta, app) = service(json_error(429, ""), |_| ()).await;
    let mut client = WsClient::open(&app).await;
    for turn in 1..=10 {
        let provider_status = app.provider_status("alpha").await;
        assert_eq!(
            (&provider_status["state"], &provider_status["retry_at"]),
            (&json!("closed"), &json!(null)),
            "turn {turn}"
        );
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(
            shown.provider_path(),
            [
                ("alpha".into(), "".into()),
                ("beta".into(), "rate_limited".into())
            ]
        );
        app.wait_for_status("alpha", |provider_status| provider_status.failures == turn)
            .await;
    }
    assert_open_and_not_called(&app, &alpha).await;
    assert_eq!(app.provider_status("alpha").await["reason"], "rate_limited");
}

/// The window of first tokens is shortened from a minute to three seconds. First tokens count as
/// slow from one second on, so they have to be slower than that.
#[tokio::test]
async fn slow_first_tokens_without_errors_open_the_breaker() {
    const WINDOW: Duration = Duration::from_secs(3);
    /// Allowance for a busy machine.
    const SLACK: Duration = Duration::from_secs(10);
    let (alpha, _beta, app) = service(full_answer(ALPHA), |settings| {
        settings.providers[0].breaker.window = WINDOW
    })
    .await;
    let started = Instant::now();
    let mut ticks = interval(WINDOW / 15);
    let mut calls = 0;
    while calls < 10 || started.elapsed() < WINDOW {
        ticks.tick().await;
        assert_eq!(ask(&app).await, ALPHA);
        calls += 1;
    }
    alpha.script_default(
        [
            vec![ScriptStep::Pause(Duration::from_secs(2))],
            full_answer(ALPHA),
        ]
        .concat(),
    );
    let slow_since = Instant::now();
    let mut crowd: FuturesUnordered<_> = (0..20).map(|_| ask(&app)).collect();
    while let Some(text) = crowd.next().await {
        assert_eq!(text, ALPHA, "a slow answer is still used");
    }
    assert_open_and_not_called(&app, &alpha).await;
    println!("open {:?} after it became slow", slow_since.elapsed());
    assert!(
        slow_since.elapsed() < WINDOW + SLACK,
        "open {:?} after it became slow",
        slow_since.elapsed()
    );
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (
            &provider_status["reason"],
            &provider_status["counts"]["failure"]
        ),
        (&json!(null), &json!(0))
    );
}

/// Without jitter all providers would be probed at the same moment.
#[tokio::test]
async fn providers_limited_until_the_same_moment_are_probed_with_jitter() {
    const WAIT: Duration = Duration::from_millis(1500);
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut providers = Vec::new();
    for _ in NAMES {
        providers.push(ScriptedProvider::start(json_error(429, "retry-after-ms: 1500\r\n")).await);
    }
    let pairs: Vec<_> = NAMES.into_iter().zip(&providers).collect();
    let mut settings = test_settings(&pairs);
    settings.routing.max_attempts = 8;
    settings.degradation.fallback = "Later, please.".into();
    for provider in &mut settings.providers {
        provider.retry.max_retry_after = Duration::ZERO;
        provider.breaker.min_calls = 1;
        provider.breaker.open_for = Duration::from_secs(1);
        provider.breaker.open_max = NEVER;
    }
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("Xyzzy?").await;
    assert_eq!(
        (shown.text.as_str(), shown.attempts.len()),
        ("Later, please.", 8)
    );
    for provider in &providers {
        provider.script_default(full_answer(ALPHA));
    }
    // While all are limited, the fallback answer comes without calling any provider.
    let shown = client.ask_and_wait("Xyzzy?").await;
    assert_eq!(
        (shown.text.as_str(), shown.attempts.len()),
        ("Later, please.", 0)
    );

    let mut waits = Vec::new();
    for (name, provider) in NAMES.into_iter().zip(&providers) {
        app.wait_for_status(name, |provider_status| {
            provider_status.state == ProviderState::Closed
        })
        .await;
        let [asked, probed] = provider.call_times()[..] else {
            panic!("{name}: one question and one probe")
        };
        waits.push(probed - asked);
    }
    waits.sort();
    println!("probed after {waits:?}");
    assert!(waits[0] >= WAIT, "probed after {:?}", waits[0]);
    // The jitter is up to a fifth of a second: eight equal waits are practically impossible.
    let spread = waits[7] - waits[0];
    assert!(spread >= Duration::from_millis(10), "all within {spread:?}");
    assert_eq!(client.ask_and_wait("Xyzzy?").await.text, ALPHA);
}

/// The number of turns that start while the first provider recovers.
const CROWD: usize = 500;

/// Opens alpha's breaker, then has alpha hold each call at `gate`, so that concurrent calls can be
/// counted. With `own_probes` the service probes by itself; otherwise visitors' turns are probes.
async fn recovering_behind(
    gate: &ScriptGate,
    probes: u32,
    own_probes: bool,
) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let (alpha, beta, app) = service(json_error(503, ""), |settings| {
        let alpha = &mut settings.providers[0];
        alpha.breaker.consecutive_failures = 1;
        alpha.breaker.probes = probes;
        // No call times out while it is held.
        alpha.timeouts.first_token = vec![NEVER];
        alpha.timeouts.attempt = NEVER;
        alpha.breaker.open_for = Duration::from_millis(500);
        alpha.health.recovery_probe = own_probes;
    })
    .await;
    assert_eq!(ask(&app).await, BETA);
    alpha.script_default([vec![gate.wait_step()], full_answer(ALPHA)].concat());
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::HalfOpen
    })
    .await;
    (alpha, beta, app)
}

#[tokio::test]
async fn a_crowd_is_served_elsewhere_while_own_probes_run() {
    for probes in [1, 3] {
        let gate = ScriptGate::default();
        let (alpha, beta, app) = recovering_behind(&gate, probes, true).await;
        let probes = usize::try_from(probes).unwrap();
        alpha.wait_for(|counts| counts.in_flight == probes).await;
        let mut crowd: FuturesUnordered<_> = (0..CROWD).map(|_| ask(&app)).collect();
        while let Some(text) = crowd.next().await {
            assert_eq!(text, BETA);
        }
        let counts = alpha.counts();
        assert_eq!(
            (counts.in_flight, counts.max_in_flight, counts.questions),
            (probes, probes, 1)
        );
        assert_eq!(beta.question_count(), CROWD + 1);
        (0..probes).for_each(|_| gate.let_one_through());
        app.wait_for_status("alpha", |provider_status| {
            provider_status.state == ProviderState::Closed
        })
        .await;
        alpha.script_default(full_answer(ALPHA));
        assert_eq!(ask(&app).await, ALPHA);
    }
}

#[tokio::test]
async fn the_first_turns_of_a_crowd_serve_as_probes() {
    for probes in [1, 3] {
        let gate = ScriptGate::default();
        let (alpha, beta, app) = recovering_behind(&gate, probes, false).await;
        let probes = usize::try_from(probes).unwrap();
        let mut crowd: FuturesUnordered<_> = (0..CROWD).map(|_| ask(&app)).collect();
        let others = async {
            for _ in 0..CROWD - probes {
                assert_eq!(crowd.next().await.unwrap(), BETA);
            }
        };
        eventually("all others to be answered", others).await;
        let counts = alpha.counts();
        assert_eq!(
            (counts.in_flight, counts.max_in_flight, counts.questions),
            (probes, probes, 1 + probes)
        );
        assert_eq!(
            (counts.probes, beta.question_count()),
            (0, CROWD - probes + 1)
        );
        (0..probes).for_each(|_| gate.let_one_through());
        while let Some(text) = crowd.next().await {
            assert_eq!(text, ALPHA);
        }
        app.wait_for_status("alpha", |provider_status| {
            provider_status.state == ProviderState::Closed
        })
        .await;
    }
}

/// All probes fail: the breaker opens again each time, and probes never overlap.
#[tokio::test]
async fn failing_probes_never_overlap_under_a_crowd() {
    let (alpha, _beta, app) = service(json_error(503, ""), |settings| {
        let alpha = &mut settings.providers[0];
        alpha.breaker.consecutive_failures = 1;
        alpha.breaker.open_for = Duration::from_millis(20);
        alpha.breaker.open_max = Duration::from_millis(40);
        alpha.health.recovery_probe = false;
    })
    .await;
    // This first call opens the breaker.
    assert_eq!(ask(&app).await, BETA);
    let mut asked = 0;
    while alpha.question_count() < 8 {
        let mut crowd: FuturesUnordered<_> = (0..50).map(|_| ask(&app)).collect();
        while let Some(text) = crowd.next().await {
            assert_eq!(text, BETA);
            asked += 1;
        }
    }
    println!("{asked} turns, {} calls to alpha", alpha.question_count());
    assert_eq!(
        (alpha.counts().max_in_flight, alpha.counts().probes),
        (1, 0)
    );
    app.wait_until_idle().await;
}
