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

use super::{Call, Dialect, Framing, Kind, Model, Refused, of};
use crate::chat::{Ask, At, Failure, Fault, Finish, Message, Role, Usage};
use crate::provider::guard::Guard;
use crate::provider::upstream::Step;

const KINDS: [Kind; 5] = [
    Kind::Openai,
    Kind::Anthropic,
    Kind::Gemini,
    Kind::Azure,
    Kind::Ollama,
];

const KEY: &str = "canary-key-0123456789";

fn model() -> Model {
    Model {
        base_url: "https://models.example".into(),
        model: "some-model".into(),
        key: Some(KEY.into()),
        ..Model::default()
    }
}

fn dialect(kind: Kind) -> Box<dyn Dialect> {
    of(kind, model())
}

fn ask() -> Ask {
    let message = |role, text: &str| Message {
        role,
        text: text.into(),
    };
    Ask {
        system: "Be kind.".into(),
        messages: Arc::new([
            message(Role::User, "Hi"),
            message(Role::Assistant, "Hello"),
            message(Role::User, "How are you?"),
        ]),
        max_tokens: 64,
        goes_on: false,
        temperature: None,
        stop: Arc::default(),
    }
}

fn body(call: &Call) -> Value {
    serde_json::from_str(&call.body).unwrap()
}

fn header<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    let found = call.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// The name and data of each event of a body that arrives in these pieces.
fn events(framing: Framing, pieces: &[&[u8]]) -> Vec<(String, String)> {
    let mut guard = Guard::new(framing);
    let mut out = Vec::new();
    for piece in pieces {
        guard.push(piece, &mut out).unwrap();
    }
    guard.end(&mut out);
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
fn fixture(kind: Kind, folder: &str, file: &str) -> (Framing, Vec<u8>) {
    let framing = match file.rsplit('.').next() {
        Some("sse") => Framing::Sse,
        Some("ndjson") => Framing::Lines,
        _ => dialect(kind).request(&ask()).framing,
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
    usage: Option<Usage>,
    verdict: Result<Finish, Failure>,
}

fn decode_events<'a>(
    dialect: &dyn Dialect,
    events: impl IntoIterator<Item = &'a (String, String)>,
) -> DecodedAnswer {
    let mut reader = dialect.reader();
    let mut steps = Vec::new();
    let mut verdict = Ok(());
    for (name, data) in events {
        verdict = verdict.and_then(|()| reader.event(name, data, &mut steps));
    }
    let mut answer = DecodedAnswer {
        text: String::new(),
        has_thinking: steps.contains(&Step::Thinking),
        usage: None,
        verdict: verdict.and_then(|()| reader.verdict()),
    };
    for step in steps {
        match step {
            Step::Text(text) => {
                assert!(!text.is_empty());
                answer.text.push_str(&text);
            }
            Step::Usage(usage) => answer.usage = Some(usage),
            Step::Thinking => {}
            Step::End(finish) => panic!("a reader pushed the end: {finish:?}"),
        }
    }
    answer
}

fn decode_fixture(kind: Kind, folder: &str, file: &str) -> DecodedAnswer {
    let (framing, body) = fixture(kind, folder, file);
    decode_events(dialect(kind).as_ref(), &events(framing, &[&body]))
}

/// A fixture, its text, and how it ends.
type Row = (&'static str, &'static str, Result<Finish, Fault>);

/// Compares each fixture with its row, for every place where its bytes can be cut.
fn check_fixtures(kind: Kind, folder: &str, rows: &[Row]) {
    let files: BTreeSet<String> = std::fs::read_dir(fixtures(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<String> = rows.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert_eq!(files, listed, "every fixture needs a row");
    for (file, text, end) in rows {
        let answer = decode_fixture(kind, folder, file);
        let verdict = answer.verdict.as_ref().map_err(|failure| failure.fault);
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
fn check_truncation(kind: Kind, folder: &str, file: &str, finish: usize) {
    let (framing, body) = fixture(kind, folder, file);
    let events = events(framing, &[&body]);
    for cut in 0..=events.len() {
        let verdict = decode_events(dialect(kind).as_ref(), &events[..cut]).verdict;
        if cut <= finish {
            let fault = verdict.map_err(|failure| failure.fault);
            assert_eq!(fault, Err(Fault::Truncated), "{file} cut at {cut}");
        } else {
            assert_eq!(verdict, Ok(Finish::Stop), "{file} cut at {cut}");
        }
    }
}

/// Classifies a response with these headers, received on 2026-01-01T00:00:00Z.
fn classify(kind: Kind, status: u16, headers: &[(&str, &str)], body: &str) -> Failure {
    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    dialect(kind).refused(&Refused {
        status,
        header: &header,
        body: body.as_bytes(),
        now: At(1_767_225_600_000),
    })
}

/// Checks rows of status, body and expected fault.
fn check_errors(kind: Kind, rows: &[(u16, &str, Fault)]) {
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
                (200, "<html>Sign in</html>", Fault::Malformed),
                (204, "", Fault::Malformed),
                (301, "", Fault::Misconfigured),
                (400, "<html>Bad Request</html>", Fault::Misconfigured),
                (401, "", Fault::Unauthorized),
                (402, "", Fault::QuotaSpent),
                (403, "<html>Forbidden</html>", Fault::Unauthorized),
                (404, "404 page not found", Fault::Misconfigured),
                (405, "", Fault::Misconfigured),
                (408, "", Fault::ServerError),
                (409, "", Fault::ServerError),
                (413, "<html>Request Entity Too Large</html>", Fault::TooLong),
                (418, "{}", Fault::Misconfigured),
                (
                    418,
                    r#"{"error":{"message":"No coffee","type":"invalid_request_error"}}"#,
                    Fault::BadRequest,
                ),
                (
                    418,
                    r#"{"error":{"message":"No coffee","param":"cup"}}"#,
                    Fault::BadRequest,
                ),
                (422, "{", Fault::Misconfigured),
                (429, "", Fault::RateLimited),
                (500, "", Fault::ServerError),
                (502, "<html>Bad Gateway</html>", Fault::ServerError),
                (503, "upstream connect error", Fault::Overloaded),
                (504, "", Fault::ServerError),
                (520, "", Fault::ServerError),
                (529, "", Fault::Overloaded),
            ],
        );
    }
}

#[test]
fn should_retry_header_changes_the_fault() {
    let retry = |says| [("x-should-retry", says)];
    let odd = r#"{"error":{"message":"Odd","type":"invalid_request_error"}}"#;
    for (status, says, body, fault) in [
        (400, "true", odd, Fault::ServerError),
        (400, "false", odd, Fault::BadRequest),
        (500, "false", "", Fault::Overloaded),
        (500, "true", "", Fault::ServerError),
        (503, "true", "", Fault::Overloaded),
        (401, "true", "", Fault::Unauthorized),
        (429, "false", "", Fault::RateLimited),
    ] {
        let failure = classify(Kind::Openai, status, &retry(says), body);
        assert_eq!(failure.fault, fault, "{status} {says}");
    }
}

#[test]
fn configured_headers_are_added_and_replace_our_own() {
    for kind in KINDS {
        let mut model = model();
        let own = dialect(kind).listing().headers.pop().unwrap().0;
        model.headers = vec![
            (own.to_uppercase(), "of the operator".into()),
            ("x-team".into(), "chat".into()),
        ];
        let call = of(kind, model).listing();
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
