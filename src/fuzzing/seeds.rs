//! What the fuzzer begins with reads: from bytes that are refused at once it would not find far.

use super::tests::corpus_of;
use super::*;
use crate::chat::Fault;

/// Whether a seed reads as a certain kind.
type Reads = fn(&[u8]) -> bool;

/// Whether this seed of the store's records reads as that kind.
fn reads<T: DeserializeOwned>(seed: &[u8]) -> bool {
    record::read::<T>(seed).is_some()
}

#[test]
fn each_kind_of_record_has_a_seed_that_reads_as_it() {
    let kinds: [(&str, Reads); 7] = [
        ("answer", reads::<CachedAnswer>),
        ("breaker", reads::<BreakerRecord>),
        ("conversation", reads::<ConversationRecord>),
        ("incident", reads::<Incident>),
        ("life", reads::<Life>),
        ("spent", reads::<SpentRecord>),
        ("turn", reads::<TurnRecord>),
    ];
    for (kind, reads) in kinds {
        let seed = corpus_of("record", kind);
        assert!(reads(&seed), "{kind} reads as none");
        // A byte more, or the last one less, and it is none.
        assert!(
            !reads(&[&seed[..], b"}"].concat()) && !reads(&seed[..seed.len() - 1]),
            "{kind}"
        );
    }
    let later = corpus_of("record", "later_version");
    for (kind, reads) in kinds {
        assert!(!reads(&later), "a later version reads as {kind}");
    }
}

#[test]
fn each_kind_of_frame_has_a_seed_that_reads_as_it() {
    for kind in [
        "hello", "send", "retry", "stop", "feedback", "history", "ping",
    ] {
        let seed = String::from_utf8(corpus_of("frame", kind)).unwrap();
        assert!(frames::decode(&seed).is_ok(), "{kind}: {seed}");
    }
}

#[test]
fn requests_and_configurations_have_seeds_that_read() {
    for name in ["plain", "parts"] {
        assert!(
            request::read(&corpus_of("completion", name)).is_ok(),
            "{name}"
        );
    }
    let text = String::from_utf8(corpus_of("configuration", "all")).unwrap();
    assert!(Settings::from_text("failsoft.toml", &text, &|_| Some("a-secret".into())).is_ok());
    let text = String::from_utf8(corpus_of("configuration", "replies")).unwrap();
    assert!(Replies::parse("replies.toml", &text).is_ok());
    let claims = serde_json::from_slice(&corpus_of("visitor", "claims")).unwrap();
    let signed = sign("a-secret", &json!({ "alg": "HS256" }), &claims);
    let subject = Identity::new(Secret::new("a-secret")).subject(&signed, At(1_700_000_000_000));
    assert_eq!(subject.ok().as_deref(), Some("ann"));
}

/// Every dialect has a seed that is a whole answer, streamed; without its last bytes it is none.
#[test]
fn each_dialect_has_a_seed_that_is_a_whole_answer() {
    for (kind, name) in ["openai", "anthropic", "gemini", "azure", "ollama"]
        .into_iter()
        .enumerate()
    {
        let seed = corpus_of("answer", name);
        assert_eq!(usize::from(seed[0]), kind, "{name} is of another dialect");
        assert!(whole(&seed).is_ok(), "{name}");
        let cut = seed.len() * 2 / 3;
        assert!(whole(&seed[..cut]).is_err(), "{name} cut at {cut} is whole");
    }
}

fn whole(seed: &[u8]) -> Result<(), Fault> {
    let dialect = dialect(seed[0]);
    let framing = dialect.request(&ask()).framing;
    let text = String::from_utf8(guarded(framing, &seed[2..], usize::from(seed[1]))).unwrap();
    let mut reader = dialect.reader();
    for (name, data) in events(&text) {
        reader
            .event(&name, &data, &mut Vec::new())
            .map_err(|failure| failure.fault)?;
        if reader.ended() {
            break;
        }
    }
    reader.verdict().map(drop).map_err(|failure| failure.fault)
}
