//! What the logs are like, and what they keep to themselves whatever is asked of them.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Manner, Provider};
use super::service::{Ended, Service, failsoft};
use super::ws_client::{Shown, Visitor};

/// Everything there is to log, and the same by names that are finer than whole libraries.
const ALL: [&str; 2] = [
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

/// However often it fails, it is asked.
const STEADY: &str =
    "breaker = { consecutive_failures = 1000, min_calls = 1000, stream_failure_rate = 1.0 }";

async fn start(folder: &Path, provider: &Provider, environment: &[(&str, &str)]) -> Service {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"{FOLDER}\"\nadmin_token = \"{ADMIN}\"\napi_keys = [\"{API_KEY}\"]\n\
         [alerts]\nwebhook_secret = \"no-webhook-for-it\"\n[chat]\nsystem_prompt = \"{PROMPT}\"\n{}",
        provider.config().replace(
            "scripted-key\"",
            &format!("{KEY}\"\nheaders = {{ x-team = \"{HEADER}\" }}\n{STEADY}")
        )
    );
    std::fs::write(folder.join("failsoft.toml"), config).unwrap();
    let mut command = failsoft(folder, &[]);
    for (name, value) in environment {
        command.env(name, value);
    }
    Service::of(command).await
}

/// Where a text stands in a log, in any of the ways in which programs write bytes.
fn found(log: &str, secret: &str) -> Option<String> {
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

/// A conversation with everything in it that a log could let slip; gives the conversation's id.
async fn converse(service: &Service, provider: &Provider) -> String {
    let port = service.port;
    let bearer = format!("Bearer {API_KEY}");
    let hello = json!({ "conversation": null });
    let mut visitor = Visitor::with_header(port, hello, Some(("authorization", &bearer))).await;
    let shown = visitor.ask(MESSAGE).await;
    assert!(shown.text.contains(MESSAGE));
    // The provider has heard all of it.
    let request = provider.requests().pop().unwrap();
    for sent in [MESSAGE, PROMPT, KEY, HEADER] {
        assert!(request.contains(sent), "{sent} in {request}");
    }
    // What comes in wrong.
    visitor
        .say(json!({ "type": "banana", "text": MESSAGE }))
        .await;
    visitor.next_error("bad_request").await;
    visitor
        .say(json!({ "type": "feedback", "turn": shown.turn(), "value": "up" }))
        .await;
    visitor
        .say(json!({ "type": "history", "before": shown.turn() }))
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
    // The tab shows the turn that came over HTTP, too.
    visitor.answer().await;
    assert_eq!(
        super::http::request(port, &head, &format!("{{ {MESSAGE}"))
            .await
            .unwrap()
            .status,
        400
    );
    // A provider that repeats the question that it refuses, or breaks on, wherever it can, or answers with what is no answer.
    let words = format!("Invalid input: {MESSAGE} twice");
    let error =
        json!({ "error": { "message": words, "type": MESSAGE, "code": words, "param": MESSAGE } });
    for (status, answer) in [
        (400, error.clone()),
        (429, error.clone()),
        (500, error.clone()),
        (500, json!(words)),
        (503, error.clone()),
        (
            404,
            json!({ "detail": [{ "loc": [MESSAGE], "msg": words }] }),
        ),
        (200, error),
        (200, json!(words)),
        (
            200,
            json!({ "choices": [{ "delta": { "content": "" }, "finish_reason": words }] }),
        ),
    ] {
        provider.now(Manner::Refuse(status, answer));
        visitor.ask(&format!("{MESSAGE} twice")).await;
    }
    let named =
        json!({ "error": { "message": words, "type": "server_error", "code": "engine_fault_7" } });
    provider.now(Manner::Refuse(500, named));
    visitor.ask(&format!("{MESSAGE} twice")).await;
    // A provider that repeats the key that it refuses.
    let refusal = json!({ "error": { "message": format!("Incorrect API key provided: {KEY}. See our pages.") } });
    provider.now(Manner::Refuse(401, refusal));
    let shown: Shown = visitor.ask(&format!("{MESSAGE} once more")).await;
    assert_eq!(*shown.end("degraded"), true);
    let seen = shown.done.unwrap().to_string();
    assert!(!seen.contains(KEY) && !seen.contains(PROMPT), "{seen}");
    conversation
}

fn is_discreet(ended: &Ended, folder: &Path, conversation: &str) {
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
        if let Some(line) = found(&ended.err, secret) {
            panic!("{secret} is in the log:\n{line}");
        }
    }
}

#[tokio::test]
async fn nothing_private_is_in_the_logs_however_much_is_logged() {
    for filter in ALL {
        let folder = TempDir::new().unwrap();
        let provider = Provider::start(Manner::Answer).await;
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
        assert_eq!(ended.out.lines().count(), 1, "{}", ended.out);
        // It is the log of all that, and at the lowest level.
        assert!(
            ended.err.contains("TRACE")
                && ended.err.contains("request refused")
                && ended.err.contains("key refused")
                && ended.err.contains("(engine_fault_7)")
        );
        is_discreet(&ended, folder.path(), &conversation);

        // The second start reads what is there; the third finds it in ruins.
        let service = start(folder.path(), &provider, &environment).await;
        is_discreet(&service.stop().await, folder.path(), &conversation);
        for file in ["db", "conf"] {
            std::fs::write(
                folder.path().join(FOLDER).join("store").join(file),
                "\u{fe}rubbish".repeat(900),
            )
            .unwrap();
        }
        let service = start(folder.path(), &provider, &environment).await;
        let ended = service.stop().await;
        assert!(ended.err.contains("damaged"), "{}", ended.err);
        is_discreet(&ended, folder.path(), &conversation);
    }
}

#[tokio::test]
async fn logs_are_lines_for_people_or_json_lines_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    // This configuration has warnings, too: they are said like the rest.
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
        .err
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
        !ended.err.contains("INFO") && ended.err.contains("alerts.webhook_secret"),
        "{}",
        ended.err
    );
    assert!(
        !ended.err.contains('\u{1b}'),
        "no colours where no terminal is"
    );

    // Empty is as good as not set.
    let service = start(folder.path(), &provider, &[("RUST_LOG", "")]).await;
    let ended = service.stop().await;
    assert!(
        ended.err.contains("INFO") && !ended.err.contains("actix"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn where_nobody_reads_the_logs_any_more_the_chat_goes_on() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    std::fs::write(folder.path().join("failsoft.toml"), provider.config()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = failsoft(folder.path(), &["--listen", "127.0.0.1:0"]);
    command.stderr(writer).env("RUST_LOG", "debug");
    let service = Service::of(command).await;
    drop(reader);
    let mut visitor = Visitor::new(service.port).await;
    for _ in 0..3 {
        assert_eq!(*visitor.ask("hello").await.end("source"), "ai");
    }
    assert_eq!(service.stop().await.code, Some(0));
}
