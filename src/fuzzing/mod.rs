//! Properties that must hold for arbitrary external input, one function per kind of input.
//!
//! The fuzzer (`fuzz/`) calls them, and so do tests with its corpora and mutations of them. Each
//! function panics if its property is violated. Not part of the program.

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

pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 7] = [
    ("answer", answer),
    ("refusal", refusal),
    ("frame", frame),
    ("completion", completion),
    ("configuration", configuration),
    ("record", record),
    ("visitor", visitor),
];

/// The API key of the providers here. It must never be output.
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

/// A streamed answer of a provider: the dialect, the chunk size and the bytes of the body.
pub fn answer(bytes: &[u8]) {
    let [kind, step, body @ ..] = bytes else {
        return;
    };
    let dialect = dialect(*kind);
    let framing = dialect.request(&ask()).framing;
    let in_one_chunk = guarded(framing, body, body.len().max(1));
    let in_small_chunks = guarded(framing, body, usize::from(*step).max(1));
    assert_eq!(in_one_chunk, in_small_chunks, "chunking changes the result");
    let text = String::from_utf8(in_one_chunk).unwrap();
    let mut decoder = dialect.reader();
    let mut has_text = false;
    for (name, data) in events(&text) {
        let mut out = Vec::new();
        let result = decoder.event(&name, &data, &mut out);
        for step in &out {
            assert!(
                !matches!(step, Step::End(_)),
                "the decoder must not emit the end"
            );
            assert!(
                !matches!(step, Step::Text(text) if text.is_empty()),
                "empty text"
            );
            has_text |= matches!(step, Step::Text(_));
        }
        match result {
            Err(failure) => return well_said(&failure.detail),
            Ok(()) if decoder.ended() => break,
            Ok(()) => {}
        }
    }
    match decoder.verdict() {
        Ok(finish) => {
            assert!(
                has_text || finish == crate::chat::Finish::ContentFilter,
                "complete without text"
            )
        }
        Err(failure) => well_said(&failure.detail),
    }
}

fn guarded(framing: Framing, body: &[u8], step: usize) -> Vec<u8> {
    let mut guard = Guard::new(framing);
    let mut out = Vec::new();
    for chunk in body.chunks(step) {
        if guard.push(chunk, &mut out).is_err() {
            return out;
        }
    }
    guard.end(&mut out);
    out
}

/// The names and data of the events that the guard returns.
///
/// The output has the same format for each framing: a line of JSON is one event.
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

/// Asserts that a provider's text is safe to show to operators and callers.
fn well_said(detail: &str) {
    assert!(detail.chars().count() <= 300, "too long: {detail}");
    assert!(
        !detail.contains(char::is_control),
        "control characters: {detail:?}"
    );
    assert!(!detail.contains(KEY), "leaks the key");
}

/// An error response of a provider: dialect, status, `Retry-After` and body.
pub fn refusal(bytes: &[u8]) {
    let [kind, high, low, rest @ ..] = bytes else {
        return;
    };
    let (wait, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let wait = String::from_utf8_lossy(wait).into_owned();
    let header = |name: &str| (name == "retry-after").then(|| wait.clone());
    let status = 100 + u16::from_be_bytes([*high, *low]) % 500;
    let dialect = dialect(*kind);
    let response = Refused {
        status,
        header: &header,
        body,
        now: At(1_700_000_000_000),
    };
    let failure = dialect.refused(&response);
    well_said(&failure.detail);
    assert!(failure.code.len() <= 300);
    // Each adaptation leaves something out of the requests, so the adaptations come to an end.
    let mut sent = dialect.request(&ask());
    for _ in 0..20 {
        if !dialect.adapt(&sent, &response) {
            return;
        }
        sent = dialect.request(&ask());
    }
    assert!(!dialect.adapt(&sent, &response), "it adapts forever");
}

pub fn frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = frames::decode(text) {
        assert!(
            !error.message.is_empty() && error.message.len() < 2_000,
            "{error:?}"
        );
    }
    drop(frames::message_of(text));
}

pub fn completion(bytes: &[u8]) {
    match request::read(bytes) {
        Ok(request) => {
            assert!(!request.ask.messages.is_empty() && request.ask.max_tokens > 0);
            // Every dialect can encode it.
            for kind in 0..KINDS.len() {
                let call = dialect(u8::try_from(kind).unwrap()).request(&request.ask);
                assert!(
                    serde_json::from_str::<serde_json::Value>(&call.body)
                        .unwrap()
                        .is_object()
                );
                assert!(
                    !call.body.contains(KEY) && !call.path.contains(KEY),
                    "the key must only be in a header"
                );
            }
        }
        Err(problem) => {
            let body = problem.object();
            assert!(
                body["error"]["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty()),
                "{body}"
            );
        }
    }
}

pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(replies) = Replies::parse("replies.toml", text) {
        let chain = Ladder::new(replies, "Later.");
        for question in ["", "What is the price?", "Hello", text] {
            assert!(
                !chain.answer(question).text.trim().is_empty(),
                "a blank answer to {question:?}"
            );
        }
    }
    // A `file:` secret could read any file of this machine.
    if !text.contains("file:") {
        match Settings::from_text("failsoft.toml", text, &|_| Some("a-secret".into())) {
            Ok(loaded) => drop(loaded.settings),
            Err(problems) => {
                assert!(
                    !problems.0.is_empty()
                        && problems.0.iter().all(|problem| !problem.what.is_empty())
                );
            }
        }
    }
}

/// A store record: decoding and encoding it again does not change it.
pub fn record(bytes: &[u8]) {
    fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Some(value) = record::read::<T>(bytes) {
            let written = record::encode(&value).unwrap();
            assert_eq!(
                record::read::<T>(&written),
                Some(value),
                "changed by encoding"
            );
        }
    }
    round_trip::<TurnRecord>(bytes);
    round_trip::<ConversationRecord>(bytes);
    round_trip::<BreakerRecord>(bytes);
    round_trip::<SpentRecord>(bytes);
    round_trip::<CachedAnswer>(bytes);
    round_trip::<Incident>(bytes);
    round_trip::<Life>(bytes);
}

/// A visitor token as it arrives, and claims as a host site might sign them.
pub fn visitor(bytes: &[u8]) {
    let identity = Identity::new(Secret::new("a-secret"));
    let now = At(1_700_000_000_000);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(
        identity.subject(text, now).is_err(),
        "accepts an unsigned token"
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
