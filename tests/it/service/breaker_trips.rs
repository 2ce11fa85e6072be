//! What opens a breaker where not every call fails, and how a crowd meets providers that come back.

use std::time::{Duration, Instant};

use failsoft::config::Settings;
use failsoft::domain::ProviderState;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::interval;

use crate::harness::{
    Act, Gate, ScriptedProvider, TestApp, WsClient, answer, question, refusal, settings, soon,
};

const ALPHA: &str = "The first provider's answer.";

const BETA: &str = "The second provider's answer.";

/// An open time that no test waits for.
const LONG: Duration = Duration::from_secs(60);

fn refused(status: u16, headers: &str) -> Vec<Act> {
    let headers = format!("content-type: application/json\r\n{headers}");
    vec![refusal(
        status,
        &headers,
        r#"{"error":{"message":"not now"}}"#,
    )]
}

/// Alpha does this, beta answers. Alpha stays open for long.
async fn service(
    alpha: Vec<Act>,
    change: impl FnOnce(&mut Settings),
) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let (alpha, beta) = (
        ScriptedProvider::start(alpha).await,
        ScriptedProvider::answering(BETA).await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.limits.connections_per_ip = 10_000;
    for provider in &mut settings.providers {
        provider.max_concurrent = 1000;
        (provider.breaker.open_for, provider.breaker.open_max) = (LONG, LONG);
    }
    change(&mut settings);
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Asks whole over the API; gives the text.
async fn ask(app: &TestApp) -> String {
    let answer = app.completion(&question("What?")).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Alpha is open, and left alone.
async fn left_alone(app: &TestApp, alpha: &ScriptedProvider) {
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Open)
        .await;
    let asked = alpha.asked();
    let mut client = WsClient::open(app).await;
    assert_eq!(
        client.answered("What?").await.path(),
        [("beta".into(), "".into())]
    );
    assert_eq!(ask(app).await, BETA);
    assert_eq!((alpha.asked(), alpha.counts().probes), (asked, 0));
}

#[tokio::test]
async fn good_and_bad_in_turns() {
    let (alpha, _beta, app) = service(answer(ALPHA), |_| ()).await;
    let mut client = WsClient::open(&app).await;
    for turn in 1..=10 {
        assert_eq!(
            app.provider("alpha").await["state"],
            "closed",
            "before turn {turn}"
        );
        let bad = turn % 2 == 0;
        if bad {
            alpha.once(refused(503, ""));
        }
        let shown = client.answered("What?").await;
        assert_eq!(shown.text, if bad { BETA } else { ALPHA });
        assert_eq!(shown.done.as_ref().unwrap()["source"], "ai");
        // Its end is counted before the next one begins.
        app.vitals("alpha", |vitals| vitals.successes + vitals.failures == turn)
            .await;
    }
    assert_eq!(alpha.asked(), 10);
    left_alone(&app, &alpha).await;
}

#[tokio::test]
async fn rate_limits_that_say_no_time() {
    let (alpha, _beta, app) = service(refused(429, ""), |_| ()).await;
    let mut client = WsClient::open(&app).await;
    for turn in 1..=10 {
        let vitals = app.provider("alpha").await;
        assert_eq!(
            (&vitals["state"], &vitals["retry_at"]),
            (&json!("closed"), &json!(null)),
            "turn {turn}"
        );
        let shown = client.answered("What?").await;
        assert_eq!(
            shown.path(),
            [
                ("alpha".into(), "".into()),
                ("beta".into(), "rate_limited".into())
            ]
        );
        app.vitals("alpha", |vitals| vitals.failures == turn).await;
    }
    left_alone(&app, &alpha).await;
    assert_eq!(app.provider("alpha").await["reason"], "rate_limited");
}

/// A minute, the window of first tokens, is three seconds here; but a first token is slow only from a second on, so that stays as it is.
#[tokio::test]
async fn first_tokens_many_times_slower_and_no_errors() {
    const MINUTE: Duration = Duration::from_secs(3);
    /// What a busy machine may take for itself.
    const BUSY: Duration = Duration::from_secs(10);
    let (alpha, _beta, app) = service(answer(ALPHA), |settings| {
        settings.providers[0].breaker.window = MINUTE
    })
    .await;
    let begun = Instant::now();
    let mut every = interval(MINUTE / 15);
    let mut calls = 0;
    while calls < 10 || begun.elapsed() < MINUTE {
        every.tick().await;
        assert_eq!(ask(&app).await, ALPHA);
        calls += 1;
    }
    alpha.usually([vec![Act::Wait(Duration::from_secs(2))], answer(ALPHA)].concat());
    let slow = Instant::now();
    let mut crowd: FuturesUnordered<_> = (0..20).map(|_| ask(&app)).collect();
    while let Some(text) = crowd.next().await {
        assert_eq!(text, ALPHA, "it answers, however late");
    }
    left_alone(&app, &alpha).await;
    println!("open {:?} after it became slow", slow.elapsed());
    assert!(
        slow.elapsed() < MINUTE + BUSY,
        "open {:?} after it became slow",
        slow.elapsed()
    );
    let vitals = app.provider("alpha").await;
    assert_eq!(
        (&vitals["reason"], &vitals["counts"]["failure"]),
        (&json!(null), &json!(0))
    );
}

/// Everybody was told the same moment, and would come back together.
#[tokio::test]
async fn all_limited_until_the_same_moment() {
    const WAIT: Duration = Duration::from_millis(1500);
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut providers = Vec::new();
    for _ in NAMES {
        providers.push(ScriptedProvider::start(refused(429, "retry-after-ms: 1500\r\n")).await);
    }
    let pairs: Vec<_> = NAMES.into_iter().zip(&providers).collect();
    let mut settings = settings(&pairs);
    settings.routing.max_attempts = 8;
    settings.degradation.fallback = "Later, please.".into();
    for provider in &mut settings.providers {
        provider.retry.max_retry_after = Duration::ZERO;
        provider.breaker.min_calls = 1;
        (provider.breaker.open_for, provider.breaker.open_max) = (Duration::from_secs(1), LONG);
    }
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.answered("Xyzzy?").await;
    assert_eq!(
        (shown.text.as_str(), shown.attempts.len()),
        ("Later, please.", 8)
    );
    for provider in &providers {
        provider.usually(answer(ALPHA));
    }
    // As long as all are limited the answer is a labelled one, and comes without asking anybody.
    let shown = client.answered("Xyzzy?").await;
    assert_eq!(
        (shown.text.as_str(), shown.attempts.len()),
        ("Later, please.", 0)
    );

    let mut waits = Vec::new();
    for (name, provider) in NAMES.into_iter().zip(&providers) {
        app.vitals(name, |vitals| vitals.state == ProviderState::Closed)
            .await;
        let [asked, probed] = provider.calls()[..] else {
            panic!("{name}: one question and one probe")
        };
        waits.push(probed - asked);
    }
    waits.sort();
    println!("tried after {waits:?}");
    assert!(waits[0] >= WAIT, "tried after {:?}", waits[0]);
    // Up to a fifth of a second more, as chance says: hardly ever the same for eight.
    let spread = waits[7] - waits[0];
    assert!(spread >= Duration::from_millis(10), "all within {spread:?}");
    assert_eq!(client.answered("Xyzzy?").await.text, ALPHA);
}

/// How many turns there are when the first provider comes back.
const CROWD: usize = 500;

/// Opens alpha's breaker and has it answer behind the gate from now on, so that each call to it can be counted while it is under way.
async fn back_behind(
    gate: &Gate,
    probes: u32,
    own: bool,
) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let (alpha, beta, app) = service(refused(503, ""), |settings| {
        let alpha = &mut settings.providers[0];
        (alpha.breaker.consecutive_failures, alpha.breaker.probes) = (1, probes);
        // The crowd comes in its own time.
        (alpha.timeouts.first_token, alpha.timeouts.attempt) = (vec![LONG], LONG);
        (alpha.breaker.open_for, alpha.health.recovery_probe) = (Duration::from_millis(500), own);
    })
    .await;
    assert_eq!(ask(&app).await, BETA);
    alpha.usually([vec![gate.hold()], answer(ALPHA)].concat());
    app.vitals("alpha", |vitals| vitals.state == ProviderState::HalfOpen)
        .await;
    (alpha, beta, app)
}

#[tokio::test]
async fn a_crowd_waits_for_our_own_probes() {
    for probes in [1, 3] {
        let gate = Gate::default();
        let (alpha, beta, app) = back_behind(&gate, probes, true).await;
        let probes = usize::try_from(probes).unwrap();
        alpha.until(|counts| counts.open == probes).await;
        let mut crowd: FuturesUnordered<_> = (0..CROWD).map(|_| ask(&app)).collect();
        while let Some(text) = crowd.next().await {
            assert_eq!(text, BETA);
        }
        let counts = alpha.counts();
        assert_eq!(
            (counts.open, counts.most, counts.asked),
            (probes, probes, 1)
        );
        assert_eq!(beta.asked(), CROWD + 1);
        (0..probes).for_each(|_| gate.open());
        app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
            .await;
        alpha.usually(answer(ALPHA));
        assert_eq!(ask(&app).await, ALPHA);
    }
}

#[tokio::test]
async fn a_crowd_whose_first_are_the_probes() {
    for probes in [1, 3] {
        let gate = Gate::default();
        let (alpha, beta, app) = back_behind(&gate, probes, false).await;
        let probes = usize::try_from(probes).unwrap();
        let mut crowd: FuturesUnordered<_> = (0..CROWD).map(|_| ask(&app)).collect();
        let others = async {
            for _ in 0..CROWD - probes {
                assert_eq!(crowd.next().await.unwrap(), BETA);
            }
        };
        soon("all others to be answered", others).await;
        let counts = alpha.counts();
        assert_eq!(
            (counts.open, counts.most, counts.asked),
            (probes, probes, 1 + probes)
        );
        assert_eq!((counts.probes, beta.asked()), (0, CROWD - probes + 1));
        (0..probes).for_each(|_| gate.open());
        while let Some(text) = crowd.next().await {
            assert_eq!(text, ALPHA);
        }
        app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
            .await;
    }
}

/// Its probes go badly one after the other: each time it is left alone again, and never is one more under way than may be.
#[tokio::test]
async fn a_crowd_at_a_provider_that_comes_and_goes() {
    let (alpha, _beta, app) = service(refused(503, ""), |settings| {
        let alpha = &mut settings.providers[0];
        alpha.breaker.consecutive_failures = 1;
        alpha.breaker.open_for = Duration::from_millis(20);
        alpha.breaker.open_max = Duration::from_millis(40);
        alpha.health.recovery_probe = false;
    })
    .await;
    // The first is let through alone, too.
    assert_eq!(ask(&app).await, BETA);
    let mut asked = 0;
    while alpha.asked() < 8 {
        let mut crowd: FuturesUnordered<_> = (0..50).map(|_| ask(&app)).collect();
        while let Some(text) = crowd.next().await {
            assert_eq!(text, BETA);
            asked += 1;
        }
    }
    println!("{asked} turns, {} of them probes", alpha.asked());
    assert_eq!((alpha.counts().most, alpha.counts().probes), (1, 0));
    app.at_rest().await;
}
