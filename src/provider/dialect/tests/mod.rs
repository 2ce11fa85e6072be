//! Every dialect against its fixtures and its table of errors: the bytes go through the transport's guard, as they do in service.

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
    let said = |role, text: &str| Message {
        role,
        text: text.into(),
    };
    Ask {
        system: "Be kind.".into(),
        messages: Arc::new([
            said(Role::User, "Hi"),
            said(Role::Assistant, "Hello"),
            said(Role::User, "How are you?"),
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

/// The body of an answer as the SSE parser is given it, when it comes in these pieces: each event's name and data.
fn events(framing: Framing, pieces: &[&[u8]]) -> Vec<(String, String)> {
    let (mut guard, mut out) = (Guard::new(framing), Vec::new());
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

/// A fixture, and how its body is framed.
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

/// What a caller makes of one answer.
#[derive(Debug)]
struct Heard {
    text: String,
    thought: bool,
    usage: Option<Usage>,
    verdict: Result<Finish, Failure>,
}

fn read<'a>(
    dialect: &dyn Dialect,
    events: impl IntoIterator<Item = &'a (String, String)>,
) -> Heard {
    let mut reader = dialect.reader();
    let mut steps = Vec::new();
    let mut verdict = Ok(());
    for (name, data) in events {
        verdict = verdict.and_then(|()| reader.event(name, data, &mut steps));
    }
    let mut outcome = Heard {
        text: String::new(),
        thought: steps.contains(&Step::Thinking),
        usage: None,
        verdict: verdict.and_then(|()| reader.verdict()),
    };
    for step in steps {
        match step {
            Step::Text(text) => {
                assert!(!text.is_empty());
                outcome.text.push_str(&text);
            }
            Step::Usage(usage) => outcome.usage = Some(usage),
            Step::Thinking => {}
            Step::End(finish) => panic!("a reader pushed the end: {finish:?}"),
        }
    }
    outcome
}

fn read_fixture(kind: Kind, folder: &str, file: &str) -> Heard {
    let (framing, body) = fixture(kind, folder, file);
    read(dialect(kind).as_ref(), &events(framing, &[&body]))
}

/// A fixture, the text that it shows, and how it ends.
type Row = (&'static str, &'static str, Result<Finish, Fault>);

/// Holds each fixture against its row.
fn hold(kind: Kind, folder: &str, rows: &[Row]) {
    let files: BTreeSet<String> = std::fs::read_dir(fixtures(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<String> = rows.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert_eq!(files, listed, "every fixture has its row");
    for (file, text, end) in rows {
        let outcome = read_fixture(kind, folder, file);
        let verdict = outcome.verdict.as_ref().map_err(|failure| failure.fault);
        assert_eq!(
            (outcome.text.as_str(), verdict.copied()),
            (*text, *end),
            "{folder}/{file}"
        );
        // Wherever the bytes are cut, they say the same.
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

/// Cuts a good stream after each event: before its finish, which is event `finish` (from 0), it is never whole, and from then on it is.
fn never_whole_before(kind: Kind, folder: &str, file: &str, finish: usize) {
    let (framing, body) = fixture(kind, folder, file);
    let events = events(framing, &[&body]);
    for cut in 0..=events.len() {
        let verdict = read(dialect(kind).as_ref(), &events[..cut]).verdict;
        if cut <= finish {
            let fault = verdict.map_err(|failure| failure.fault);
            assert_eq!(fault, Err(Fault::Truncated), "{file} cut at {cut}");
        } else {
            assert_eq!(verdict, Ok(Finish::Stop), "{file} cut at {cut}");
        }
    }
}

/// An HTTP answer with these headers, judged at the beginning of the year 2026.
fn refused_with(kind: Kind, status: u16, headers: &[(&str, &str)], body: &str) -> Failure {
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

/// Holds each HTTP error against its row: status, body, fault.
fn judged(kind: Kind, rows: &[(u16, &str, Fault)]) {
    for (status, body, fault) in rows {
        let failure = refused_with(kind, *status, &[], body);
        assert_eq!(failure.fault, *fault, "{kind:?} {status} {body}");
        assert_eq!(failure.status, Some(*status));
    }
}

/// Errors of no dialect: of proxies, and of wrong addresses.
#[test]
fn answers_of_strangers_are_judged_alike_by_all() {
    for kind in KINDS {
        judged(
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
fn a_provider_that_says_whether_to_retry_is_heeded() {
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
        let failure = refused_with(Kind::Openai, status, &retry(says), body);
        assert_eq!(failure.fault, fault, "{status} {says}");
    }
}

#[test]
fn configured_headers_are_added_and_go_before_our_own() {
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
