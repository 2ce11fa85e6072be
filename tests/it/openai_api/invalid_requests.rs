//! Invalid requests: an error in OpenAI's format that names the field, without a provider's call.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{ScriptedProvider, TestApp, TestResponse, eventually, question_body};

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    (alpha, app)
}

/// Asserts that the response has OpenAI's error format, and returns the error.
#[track_caller]
fn assert_error_format(answer: &TestResponse) -> Value {
    assert_eq!(
        answer.header("content-type"),
        "application/json",
        "{answer:?}"
    );
    assert!(
        answer.header("x-request-id").starts_with("req-"),
        "{answer:?}"
    );
    let body = answer.json();
    let error = &body["error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{body}"
    );
    assert_eq!(
        error["type"],
        if answer.status < 500 {
            "invalid_request_error"
        } else {
            "server_error"
        }
    );
    for key in ["param", "code"] {
        assert!(
            error[key].is_string() || error[key] == Value::Null,
            "{key} in {body}"
        );
    }
    error.clone()
}

#[tokio::test]
async fn the_error_names_the_invalid_field() {
    let (alpha, app) = service().await;
    let user = json!([{ "role": "user", "content": "What?" }]);
    let with = |name: &str, value: Value| {
        let mut body = question_body("What?");
        body[name] = value;
        body
    };
    let calls = json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "c", "type": "function" }] });
    let image = json!([{ "type": "text", "text": "What is this?" }, { "type": "image_url", "image_url": { "url": "x" } }]);
    for (body, param) in [
        (json!({ "messages": user }), "model"),
        (with("model", json!(7)), "model"),
        (json!({ "model": "auto" }), "messages"),
        (with("messages", json!([])), "messages"),
        (with("messages", json!("What?")), "messages"),
        (
            with("messages", json!([{ "role": "user", "content": " \n" }])),
            "messages",
        ),
        (
            with("messages", json!([{ "role": "robot", "content": "x" }])),
            "messages[0].role",
        ),
        (
            with("messages", json!([{ "content": "x" }])),
            "messages[0].role",
        ),
        (with("messages", json!([7])), "messages[0].role"),
        (
            with(
                "messages",
                json!([user[0], { "role": "tool", "content": "42" }]),
            ),
            "messages[1].role",
        ),
        (
            with(
                "messages",
                json!([user[0], { "role": "function", "content": "42" }]),
            ),
            "messages[1].role",
        ),
        (
            with("messages", json!([user[0], calls, user[0]])),
            "messages[1].tool_calls",
        ),
        (
            with(
                "messages",
                json!([user[0], { "role": "assistant", "function_call": {} }]),
            ),
            "messages[1].function_call",
        ),
        (
            with("messages", json!([{ "role": "user", "content": 7 }])),
            "messages[0].content",
        ),
        (
            with(
                "messages",
                json!([user[0], { "role": "user", "content": image }]),
            ),
            "messages[1].content",
        ),
        (
            with("messages", Value::Array(vec![user[0].clone(); 2049])),
            "messages",
        ),
        (
            with(
                "tools",
                json!([{ "type": "function", "function": { "name": "f" } }]),
            ),
            "tools",
        ),
        (with("functions", json!([{ "name": "f" }])), "functions"),
        (with("n", json!(2)), "n"),
        (
            with("response_format", json!({ "type": "json_object" })),
            "response_format",
        ),
        (
            with(
                "response_format",
                json!({ "type": "json_schema", "json_schema": {} }),
            ),
            "response_format",
        ),
        (with("stream", json!("true")), "stream"),
        (with("max_tokens", json!(-1)), "max_tokens"),
        (
            with("max_completion_tokens", json!(1.5)),
            "max_completion_tokens",
        ),
        (with("temperature", json!("hot")), "temperature"),
        (with("temperature", json!(2.1)), "temperature"),
        (with("stop", json!(["a", "b", "c", "d", "e"])), "stop"),
        (with("stop", json!([7])), "stop"),
    ] {
        for stream in [false, true] {
            let mut body = body.clone();
            if stream && param != "stream" {
                body["stream"] = true.into();
            }
            let answer = app.completion_request(&body).send().await;
            let error = assert_error_format(&answer);
            assert_eq!(
                (answer.status, &error["param"]),
                (400, &json!(param)),
                "{error}"
            );
        }
    }
    assert_eq!(alpha.question_count(), 0);
}

#[tokio::test]
async fn malformed_json_is_rejected() {
    let (alpha, app) = service().await;
    let deep = format!("{{\"model\":{}", "[".repeat(100_000));
    for body in [
        "",
        "{",
        "null",
        "[]",
        "7",
        "\"x\"",
        "model=auto",
        "{\"model\":\"auto\"}}",
        deep.as_str(),
    ] {
        let answer = app
            .request("POST", "/v1/chat/completions")
            .header("content-type", "application/json");
        let answer = answer.body(body).send().await;
        assert_error_format(&answer);
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_eq!(alpha.question_count(), 0);
    // The content type does not matter.
    let body = question_body("What?").to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = app
            .request("POST", "/v1/chat/completions")
            .header("content-type", kind)
            .body(&body)
            .send()
            .await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_body_above_one_mebibyte_is_rejected() {
    let (alpha, app) = service().await;
    // The limit is a mebibyte.
    let body = question_body(&"x".repeat(1_048_000)).to_string();
    let answer = app
        .request("POST", "/v1/chat/completions")
        .body(&body)
        .send()
        .await;
    assert_eq!(answer.status, 200, "{} bytes", body.len());
    for bytes in [1_048_577, 8_000_000] {
        let body = question_body(&"x".repeat(bytes)).to_string();
        // A too large `content-length` is rejected before the body arrives.
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let sent = tokio::spawn(async move { writer.write_all(body.as_bytes()).await });
        let mut received = Vec::new();
        let _ = eventually("the rejection", reader.read_to_end(&mut received)).await;
        let answer = TestResponse::parse(&received);
        assert_error_format(&answer);
        assert_eq!(answer.status, 413);
        drop(sent.await);
    }
    // A chunked body is rejected as soon as it exceeds the limit.
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 65536, "x".repeat(65536));
    stream
        .write_all((head.to_owned() + &chunk.repeat(17)).as_bytes())
        .await
        .unwrap();
    let mut received = vec![0; 12];
    eventually("the rejection", stream.read_exact(&mut received))
        .await
        .unwrap();
    assert_eq!(received, b"HTTP/1.1 413");
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn an_incomplete_body_times_out() {
    let (_alpha, app) = service().await;
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{\"model\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    let mut received = Vec::new();
    let _ = eventually("the rejection", stream.read_to_end(&mut received)).await;
    let answer = TestResponse::parse(&received);
    assert_error_format(&answer);
    assert_eq!(answer.status, 408);
    assert!(
        started.elapsed().as_secs() < 10,
        "rejected after {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn wrong_methods_and_paths_are_rejected() {
    let (alpha, app) = service().await;
    for (method, path, status) in [
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/models/alpha", 405),
        ("POST", "/v1/completions", 404),
        ("POST", "/v1/responses", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/models/nobody", 404),
    ] {
        let answer = app.request(method, path).send().await;
        assert_error_format(&answer);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(
            answer.header("allow").is_empty(),
            status == 404,
            "{method} {path}"
        );
    }
    assert_eq!(
        app.request("HEAD", "/v1/models").send_head_request().await,
        200
    );
    assert_eq!(alpha.question_count(), 0);
}

#[tokio::test]
async fn unusual_but_valid_requests_are_accepted() {
    let (alpha, app) = service().await;
    let with = |name: &str, value: Value| {
        let mut body = question_body("What?");
        body[name] = value;
        body
    };
    for body in [
        with("tools", json!([])),
        with("tools", Value::Null),
        with("tool_choice", json!("none")),
        with("response_format", json!({ "type": "text" })),
        with(
            "messages",
            json!([{ "role": "user", "content": "What?", "tool_calls": [], "function_call": null }]),
        ),
        with("stream", Value::Null),
        with("stop", json!([])),
        with("stop", Value::Null),
        with("max_tokens", Value::Null),
        with("logprobs", json!(false)),
        with("stream_options", json!({ "include_usage": true })),
        with(
            "messages",
            json!([{ "role": "system", "content": "What?" }]),
        ),
        with(
            "messages",
            json!([{ "role": "developer", "content": "Be brief." }, { "role": "user", "content": "What?" }]),
        ),
        with(
            "messages",
            json!([{ "role": "assistant", "content": "Hello." }, { "role": "user", "content": "What?" }]),
        ),
        with(
            "messages",
            json!([
                { "role": "user", "content": "What?" },
                { "role": "assistant", "content": null },
                { "role": "user", "content": "And now?" },
            ]),
        ),
    ] {
        let answer = app.completion_request(&body).send().await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    assert_eq!(alpha.question_count(), 15);
}
