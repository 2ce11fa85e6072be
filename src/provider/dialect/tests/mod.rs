//! Every dialect against its fixtures and error tables. The bytes pass through `SseSanitizer`, as
//! in production.

mod anthropic;
mod azure;
mod finishes;
mod gemini;
mod hints;
mod keys;
mod learning;
mod ollama;
mod openai;
mod openai_errors;
mod orders;
mod properties;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::{
    Dialect, DialectKind, ErrorResponse, Framing, ModelConfig, ProviderRequest, new_dialect,
};
use crate::domain::{
    ChatMessage, ChatRequest, Failure, FaultKind, FinishReason, MessageRole, Timestamp, TokenUsage,
};
use crate::provider::sse_guard::SseSanitizer;
use crate::provider::stream_event::StreamEvent;

const KINDS: [DialectKind; 5] = [
    DialectKind::OpenAi,
    DialectKind::Anthropic,
    DialectKind::Gemini,
    DialectKind::Azure,
    DialectKind::Ollama,
];

const KEY: &str = "canary-key-0123456789";

fn model() -> ModelConfig {
    ModelConfig {
        base_url: "https://models.example".into(),
        name: "some-model".into(),
        key: Some(KEY.into()),
        ..ModelConfig::default()
    }
}

fn dialect(kind: DialectKind) -> Box<dyn Dialect> {
    new_dialect(kind, model())
}

fn ask() -> ChatRequest {
    let message = |role, text: &str| ChatMessage {
        role,
        text: text.into(),
    };
    ChatRequest {
        system: "Be kind.".into(),
        messages: Arc::new([
            message(MessageRole::User, "Hi"),
            message(MessageRole::Assistant, "Hello"),
            message(MessageRole::User, "How are you?"),
        ]),
        max_tokens: 64,
        ends_with_prefill: false,
        temperature: None,
        stop: Arc::default(),
    }
}

fn body(call: &ProviderRequest) -> Value {
    serde_json::from_str(&call.body).unwrap()
}

fn header<'a>(call: &'a ProviderRequest, name: &str) -> Option<&'a str> {
    let found = call.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// The name and data of each event of a body that arrives in these pieces.
fn events(framing: Framing, pieces: &[&[u8]]) -> Vec<(String, String)> {
    let mut guard = SseSanitizer::new(framing);
    let mut out = Vec::new();
    for piece in pieces {
        guard.feed(piece, &mut out).unwrap();
    }
    guard.finish(&mut out);
    let out = String::from_utf8(out).unwrap();
    let event = |block: &str| {
        let values = |name: &str| {
            block
                .lines()
                .filter_map(|line| line.strip_prefix(name))
                .collect::<Vec<_>>()
        };
        let name = values("event: ")
            .last()
            .copied()
            .unwrap_or("message")
            .to_owned();
        let data = values("data: ");
        (!data.is_empty()).then(|| (name, data.join("\n")))
    };
    out.split("\n\n").filter_map(event).collect()
}

/// A fixture and its framing.
fn fixture(kind: DialectKind, folder: &str, file: &str) -> (Framing, Vec<u8>) {
    let framing = match file.rsplit('.').next() {
        Some("sse") => Framing::Sse,
        Some("ndjson") => Framing::Lines,
        _ => dialect(kind).chat_request(&ask()).framing,
    };
    (framing, std::fs::read(fixtures(folder).join(file)).unwrap())
}

fn fixtures(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(folder)
}

/// All that a caller reads from one answer.
#[derive(Debug)]
struct DecodedAnswer {
    text: String,
    has_thinking: bool,
    usage: Option<TokenUsage>,
    result: Result<FinishReason, Failure>,
}

fn decode_events<'a>(
    dialect: &dyn Dialect,
    events: impl IntoIterator<Item = &'a (String, String)>,
) -> DecodedAnswer {
    let mut reader = dialect.decoder();
    let mut steps = Vec::new();
    let mut verdict = Ok(());
    for (name, data) in events {
        verdict = verdict.and_then(|()| reader.decode(name, data, &mut steps));
    }
    let mut answer = DecodedAnswer {
        text: String::new(),
        has_thinking: steps.contains(&StreamEvent::Thinking),
        usage: None,
        result: verdict.and_then(|()| reader.finish_result()),
    };
    for step in steps {
        match step {
            StreamEvent::Text(text) => {
                assert!(!text.is_empty());
                answer.text.push_str(&text);
            }
            StreamEvent::Usage(usage) => answer.usage = Some(usage),
            StreamEvent::Thinking => {}
            StreamEvent::Finished(finish) => panic!("a reader pushed the end: {finish:?}"),
        }
    }
    answer
}

fn decode_fixture(kind: DialectKind, folder: &str, file: &str) -> DecodedAnswer {
    let (framing, body) = fixture(kind, folder, file);
    decode_events(dialect(kind).as_ref(), &events(framing, &[&body]))
}

/// A fixture, its text, and how it ends.
type Row = (&'static str, &'static str, Result<FinishReason, FaultKind>);

/// Compares each fixture with its row, for every place where its bytes can be cut.
fn check_fixtures(kind: DialectKind, folder: &str, rows: &[Row]) {
    let files: BTreeSet<String> = std::fs::read_dir(fixtures(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<String> = rows.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert_eq!(files, listed, "every fixture needs a row");
    for (file, text, end) in rows {
        let answer = decode_fixture(kind, folder, file);
        let verdict = answer.result.as_ref().map_err(|failure| failure.fault);
        assert_eq!(
            (answer.text.as_str(), verdict.copied()),
            (*text, *end),
            "{folder}/{file}"
        );
        let (framing, body) = fixture(kind, folder, file);
        let whole = events(framing, &[&body]);
        for at in 1..body.len() {
            let (head, tail) = body.split_at(at);
            assert_eq!(
                events(framing, &[head, tail]),
                whole,
                "{folder}/{file} cut at {at}"
            );
        }
        assert_eq!(
            events(framing, &body.chunks(1).collect::<Vec<_>>()),
            whole,
            "{folder}/{file}"
        );
    }
}

/// Cuts a good stream after each event. The answer is truncated before its finish, which is event
/// number `finish` (from 0), and complete from then on.
fn check_truncation(kind: DialectKind, folder: &str, file: &str, finish: usize) {
    let (framing, body) = fixture(kind, folder, file);
    let events = events(framing, &[&body]);
    for cut in 0..=events.len() {
        let verdict = decode_events(dialect(kind).as_ref(), &events[..cut]).result;
        if cut <= finish {
            let fault = verdict.map_err(|failure| failure.fault);
            assert_eq!(fault, Err(FaultKind::Truncated), "{file} cut at {cut}");
        } else {
            assert_eq!(verdict, Ok(FinishReason::Stop), "{file} cut at {cut}");
        }
    }
}

/// Classifies a response with these headers, received on 2026-01-01T00:00:00Z.
fn classify(kind: DialectKind, status: u16, headers: &[(&str, &str)], body: &str) -> Failure {
    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    dialect(kind).classify_error(&ErrorResponse {
        status,
        header: &header,
        body: body.as_bytes(),
        now: Timestamp(1_767_225_600_000),
    })
}

/// Checks rows of status, body and expected fault.
fn check_errors(kind: DialectKind, rows: &[(u16, &str, FaultKind)]) {
    for (status, body, fault) in rows {
        let failure = classify(kind, *status, &[], body);
        assert_eq!(failure.fault, *fault, "{kind:?} {status} {body}");
        assert_eq!(failure.status, Some(*status));
    }
}

#[test]
fn errors_of_proxies_are_classified_alike_by_all_dialects() {
    for kind in KINDS {
        check_errors(
            kind,
            &[
                (200, "<html>Sign in</html>", FaultKind::Malformed),
                (204, "", FaultKind::Malformed),
                (301, "", FaultKind::Misconfigured),
                (400, "<html>Bad Request</html>", FaultKind::Misconfigured),
                (401, "", FaultKind::Unauthorized),
                (402, "", FaultKind::QuotaSpent),
                (403, "<html>Forbidden</html>", FaultKind::Unauthorized),
                (404, "404 page not found", FaultKind::Misconfigured),
                (405, "", FaultKind::Misconfigured),
                (408, "", FaultKind::ServerError),
                (409, "", FaultKind::ServerError),
                (
                    413,
                    "<html>Request Entity Too Large</html>",
                    FaultKind::TooLong,
                ),
                (418, "{}", FaultKind::Misconfigured),
                (
                    418,
                    r#"{"error":{"message":"No coffee","type":"invalid_request_error"}}"#,
                    FaultKind::BadRequest,
                ),
                (
                    418,
                    r#"{"error":{"message":"No coffee","param":"cup"}}"#,
                    FaultKind::BadRequest,
                ),
                (422, "{", FaultKind::Misconfigured),
                (429, "", FaultKind::RateLimited),
                (500, "", FaultKind::ServerError),
                (502, "<html>Bad Gateway</html>", FaultKind::ServerError),
                (503, "upstream connect error", FaultKind::Overloaded),
                (504, "", FaultKind::ServerError),
                (520, "", FaultKind::ServerError),
                (529, "", FaultKind::Overloaded),
            ],
        );
    }
}

#[test]
fn should_retry_header_changes_the_fault() {
    let retry = |says| [("x-should-retry", says)];
    let odd = r#"{"error":{"message":"Odd","type":"invalid_request_error"}}"#;
    for (status, says, body, fault) in [
        (400, "true", odd, FaultKind::ServerError),
        (400, "false", odd, FaultKind::BadRequest),
        (500, "false", "", FaultKind::Overloaded),
        (500, "true", "", FaultKind::ServerError),
        (503, "true", "", FaultKind::Overloaded),
        (401, "true", "", FaultKind::Unauthorized),
        (429, "false", "", FaultKind::RateLimited),
    ] {
        let failure = classify(DialectKind::OpenAi, status, &retry(says), body);
        assert_eq!(failure.fault, fault, "{status} {says}");
    }
}

#[test]
fn configured_headers_are_added_and_replace_our_own() {
    for kind in KINDS {
        let mut model = model();
        let own = dialect(kind).list_models_request().headers.pop().unwrap().0;
        model.headers = vec![
            (own.to_uppercase(), "of the operator".into()),
            ("x-team".into(), "chat".into()),
        ];
        let call = new_dialect(kind, model).list_models_request();
        let values: Vec<&str> = call
            .headers
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(
            values.ends_with(&["of the operator", "chat"]),
            "{kind:?}: {values:?}"
        );
        assert!(call.body.is_empty());
    }
}
