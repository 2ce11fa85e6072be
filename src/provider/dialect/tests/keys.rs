//! A key appears in the requests of its own provider only, and messages appear in no report.

use super::*;

#[test]
fn failures_contain_neither_key_nor_answer_text() {
    for kind in KINDS {
        let error =
            format!(r#"{{"error":{{"message":"Bad key {KEY}, or Bearer {KEY}","code":"x"}}}}"#);
        let failure = classify(kind, 401, &[], &error);
        assert_eq!(failure.detail, "Bad key ***, or Bearer ***");
        let mut reader = dialect(kind).decoder();
        let failure = reader
            .decode("message", &error, &mut Vec::new())
            .unwrap_err();
        assert!(!failure.to_string().contains("canary"), "{failure}");
        let raw = classify(kind, 500, &[], &format!("{}{KEY}", "x ".repeat(145)));
        assert!(
            !raw.detail.contains("canary"),
            "masked before it is truncated: {raw}"
        );
        let answer = r#"{"secret":"what the visitor said"}"#;
        assert!(
            !classify(kind, 200, &[], answer)
                .to_string()
                .contains("visitor")
        );
        let mut reader = dialect(kind).decoder();
        let malformed = reader.decode("message", "what the visitor said", &mut Vec::new());
        assert_eq!(malformed.unwrap_err().detail, "an event that is not JSON");
    }
}

#[test]
fn debug_of_a_request_shows_neither_key_nor_text() {
    for kind in KINDS {
        let call = dialect(kind).chat_request(&ask());
        let shown = format!("{call:?}");
        assert!(
            call.headers.iter().any(|(_, value)| value.contains(KEY)),
            "{kind:?}"
        );
        assert!(
            !shown.contains("canary") && !shown.contains("Hi"),
            "{shown}"
        );
        assert!(!call.path.contains("canary") && !call.body.contains("canary"));
    }
}

#[test]
fn no_key_header_is_sent_without_a_key() {
    for kind in KINDS {
        for key in [None, Some(" \n".into())] {
            let call = new_dialect(kind, ModelConfig { key, ..model() }).chat_request(&ask());
            let key_headers = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];
            assert!(
                key_headers.iter().all(|name| header(&call, name).is_none()),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn each_request_carries_its_own_key_in_one_header() {
    const KEYS: [&str; 2] = ["first-canary-key", "second-canary-key"];
    for kind in KINDS {
        for (own, other) in [(KEYS[0], KEYS[1]), (KEYS[1], KEYS[0])] {
            let dialect = new_dialect(
                kind,
                ModelConfig {
                    key: Some(own.into()),
                    ..model()
                },
            );
            for call in [dialect.chat_request(&ask()), dialect.list_models_request()] {
                let holding = call
                    .headers
                    .iter()
                    .filter(|(_, value)| value.contains(own))
                    .count();
                assert_eq!(holding, 1, "{kind:?}");
                let headers: String = call
                    .headers
                    .iter()
                    .map(|(_, value)| value.as_str())
                    .collect();
                assert!(!headers.contains(other), "{kind:?}");
                let elsewhere = format!("{}{}{call:?}", call.path, call.body);
                assert!(!elsewhere.contains("canary"), "{elsewhere}");
            }
        }
    }
}

#[test]
fn no_part_of_a_failure_contains_a_key() {
    let header = "token-of-the-operator";
    for kind in KINDS {
        let mut model = model();
        model.headers = vec![("x-gate".into(), format!("Basic {header}"))];
        let dialect = new_dialect(kind, model);
        for key in [KEY, header] {
            // The key in every member that may hold text.
            let error = format!(
                r#"{{"error":{{"message":"{key}","type":"{key}","code":"{key}","param":"{key}","status":"{key}","details":[{{"reason":"{key}"}}]}},"message":"{key}"}}"#
            );
            for (status, body) in [
                (400, error.as_str()),
                (401, &error),
                (500, &error),
                (200, &error),
                (502, key),
            ] {
                let response = ErrorResponse {
                    status,
                    header: &|_| Some(key.to_owned()),
                    body: body.as_bytes(),
                    now: Timestamp(0),
                };
                let failure = dialect.classify_error(&response);
                let shown = format!("{failure} {failure:?} {}", failure.log_safe());
                assert!(!shown.contains(key), "{kind:?} {status}: {shown}");
            }
            let failure = dialect
                .decoder()
                .decode("message", &error, &mut Vec::new())
                .unwrap_err();
            let shown = format!("{failure} {failure:?} {}", failure.log_safe());
            assert!(!shown.contains(key), "{kind:?}: {shown}");
        }
    }
}

#[test]
fn failure_quotes_the_message_and_names_the_code() {
    for (kind, status, body, code) in [
        (
            DialectKind::OpenAi,
            429,
            r#"{"error":{"message":"Slow, Ann","type":"requests","code":"rate_limit_exceeded"}}"#,
            "rate_limit_exceeded",
        ),
        (
            DialectKind::OpenAi,
            400,
            r#"{"error":{"message":"Not you, Ann","type":"BadRequestError","code":400}}"#,
            "BadRequestError",
        ),
        (
            DialectKind::OpenAi,
            500,
            r#"{"error":{"message":"Ann","type":"about Ann","code":"500"}}"#,
            "500",
        ),
        (
            DialectKind::Anthropic,
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Ann"}}"#,
            "overloaded_error",
        ),
        (
            DialectKind::Anthropic,
            429,
            r#"{"error":{"type":"rate_limit_error","message":"Ann","details":{"error_code":"ramp_limit_exceeded"}}}"#,
            "ramp_limit_exceeded",
        ),
        (
            DialectKind::Gemini,
            503,
            r#"{"error":{"code":503,"message":"Ann","status":"UNAVAILABLE"}}"#,
            "UNAVAILABLE",
        ),
        (
            DialectKind::Gemini,
            400,
            r#"{"error":{"code":400,"message":"Ann","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#,
            "API_KEY_INVALID",
        ),
        (
            DialectKind::Azure,
            404,
            r#"{"error":{"code":"DeploymentNotFound","message":"Ann"}}"#,
            "DeploymentNotFound",
        ),
        (DialectKind::Ollama, 500, r#"{"error":"Ann"}"#, ""),
        (DialectKind::Ollama, 502, "Ann", ""),
    ] {
        let failure = classify(kind, status, &[], body);
        assert_eq!(
            (failure.code.as_str(), failure.is_provider_text),
            (code, true),
            "{body}"
        );
        assert!(
            failure.detail.contains("Ann") && !failure.log_safe().contains("Ann"),
            "{failure:?}"
        );
    }
}
