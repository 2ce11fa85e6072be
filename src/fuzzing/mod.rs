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

use crate::config::{Secret, Settings};
use crate::degradation::{FallbackChain, Replies};
use crate::domain::{
    ChatMessage, ChatRequest, Incident, MessageRole, ServiceLifetime, Timestamp, TurnRecord,
};
use crate::provider::dialect::{self, DialectKind, ErrorResponse, Framing, ModelConfig};
use crate::provider::sse_guard::SseSanitizer;
use crate::provider::stream_event::StreamEvent;
use crate::session::protocol;
use crate::session::visitor_token::{VisitorTokens, sign_token};
use crate::store::codec;
use crate::store::{BreakerRecord, CachedAnswer, ConversationRecord, DailySpendRecord};
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
const API_KEY: &str = "sk-canary0123456789abcdefghijkl";

const DIALECT_KINDS: [DialectKind; 5] = [
    DialectKind::OpenAi,
    DialectKind::Anthropic,
    DialectKind::Gemini,
    DialectKind::Azure,
    DialectKind::Ollama,
];

fn new_dialect(byte: u8) -> Box<dyn dialect::Dialect> {
    let base_url = "https://api.example.com/v1".to_owned();
    let key = Some(API_KEY.to_owned().into());
    dialect::new_dialect(
        DIALECT_KINDS[usize::from(byte) % DIALECT_KINDS.len()],
        ModelConfig {
            base_url,
            name: "m".into(),
            key,
            ..ModelConfig::default()
        },
    )
}

fn chat_request() -> ChatRequest {
    ChatRequest {
        system: "Be kind.".into(),
        messages: vec![ChatMessage {
            role: MessageRole::User,
            text: "What?".into(),
        }]
        .into(),
        max_tokens: 16,
        ends_with_prefill: false,
        temperature: None,
        stop: vec![].into(),
    }
}

/// A streamed answer of a provider: the dialect, the chunk size and the bytes of the body.
pub fn answer(bytes: &[u8]) {
    let [kind, step, body @ ..] = bytes else {
        return;
    };
    let dialect = new_dialect(*kind);
    let framing = dialect.chat_request(&chat_request()).framing;
    let in_one_chunk = decode_all(framing, body, body.len().max(1));
    let in_small_chunks = decode_all(framing, body, usize::from(*step).max(1));
    assert_eq!(in_one_chunk, in_small_chunks, "chunking changes the result");
    let text = String::from_utf8(in_one_chunk).unwrap();
    let mut decoder = dialect.decoder();
    let mut has_text = false;
    for (name, data) in parse_events(&text) {
        let mut out = Vec::new();
        let result = decoder.decode(&name, &data, &mut out);
        for step in &out {
            assert!(
                !matches!(step, StreamEvent::Finished(_)),
                "the decoder must not emit the end"
            );
            assert!(
                !matches!(step, StreamEvent::Text(text) if text.is_empty()),
                "empty text"
            );
            has_text |= matches!(step, StreamEvent::Text(_));
        }
        match result {
            Err(failure) => return assert_safe_text(&failure.detail),
            Ok(()) if decoder.is_finished() => break,
            Ok(()) => {}
        }
    }
    match decoder.finish_result() {
        Ok(finish) => {
            assert!(
                has_text || finish == crate::domain::FinishReason::ContentFilter,
                "complete without text"
            )
        }
        Err(failure) => assert_safe_text(&failure.detail),
    }
}

fn decode_all(framing: Framing, body: &[u8], step: usize) -> Vec<u8> {
    let mut guard = SseSanitizer::new(framing);
    let mut out = Vec::new();
    for chunk in body.chunks(step) {
        if guard.feed(chunk, &mut out).is_err() {
            return out;
        }
    }
    guard.finish(&mut out);
    out
}

/// The names and data of the events that the guard returns.
///
/// The output has the same format for each framing: a line of JSON is one event.
fn parse_events(text: &str) -> Vec<(String, String)> {
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
fn assert_safe_text(detail: &str) {
    assert!(detail.chars().count() <= 300, "too long: {detail}");
    assert!(
        !detail.contains(char::is_control),
        "control characters: {detail:?}"
    );
    assert!(!detail.contains(API_KEY), "leaks the key");
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
    let dialect = new_dialect(*kind);
    let response = ErrorResponse {
        status,
        header: &header,
        body,
        now: Timestamp(1_700_000_000_000),
    };
    let failure = dialect.classify_error(&response);
    assert_safe_text(&failure.detail);
    assert!(failure.code.len() <= 300);
    // Each adaptation leaves something out of the requests, so the adaptations come to an end.
    let mut sent = dialect.chat_request(&chat_request());
    for _ in 0..20 {
        if !dialect.adapt_to_rejection(&sent, &response) {
            return;
        }
        sent = dialect.chat_request(&chat_request());
    }
    assert!(
        !dialect.adapt_to_rejection(&sent, &response),
        "it adapts forever"
    );
}

pub fn frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = protocol::decode(text) {
        assert!(
            !error.message.is_empty() && error.message.len() < 2_000,
            "{error:?}"
        );
    }
    drop(protocol::client_msg_id(text));
}

pub fn completion(bytes: &[u8]) {
    match request::parse(bytes) {
        Ok(request) => {
            assert!(
                !request.chat_request.messages.is_empty() && request.chat_request.max_tokens > 0
            );
            // Every dialect can encode it.
            for kind in 0..DIALECT_KINDS.len() {
                let call =
                    new_dialect(u8::try_from(kind).unwrap()).chat_request(&request.chat_request);
                assert!(
                    serde_json::from_str::<serde_json::Value>(&call.body)
                        .unwrap()
                        .is_object()
                );
                assert!(
                    !call.body.contains(API_KEY) && !call.path.contains(API_KEY),
                    "the key must only be in a header"
                );
            }
        }
        Err(problem) => {
            let body = problem.to_json();
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
        let chain = FallbackChain::new(replies, "Later.");
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
                        && problems.0.iter().all(|problem| !problem.message.is_empty())
                );
            }
        }
    }
}

/// A store record: decoding and encoding it again does not change it.
pub fn record(bytes: &[u8]) {
    fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Some(value) = codec::try_decode::<T>(bytes) {
            let written = codec::encode(&value).unwrap();
            assert_eq!(
                codec::try_decode::<T>(&written),
                Some(value),
                "changed by encoding"
            );
        }
    }
    round_trip::<TurnRecord>(bytes);
    round_trip::<ConversationRecord>(bytes);
    round_trip::<BreakerRecord>(bytes);
    round_trip::<DailySpendRecord>(bytes);
    round_trip::<CachedAnswer>(bytes);
    round_trip::<Incident>(bytes);
    round_trip::<ServiceLifetime>(bytes);
}

/// A visitor token as it arrives, and claims as a host site might sign them.
pub fn visitor(bytes: &[u8]) {
    let identity = VisitorTokens::new(Secret::new("a-secret"));
    let now = Timestamp(1_700_000_000_000);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(
        identity.verify(text, now).is_err(),
        "accepts an unsigned token"
    );
    let Ok(claims) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let signed = sign_token("a-secret", &json!({ "alg": "HS256" }), &claims);
    if let Ok(subject) = identity.verify(&signed, now) {
        assert_eq!(claims["sub"], json!(subject));
        assert!(claims["exp"].as_f64().unwrap() > 1_700_000_000.0 && !subject.is_empty());
    }
    assert!(
        identity
            .verify(
                &sign_token("another-secret", &json!({ "alg": "HS256" }), &claims),
                now
            )
            .is_err()
    );
    assert!(
        identity
            .verify(
                &sign_token("a-secret", &json!({ "alg": "none" }), &claims),
                now
            )
            .is_err()
    );
}
