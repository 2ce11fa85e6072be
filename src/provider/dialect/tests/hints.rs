//! The wait that a provider requests.

use std::time::Duration;

use serde_json::json;

use super::*;

const DAY_MS: u64 = 86_400_000;

fn wait(status: u16, headers: &[(&str, &str)], body: &str) -> Option<Duration> {
    classify(DialectKind::OpenAi, status, headers, body).retry_after
}

#[test]
fn retry_after_headers_are_parsed_in_all_forms() {
    let future = "Thu, 01 Jan 2026 00:00:30 GMT";
    for (headers, ms) in [
        (vec![("retry-after", "5")], Some(5_000)),
        (vec![("retry-after", " 1.5 ")], Some(1_500)),
        (vec![("retry-after", "0")], Some(0)),
        (vec![("retry-after", "-1")], Some(0)),
        (vec![("retry-after", "1e9")], Some(DAY_MS)),
        (vec![("retry-after", "86400")], Some(DAY_MS)),
        (
            vec![("retry-after", "999999999999999999999999999999")],
            Some(DAY_MS),
        ),
        (vec![("retry-after", "30s")], Some(30_000)),
        (vec![("retry-after", future)], Some(30_000)),
        (
            vec![("retry-after", "Thursday, 01-Jan-26 00:00:30 GMT")],
            Some(30_000),
        ),
        (
            vec![("retry-after", "Thu Jan  1 00:00:30 2026")],
            Some(30_000),
        ),
        (
            vec![("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")],
            Some(0),
        ),
        (
            vec![("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")],
            Some(DAY_MS),
        ),
        (vec![("retry-after", "soon")], None),
        (vec![("retry-after", "")], None),
        (vec![("retry-after", "NaN")], None),
        (vec![("retry-after", "5, 10")], None),
        (
            vec![("retry-after-ms", "4003"), ("retry-after", "5")],
            Some(4_003),
        ),
        (vec![("retry-after-ms", "250.5")], Some(250)),
        (
            vec![("retry-after-ms", "rubbish"), ("retry-after", "5")],
            Some(5_000),
        ),
        (
            vec![("retry-after-ms", "-7"), ("retry-after", "5")],
            Some(0),
        ),
        (vec![], None),
    ] {
        let ms_waited = wait(429, &headers, "").map(|wait| wait.as_millis());
        assert_eq!(ms_waited, ms.map(u128::from), "{headers:?}");
    }
}

#[test]
fn body_is_used_without_a_retry_after_header() {
    let info = |delay: Value| json!({"error": {"code": 429, "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]}});
    let words = |message: &str| json!({"error": {"message": message, "code": 429}});
    for (body, ms) in [
        (info(json!("58s")), Some(58_000)),
        (info(json!("58.25s")), Some(58_250)),
        (
            info(json!({"seconds": 3, "nanos": 500_000_000})),
            Some(3_500),
        ),
        (info(json!({"seconds": "3"})), Some(3_000)),
        (info(json!({})), None),
        (info(json!("-5s")), None),
        (info(json!("99999999h")), Some(DAY_MS)),
        (
            words("Quota exceeded. Please retry in 58.2s."),
            Some(58_200),
        ),
        (words("Please retry after 45 seconds."), Some(45_000)),
        (
            words("Please retry after 1 minute 30 seconds, or later"),
            Some(90_000),
        ),
        (words("Please try again in 6m0s. Visit"), Some(360_000)),
        (words("Please try again in 850ms."), Some(850)),
        (words("Please try again in 114h0m0s"), Some(DAY_MS)),
        (words("Please try again in a while, after 5s"), None),
        (words("Please retry in 5 bananas"), None),
        (words("Please try again in 5"), None),
    ] {
        let body = body.to_string();
        let ms_waited = wait(429, &[], &body).map(|wait| wait.as_millis());
        assert_eq!(ms_waited, ms.map(u128::from), "{body}");
    }
    let both = words("Please retry in 58.2s.").to_string();
    assert_eq!(
        wait(429, &[("retry-after", "1")], &both),
        Some(Duration::from_secs(1))
    );
}

#[test]
fn exhausted_rate_limit_gives_its_reset_time() {
    let requests = |left, reset| {
        [
            ("x-ratelimit-remaining-requests", left),
            ("x-ratelimit-reset-requests", reset),
        ]
    };
    let tokens = |left, reset| {
        [
            ("x-ratelimit-remaining-tokens", left),
            ("x-ratelimit-reset-tokens", reset),
        ]
    };
    for (headers, ms) in [
        ([requests("0", "6m0s"), tokens("100", "1s")], Some(360_000)),
        ([requests("9", "6m0s"), tokens("0", "53.5s")], Some(53_500)),
        ([requests("0", "6m0s"), tokens("0", "53.5s")], Some(360_000)),
        ([requests("9", "6m0s"), tokens("100", "1s")], Some(1_000)),
        ([requests("0", "12"), tokens("1", "x")], Some(12_000)),
        ([requests("0", "1795000000"), tokens("1", "x")], None),
    ] {
        let ms_waited = wait(429, &headers.concat(), "").map(|wait| wait.as_millis());
        assert_eq!(ms_waited, ms, "{headers:?}");
        assert_eq!(wait(503, &headers.concat(), ""), None, "not a rate limit");
    }
    let anthropic = [
        ("anthropic-ratelimit-requests-remaining", "5"),
        ("anthropic-ratelimit-requests-reset", "2026-01-01T01:00:00Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        (
            "anthropic-ratelimit-input-tokens-reset",
            "2026-01-01T00:00:42Z",
        ),
    ];
    assert_eq!(wait(429, &anthropic, ""), Some(Duration::from_secs(42)));
}

#[test]
fn permanent_faults_have_no_retry_after() {
    let header = [("retry-after", "5")];
    for (status, hinted) in [
        (400, false),
        (401, false),
        (404, false),
        (413, false),
        (402, true),
        (429, true),
        (500, true),
        (503, true),
        (529, true),
    ] {
        let body = r#"{"error":{"message":"x"}}"#;
        assert_eq!(wait(status, &header, body).is_some(), hinted, "{status}");
    }
}
