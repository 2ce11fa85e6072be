//! Ollama's own API.

use serde_json::json;

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        Kind::Ollama,
        "ollama",
        &[
            ("whole.ndjson", "Hello, wörld", Ok(Finish::Stop)),
            ("done_without_reason.ndjson", "Hello", Ok(Finish::Stop)),
            (
                "text_in_the_last_line.ndjson",
                "Hello world",
                Ok(Finish::Stop),
            ),
            ("length.ndjson", "Hello, and", Ok(Finish::Length)),
            ("load.ndjson", "", Err(Fault::Empty)),
            ("thinking.ndjson", "Hello", Ok(Finish::Stop)),
            ("truncated.ndjson", "Hello", Err(Fault::Truncated)),
            ("error_first.ndjson", "", Err(Fault::ServerError)),
            ("error_in_the_middle.ndjson", "Hel", Err(Fault::ServerError)),
            ("rubbish.ndjson", "Hel", Err(Fault::Malformed)),
            ("whole.json", "Hello, world", Ok(Finish::Stop)),
            ("error_200.json", "", Err(Fault::Misconfigured)),
        ],
    );
    check_truncation(Kind::Ollama, "ollama", "whole.ndjson", 3);
}

#[test]
fn usage_comes_with_the_last_line() {
    let answer = decode_fixture(Kind::Ollama, "ollama", "thinking.ndjson");
    let usage = answer.usage.unwrap();
    assert!(answer.has_thinking);
    assert_eq!((usage.input_tokens, usage.output_tokens), (11, 7));
    assert_eq!(
        decode_fixture(Kind::Ollama, "ollama", "truncated.ndjson").usage,
        None
    );
}

#[test]
fn errors_are_classified() {
    check_errors(
        Kind::Ollama,
        &[
            (
                400,
                r#"{"error":"invalid options: num_predict"}"#,
                Fault::BadRequest,
            ),
            (
                400,
                r#"{"error":"the input length exceeds the context length"}"#,
                Fault::TooLong,
            ),
            (
                401,
                r#"{"error":"unauthorized","signin_url":"https://ollama.example/connect"}"#,
                Fault::Unauthorized,
            ),
            (402, r#"{"error":"payment required"}"#, Fault::QuotaSpent),
            (
                404,
                r#"{"error":"model 'x' not found"}"#,
                Fault::Misconfigured,
            ),
            (413, r#"{"error":"too large"}"#, Fault::TooLong),
            (
                429,
                r#"{"error":"too many concurrent requests"}"#,
                Fault::RateLimited,
            ),
            (
                500,
                r#"{"error":"model requires more system memory (9 GiB) than is available (2 GiB)"}"#,
                Fault::ServerError,
            ),
            (502, r#"{"error":"upstream"}"#, Fault::ServerError),
            (
                503,
                r#"{"error":"server busy, please try again. maximum pending requests exceeded"}"#,
                Fault::Overloaded,
            ),
            (
                200,
                r#"{"error":"model 'x' not found"}"#,
                Fault::Misconfigured,
            ),
            (200, r#"{"error":"unauthorized"}"#, Fault::Unauthorized),
            (
                200,
                r#"{"error":"server busy, please try again"}"#,
                Fault::Overloaded,
            ),
            (200, r#"{"error":"the prompt is too long"}"#, Fault::TooLong),
        ],
    );
}

#[test]
fn request_matches_the_vendor_format() {
    let mut model = model();
    model.temperature = Some(0.5);
    model.context_tokens = 8192;
    let call = of(Kind::Ollama, model).request(&ask());
    assert_eq!(
        (call.path.as_str(), call.framing),
        ("/api/chat", Framing::Lines)
    );
    assert_eq!(
        header(&call, "authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    let wanted = json!({
        "model": "some-model",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "How are you?"},
        ],
        "stream": true,
        "options": {"num_predict": 64, "num_ctx": 8192, "temperature": 0.5},
    });
    assert_eq!(body(&call), wanted);
    let options = &body(&dialect(Kind::Ollama).request(&ask()))["options"];
    assert_eq!(*options, json!({"num_predict": 64}));
    assert_eq!(dialect(Kind::Ollama).listing().path, "/api/tags");
}
