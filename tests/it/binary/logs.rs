//! The format of the logs, and the secrets that they never contain at any level.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Behavior, Provider};
use super::service::{ProcessExit, Service, failsoft};
use super::ws_client::{ShownTurn, Visitor};

/// Log filters: everything, and the same with targets more specific than whole libraries.
const FILTERS: [&str; 2] = [
    "trace",
    "trace,sled::pagecache=trace,sled::tree=trace,reqwest::connect=trace,hyper_util::client=trace,h2::codec=trace,\
     eventsource_client::client=trace,launchdarkly_sdk_transport::transport_hyper=trace,rustls::client=trace,hyper::proto=trace,\
     actix_http::h1=trace,actix_server::worker=trace",
];

const MESSAGE: &str = "canary-of-the-message";
const PROMPT: &str = "canary-of-the-prompt";
const KEY: &str = "canary-of-the-key";
const HEADER: &str = "canary-of-the-header";
const ADMIN: &str = "canary-of-the-admin";
const API_KEY: &str = "canary-of-the-api";
const FOLDER: &str = "canary-of-the-folder";

/// A breaker that never opens, so that the provider is asked however often it fails.
const STEADY_BREAKER: &str =
    "breaker = { consecutive_failures = 1000, min_calls = 1000, stream_failure_rate = 1.0 }";

async fn start(folder: &Path, provider: &Provider, environment: &[(&str, &str)]) -> Service {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"{FOLDER}\"\nadmin_token = \"{ADMIN}\"\napi_keys = [\"{API_KEY}\"]\n\
         [alerts]\nwebhook_secret = \"no-webhook-for-it\"\n[chat]\nsystem_prompt = \"{PROMPT}\"\n{}",
        provider.config().replace(
            "scripted-key\"",
            &format!("{KEY}\"\nheaders = {{ x-team = \"{HEADER}\" }}\n{STEADY_BREAKER}")
        )
    );
    std::fs::write(folder.join("failsoft.toml"), config).unwrap();
    let mut command = failsoft(folder, &[]);
    for (name, value) in environment {
        command.env(name, value);
    }
    Service::of(command).await
}

/// The first line that contains the secret, in any of the forms in which programs print bytes.
fn find_secret(log: &str, secret: &str) -> Option<String> {
    let join = |each: fn(&u8) -> String, between: &str| {
        secret
            .as_bytes()
            .iter()
            .map(each)
            .collect::<Vec<_>>()
            .join(between)
    };
    let forms = [
        secret.to_owned(),
        join(u8::to_string, ", "),
        join(|byte| format!("{byte:02x}"), ""),
        join(|byte| format!("{byte:02x}"), " "),
    ];
    let line = log
        .lines()
        .find(|line| forms.iter().any(|form| line.contains(form)));
    line.map(|line| line.chars().take(400).collect())
}

/// Holds a conversation with everything that a log could leak. Returns the conversation's id.
async fn converse(service: &Service, provider: &Provider) -> String {
    let port = service.port;
    let bearer = format!("Bearer {API_KEY}");
    let hello = json!({ "conversation": null });
    let mut visitor =
        Visitor::connect_with_header(port, hello, Some(("authorization", &bearer))).await;
    let shown = visitor.ask(MESSAGE).await;
    assert!(shown.text.contains(MESSAGE));
    // All of it was sent to the provider.
    let request = provider.requests().pop().unwrap();
    for sent in [MESSAGE, PROMPT, KEY, HEADER] {
        assert!(request.contains(sent), "{sent} in {request}");
    }
    // Invalid frames and requests.
    visitor
        .send_frame(json!({ "type": "banana", "text": MESSAGE }))
        .await;
    visitor.next_error("bad_request").await;
    visitor
        .send_frame(json!({ "type": "feedback", "turn": shown.turn_id(), "value": "up" }))
        .await;
    visitor
        .send_frame(json!({ "type": "history", "before": shown.turn_id() }))
        .await;
    visitor.next("history").await;
    let conversation = visitor.conversation().to_owned();
    let head = format!(
        "GET /admin/conversations/{conversation}?x={MESSAGE} HTTP/1.1\r\nAuthorization: Bearer {ADMIN}\r\n"
    );
    super::http::request(port, &head, "").await.unwrap();
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: {bearer}\r\n"
    );
    let body = json!({ "message": MESSAGE, "conversation": conversation });
    assert_eq!(
        super::http::request(port, &head, &body.to_string())
            .await
            .unwrap()
            .status,
        200
    );
    let completion = head.replace("/api/chat", "/v1/chat/completions");
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": MESSAGE }] });
    assert_eq!(
        super::http::request(port, &completion, &body.to_string())
            .await
            .unwrap()
            .status,
        200
    );
    // The tab also shows the turn that came over HTTP.
    visitor.read_answer().await;
    assert_eq!(
        super::http::request(port, &head, &format!("{{ {MESSAGE}"))
            .await
            .unwrap()
            .status,
        400
    );
    // A provider that repeats the question in each field of its error, or sends no valid answer.
    let echo = format!("Invalid input: {MESSAGE} twice");
    let error =
        json!({ "error": { "message": echo, "type": MESSAGE, "code": echo, "param": MESSAGE } });
    for (status, answer) in [
        (400, error.clone()),
        (429, error.clone()),
        (500, error.clone()),
        (500, json!(echo)),
        (503, error.clone()),
        (
            404,
            json!({ "detail": [{ "loc": [MESSAGE], "msg": echo }] }),
        ),
        (200, error),
        (200, json!(echo)),
        (
            200,
            json!({ "choices": [{ "delta": { "content": "" }, "finish_reason": echo }] }),
        ),
    ] {
        provider.set_behavior(Behavior::Refuse(status, answer));
        visitor.ask(&format!("{MESSAGE} twice")).await;
    }
    let named =
        json!({ "error": { "message": echo, "type": "server_error", "code": "engine_fault_7" } });
    provider.set_behavior(Behavior::Refuse(500, named));
    visitor.ask(&format!("{MESSAGE} twice")).await;
    // A provider that repeats the key that it refuses.
    let refusal = json!({ "error": { "message": format!("Incorrect API key provided: {KEY}. See our pages.") } });
    provider.set_behavior(Behavior::Refuse(401, refusal));
    let shown: ShownTurn = visitor.ask(&format!("{MESSAGE} once more")).await;
    assert_eq!(*shown.done_field("degraded"), true);
    let seen = shown.done.unwrap().to_string();
    assert!(!seen.contains(KEY) && !seen.contains(PROMPT), "{seen}");
    conversation
}

fn assert_no_secrets(ended: &ProcessExit, folder: &Path, conversation: &str) {
    let own = folder.file_name().unwrap().to_str().unwrap();
    for secret in [
        MESSAGE,
        PROMPT,
        KEY,
        HEADER,
        ADMIN,
        API_KEY,
        FOLDER,
        own,
        conversation,
    ] {
        if let Some(line) = find_secret(&ended.stderr, secret) {
            panic!("{secret} is in the log:\n{line}");
        }
    }
}

#[tokio::test]
async fn logs_contain_no_secrets_at_any_level() {
    for filter in FILTERS {
        let folder = TempDir::new().unwrap();
        let provider = Provider::start(Behavior::Answer).await;
        let environment = [("RUST_LOG", filter)];
        let service = start(folder.path(), &provider, &environment).await;
        let conversation = converse(&service, &provider).await;
        for path in ["/", "/status.json", "/healthz", "/readyz"] {
            let answer = service.get(path).await;
            for secret in [
                MESSAGE,
                PROMPT,
                KEY,
                HEADER,
                ADMIN,
                API_KEY,
                FOLDER,
                &conversation,
            ] {
                assert!(
                    !answer.body.contains(secret),
                    "{secret} in {path}: {}",
                    answer.body
                );
            }
        }
        let ended = service.stop().await;
        assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
        // This is the log of all of the above, at the lowest level.
        assert!(
            ended.stderr.contains("TRACE")
                && ended.stderr.contains("request refused")
                && ended.stderr.contains("key refused")
                && ended.stderr.contains("(engine_fault_7)")
        );
        assert_no_secrets(&ended, folder.path(), &conversation);

        // The second start reads the stored data; the third finds it damaged.
        let service = start(folder.path(), &provider, &environment).await;
        assert_no_secrets(&service.stop().await, folder.path(), &conversation);
        for file in ["db", "conf"] {
            std::fs::write(
                folder.path().join(FOLDER).join("store").join(file),
                "\u{fe}rubbish".repeat(900),
            )
            .unwrap();
        }
        let service = start(folder.path(), &provider, &environment).await;
        let ended = service.stop().await;
        assert!(ended.stderr.contains("damaged"), "{}", ended.stderr);
        assert_no_secrets(&ended, folder.path(), &conversation);
    }
}

#[tokio::test]
async fn logs_are_plain_text_or_json_lines() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    // This configuration causes warnings, which are logged in the same format.
    let service = start(
        folder.path(),
        &provider,
        &[("FAILSOFT_LOG", "json"), ("RUST_LOG", "debug")],
    )
    .await;
    converse(&service, &provider).await;
    service.signal("HUP").await;
    let ended = service.stop().await;
    let lines: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string())
    );
    let turn = lines
        .iter()
        .find(|line| line["message"] == "turn ended")
        .unwrap();
    assert!(turn["turn"].is_string() && turn["attempts"] == 1, "{turn}");
    assert_eq!(
        (&turn["source"], &turn["finish"]),
        (&json!("ai"), &json!("stop"))
    );
    let failed = lines
        .iter()
        .filter(|line| line["message"] == "attempt failed");
    let failed: Vec<_> = failed
        .map(|line| (&line["provider"], &line["status"]))
        .collect();
    assert!(
        failed.contains(&(&json!("scripted"), &json!(401))),
        "{failed:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line["level"] == "WARN"
                && line.to_string().contains("alerts.webhook_secret"))
    );

    let service = start(folder.path(), &provider, &[("RUST_LOG", "warn")]).await;
    let ended = service.stop().await;
    assert!(
        !ended.stderr.contains("INFO") && ended.stderr.contains("alerts.webhook_secret"),
        "{}",
        ended.stderr
    );
    assert!(
        !ended.stderr.contains('\u{1b}'),
        "no colours where no terminal is"
    );

    // An empty variable counts as not set.
    let service = start(folder.path(), &provider, &[("RUST_LOG", "")]).await;
    let ended = service.stop().await;
    assert!(
        ended.stderr.contains("INFO") && !ended.stderr.contains("actix"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn the_chat_continues_when_the_log_pipe_is_closed() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    std::fs::write(folder.path().join("failsoft.toml"), provider.config()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = failsoft(folder.path(), &["--listen", "127.0.0.1:0"]);
    command.stderr(writer).env("RUST_LOG", "debug");
    let service = Service::of(command).await;
    drop(reader);
    let mut visitor = Visitor::new(service.port).await;
    for _ in 0..3 {
        assert_eq!(*visitor.ask("hello").await.done_field("source"), "ai");
    }
    assert_eq!(service.stop().await.code, Some(0));
}
