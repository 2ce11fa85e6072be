//! Reloads of the configuration: all of it takes effect, or nothing.

use serde_json::{Value, json};

use super::provider_reload::halting_provider;
use super::service::{ConfiguredService, TOKEN, configuration, provider};
use crate::harness::{ScriptGate, ScriptedProvider, WsClient, try_upgrade};

#[tokio::test]
async fn an_invalid_file_changes_nothing_and_every_problem_is_reported_with_its_line() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let good = configuration(&[
        "[chat]\ntitle = \"Good\"".into(),
        provider("alpha", &alpha, ""),
    ]);
    let service = ConfiguredService::start(&good).await;
    let app = &service.app;
    let replies = service.folder().join("replies.toml");
    std::fs::write(&replies, "[[reply]]\nmatch = [\"price\"]\ntext = 3\n").unwrap();
    let degradation = format!("replies = \"{}\"", replies.display());
    let bad_rules = good
        .replace("outbox = false", &degradation)
        .replace("Good", "Bad");
    let line_of =
        |text: &str, part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let bad_keys = good
        .replace("Good", "Bad")
        .replace("workers = 2", "workers = \"two\"")
        .replace("model = \"alpha-model\"", "modell = \"alpha-model\"")
        .replace("sk-canary-key", "env:NOT_SET");
    let problems_of = async |text: &str| {
        service.write(text);
        let answer = service.admin_request("POST", "/admin/reload").await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(
            !answer.body.contains(&*service.folder().to_string_lossy()),
            "{}",
            answer.body
        );
        let problems = answer.json()["error"]["problems"].clone();
        let describe = |problem: &Value| {
            format!(
                "{}:{} {}",
                problem["file"].as_str().unwrap(),
                problem["line"],
                problem["key"].as_str().unwrap()
            )
        };
        problems
            .as_array()
            .unwrap()
            .iter()
            .map(describe)
            .collect::<Vec<_>>()
    };
    let table = line_of(&bad_keys, "[[providers]]");
    let mut expected = vec![
        format!(
            "failsoft.toml:{} server.workers",
            line_of(&bad_keys, "workers")
        ),
        format!("failsoft.toml:{table} providers[0].model"),
        format!(
            "failsoft.toml:{} providers[0].modell",
            line_of(&bad_keys, "modell")
        ),
        format!(
            "failsoft.toml:{} providers[0].api_key",
            line_of(&bad_keys, "env:NOT_SET")
        ),
    ];
    let mut found = problems_of(&bad_keys).await;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(
        problems_of(&bad_rules).await,
        ["replies.toml:3 reply[0].text"]
    );
    assert_eq!(problems_of("title = ").await, ["failsoft.toml:1 "]);
    assert_eq!(
        service.audit_entries().await,
        ["reload - invalid loopback"; 3]
    );

    let mut client = WsClient::open(app).await;
    assert_eq!(client.welcome["title"], "Good");
    assert_eq!(client.ask_and_wait("Who?").await.text, "From alpha.");
    assert_eq!(
        service.reload(&good.replace("Good", "Better")).await["providers"]["changed"],
        json!([])
    );
    assert_eq!(WsClient::open(app).await.welcome["title"], "Better");
}

#[tokio::test]
async fn keys_that_need_a_restart_are_reported_and_the_others_take_effect() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let text = configuration(&[
        "[chat]\ngreeting = \"Hi.\"".into(),
        provider("alpha", &alpha, ""),
    ]);
    let service = ConfiguredService::start(&text).await;
    let app = &service.app;
    let mut client = WsClient::open(app).await;
    let other = text
        .replace("workers = 2", "workers = 3")
        .replace("Hi.", "Hello.\"\nmax_message_chars = 5\ntitle = \"New")
        .replace(
            "messages_per_minute = 10000",
            "messages_per_minute = 10000\nturns = 7",
        )
        .replace(TOKEN, "admin-other");
    assert_eq!(
        service.reload(&other).await["needs_restart"],
        json!(["server.workers"])
    );
    // The settings apply to open sessions too.
    let refused = client.ask_as("long", "too long").await;
    assert_eq!(refused["code"], "message_too_long");
    let welcome = WsClient::connect_with_hello(app.port, &json!({}))
        .await
        .welcome;
    assert_eq!(
        (&welcome["greeting"], &welcome["title"]),
        (&json!("Hello."), &json!("New"))
    );
    assert!(
        app.request("GET", "/")
            .send()
            .await
            .body
            .contains("<title>New</title>")
    );
    // The new admin token is required, and an API key once one is configured.
    assert_eq!(
        service.admin_request("POST", "/admin/reload").await.status,
        401
    );
    service.write(&other.replace("workers = 3", "workers = 3\napi_keys = [\"sk-program\"]"));
    let request = app
        .request("POST", "/admin/reload")
        .header("authorization", "Bearer admin-other");
    assert_eq!(request.send().await.status, 200);
    let asked = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "Who?" }));
    assert_eq!(asked.send().await.status, 401);
    // Without an admin token the admin API does not exist.
    service.write(&other.replace("admin_token = \"admin-other\"\n", ""));
    let request = app
        .request("POST", "/admin/reload")
        .header("authorization", "Bearer admin-other");
    assert_eq!(request.send().await.status, 200);
    let request = app
        .request("POST", "/admin/reload")
        .header("authorization", "Bearer admin-other");
    assert_eq!(request.send().await.status, 404);
}

#[tokio::test]
async fn changed_limits_of_turns_and_connections_take_effect_at_once() {
    let gate = ScriptGate::default();
    let alpha = halting_provider(&gate).await;
    let with = |limits: &str| {
        configuration(&[provider("alpha", &alpha, "")]).replace(
            "connections_per_ip = 10000",
            &format!("connections_per_ip = 10000\n{limits}"),
        )
    };
    let service = ConfiguredService::start(&with("turns = 1\nconnections = 3")).await;
    let app = &service.app;
    let mut first_client = WsClient::open(app).await;
    let mut second_client = WsClient::open(app).await;
    let first = first_client.ask("Count.").await;
    assert_eq!(second_client.ask_as("full", "Count.").await["code"], "busy");
    assert_eq!(
        service.reload(&with("turns = 2\nconnections = 3")).await["needs_restart"],
        json!([])
    );
    let second = second_client.ask("Count.").await;
    // Below the number of running turns: those continue, and new ones wait.
    assert_eq!(
        service.reload(&with("turns = 1\nconnections = 2")).await["needs_restart"],
        json!([])
    );
    assert_eq!(try_upgrade(app, &[]).await, Err(503));
    gate.let_one_through();
    first_client.wait_for_done(&first).await;
    gate.let_one_through();
    second_client.wait_for_done(&second).await;
    app.wait_until_idle().await;
    let third = first_client.ask("Count.").await;
    assert_eq!(
        second_client.ask_as("full again", "Count.").await["code"],
        "busy"
    );
    gate.let_one_through();
    first_client.wait_for_done(&third).await;
    assert_eq!(
        service.reload(&with("turns = 1\nconnections = 3")).await["needs_restart"],
        json!([])
    );
    assert_eq!(try_upgrade(app, &[]).await, Ok(()));
    let report = service.reload(&with("turns = 1\nconnections = 4")).await;
    assert_eq!(report["needs_restart"], json!(["limits.connections"]));
}
