//! The seeds of the fuzzer are valid. From invalid seeds it would not reach much code.

use super::tests::corpus_of;
use super::*;
use crate::domain::FaultKind;

type DecodesAs = fn(&[u8]) -> bool;

fn decodes_as<T: DeserializeOwned>(seed: &[u8]) -> bool {
    codec::try_decode::<T>(seed).is_some()
}

#[test]
fn each_kind_of_record_has_a_valid_seed() {
    let kinds: [(&str, DecodesAs); 7] = [
        ("answer", decodes_as::<CachedAnswer>),
        ("breaker", decodes_as::<BreakerRecord>),
        ("conversation", decodes_as::<ConversationRecord>),
        ("incident", decodes_as::<Incident>),
        ("life", decodes_as::<ServiceLifetime>),
        ("spent", decodes_as::<DailySpendRecord>),
        ("turn", decodes_as::<TurnRecord>),
    ];
    for (kind, reads) in kinds {
        let seed = corpus_of("record", kind);
        assert!(reads(&seed), "{kind} does not decode");
        // An added or missing last byte makes it invalid.
        assert!(
            !reads(&[&seed[..], b"}"].concat()) && !reads(&seed[..seed.len() - 1]),
            "{kind}"
        );
    }
    let newer = corpus_of("record", "later_version");
    for (kind, reads) in kinds {
        assert!(!reads(&newer), "a newer version decodes as {kind}");
    }
}

#[test]
fn each_kind_of_frame_has_a_valid_seed() {
    for kind in [
        "hello", "send", "retry", "stop", "feedback", "history", "ping",
    ] {
        let seed = String::from_utf8(corpus_of("frame", kind)).unwrap();
        assert!(protocol::decode(&seed).is_ok(), "{kind}: {seed}");
    }
}

#[test]
fn requests_and_configurations_have_valid_seeds() {
    for name in ["plain", "parts"] {
        assert!(
            request::parse(&corpus_of("completion", name)).is_ok(),
            "{name}"
        );
    }
    let text = String::from_utf8(corpus_of("configuration", "all")).unwrap();
    assert!(Settings::from_text("failsoft.toml", &text, &|_| Some("a-secret".into())).is_ok());
    let text = String::from_utf8(corpus_of("configuration", "replies")).unwrap();
    assert!(Replies::parse("replies.toml", &text).is_ok());
    let claims = serde_json::from_slice(&corpus_of("visitor", "claims")).unwrap();
    let signed = sign_token("a-secret", &json!({ "alg": "HS256" }), &claims);
    let subject =
        VisitorTokens::new(Secret::new("a-secret")).verify(&signed, Timestamp(1_700_000_000_000));
    assert_eq!(subject.ok().as_deref(), Some("ann"));
}

/// Each dialect has a seed with a complete streamed answer. Truncated, it is incomplete.
#[test]
fn each_dialect_has_a_seed_with_a_complete_answer() {
    for (kind, name) in ["openai", "anthropic", "gemini", "azure", "ollama"]
        .into_iter()
        .enumerate()
    {
        let seed = corpus_of("answer", name);
        assert_eq!(usize::from(seed[0]), kind, "{name} has another dialect");
        assert!(decode_complete(&seed).is_ok(), "{name}");
        let cut = seed.len() * 2 / 3;
        assert!(
            decode_complete(&seed[..cut]).is_err(),
            "{name} truncated at {cut} is complete"
        );
    }
}

fn decode_complete(seed: &[u8]) -> Result<(), FaultKind> {
    let dialect = new_dialect(seed[0]);
    let framing = dialect.chat_request(&chat_request()).framing;
    let text = String::from_utf8(decode_all(framing, &seed[2..], usize::from(seed[1]))).unwrap();
    let mut decoder = dialect.decoder();
    for (name, data) in parse_events(&text) {
        decoder
            .decode(&name, &data, &mut Vec::new())
            .map_err(|failure| failure.fault)?;
        if decoder.is_finished() {
            break;
        }
    }
    decoder
        .finish_result()
        .map(drop)
        .map_err(|failure| failure.fault)
}
