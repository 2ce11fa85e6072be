//! A provider without sockets behind its fault switch, on a paused clock: every fault, for new
//! calls and for running answers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use tokio::time::Instant;

use super::*;
use crate::config::{ConfigEnum as _, InjectedFault};
use crate::domain::{Failure, FaultKind, Timestamp};
use crate::provider::dialect::{self, Dialect, DialectKind, ErrorResponse, ModelConfig, Prefill};
use crate::provider::paused_system::advance;

const PACE: Duration = Duration::from_millis(100);

const SECOND: Duration = Duration::from_secs(1);

fn dialect_of(kind: DialectKind) -> Arc<dyn Dialect> {
    let model = ModelConfig {
        base_url: "http://x".into(),
        name: "m".into(),
        key: None,
        api_version: String::new(),
        temperature: None,
        headers: Vec::new(),
        context_tokens: 0,
        prefill: Prefill::Plain,
    };
    dialect::new_dialect(kind, model).into()
}

/// Sends a guarded OpenAI answer: `tokens` tokens, one every [`PACE`], then its end.
#[derive(Clone)]
struct PacedTransport {
    tokens: usize,
    requests: Arc<AtomicUsize>,
}

impl HttpTransport for PacedTransport {
    fn request(&self, _: http::Request<Option<Bytes>>) -> ResponseFuture {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let head = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n".to_owned();
        let token = |n: usize| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{n} \"}}}}]}}\n\n")
        };
        let end =
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
                .to_owned();
        let parts = std::iter::once(head)
            .chain((0..self.tokens).map(token))
            .chain([end]);
        let body = stream::iter(parts.collect::<Vec<_>>()).then(|part| async move {
            advance(PACE).await;
            Ok(Bytes::from(part))
        });
        // `ByteStream` requires `Sync`, which this stream is not.
        let mut body = std::sync::Mutex::new(body.boxed());
        let body: ByteStream = Box::pin(stream::poll_fn(move |cx| {
            body.get_mut().unwrap().poll_next_unpin(cx)
        }));
        Box::pin(async move { Ok(http::Response::new(body)) })
    }
}

struct Bench {
    switch: Arc<FaultSwitch>,
    provider: PacedTransport,
}

#[derive(Debug, PartialEq)]
enum CallResult {
    Status(u16),
    /// The tokens received, then the failure; `None` if the answer was complete.
    Tokens(usize, Option<FaultKind>),
    /// The tokens received, then broken JSON.
    Garbage(usize),
    /// The tokens received, then nothing for a minute.
    Silence(usize),
}

impl Bench {
    fn new(tokens: usize) -> Self {
        Self {
            switch: Arc::new(FaultSwitch::new(|| 0.5)),
            provider: PacedTransport {
                tokens,
                requests: Arc::default(),
            },
        }
    }

    fn begin(&self, fault: InjectedFault) -> Arc<ActiveDrill> {
        self.begin_for(fault, 1.0, Duration::from_secs(600))
            .unwrap()
    }

    fn begin_for(
        &self,
        fault: InjectedFault,
        share: f64,
        lasts: Duration,
    ) -> Result<Arc<ActiveDrill>, Arc<ActiveDrill>> {
        self.switch.start(
            DrillSpec {
                fault,
                share,
                duration: lasts,
            },
            Timestamp(1_000),
        )
    }

    /// Makes a call. `at` is called with each number of tokens when it is reached; 0 for the head.
    async fn call(&self, at: impl Fn(usize)) -> CallResult {
        let transport = FaultInjectingTransport::new(
            self.provider.clone(),
            Arc::clone(&self.switch),
            Some(dialect_of(DialectKind::OpenAi)),
        );
        let request = http::Request::post("http://x/").body(None).unwrap();
        let answer = match tokio::time::timeout(SECOND * 60, transport.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return CallResult::Tokens(0, Some(failed(&error))),
            Err(_) => return CallResult::Silence(0),
        };
        if !answer.status().is_success() {
            return CallResult::Status(answer.status().as_u16());
        }
        let mut body = pin!(answer.into_body());
        let mut text = String::new();
        let mut seen = 0;
        at(0);
        loop {
            let tokens = text.matches("\"content\"").count();
            if tokens > seen {
                seen = tokens;
                at(seen);
            }
            match tokio::time::timeout(SECOND * 60, body.next()).await {
                Ok(Some(Ok(part))) => text += std::str::from_utf8(&part).unwrap(),
                Ok(Some(Err(error))) => return CallResult::Tokens(tokens, Some(failed(&error))),
                Ok(None) if text.contains("outage") => return CallResult::Garbage(tokens),
                Ok(None) => {
                    assert!(
                        text.ends_with("data: [DONE]\n\n"),
                        "ended without its end mark: {text}"
                    );
                    return CallResult::Tokens(tokens, None);
                }
                Err(_) => return CallResult::Silence(tokens),
            }
        }
    }
}

fn failed(error: &TransportError) -> FaultKind {
    error.inner().downcast_ref::<Failure>().unwrap().fault
}

#[tokio::test(start_paused = true)]
async fn answer_is_unchanged_without_a_drill() {
    let bench = Bench::new(20);
    let started = Instant::now();
    assert_eq!(bench.call(|_| {}).await, CallResult::Tokens(20, None));
    assert_eq!(started.elapsed().as_millis(), 22 * PACE.as_millis());
}

#[tokio::test(start_paused = true)]
async fn every_fault_affects_a_new_call() {
    for (fault, expected, requests) in [
        (
            InjectedFault::Down,
            CallResult::Tokens(0, Some(FaultKind::Unreachable)),
            0,
        ),
        (InjectedFault::RateLimit, CallResult::Status(429), 0),
        (InjectedFault::Unauthorized, CallResult::Status(401), 0),
        (InjectedFault::Timeout, CallResult::Silence(0), 0),
        (InjectedFault::Stall, CallResult::Silence(10), 1),
        (
            InjectedFault::Cut,
            CallResult::Tokens(10, Some(FaultKind::Reset)),
            1,
        ),
        (InjectedFault::Garbage, CallResult::Garbage(10), 1),
        (InjectedFault::Slow, CallResult::Tokens(20, None), 1),
    ] {
        let bench = Bench::new(20);
        let drill = bench.begin(fault);
        let started = Instant::now();
        assert_eq!(bench.call(|_| {}).await, expected, "{fault}");
        assert_eq!(
            bench.provider.requests.load(Ordering::Relaxed),
            requests,
            "{fault}: a refused call is not sent"
        );
        assert_eq!(drill.calls(), (1, 1), "{fault}");
        if fault == InjectedFault::Slow {
            assert_eq!(started.elapsed().as_secs(), 20, "a token a second");
        }
    }
    assert_eq!(InjectedFault::ALL.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn every_fault_affects_a_running_answer() {
    for (fault, expected) in [
        (
            InjectedFault::Down,
            CallResult::Tokens(3, Some(FaultKind::Reset)),
        ),
        (
            InjectedFault::RateLimit,
            CallResult::Tokens(3, Some(FaultKind::Reset)),
        ),
        (
            InjectedFault::Unauthorized,
            CallResult::Tokens(3, Some(FaultKind::Reset)),
        ),
        (InjectedFault::Timeout, CallResult::Silence(3)),
        (InjectedFault::Stall, CallResult::Silence(3)),
        (
            InjectedFault::Cut,
            CallResult::Tokens(3, Some(FaultKind::Reset)),
        ),
        (InjectedFault::Garbage, CallResult::Garbage(3)),
        (InjectedFault::Slow, CallResult::Tokens(20, None)),
    ] {
        let bench = Bench::new(20);
        let started = Instant::now();
        let result = bench.call(|tokens| {
            if tokens == 3 {
                bench.begin(fault);
            }
        });
        assert_eq!(result.await, expected, "{fault}");
        if fault == InjectedFault::Slow {
            assert!(
                started.elapsed().as_secs() >= 17,
                "the rest at a token a second: {:?}",
                started.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn short_answer_breaks_before_its_end() {
    for (fault, expected) in [
        (InjectedFault::Stall, CallResult::Silence(1)),
        (
            InjectedFault::Cut,
            CallResult::Tokens(1, Some(FaultKind::Reset)),
        ),
        (InjectedFault::Garbage, CallResult::Garbage(1)),
        (InjectedFault::Slow, CallResult::Tokens(1, None)),
    ] {
        let bench = Bench::new(1);
        bench.begin(fault);
        assert_eq!(bench.call(|_| {}).await, expected, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn held_answer_continues_when_the_drill_ends() {
    for fault in [
        InjectedFault::Timeout,
        InjectedFault::Stall,
        InjectedFault::Slow,
    ] {
        // The drill runs out, and nobody stops it.
        let bench = Bench::new(20);
        bench.begin_for(fault, 1.0, SECOND * 5).unwrap();
        let started = Instant::now();
        assert_eq!(
            bench.call(|_| {}).await,
            CallResult::Tokens(20, None),
            "{fault}"
        );
        let took = started.elapsed();
        assert!(
            (SECOND * 5..SECOND * 8).contains(&took),
            "{fault}: {took:?}"
        );
        assert!(bench.switch.active().is_none());
        // The drill is stopped.
        let bench = Bench::new(20);
        let drill = bench.begin(fault);
        let ended = async {
            advance(SECOND * 5).await;
            bench.switch.stop(&drill);
        };
        let ((), result) = tokio::join!(ended, bench.call(|_| {}));
        assert_eq!(result, CallResult::Tokens(20, None), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_drill_runs_at_a_time_and_stop_only_affects_its_own() {
    let bench = Bench::new(3);
    let first = bench.begin_for(InjectedFault::Down, 1.0, SECOND).unwrap();
    let running = bench
        .begin_for(InjectedFault::Cut, 1.0, SECOND)
        .unwrap_err();
    assert_eq!(
        (running.spec.fault, running.ends_at),
        (InjectedFault::Down, Timestamp(2_000))
    );
    tokio::time::advance(SECOND).await;
    assert!(
        bench.switch.active().is_none() && bench.switch.affects_breaker(),
        "over, but not yet recovered"
    );
    let second = bench.begin_for(InjectedFault::Cut, 1.0, SECOND).unwrap();
    // Stopping the first one late does not stop the second.
    bench.switch.stop(&first);
    bench.switch.mark_recovered();
    assert!(bench.switch.active().is_some() && bench.switch.affects_breaker());
    bench.switch.stop(&second);
    bench.switch.mark_recovered();
    assert!(bench.switch.active().is_none() && !bench.switch.affects_breaker());
    assert_eq!(bench.call(|_| {}).await, CallResult::Tokens(3, None));
}

#[tokio::test(start_paused = true)]
async fn call_draws_once_per_drill() {
    // Every draw is 0.5: a share of 0.5 affects no call, a larger one affects every call.
    let bench = Bench::new(20);
    let drill = bench
        .begin_for(InjectedFault::Cut, 0.5, SECOND * 600)
        .unwrap();
    assert_eq!(bench.call(|_| {}).await, CallResult::Tokens(20, None));
    assert_eq!(drill.calls(), (1, 0));
    bench.switch.stop(&drill);
    let drill = bench
        .begin_for(InjectedFault::Cut, 0.51, SECOND * 600)
        .unwrap();
    assert_eq!(
        bench.call(|_| {}).await,
        CallResult::Tokens(10, Some(FaultKind::Reset))
    );
    assert_eq!(drill.calls(), (1, 1));
}

#[test]
fn every_dialect_understands_the_injected_faults() {
    let garbage = "{\"outage\": {\"drill";
    let body = br#"{"error":{"message":"An outage drill."}}"#;
    for kind in [
        DialectKind::OpenAi,
        DialectKind::Anthropic,
        DialectKind::Gemini,
        DialectKind::Azure,
        DialectKind::Ollama,
    ] {
        let dialect = dialect_of(kind);
        let read = dialect
            .decoder()
            .decode("message", garbage, &mut Vec::new());
        assert_eq!(read.unwrap_err().fault, FaultKind::Malformed, "{kind:?}");
        let classify = |status| {
            let header =
                |name: &str| (name == "retry-after" && status == 429).then(|| "30".to_owned());
            dialect.classify_error(&ErrorResponse {
                status,
                header: &header,
                body,
                now: Timestamp(0),
            })
        };
        let limited = classify(429);
        assert_eq!(
            (limited.fault, limited.retry_after),
            (FaultKind::RateLimited, Some(SECOND * 30)),
            "{kind:?}"
        );
        assert_eq!(classify(401).fault, FaultKind::Unauthorized, "{kind:?}");
    }
}
