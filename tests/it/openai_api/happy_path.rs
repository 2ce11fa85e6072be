//! Answers without faults, whole and streamed.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{
    CompletionStream, ScriptGate, ScriptedProvider, TestApp, eventually, last_http_chunk,
    partial_answer, question_body, send_text, sse_event, stream_end, streaming_body, token_event,
};

const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    (alpha, app)
}

#[tokio::test]
async fn a_completion_has_the_documented_headers_and_body() {
    let (alpha, app) = service().await;
    let answer = app
        .completion_request(&question_body("What jumps?"))
        .send()
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    for (name, value) in [
        ("x-provider", "alpha"),
        ("x-source", "ai"),
        ("x-degraded", "false"),
        ("x-attempts", "1"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(!answer.header("x-request-id").is_empty());
    let body = answer.json();
    assert!(
        body["id"].as_str().unwrap().starts_with("chatcmpl-"),
        "{body}"
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now - body["created"].as_u64().unwrap() < 60, "{body}");
    for (key, value) in [
        ("object", json!("chat.completion")),
        ("model", json!("alpha-model")),
        (
            "choices",
            json!([{
                "index": 0,
                "message": { "role": "assistant", "content": TEXT, "refusal": null },
                "logprobs": null,
                "finish_reason": "stop",
            }]),
        ),
        (
            "usage",
            json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 }),
        ),
        (
            "failsoft",
            json!({ "provider": "alpha", "attempt": 1, "source": "ai" }),
        ),
    ] {
        assert_eq!(body[key], value, "{key}");
    }
    assert_eq!(alpha.question_count(), 1);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn the_provider_gets_the_callers_messages_and_supported_parameters() {
    let (alpha, app) = service().await;
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "text", "text": "One?" }] },
        { "role": "assistant", "content": "Two." },
        { "role": "user", "content": "Three?" },
    ]);
    let body = json!({
        "model": "auto", "messages": messages, "max_completion_tokens": 77, "temperature": 0.25,
        "stop": "END", "user": "x", "seed": 4, "metadata": { "a": "b" }, "tools": null, "n": 1,
    });
    assert_eq!(app.completion_request(&body).send().await.status, 200);
    let request = &alpha.requests()[0].1;
    assert_eq!(
        request["messages"],
        json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "One?" },
            { "role": "assistant", "content": "Two." },
            { "role": "user", "content": "Three?" },
        ])
    );
    assert_eq!(
        (&request["model"], &request["max_tokens"]),
        (&json!("alpha-model"), &json!(77))
    );
    assert_eq!(
        (&request["temperature"], &request["stop"]),
        (&json!(0.25), &json!(["END"]))
    );
    for name in ["user", "seed", "metadata", "n", "tools"] {
        assert!(request.get(name).is_none(), "{name} in {request}");
    }
}

#[tokio::test]
async fn a_streamed_completion_has_the_documented_headers_and_chunks() {
    let (_alpha, app) = service().await;
    let request = app
        .completion_request(&streaming_body("What jumps?"))
        .header("accept-encoding", "gzip, br, zstd");
    let answer = CompletionStream::open(request).await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("transfer-encoding", "chunked"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("content-encoding", ""),
        ("x-provider", "alpha"),
        ("x-source", "ai"),
        ("x-degraded", "false"),
        ("x-attempts", "1"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(!answer.header("x-request-id").is_empty());
    let answer = answer.read_to_end().await;
    assert_eq!(
        (answer.text().as_str(), answer.finish_reason().as_str()),
        (TEXT, "stop")
    );
    assert_eq!(
        (answer.text_sources(), answer.error),
        (vec!["alpha 1 ai".to_owned()], None)
    );
    for chunk in &answer.chunks {
        assert_eq!(chunk["model"], "alpha-model", "{chunk}");
        assert_eq!(chunk.get("usage"), None, "unrequested usage in {chunk}");
    }
    app.wait_until_idle().await;
}

#[tokio::test]
async fn usage_is_sent_last_and_only_on_request() {
    let (_alpha, app) = service().await;
    let mut body = streaming_body("What jumps?");
    body["stream_options"] = json!({ "include_usage": true });
    let answer = CompletionStream::open(app.completion_request(&body))
        .await
        .read_to_end()
        .await;
    let last = answer.chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"],
        json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 })
    );
    assert_eq!(answer.text(), TEXT);
    for options in [Value::Null, json!({}), json!({ "include_usage": false })] {
        body["stream_options"] = options;
        let answer = CompletionStream::open(app.completion_request(&body))
            .await
            .read_to_end()
            .await;
        assert!(
            answer
                .chunks
                .iter()
                .all(|chunk| chunk["choices"] != json!([]))
        );
    }
}

#[tokio::test]
async fn text_is_streamed_as_it_arrives() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["One ", "two "]),
        gate.wait_step(),
        send_text(&token_event("three.")),
        gate.wait_step(),
        send_text(&stream_end()),
    ])
    .await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut answer = app.stream_answer("Count!").await;
    answer.read_until_text("One two ").await;
    gate.let_one_through();
    answer.read_until_text("One two three.").await;
    gate.let_one_through();
    assert_eq!(answer.read_to_end().await.finish_reason(), "stop");
}

#[tokio::test]
async fn the_finish_reason_is_passed_on() {
    for (reason, expected) in [
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
    ] {
        let end = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
            .to_string();
        let script = vec![
            partial_answer(["Some ", "text"]),
            send_text(&(sse_event(&end) + &sse_event("[DONE]") + &last_http_chunk())),
        ];
        let alpha = ScriptedProvider::start(script).await;
        let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
        let answer = app.stream_answer("What?").await.read_to_end().await;
        assert_eq!(
            (answer.text().as_str(), answer.finish_reason().as_str()),
            ("Some text", expected)
        );
        let answer = app
            .completion_request(&question_body("What?"))
            .send()
            .await
            .json();
        assert_eq!(answer["choices"][0]["finish_reason"], expected);
        assert_eq!(answer["choices"][0]["message"]["content"], "Some text");
    }
}

#[tokio::test]
async fn a_content_filter_is_returned_as_the_answer() {
    let body =
        json!({ "error": { "message": "no", "code": "content_filter", "type": null } }).to_string();
    let refusal = crate::harness::error_response(400, "content-type: application/json\r\n", &body);
    let alpha = ScriptedProvider::start(vec![refusal]).await;
    let beta = ScriptedProvider::answering(TEXT).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app.stream_answer("What?").await;
    assert_eq!(
        (answer.header("x-provider"), answer.header("x-source")),
        ("alpha", "ai")
    );
    let answer = answer.read_to_end().await;
    assert_eq!(answer.finish_reason(), "content_filter");
    assert!(!answer.text().is_empty());
    let answer = app
        .completion_request(&question_body("What?"))
        .send()
        .await
        .json();
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
    assert_eq!((alpha.question_count(), beta.question_count()), (2, 0));
    assert_eq!(app.provider_status("alpha").await["counts"]["failure"], 0);
}

#[tokio::test]
async fn one_connection_serves_several_requests() {
    let (_alpha, app) = service().await;
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    for body in [
        streaming_body("One?"),
        question_body("Two?"),
        streaming_body("Three?"),
        json!([]),
        question_body("Four?"),
    ] {
        let body = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut received = String::new();
        let is_complete = |received: &str| {
            let length = received
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split_once("\r\n"));
            match (length, received.split_once("\r\n\r\n")) {
                (Some((length, _)), Some((_, body))) => Ok(body.len()) == length.parse(),
                _ => received.ends_with("\r\n0\r\n\r\n"),
            }
        };
        while !is_complete(&received) {
            let mut bytes = [0; 4096];
            let read = eventually("an answer", stream.read(&mut bytes))
                .await
                .unwrap();
            assert_ne!(read, 0, "closed after {received}");
            received += std::str::from_utf8(&bytes[..read]).unwrap();
        }
        assert!(
            received.contains("[DONE]")
                || received.contains(TEXT)
                || received.contains("JSON object"),
            "{received}"
        );
    }
}

#[tokio::test]
async fn models_lists_auto_providers_and_models() {
    let (_alpha, app) = service().await;
    let list = app.request("GET", "/v1/models").send().await;
    let again = app.request("GET", "/v1/models").send().await;
    assert!(list.header("x-request-id").starts_with("req-"));
    assert_ne!(list.header("x-request-id"), again.header("x-request-id"));
    assert_eq!(list.status, 200);
    let list = list.json();
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().unwrap();
    let names: Vec<_> = models
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["auto", "alpha", "alpha-model"]);
    for model in models {
        assert_eq!(
            (&model["object"], &model["owned_by"]),
            (&json!("model"), &json!("failsoft"))
        );
        assert!(model["created"].is_u64(), "{model}");
        let path = format!("/v1/models/{}", model["id"].as_str().unwrap());
        assert_eq!(app.request("GET", &path).send().await.json(), *model);
    }
    let unknown = app.request("GET", "/v1/models/gpt-9").send().await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test]
async fn http_1_0_streams_are_unchunked_and_end_with_the_connection() {
    let (_alpha, app) = service().await;
    let body = streaming_body("What jumps?").to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.0\r\nhost: 127.0.0.1\r\nconnection: keep-alive\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut received = String::new();
    eventually("the whole answer", stream.read_to_string(&mut received))
        .await
        .unwrap();
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.0 200") && !head.to_lowercase().contains("transfer-encoding"),
        "{head}"
    );
    assert!(
        body.starts_with("data: {") && body.ends_with("data: [DONE]\n\n"),
        "{body}"
    );
}
