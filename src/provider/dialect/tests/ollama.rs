//! Ollama's own API.

use serde_json::json;

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        DialectKind::Ollama,
        "ollama",
        &[
            ("whole.ndjson", "Hello, wörld", Ok(FinishReason::Stop)),
            (
                "done_without_reason.ndjson",
                "Hello",
                Ok(FinishReason::Stop),
            ),
            (
                "text_in_the_last_line.ndjson",
                "Hello world",
                Ok(FinishReason::Stop),
            ),
            ("length.ndjson", "Hello, and", Ok(FinishReason::Length)),
            ("load.ndjson", "", Err(FaultKind::Empty)),
            ("thinking.ndjson", "Hello", Ok(FinishReason::Stop)),
            ("truncated.ndjson", "Hello", Err(FaultKind::Truncated)),
            ("error_first.ndjson", "", Err(FaultKind::ServerError)),
            (
                "error_in_the_middle.ndjson",
                "Hel",
                Err(FaultKind::ServerError),
            ),
            ("rubbish.ndjson", "Hel", Err(FaultKind::Malformed)),
            ("whole.json", "Hello, world", Ok(FinishReason::Stop)),
            ("error_200.json", "", Err(FaultKind::Misconfigured)),
        ],
    );
    check_truncation(DialectKind::Ollama, "ollama", "whole.ndjson", 3);
}

#[test]
fn usage_comes_with_the_last_line() {
    let answer = decode_fixture(DialectKind::Ollama, "ollama", "thinking.ndjson");
    let usage = answer.usage.unwrap();
    assert!(answer.has_thinking);
    assert_eq!((usage.input_tokens, usage.output_tokens), (11, 7));
    assert_eq!(
        decode_fixture(DialectKind::Ollama, "ollama", "truncated.ndjson").usage,
        None
    );
}

#[test]
fn errors_are_classified() {
    check_errors(
        DialectKind::Ollama,
        &[
            (
                400,
                r#"{"error":"invalid options: num_predict"}"#,
                FaultKind::BadRequest,
            ),
            (
                400,
                r#"{"error":"the input length exceeds the context length"}"#,
                FaultKind::TooLong,
            ),
            (
                401,
                r#"{"error":"unauthorized","signin_url":"https://ollama.example/connect"}"#,
                FaultKind::Unauthorized,
            ),
            (
                402,
                r#"{"error":"payment required"}"#,
                FaultKind::QuotaSpent,
            ),
            (
                404,
                r#"{"error":"model 'x' not found"}"#,
                FaultKind::Misconfigured,
            ),
            (413, r#"{"error":"too large"}"#, FaultKind::TooLong),
            (
                429,
                r#"{"error":"too many concurrent requests"}"#,
                FaultKind::RateLimited,
            ),
            (
                500,
                r#"{"error":"model requires more system memory (9 GiB) than is available (2 GiB)"}"#,
                FaultKind::ServerError,
            ),
            (502, r#"{"error":"upstream"}"#, FaultKind::ServerError),
            (
                503,
                r#"{"error":"server busy, please try again. maximum pending requests exceeded"}"#,
                FaultKind::Overloaded,
            ),
            (
                200,
                r#"{"error":"model 'x' not found"}"#,
                FaultKind::Misconfigured,
            ),
            (200, r#"{"error":"unauthorized"}"#, FaultKind::Unauthorized),
            (
                200,
                r#"{"error":"server busy, please try again"}"#,
                FaultKind::Overloaded,
            ),
            (
                200,
                r#"{"error":"the prompt is too long"}"#,
                FaultKind::TooLong,
            ),
        ],
    );
}

#[test]
fn request_matches_the_vendor_format() {
    let mut model = model();
    model.temperature = Some(0.5);
    model.context_tokens = 8192;
    let call = new_dialect(DialectKind::Ollama, model).chat_request(&ask());
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
    let options = &body(&dialect(DialectKind::Ollama).chat_request(&ask()))["options"];
    assert_eq!(*options, json!({"num_predict": 64}));
    assert_eq!(
        dialect(DialectKind::Ollama).list_models_request().path,
        "/api/tags"
    );
}
