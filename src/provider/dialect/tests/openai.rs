//! OpenAI and compatible servers.

use serde_json::json;

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        DialectKind::OpenAi,
        "openai",
        &[
            ("whole.sse", "Hello, wörld 🌍!", Ok(FinishReason::Stop)),
            ("finish_without_done.sse", "Hello", Ok(FinishReason::Stop)),
            ("done_without_finish.sse", "Hello", Ok(FinishReason::Stop)),
            ("done_at_once.sse", "", Err(FaultKind::Empty)),
            ("no_text.sse", "", Err(FaultKind::Empty)),
            ("truncated.sse", "Hello, w", Err(FaultKind::Truncated)),
            (
                "text_and_finish_in_one.sse",
                "Hello world",
                Ok(FinishReason::Stop),
            ),
            ("odd_chunks.sse", "Hello", Ok(FinishReason::Stop)),
            (
                "keepalives_and_twice_done.sse",
                "Hello",
                Ok(FinishReason::Stop),
            ),
            ("thinking.sse", "Hello", Ok(FinishReason::Stop)),
            ("tool_call.sse", "", Err(FaultKind::Empty)),
            ("content_parts.sse", "Hello", Ok(FinishReason::Stop)),
            ("length.sse", "Hello, and", Ok(FinishReason::Length)),
            (
                "content_filter.sse",
                "Well",
                Ok(FinishReason::ContentFilter),
            ),
            (
                "refusal.sse",
                "I can't help with that.",
                Ok(FinishReason::ContentFilter),
            ),
            ("unknown_finish.sse", "Hello", Ok(FinishReason::Stop)),
            ("error_object.sse", "Hello", Err(FaultKind::ServerError)),
            ("error_text.sse", "Hello", Err(FaultKind::RateLimited)),
            ("error_first.sse", "", Err(FaultKind::RateLimited)),
            ("error_event.sse", "", Err(FaultKind::ServerError)),
            ("error_field.sse", "Hello", Err(FaultKind::ServerError)),
            (
                "error_after_finish.sse",
                "Hello",
                Err(FaultKind::ServerError),
            ),
            ("finish_error.sse", "Hello", Err(FaultKind::ServerError)),
            (
                "finish_error_alone.sse",
                "Hello",
                Err(FaultKind::ServerError),
            ),
            ("rubbish.sse", "Hello", Err(FaultKind::Malformed)),
            ("web_page.sse", "", Err(FaultKind::Malformed)),
            ("whole.json", "Hello, world", Ok(FinishReason::Stop)),
            ("error_200.json", "", Err(FaultKind::QuotaSpent)),
        ],
    );
    check_truncation(DialectKind::OpenAi, "openai", "whole.sse", 4);
}

#[test]
fn usage_is_accepted_in_any_chunk() {
    let usage = |file| {
        let usage = decode_fixture(DialectKind::OpenAi, "openai", file)
            .usage
            .unwrap();
        (usage.input_tokens, usage.output_tokens, usage.estimated)
    };
    assert_eq!(usage("whole.sse"), (11, 7, false));
    assert_eq!(usage("text_and_finish_in_one.sse"), (3, 2, false));
    assert_eq!(usage("whole.json"), (11, 3, false));
    assert_eq!(
        decode_fixture(DialectKind::OpenAi, "openai", "length.sse").usage,
        None
    );
}

#[test]
fn thinking_counts_as_progress_but_roles_do_not() {
    for (file, has_thinking) in [
        ("thinking.sse", true),
        ("tool_call.sse", true),
        ("content_parts.sse", true),
        ("whole.sse", false),
        ("odd_chunks.sse", false),
    ] {
        assert_eq!(
            decode_fixture(DialectKind::OpenAi, "openai", file).has_thinking,
            has_thinking,
            "{file}"
        );
    }
}

#[test]
fn end_mark_finishes_the_stream_but_finish_reason_does_not() {
    let dialect = dialect(DialectKind::OpenAi);
    let mut reader = dialect.decoder();
    let mut out = Vec::new();
    let finish = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
    reader.decode("message", finish, &mut out).unwrap();
    assert!(!reader.is_finished(), "usage may follow");
    reader.decode("message", "[DONE]", &mut out).unwrap();
    assert!(reader.is_finished());
    let late = [finish, "rubbish", "[DONE]"].map(|data| reader.decode("message", data, &mut out));
    assert!(late.iter().all(Result::is_ok));
    assert_eq!(out, [StreamEvent::Text("a".into())]);
}

#[test]
fn complete_json_needs_no_finish_reason_but_a_chunk_does() {
    for (choice, text, end) in [
        (
            r#"{"message":{"content":null,"refusal":"No."},"finish_reason":"stop"}"#,
            "No.",
            Ok(FinishReason::ContentFilter),
        ),
        (
            r#"{"message":{"content":"a"}}"#,
            "a",
            Ok(FinishReason::Stop),
        ),
        (
            r#"{"message":null,"delta":{"content":"a"}}"#,
            "a",
            Err(FaultKind::Truncated),
        ),
        (
            r#"{"message":{},"delta":{"content":"a"}}"#,
            "a",
            Err(FaultKind::Truncated),
        ),
    ] {
        let data = format!(r#"{{"choices":[{choice}]}}"#);
        let answer = decode_events(
            dialect(DialectKind::OpenAi).as_ref(),
            &[("message".into(), data)],
        );
        let verdict = answer.result.map_err(|failure| failure.fault);
        assert_eq!((answer.text.as_str(), verdict), (text, end), "{choice}");
    }
}

#[test]
fn request_matches_the_vendor_format() {
    let mut model = model();
    model.base_url = "https://api.openai.com/v1".into();
    model.temperature = Some(0.5);
    let call = new_dialect(DialectKind::OpenAi, model).chat_request(&ask());
    assert_eq!(call.path, "/chat/completions");
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
        "stream_options": {"include_usage": true},
        "max_completion_tokens": 64,
        "temperature": 0.5,
    });
    assert_eq!(body(&call), wanted);
    let plain = ChatRequest {
        system: "".into(),
        ..ask()
    };
    let sent = body(&dialect(DialectKind::OpenAi).chat_request(&plain));
    assert_eq!(sent["messages"][0]["role"], "user");
    assert_eq!(
        sent["max_tokens"], 64,
        "another server than the vendor's own"
    );
    assert!(sent.get("temperature").is_none() && sent.get("max_completion_tokens").is_none());
    assert_eq!(
        dialect(DialectKind::OpenAi).list_models_request().path,
        "/models"
    );
}
