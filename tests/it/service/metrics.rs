//! The metrics after a session of which it is known what happened.

use std::collections::BTreeSet;
use std::time::Duration;

use failsoft::config::{CacheSharing, Prices, Secret};
use serde_json::{Value, json};

use crate::harness::{
    Act, Answer, Gate, Scrape, ScriptedProvider, TestApp, WsClient, refusal, settings, spoken,
    texts,
};

/// What stands in no metric: what was asked and said, the key, the operator's token.
const CANARIES: [&str; 5] = [
    "Xyzzy",
    "Plugh",
    "sk-canary-key",
    "admin-canary",
    "canary-detail",
];

/// Every metric and its type.
const ALL: [(&str, &str); 15] = [
    ("failsoft_answer_quality", "gauge"),
    ("failsoft_attempt_seconds", "histogram"),
    ("failsoft_attempts_total", "counter"),
    ("failsoft_breaker_state", "gauge"),
    ("failsoft_cache_total", "counter"),
    ("failsoft_cost_usd_total", "counter"),
    ("failsoft_first_token_seconds", "histogram"),
    ("failsoft_health_up", "gauge"),
    ("failsoft_restarts_total", "counter"),
    ("failsoft_retry_budget", "gauge"),
    ("failsoft_sessions", "gauge"),
    ("failsoft_tokens_total", "counter"),
    ("failsoft_turns_in_flight", "gauge"),
    ("failsoft_turns_started_total", "counter"),
    ("failsoft_turns_total", "counter"),
];

/// What only the operator sees, and who is on the machine.
const PAID: [&str; 2] = ["failsoft_cost_usd_total", "failsoft_tokens_total"];

async fn got(app: &TestApp, headers: &[(&str, &str)]) -> Answer {
    let request = app.request("GET", "/metrics");
    headers
        .iter()
        .fold(request, |request, (name, value)| {
            request.header(name, value)
        })
        .send()
        .await
}

async fn scrape(app: &TestApp) -> Scrape {
    let answer = got(app, &[]).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/plain; version=0.0.4")
    );
    for canary in CANARIES.iter().copied().chain(app.data().to_str()) {
        assert!(!answer.body.contains(canary), "{canary} in {}", answer.body);
    }
    Scrape::read(&answer.body)
}

/// Turns that were begun are those that ended and those that run.
fn nothing_is_lost(scrape: &Scrape, begun: f64, running: f64) {
    assert_eq!(scrape.get("failsoft_turns_started_total", &[]), Some(begun));
    assert_eq!(scrape.get("failsoft_turns_in_flight", &[]), Some(running));
    assert_eq!(scrape.sum("failsoft_turns_total") + running, begun);
}

fn overloaded() -> Vec<Act> {
    vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"canary-detail"}}"#,
    )]
}

async fn house() -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("Plugh, says alpha.").await;
    let beta = ScriptedProvider::answering("Plugh, says beta.").await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.server.admin_token = Some(Secret::new("admin-canary"));
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 2.0,
    });
    settings.degradation.fallback = "Plugh, later.".into();
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// An answer at once, a fail-over before the first word, one in mid-answer, an answer without a provider, a stop.
async fn session(alpha: &ScriptedProvider, beta: &ScriptedProvider, app: &TestApp) -> WsClient {
    let mut client = WsClient::open(app).await;
    assert_eq!(
        client.answered("Xyzzy, is all well?").await.text,
        "Plugh, says alpha."
    );
    alpha.once(overloaded());
    assert_eq!(
        client.answered("Xyzzy, who is next?").await.text,
        "Plugh, says beta."
    );

    let gate = Gate::default();
    alpha.once(vec![
        spoken(["A ", "torn ", "text"]),
        gate.hold(),
        Act::Reset,
    ]);
    let turn = client.ask("Xyzzy, in the middle?").await;
    client
        .shows(&turn, |shown| shown.text == "A torn text")
        .await;
    gate.open();
    assert_eq!(client.done(&turn).await.text, "Plugh, says beta.");

    alpha.once(overloaded());
    beta.once(overloaded());
    assert_eq!(
        client.answered("Xyzzy, nobody?").await.text,
        "Plugh, later."
    );

    alpha.once(vec![spoken(["A ", "beginning"]), Act::Silence]);
    let turn = client.ask("Xyzzy, stop?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    nothing_is_lost(&scrape(app).await, 5.0, 1.0);
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    client.done(&turn).await;
    app.at_rest().await;
    client
}

#[tokio::test]
async fn every_metric_says_what_happened() {
    let (alpha, beta, app) = house().await;
    let client = session(&alpha, &beta, &app).await;
    let told = scrape(&app).await;
    let types: Vec<_> = told
        .types
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(types, ALL);

    nothing_is_lost(&told, 5.0, 0.0);
    assert_eq!(
        told.counted("failsoft_turns_total"),
        [
            (vec!["stop", "ai"], 3.0),
            (vec!["stop", "fallback"], 1.0),
            (vec!["stopped", "ai"], 1.0)
        ]
    );
    assert_eq!(
        told.counted("failsoft_attempts_total"),
        [
            (vec!["ok", "alpha"], 1.0),
            (vec!["ok", "beta"], 2.0),
            (vec!["overloaded", "alpha"], 2.0),
            (vec!["overloaded", "beta"], 1.0),
            (vec!["reset", "alpha"], 1.0),
            (vec!["stopped", "alpha"], 1.0),
        ]
    );
    assert_eq!(
        told.counted("failsoft_restarts_total"),
        [(vec!["alpha", "reset", "beta"], 1.0)]
    );
    for (name, of_alpha, of_beta) in [
        ("failsoft_first_token_seconds_count", 3.0, 2.0),
        ("failsoft_attempt_seconds_count", 5.0, 3.0),
    ] {
        assert_eq!(
            told.counted(name),
            [(vec!["alpha"], of_alpha), (vec!["beta"], of_beta)],
            "{name}"
        );
    }
    for name in [
        "failsoft_first_token_seconds_sum",
        "failsoft_attempt_seconds_sum",
    ] {
        assert!(
            told.counted(name)
                .iter()
                .all(|(_, seconds)| *seconds < 30.0),
            "{name}"
        );
    }

    for name in ["alpha", "beta"] {
        let labels = [("provider", name)];
        assert_eq!(told.get("failsoft_breaker_state", &labels), Some(0.0));
        let quality = told.get("failsoft_answer_quality", &labels);
        assert_eq!(quality, app.backend(name).status.borrow().quality_avg);
        assert!(
            quality.is_some_and(|score| score > 0.0 && score <= 1.0),
            "{quality:?}"
        );
    }
    assert_eq!(told.get("failsoft_sessions", &[]), Some(1.0));
    assert_eq!(
        told.get("failsoft_retry_budget", &[]),
        Some(11.0),
        "ten are free, and five turns paid for one"
    );

    let tokens = |provider, direction| {
        told.get(
            "failsoft_tokens_total",
            &[("provider", provider), ("direction", direction)],
        )
    };
    assert_eq!(
        (tokens("beta", "input"), tokens("beta", "output")),
        (Some(14.0), Some(10.0))
    );
    assert!(
        tokens("alpha", "input") > Some(7.0) && tokens("alpha", "output") > Some(5.0),
        "torn ones too"
    );
    let cost = (tokens("alpha", "input").unwrap() + 2.0 * tokens("alpha", "output").unwrap()) / 1e6;
    let told_cost = told
        .get("failsoft_cost_usd_total", &[("provider", "alpha")])
        .unwrap();
    assert!((told_cost - cost).abs() < 1e-12, "{told_cost} for {cost}");
    assert_eq!(
        told.get("failsoft_cost_usd_total", &[("provider", "beta")]),
        None,
        "its prices are not known"
    );

    // Of one service in this process the other knows nothing.
    let (_alpha, _beta, other) = house().await;
    let two = (WsClient::open(&other).await, WsClient::open(&other).await);
    let told = scrape(&other).await;
    nothing_is_lost(&told, 0.0, 0.0);
    assert_eq!(told.get("failsoft_sessions", &[]), Some(2.0));
    assert_eq!(told.counted("failsoft_attempts_total"), []);
    drop((client, two));
}

#[tokio::test]
async fn text_that_nobody_replaced_leads_to_none() {
    let alpha = ScriptedProvider::start(vec![spoken(["A ", "torn ", "text"]), Act::Reset]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    WsClient::open(&app).await.answered("Xyzzy?").await;
    let told = scrape(&app).await;
    assert_eq!(
        told.counted("failsoft_restarts_total"),
        [(vec!["alpha", "reset", "(none)"], 1.0)]
    );
}

#[tokio::test]
async fn a_program_s_turns_are_counted_too() {
    let (_alpha, _beta, app) = house().await;
    let messages = json!([{ "role": "user", "content": "Xyzzy?" }]);
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({ "model": "beta", "messages": messages }),
        ),
        ("/api/chat", json!({ "message": "Xyzzy?" })),
    ] {
        assert_eq!(
            app.request("POST", path).json(&body).send().await.status,
            200,
            "{path}"
        );
    }
    app.at_rest().await;
    let told = scrape(&app).await;
    nothing_is_lost(&told, 2.0, 0.0);
    assert_eq!(
        told.counted("failsoft_attempts_total"),
        [(vec!["ok", "alpha"], 1.0), (vec!["ok", "beta"], 1.0)]
    );
    assert_eq!(told.get("failsoft_sessions", &[]), Some(0.0));
}

#[tokio::test]
async fn the_dashboard_asks_for_what_there_is_and_for_all_of_it() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries: Vec<_> = panels
        .flat_map(|panel| texts(panel["targets"].as_array().unwrap(), "expr"))
        .collect();
    let name = regex::Regex::new(r"failsoft_\w+").unwrap();
    let (alpha, beta, app) = house().await;
    let client = session(&alpha, &beta, &app).await;
    let told = scrape(&app).await;
    let mut asked = BTreeSet::new();
    for found in queries.iter().flat_map(|query| name.find_iter(query)) {
        let metric = found.as_str().trim_end_matches("_bucket");
        assert!(told.types.contains_key(metric), "{metric} is in no scrape");
        let histogram = told.types[metric] == "histogram";
        assert_eq!(histogram, metric != found.as_str(), "{}", found.as_str());
        asked.insert(metric);
    }
    assert!(
        asked.into_iter().eq(told.types.keys()),
        "not all of it is shown"
    );
    drop(client);
}

#[tokio::test]
async fn looks_at_the_saved_answers_are_counted() {
    let alpha = ScriptedProvider::answering("Plugh.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.cache.enabled = true;
    settings.cache.share = CacheSharing::Always;
    let app = TestApp::start(settings).await;
    let ask = async |text: &str| {
        let source = WsClient::open(&app)
            .await
            .answered(text)
            .await
            .done
            .clone()
            .unwrap()["source"]
            .clone();
        app.at_rest().await;
        source
    };
    assert_eq!(ask("Xyzzy?").await, "ai");
    assert_eq!(ask("Xyzzy?").await, "cache");
    assert_eq!(ask("What else?").await, "ai");
    let told = scrape(&app).await;
    nothing_is_lost(&told, 3.0, 0.0);
    assert_eq!(
        told.counted("failsoft_cache_total"),
        [(vec!["hit"], 1.0), (vec!["miss"], 2.0)]
    );
    assert_eq!(
        told.get(
            "failsoft_turns_total",
            &[("source", "cache"), ("finish", "stop")]
        ),
        Some(1.0)
    );
}

#[tokio::test]
async fn breakers_and_health_are_told_as_they_are_now() {
    let alpha = ScriptedProvider::answering("Plugh.").await;
    let beta = ScriptedProvider::answering("Plugh.").await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.server.admin_token = Some(Secret::new("admin-canary"));
    settings.providers[0].breaker.open_for = Duration::from_secs(60);
    settings.providers[0].breaker.open_max = Duration::from_secs(60);
    settings.providers[0].retry.same_provider = 0;
    settings.providers[1].health.interval = Duration::from_millis(50);
    let app = TestApp::start(settings).await;
    let state = async |name: &str| {
        scrape(&app)
            .await
            .get("failsoft_breaker_state", &[("provider", name)])
    };
    assert_eq!(state("alpha").await, Some(0.0));
    alpha.usually(overloaded());
    let mut client = WsClient::open(&app).await;
    for _ in 0..5 {
        client.answered("Xyzzy?").await;
    }
    app.at_rest().await;
    assert_eq!(state("alpha").await, Some(2.0));
    let order = app
        .request("POST", "/admin/providers/alpha")
        .header("authorization", "Bearer admin-canary");
    assert_eq!(
        order
            .json(&json!({ "action": "disable" }))
            .send()
            .await
            .status,
        200
    );
    assert_eq!(state("alpha").await, Some(4.0));

    let up = async || {
        scrape(&app)
            .await
            .get("failsoft_health_up", &[("provider", "beta")])
    };
    app.vitals("beta", |vitals| vitals.checks >= 1).await;
    assert_eq!(up().await, Some(1.0));
    beta.lists(overloaded());
    app.vitals("beta", |vitals| {
        vitals.last_check.is_some_and(|check| check.fault.is_some())
    })
    .await;
    assert_eq!(up().await, Some(0.0));
}

#[tokio::test]
async fn what_providers_cost_is_for_the_operator_and_this_machine() {
    let (alpha, beta, app) = house().await;
    let proxied = ("x-forwarded-for", "198.51.100.7");
    let names =
        |answer: &Answer| -> Vec<String> { Scrape::read(&answer.body).types.into_keys().collect() };
    let others: Vec<_> = ALL
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !PAID.contains(name))
        .collect();
    for headers in [
        &[proxied][..],
        &[proxied, ("authorization", "Bearer wrong")],
    ] {
        assert_eq!(names(&got(&app, headers).await), others);
    }
    let operator = got(&app, &[proxied, ("authorization", "Bearer admin-canary")]).await;
    assert_eq!(names(&operator).len(), ALL.len());
    assert_eq!(app.request("POST", "/metrics").send().await.status, 405);
    drop((alpha, beta));
}
