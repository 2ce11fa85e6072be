//! A provider without sockets under its switch, on a paused clock: every fault, for a new call and for an answer under way.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use tokio::time::Instant;

use super::*;
use crate::chat::{At, Failure, Fault as Failed};
use crate::provider::dialect::{self, Dialect, Kind, Model, Prefill, Refused};
use crate::provider::paused::pass;
use crate::settings::{Choice as _, Fault};

const PACE: Duration = Duration::from_millis(100);

const SECOND: Duration = Duration::from_secs(1);

fn speaks(kind: Kind) -> Arc<dyn Dialect> {
    let model = Model {
        base_url: "http://x".into(),
        model: "m".into(),
        key: None,
        api_version: String::new(),
        temperature: None,
        headers: Vec::new(),
        context_tokens: 0,
        prefill: Prefill::Plain,
    };
    dialect::of(kind, model).into()
}

/// A guarded answer: so many tokens of OpenAI's, one each [`PACE`], then its end.
#[derive(Clone)]
struct Paced {
    tokens: usize,
    asked: Arc<AtomicUsize>,
}

impl HttpTransport for Paced {
    fn request(&self, _: http::Request<Option<Bytes>>) -> ResponseFuture {
        self.asked.fetch_add(1, Ordering::Relaxed);
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
            pass(PACE).await;
            Ok(Bytes::from(part))
        });
        // Its futures may not be shared between threads; the transport's streams may.
        let body = std::sync::Mutex::new(body.boxed());
        let mut body = body;
        let body: ByteStream = Box::pin(stream::poll_fn(move |cx| {
            body.get_mut().unwrap().poll_next_unpin(cx)
        }));
        Box::pin(async move { Ok(http::Response::new(body)) })
    }
}

struct Stage {
    switch: Arc<Switch>,
    provider: Paced,
}

/// How a call came out.
#[derive(Debug, PartialEq)]
enum Came {
    /// An error answer.
    Status(u16),
    /// So many tokens, then the failure; none: it was whole.
    Tokens(usize, Option<Failed>),
    /// So many tokens, then broken JSON.
    Garbage(usize),
    /// So many tokens, then nothing for a minute.
    Silence(usize),
}

impl Stage {
    fn of(tokens: usize) -> Self {
        Self {
            switch: Arc::new(Switch::new(|| 0.5)),
            provider: Paced {
                tokens,
                asked: Arc::default(),
            },
        }
    }

    fn begin(&self, fault: Fault) -> Arc<Drill> {
        self.begin_for(fault, 1.0, Duration::from_secs(600))
            .unwrap()
    }

    fn begin_for(
        &self,
        fault: Fault,
        share: f64,
        lasts: Duration,
    ) -> Result<Arc<Drill>, Arc<Drill>> {
        self.switch.begin(
            Terms {
                fault,
                share,
                lasts,
            },
            At(1_000),
        )
    }

    /// Makes a call; `at` is told each number of tokens as it is reached, the head of the answer being none.
    async fn call(&self, at: impl Fn(usize)) -> Came {
        let transport = Drilled::new(
            self.provider.clone(),
            Arc::clone(&self.switch),
            Some(speaks(Kind::Openai)),
        );
        let request = http::Request::post("http://x/").body(None).unwrap();
        let answer = match tokio::time::timeout(SECOND * 60, transport.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Came::Tokens(0, Some(failed(&error))),
            Err(_) => return Came::Silence(0),
        };
        if !answer.status().is_success() {
            return Came::Status(answer.status().as_u16());
        }
        let mut body = pin!(answer.into_body());
        let (mut text, mut told) = (String::new(), 0);
        at(0);
        loop {
            let tokens = text.matches("\"content\"").count();
            if tokens > told {
                told = tokens;
                at(told);
            }
            match tokio::time::timeout(SECOND * 60, body.next()).await {
                Ok(Some(Ok(part))) => text += std::str::from_utf8(&part).unwrap(),
                Ok(Some(Err(error))) => return Came::Tokens(tokens, Some(failed(&error))),
                Ok(None) if text.contains("outage") => return Came::Garbage(tokens),
                Ok(None) => {
                    assert!(
                        text.ends_with("data: [DONE]\n\n"),
                        "cut without a word: {text}"
                    );
                    return Came::Tokens(tokens, None);
                }
                Err(_) => return Came::Silence(tokens),
            }
        }
    }
}

fn failed(error: &TransportError) -> Failed {
    error.inner().downcast_ref::<Failure>().unwrap().fault
}

#[tokio::test(start_paused = true)]
async fn without_a_drill_nothing_changes() {
    let stage = Stage::of(20);
    let begun = Instant::now();
    assert_eq!(stage.call(|_| {}).await, Came::Tokens(20, None));
    assert_eq!(begun.elapsed().as_millis(), 22 * PACE.as_millis());
}

#[tokio::test(start_paused = true)]
async fn every_fault_befalls_a_new_call() {
    for (fault, expected, asked) in [
        (Fault::Down, Came::Tokens(0, Some(Failed::Unreachable)), 0),
        (Fault::RateLimit, Came::Status(429), 0),
        (Fault::Unauthorized, Came::Status(401), 0),
        (Fault::Timeout, Came::Silence(0), 0),
        (Fault::Stall, Came::Silence(10), 1),
        (Fault::Cut, Came::Tokens(10, Some(Failed::Reset)), 1),
        (Fault::Garbage, Came::Garbage(10), 1),
        (Fault::Slow, Came::Tokens(20, None), 1),
    ] {
        let stage = Stage::of(20);
        let drill = stage.begin(fault);
        let begun = Instant::now();
        assert_eq!(stage.call(|_| {}).await, expected, "{fault}");
        assert_eq!(
            stage.provider.asked.load(Ordering::Relaxed),
            asked,
            "{fault}: what is refused is not sent"
        );
        assert_eq!(drill.calls(), (1, 1), "{fault}");
        if fault == Fault::Slow {
            assert_eq!(begun.elapsed().as_secs(), 20, "a token a second");
        }
    }
    assert_eq!(Fault::ALL.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn every_fault_befalls_an_answer_under_way() {
    for (fault, expected) in [
        (Fault::Down, Came::Tokens(3, Some(Failed::Reset))),
        (Fault::RateLimit, Came::Tokens(3, Some(Failed::Reset))),
        (Fault::Unauthorized, Came::Tokens(3, Some(Failed::Reset))),
        (Fault::Timeout, Came::Silence(3)),
        (Fault::Stall, Came::Silence(3)),
        (Fault::Cut, Came::Tokens(3, Some(Failed::Reset))),
        (Fault::Garbage, Came::Garbage(3)),
        (Fault::Slow, Came::Tokens(20, None)),
    ] {
        let stage = Stage::of(20);
        let begun = Instant::now();
        let came = stage.call(|told| {
            if told == 3 {
                stage.begin(fault);
            }
        });
        assert_eq!(came.await, expected, "{fault}");
        if fault == Fault::Slow {
            assert!(
                begun.elapsed().as_secs() >= 17,
                "each of the rest after a second: {:?}",
                begun.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_answer_is_broken_before_its_end() {
    for (fault, expected) in [
        (Fault::Stall, Came::Silence(1)),
        (Fault::Cut, Came::Tokens(1, Some(Failed::Reset))),
        (Fault::Garbage, Came::Garbage(1)),
        (Fault::Slow, Came::Tokens(1, None)),
    ] {
        let stage = Stage::of(1);
        stage.begin(fault);
        assert_eq!(stage.call(|_| {}).await, expected, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_goes_on_when_the_drill_ends() {
    for fault in [Fault::Timeout, Fault::Stall, Fault::Slow] {
        // By its time alone, with nobody there to end it.
        let stage = Stage::of(20);
        stage.begin_for(fault, 1.0, SECOND * 5).unwrap();
        let begun = Instant::now();
        assert_eq!(stage.call(|_| {}).await, Came::Tokens(20, None), "{fault}");
        let took = begun.elapsed();
        assert!(
            (SECOND * 5..SECOND * 8).contains(&took),
            "{fault}: {took:?}"
        );
        assert!(stage.switch.running().is_none());
        // By an order.
        let stage = Stage::of(20);
        let drill = stage.begin(fault);
        let ended = async {
            pass(SECOND * 5).await;
            stage.switch.end(&drill);
        };
        let ((), came) = tokio::join!(ended, stage.call(|_| {}));
        assert_eq!(came, Came::Tokens(20, None), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_and_only_that_one_is_ended() {
    let stage = Stage::of(3);
    let first = stage.begin_for(Fault::Down, 1.0, SECOND).unwrap();
    let known = stage.begin_for(Fault::Cut, 1.0, SECOND).unwrap_err();
    assert_eq!((known.terms.fault, known.until), (Fault::Down, At(2_000)));
    tokio::time::advance(SECOND).await;
    assert!(
        stage.switch.running().is_none() && stage.switch.shadows(),
        "over, but not lifted"
    );
    let second = stage.begin_for(Fault::Cut, 1.0, SECOND).unwrap();
    // Whoever ends the first one late does not end the second.
    stage.switch.end(&first);
    stage.switch.lifted();
    assert!(stage.switch.running().is_some() && stage.switch.shadows());
    stage.switch.end(&second);
    stage.switch.lifted();
    assert!(stage.switch.running().is_none() && !stage.switch.shadows());
    assert_eq!(stage.call(|_| {}).await, Came::Tokens(3, None));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_drawn_once_a_drill() {
    // The chance is 0.5 each time: a share of a half befalls nobody, a little more befalls everyone.
    let stage = Stage::of(20);
    let drill = stage.begin_for(Fault::Cut, 0.5, SECOND * 600).unwrap();
    assert_eq!(stage.call(|_| {}).await, Came::Tokens(20, None));
    assert_eq!(drill.calls(), (1, 0));
    stage.switch.end(&drill);
    let drill = stage.begin_for(Fault::Cut, 0.51, SECOND * 600).unwrap();
    assert_eq!(
        stage.call(|_| {}).await,
        Came::Tokens(10, Some(Failed::Reset))
    );
    assert_eq!(drill.calls(), (1, 1));
}

#[test]
fn every_dialect_understands_what_is_staged() {
    let garbage = "{\"outage\": {\"drill";
    let body = br#"{"error":{"message":"An outage drill."}}"#;
    for kind in [
        Kind::Openai,
        Kind::Anthropic,
        Kind::Gemini,
        Kind::Azure,
        Kind::Ollama,
    ] {
        let dialect = speaks(kind);
        let read = dialect.reader().event("message", garbage, &mut Vec::new());
        assert_eq!(read.unwrap_err().fault, Failed::Malformed, "{kind:?}");
        let judged = |status| {
            let header =
                |name: &str| (name == "retry-after" && status == 429).then(|| "30".to_owned());
            dialect.refused(&Refused {
                status,
                header: &header,
                body,
                now: At(0),
            })
        };
        let limited = judged(429);
        assert_eq!(
            (limited.fault, limited.retry_after),
            (Failed::RateLimited, Some(SECOND * 30)),
            "{kind:?}"
        );
        assert_eq!(judged(401).fault, Failed::Unauthorized, "{kind:?}");
    }
}
