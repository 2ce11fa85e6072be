//! What must hold of any bytes whatever that come from outside, one function a kind of input. They are called by the fuzzer (`fuzz/`) and, with
//! its corpora and mutations of them, by the tests. None of this is in the program.
//!
//! Each returns where all is well and panics where it is not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::chat::{Ask, At, Incident, Life, Message, Role, TurnRecord};
use crate::degradation::{Ladder, Replies};
use crate::provider::dialect::{self, Framing, Kind, Model, Refused};
use crate::provider::guard::Guard;
use crate::provider::upstream::Step;
use crate::session::frames;
use crate::session::identity::{Identity, sign};
use crate::settings::{Secret, Settings};
use crate::store::record;
use crate::store::{BreakerRecord, CachedAnswer, ConversationRecord, SpentRecord};
use crate::web::openai::request;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 7] = [
    ("answer", answer),
    ("refusal", refusal),
    ("frame", frame),
    ("completion", completion),
    ("configuration", configuration),
    ("record", record),
    ("visitor", visitor),
];

/// The key of the providers here. It must come out nowhere.
const KEY: &str = "sk-canary0123456789abcdefghijkl";

const KINDS: [Kind; 5] = [
    Kind::Openai,
    Kind::Anthropic,
    Kind::Gemini,
    Kind::Azure,
    Kind::Ollama,
];

fn dialect(byte: u8) -> Box<dyn dialect::Dialect> {
    let base_url = "https://api.example.com/v1".to_owned();
    let key = Some(KEY.to_owned().into());
    dialect::of(
        KINDS[usize::from(byte) % KINDS.len()],
        Model {
            base_url,
            model: "m".into(),
            key,
            ..Model::default()
        },
    )
}

fn ask() -> Ask {
    Ask {
        system: "Be kind.".into(),
        messages: vec![Message {
            role: Role::User,
            text: "What?".into(),
        }]
        .into(),
        max_tokens: 16,
        goes_on: false,
        temperature: None,
        stop: vec![].into(),
    }
}

/// A provider's streamed answer: the dialect, how it is cut, and the bytes of its body.
pub fn answer(bytes: &[u8]) {
    let [kind, step, body @ ..] = bytes else {
        return;
    };
    let dialect = dialect(*kind);
    let framing = dialect.request(&ask()).framing;
    let whole = guarded(framing, body, body.len().max(1));
    let cut = guarded(framing, body, usize::from(*step).max(1));
    assert_eq!(whole, cut, "another cut of the same bytes reads otherwise");
    let text = String::from_utf8(whole).unwrap();
    let mut reader = dialect.reader();
    let mut said = false;
    for (name, data) in events(&text) {
        let mut out = Vec::new();
        let read = reader.event(&name, &data, &mut out);
        for step in &out {
            assert!(
                !matches!(step, Step::End(_)),
                "the end is not the reader's to tell"
            );
            assert!(
                !matches!(step, Step::Text(text) if text.is_empty()),
                "text without a letter"
            );
            said |= matches!(step, Step::Text(_));
        }
        match read {
            Err(failure) => return well_said(&failure.detail),
            Ok(()) if reader.ended() => break,
            Ok(()) => {}
        }
    }
    match reader.verdict() {
        Ok(finish) => {
            assert!(
                said || finish == crate::chat::Finish::ContentFilter,
                "whole, and nothing was said"
            )
        }
        Err(failure) => well_said(&failure.detail),
    }
}

fn guarded(framing: Framing, body: &[u8], step: usize) -> Vec<u8> {
    let (mut guard, mut out) = (Guard::new(framing), Vec::new());
    for chunk in body.chunks(step) {
        if guard.push(chunk, &mut out).is_err() {
            return out;
        }
    }
    guard.end(&mut out);
    out
}

/// The events of a body that went through the guard: names and data.
///
/// It tells them so whatever the framing was: a line of JSON is one event.
fn events(text: &str) -> Vec<(String, String)> {
    let event = |block: &str| {
        let field = |name: &str| {
            let values = block
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            values
                .map(|value| value.strip_prefix(' ').unwrap_or(value))
                .collect::<Vec<_>>()
                .join("\n")
        };
        let name = Some(field("event")).filter(|name| !name.is_empty());
        (name.unwrap_or_else(|| "message".into()), field("data"))
    };
    text.split("\n\n")
        .filter(|block| !block.is_empty())
        .map(event)
        .collect()
}

/// Words of a provider as they get to an operator or a caller.
fn well_said(detail: &str) {
    assert!(detail.chars().count() <= 300, "too long: {detail}");
    assert!(
        !detail.contains(char::is_control),
        "control characters: {detail:?}"
    );
    assert!(!detail.contains(KEY), "a key gets out");
}

/// A provider's answer that is no stream: dialect, status, a `Retry-After`, and the body.
pub fn refusal(bytes: &[u8]) {
    let [kind, high, low, rest @ ..] = bytes else {
        return;
    };
    let (wait, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let wait = String::from_utf8_lossy(wait).into_owned();
    let header = |name: &str| (name == "retry-after").then(|| wait.clone());
    let status = 100 + u16::from_be_bytes([*high, *low]) % 500;
    let dialect = dialect(*kind);
    let answer = Refused {
        status,
        header: &header,
        body,
        now: At(1_700_000_000_000),
    };
    let failure = dialect.refused(&answer);
    well_said(&failure.detail);
    assert!(failure.code.len() <= 300);
    // What is adapted to is left out from then on: it comes to an end.
    let mut sent = dialect.request(&ask());
    for _ in 0..20 {
        if !dialect.adapt(&sent, &answer) {
            return;
        }
        sent = dialect.request(&ask());
    }
    assert!(!dialect.adapt(&sent, &answer), "it adapts for ever");
}

/// A client's frame on the WebSocket.
pub fn frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(refusal) = frames::decode(text) {
        assert!(
            !refusal.message.is_empty() && refusal.message.len() < 2_000,
            "{refusal:?}"
        );
    }
    drop(frames::message_of(text));
}

/// The body of a completion request.
pub fn completion(bytes: &[u8]) {
    match request::read(bytes) {
        Ok(request) => {
            assert!(!request.ask.messages.is_empty() && request.ask.max_tokens > 0);
            // It can be said in every dialect.
            for kind in 0..KINDS.len() {
                let call = dialect(u8::try_from(kind).unwrap()).request(&request.ask);
                assert!(
                    serde_json::from_str::<serde_json::Value>(&call.body)
                        .unwrap()
                        .is_object()
                );
                assert!(
                    !call.body.contains(KEY) && !call.path.contains(KEY),
                    "the key stands in a header alone"
                );
            }
        }
        Err(problem) => {
            let said = problem.object();
            assert!(
                said["error"]["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty()),
                "{said}"
            );
        }
    }
}

/// A configuration, and a file of replies.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(replies) = Replies::parse("replies.toml", text) {
        let ladder = Ladder::new(replies, "Later.");
        for question in ["", "What is the price?", "Hello", text] {
            assert!(
                !ladder.answer(question).text.trim().is_empty(),
                "a blank answer to {question:?}"
            );
        }
    }
    // A secret's file could be any file of this machine.
    if !text.contains("file:") {
        match Settings::from_text("failsoft.toml", text, &|_| Some("a-secret".into())) {
            Ok(loaded) => drop(loaded.settings),
            Err(problems) => {
                assert!(
                    !problems.0.is_empty() && problems.0.iter().all(|one| !one.what.is_empty())
                );
            }
        }
    }
}

/// A record of the store: what reads is written as it was read.
pub fn record(bytes: &[u8]) {
    fn one<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Some(read) = record::read::<T>(bytes) {
            let written = record::encode(&read).unwrap();
            assert_eq!(
                record::read::<T>(&written),
                Some(read),
                "it does not survive being written"
            );
        }
    }
    one::<TurnRecord>(bytes);
    one::<ConversationRecord>(bytes);
    one::<BreakerRecord>(bytes);
    one::<SpentRecord>(bytes);
    one::<CachedAnswer>(bytes);
    one::<Incident>(bytes);
    one::<Life>(bytes);
}

/// A visitor's token: as it comes, and its claims as a host site might sign them.
pub fn visitor(bytes: &[u8]) {
    let (identity, now) = (
        Identity::new(Secret::new("a-secret")),
        At(1_700_000_000_000),
    );
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(
        identity.subject(text, now).is_err(),
        "a token that nobody signed"
    );
    let Ok(claims) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let signed = sign("a-secret", &json!({ "alg": "HS256" }), &claims);
    if let Ok(subject) = identity.subject(&signed, now) {
        assert_eq!(claims["sub"], json!(subject));
        assert!(claims["exp"].as_f64().unwrap() > 1_700_000_000.0 && !subject.is_empty());
    }
    assert!(
        identity
            .subject(
                &sign("another-secret", &json!({ "alg": "HS256" }), &claims),
                now
            )
            .is_err()
    );
    assert!(
        identity
            .subject(&sign("a-secret", &json!({ "alg": "none" }), &claims), now)
            .is_err()
    );
}
