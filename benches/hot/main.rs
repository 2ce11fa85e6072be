//! Micro-benchmarks of the pure functions on the path of every token or turn.
//!
//! Run `cargo bench --package failsoft-bench`. To compare two versions, add `-- --save-baseline
//! NAME` for the first and `-- --baseline NAME` for the second.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use failsoft::config::RoutingStrategy;
use failsoft::domain::{Frame, TokenEstimate, TurnId};
use failsoft::provider::breaker::{Breaker, BreakerConfig, CallOrigin, CallOutcome};
use failsoft::provider::dialect::{self, DialectKind, Framing, ModelConfig, Prefill};
use failsoft::provider::sse_guard::SseSanitizer;
use failsoft::router::ordering::{Candidate, OrderBy, RoutingConstraints, order};
use failsoft::turn::log::encode_frame;

/// One token of each dialect, as the data of an event.
const EVENTS: [(&str, DialectKind, &str, &str); 4] = [
    (
        "openai",
        DialectKind::OpenAi,
        "message",
        r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}"#,
    ),
    (
        "anthropic",
        DialectKind::Anthropic,
        "content_block_delta",
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}"#,
    ),
    (
        "gemini",
        DialectKind::Gemini,
        "message",
        r#"{"candidates":[{"content":{"parts":[{"text":" word"}],"role":"model"},"index":0}],"modelVersion":"m"}"#,
    ),
    (
        "ollama",
        DialectKind::Ollama,
        "message",
        r#"{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":" word"},"done":false}"#,
    ),
];

fn model() -> ModelConfig {
    ModelConfig {
        base_url: "http://127.0.0.1".into(),
        name: "m".into(),
        key: None,
        api_version: String::new(),
        temperature: None,
        headers: Vec::new(),
        context_tokens: 0,
        prefill: Prefill::default(),
    }
}

/// Decoding an event's data into steps.
fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode a token");
    for (name, kind, event, data) in EVENTS {
        let dialect = dialect::new_dialect(kind, model());
        group.bench_function(name, |b| {
            let mut reader = dialect.decoder();
            let mut steps = Vec::new();
            b.iter(|| {
                steps.clear();
                reader
                    .decode(event, black_box(data), &mut steps)
                    .expect("a valid event");
                black_box(&steps);
            });
        });
    }
    group.finish();
}

/// Filtering received bytes before the SSE parser.
fn guarding(c: &mut Criterion) {
    let body = format!("data: {}\n\n", EVENTS[0].3).repeat(100);
    let mut group = c.benchmark_group("guard");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("100 events", |b| {
        b.iter_batched(
            || {
                (
                    SseSanitizer::new(Framing::Sse),
                    Vec::with_capacity(body.len()),
                )
            },
            |(mut guard, mut out)| {
                guard
                    .feed(black_box(body.as_bytes()), &mut out)
                    .expect("within its limits");
                out
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Encoding a token as a frame.
fn encoding(c: &mut Criterion) {
    let turn = TurnId::next_after(None, 1_700_000_000_000, 1);
    let frame = Frame::Token {
        turn,
        seq: 12,
        attempt: 1,
        text: " word".into(),
    };
    c.bench_function("encode a token's frame", |b| {
        b.iter(|| encode_frame(black_box(&frame)))
    });
}

/// The operations of one call on a closed breaker.
fn breaking(c: &mut Criterion) {
    c.bench_function("breaker: acquire, first token, outcome", |b| {
        let mut breaker = Breaker::new(BreakerConfig::default());
        let mut now = Duration::from_secs(1);
        b.iter(|| {
            now += Duration::from_millis(1);
            let ticket = breaker
                .admit(now, CallOrigin::Turn)
                .expect("the breaker is closed");
            breaker.record_first_token(ticket, Duration::from_millis(300), now, 0.5);
            breaker.record_outcome(ticket, CallOutcome::Success, now, 0.5)
        });
    });
}

/// Ranking of five providers.
fn ranking(c: &mut Criterion) {
    let candidate = |n: u32| Candidate {
        name: format!("provider-{n}").into(),
        context_tokens: 0,
        weight: n,
        prices: Some((f64::from(n), 1.0)),
        first_token_ms: Some(100 * u64::from(n)),
        has_call_in_flight: true,
    };
    let candidates: Vec<_> = (1..=5).map(candidate).collect();
    let wish = RoutingConstraints {
        token_estimate: TokenEstimate::default(),
        ..RoutingConstraints::default()
    };
    let mut group = c.benchmark_group("rank five providers");
    for (name, strategy) in [
        ("priority", RoutingStrategy::Priority),
        ("weighted", RoutingStrategy::Weighted),
        ("fastest", RoutingStrategy::Fastest),
        ("cheapest", RoutingStrategy::Cheapest),
    ] {
        let by = OrderBy {
            strategy,
            random: 0.3,
            round_robin_next: 0,
        };
        group.bench_function(name, |b| {
            b.iter(|| order(black_box(&candidates), by, &wish, &[]))
        });
    }
    group.finish();
}

criterion_group!(hot, decoding, guarding, encoding, breaking, ranking);
criterion_main!(hot);
