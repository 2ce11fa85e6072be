//! Access to the API: with keys, without keys from the local machine, and never from other origins.

use std::time::Duration;

use failsoft::config::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{
    ScriptedProvider, TestApp, eventually, question_body, streaming_body, test_settings,
};

const KEY: &str = "fs-canary-of-a-key";

async fn service(keys: &[&str]) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.server.api_keys = keys.iter().map(|key| Secret::new(*key)).collect();
    settings.server.allowed_origins = vec!["https://partner.example".into()];
    (alpha, TestApp::start(settings).await)
}

/// The status of the response to a request with this `Authorization` value, which is sent
/// unchanged.
async fn status(app: &TestApp, authorization: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    let body = question_body("What?").to_string();
    let mut request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\nauthorization: ",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(authorization);
    request.extend_from_slice(b"\r\n\r\n");
    request.extend_from_slice(body.as_bytes());
    let (mut reader, mut writer) = stream.split();
    let mut received = [0; 12];
    let (_, read) = eventually("a response", async {
        tokio::join!(writer.write_all(&request), reader.read_exact(&mut received))
    })
    .await;
    read.unwrap();
    std::str::from_utf8(&received)
        .unwrap()
        .strip_prefix("HTTP/1.1 ")
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn only_a_complete_key_is_accepted() {
    let (alpha, app) = service(&["other", KEY]).await;
    for key in [KEY, "other"] {
        assert_eq!(status(&app, format!("Bearer {key}").as_bytes()).await, 200);
        assert_eq!(
            status(&app, format!("bearer  {key} ").as_bytes()).await,
            200
        );
    }
    assert_eq!(alpha.question_count(), 4);
    let mut invalid: Vec<Vec<u8>> = [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer fs-canary-of-a-ke",
        "Bearer fs-canary-of-a-keyy",
        "Bearer FS-CANARY-OF-A-KEY",
        "fs-canary-of-a-key",
        "Basic fs-canary-of-a-key",
        "Bearer \"fs-canary-of-a-key\"",
        "Bearer 'other'",
        "Bearer other,fs-canary-of-a-key",
        "Bearer fs-canary-of-a-key other",
        "Bearer\tother",
        "Bearer=other",
        "Bearer %6fther",
        "\"\"\"",
        "Bearer \\",
        "{}",
        "Bearer null",
        "Bearer undefined",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    // Invalid UTF-8, Latin 1, and a value longer than any key.
    invalid.extend([
        b"Bearer \xff\xfe\x80".to_vec(),
        b"Bearer oth\xe9r".to_vec(),
        b"\xc3\x28".to_vec(),
    ]);
    invalid.push([b"Bearer ".as_slice(), &[b'k'; 10_000]].concat());
    // Random bytes that are allowed in a header.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    invalid.extend((1..=200).map(|length| {
        let byte = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Printable ASCII, or beyond ASCII.
            [b' ' + (state >> 58) as u8, 0x80 | (state >> 57) as u8][(state >> 40) as usize % 2]
        };
        [b"Bearer ".to_vec(), (0..length).map(byte).collect()].concat()
    }));
    for value in invalid {
        assert_eq!(
            status(&app, &value).await,
            401,
            "{}",
            String::from_utf8_lossy(&value)
        );
    }
    assert_eq!(alpha.question_count(), 4);
}

#[tokio::test]
async fn malformed_authorization_headers_are_rejected() {
    let (alpha, app) = service(&[KEY]).await;
    let huge = [b"Bearer ".as_slice(), &vec![b'k'; 1024 * 1024]].concat();
    for value in [
        b"Bearer other\0".as_slice(),
        b"Bearer \x01\x02",
        b"Bearer a\rb",
        &huge,
    ] {
        let status = status(&app, value).await;
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(alpha.question_count(), 0);
    assert_eq!(
        status(&app, format!("Bearer {KEY}").as_bytes()).await,
        200,
        "the service still answers"
    );
}

#[tokio::test]
async fn every_route_requires_a_key() {
    let (alpha, app) = service(&[KEY]).await;
    for (method, path) in [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/alpha"),
        ("GET", "/v1/models/none"),
    ] {
        for key in ["wrong", ""] {
            let request = app
                .request(method, path)
                .header("authorization", &format!("Bearer {key}"));
            let answer = request.json(&streaming_body("What?")).send().await;
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, "Bearer"),
                "{method} {path}"
            );
            let error = &answer.json()["error"];
            assert_eq!(error["code"], "invalid_api_key");
            assert_eq!(
                (&error["type"], &error["param"]),
                (&json!("invalid_request_error"), &Value::Null)
            );
            assert!(
                !answer.body.contains(KEY) && !answer.body.contains("wrong"),
                "{}",
                answer.body
            );
        }
        let request = app
            .request(method, path)
            .header("authorization", &format!("Bearer {KEY}"));
        assert_ne!(
            request.json(&question_body("What?")).send().await.status,
            401
        );
    }
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn a_missing_key_is_rejected_before_the_body_is_read() {
    let (_alpha, app) = service(&[KEY]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut received = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut received)).await;
    read.expect("the response waits for the body").unwrap();
    assert_eq!(&received, b"HTTP/1.1 401");
}

#[tokio::test]
async fn other_origins_are_rejected() {
    let (alpha, app) = service(&[]).await;
    let own = format!("http://127.0.0.1:{}", app.port);
    for (origin, is_allowed) in [
        ("https://evil.example", false),
        ("null", false),
        ("", false),
        ("https://partner.example", false),
        ("http://127.0.0.1", false),
        (own.as_str(), true),
    ] {
        let answer = app
            .completion_request(&question_body("What?"))
            .header("origin", origin)
            .send()
            .await;
        assert_eq!(
            answer.status,
            if is_allowed { 200 } else { 403 },
            "{origin}"
        );
        if !is_allowed {
            assert_eq!(answer.json()["error"]["code"], "forbidden_origin");
        }
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    assert_eq!(alpha.question_count(), 1);
    // A key does not help.
    let (_alpha, app) = service(&[KEY]).await;
    let request = app
        .completion_request(&question_body("What?"))
        .header("origin", "https://evil.example");
    assert_eq!(
        request
            .header("authorization", &format!("Bearer {KEY}"))
            .send()
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn without_keys_proxied_requests_are_rejected() {
    let (alpha, app) = service(&[]).await;
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.7"),
        ("forwarded", "for=192.0.2.7"),
        ("via", "1.1 proxy"),
    ] {
        let answer = app
            .completion_request(&question_body("What?"))
            .header(name, value)
            .send()
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (401, &json!("invalid_api_key")),
            "{name}"
        );
    }
    assert_eq!(
        app.completion_request(&question_body("What?"))
            .host("evil.example")
            .send()
            .await
            .status,
        401
    );
    assert_eq!(alpha.question_count(), 0);
}
