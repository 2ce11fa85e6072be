//! Metrics of turns, the cache and providers, and their visibility.

use std::time::Duration;

use failsoft::config::{CacheSharing, Prices, Secret};
use serde_json::json;

use crate::harness::{
    MetricsScrape, ScriptStep, ScriptedProvider, TestApp, TestResponse, WsClient, error_response,
    partial_answer, test_settings,
};

/// Text that no metric may contain: questions, answers, keys and tokens.
const CANARIES: [&str; 5] = [
    "Xyzzy",
    "Plugh",
    "sk-canary-key",
    "admin-canary",
    "canary-detail",
];

/// Every metric and its type.
pub(super) const ALL: [(&str, &str); 15] = [
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

/// Visible only to the operator and on the local machine.
const OPERATOR_ONLY: [&str; 2] = ["failsoft_cost_usd_total", "failsoft_tokens_total"];

async fn get_metrics(app: &TestApp, headers: &[(&str, &str)]) -> TestResponse {
    let request = app.request("GET", "/metrics");
    headers
        .iter()
        .fold(request, |request, (name, value)| {
            request.header(name, value)
        })
        .send()
        .await
}

pub(super) async fn scrape(app: &TestApp) -> MetricsScrape {
    let answer = get_metrics(app, &[]).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/plain; version=0.0.4")
    );
    for canary in CANARIES.iter().copied().chain(app.root_dir().to_str()) {
        assert!(!answer.body.contains(canary), "{canary} in {}", answer.body);
    }
    MetricsScrape::parse(&answer.body)
}

/// Asserts that every started turn has either ended or is running.
pub(super) fn assert_turns(scrape: &MetricsScrape, started: f64, running: f64) {
    assert_eq!(
        scrape.value("failsoft_turns_started_total", &[]),
        Some(started)
    );
    assert_eq!(scrape.value("failsoft_turns_in_flight", &[]), Some(running));
    assert_eq!(scrape.sum("failsoft_turns_total") + running, started);
}

pub(super) fn overloaded() -> Vec<ScriptStep> {
    vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"canary-detail"}}"#,
    )]
}

pub(super) async fn service() -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("Plugh, says alpha.").await;
    let beta = ScriptedProvider::answering("Plugh, says beta.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.server.admin_token = Some(Secret::new("admin-canary"));
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 2.0,
    });
    settings.degradation.fallback = "Plugh, later.".into();
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

#[tokio::test]
async fn a_restart_without_a_successor_has_the_label_none() {
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["A ", "torn ", "text"]),
        ScriptStep::Reset,
    ])
    .await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    WsClient::open(&app).await.ask_and_wait("Xyzzy?").await;
    let metrics = scrape(&app).await;
    assert_eq!(
        metrics.nonzero_samples("failsoft_restarts_total"),
        [(vec!["alpha", "reset", "(none)"], 1.0)]
    );
}

#[tokio::test]
async fn turns_over_the_api_are_counted() {
    let (_alpha, _beta, app) = service().await;
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
    app.wait_until_idle().await;
    let metrics = scrape(&app).await;
    assert_turns(&metrics, 2.0, 0.0);
    assert_eq!(
        metrics.nonzero_samples("failsoft_attempts_total"),
        [(vec!["ok", "alpha"], 1.0), (vec!["ok", "beta"], 1.0)]
    );
    assert_eq!(metrics.value("failsoft_sessions", &[]), Some(0.0));
}

#[tokio::test]
async fn cache_lookups_are_counted() {
    let alpha = ScriptedProvider::answering("Plugh.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.cache.enabled = true;
    settings.cache.share = CacheSharing::Always;
    let app = TestApp::start(settings).await;
    let ask = async |text: &str| {
        let source = WsClient::open(&app)
            .await
            .ask_and_wait(text)
            .await
            .done
            .clone()
            .unwrap()["source"]
            .clone();
        app.wait_until_idle().await;
        source
    };
    assert_eq!(ask("Xyzzy?").await, "ai");
    assert_eq!(ask("Xyzzy?").await, "cache");
    assert_eq!(ask("What else?").await, "ai");
    let metrics = scrape(&app).await;
    assert_turns(&metrics, 3.0, 0.0);
    assert_eq!(
        metrics.nonzero_samples("failsoft_cache_total"),
        [(vec!["hit"], 1.0), (vec!["miss"], 2.0)]
    );
    assert_eq!(
        metrics.value(
            "failsoft_turns_total",
            &[("source", "cache"), ("finish", "stop")]
        ),
        Some(1.0)
    );
}

#[tokio::test]
async fn breaker_and_health_gauges_show_the_current_state() {
    let alpha = ScriptedProvider::answering("Plugh.").await;
    let beta = ScriptedProvider::answering("Plugh.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.server.admin_token = Some(Secret::new("admin-canary"));
    settings.providers[0].breaker.open_for = Duration::from_secs(60);
    settings.providers[0].breaker.open_max = Duration::from_secs(60);
    settings.providers[0].retry.same_provider = 0;
    settings.providers[1].health.interval = Duration::from_millis(50);
    let app = TestApp::start(settings).await;
    let state = async |name: &str| {
        scrape(&app)
            .await
            .value("failsoft_breaker_state", &[("provider", name)])
    };
    assert_eq!(state("alpha").await, Some(0.0));
    alpha.script_default(overloaded());
    let mut client = WsClient::open(&app).await;
    for _ in 0..5 {
        client.ask_and_wait("Xyzzy?").await;
    }
    app.wait_until_idle().await;
    assert_eq!(state("alpha").await, Some(2.0));
    let request = app
        .request("POST", "/admin/providers/alpha")
        .header("authorization", "Bearer admin-canary");
    assert_eq!(
        request
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
            .value("failsoft_health_up", &[("provider", "beta")])
    };
    app.wait_for_status("beta", |provider_status| provider_status.checks >= 1)
        .await;
    assert_eq!(up().await, Some(1.0));
    beta.script_model_list(overloaded());
    app.wait_for_status("beta", |provider_status| {
        provider_status
            .last_check
            .is_some_and(|check| check.fault.is_some())
    })
    .await;
    assert_eq!(up().await, Some(0.0));
}

#[tokio::test]
async fn costs_are_visible_only_to_the_operator_and_locally() {
    let (alpha, beta, app) = service().await;
    let proxied = ("x-forwarded-for", "198.51.100.7");
    let names = |answer: &TestResponse| -> Vec<String> {
        MetricsScrape::parse(&answer.body)
            .types
            .into_keys()
            .collect()
    };
    let others: Vec<_> = ALL
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !OPERATOR_ONLY.contains(name))
        .collect();
    for headers in [
        &[proxied][..],
        &[proxied, ("authorization", "Bearer wrong")],
    ] {
        assert_eq!(names(&get_metrics(&app, headers).await), others);
    }
    let operator = get_metrics(&app, &[proxied, ("authorization", "Bearer admin-canary")]).await;
    assert_eq!(names(&operator).len(), ALL.len());
    assert_eq!(app.request("POST", "/metrics").send().await.status, 405);
    drop((alpha, beta));
}
