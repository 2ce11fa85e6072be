//! The catalogue: every fault of a provider, before its first token and after twenty, at both doors, `/ws` and `/v1`. The caller gets a whole
//! answer all the same, and the provider is not asked more often than is decent.
//!
//! A refused request is the caller's own fault: over `/v1` it is told so, a visitor of a chat gets an answer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Act, Completion, ScriptedProvider, TestApp, WsClient, answer, chunk, event, head, last_chunk,
    question, refusal, say, settings, spoken, streaming, word,
};

/// What a provider answers that is asked from the beginning.
const WHOLE: &str = "The whole answer of the second provider.";

/// How a text goes on that was broken.
const REST: &str = " 21, 22 and no more.";

/// A first token, or the next one, is waited for so long.
const PATIENCE: Duration = Duration::from_millis(300);

/// The pause of those who keep on sending.
const PAUSE: Duration = Duration::from_millis(5);

/// More than this of one endless event is never taken in: its limit, and what fits into the sockets' buffers on the way.
const TAKEN: usize = 16 * 1024 * 1024;

/// How a question comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    /// `/ws`.
    Socket,
    /// `/v1`, streamed.
    Stream,
    /// `/v1`, whole.
    Whole,
}

const DOORS: [Door; 3] = [Door::Socket, Door::Stream, Door::Whole];

/// What a question came to.
#[derive(Debug, PartialEq)]
enum Got {
    /// This text, whole.
    Text(String),
    /// An error with this status and reason.
    Error(u16, String),
}

async fn ask(app: &TestApp, door: Door) -> Got {
    match door {
        Door::Socket => Got::Text(
            WsClient::open(app)
                .await
                .answered("What?")
                .await
                .text
                .clone(),
        ),
        Door::Whole => {
            let answer = app.completion(&question("What?")).send().await;
            let body = answer.json();
            match answer.status {
                200 => Got::Text(
                    body["choices"][0]["message"]["content"]
                        .as_str()
                        .unwrap()
                        .into(),
                ),
                status => Got::Error(status, body["error"]["message"].as_str().unwrap().into()),
            }
        }
        Door::Stream => {
            let request = app.completion(&streaming("What?"));
            let answer = Completion::open(request).await;
            assert_eq!(answer.status, 200);
            let answer = answer.ended().await;
            assert_eq!((&answer.error, answer.done), (&None, true));
            Got::Text(answer.text())
        }
    }
}

async fn service(alpha: &ScriptedProvider, beta: &ScriptedProvider) -> TestApp {
    let mut settings = settings(&[("alpha", alpha), ("beta", beta)]);
    let timeouts = &mut settings.providers[0].timeouts;
    (timeouts.first_token, timeouts.stall) = (vec![PATIENCE], PATIENCE);
    TestApp::start(settings).await
}

/// A fault in the place of an answer. The provider sees so many requests in the first turn, and so many after the second.
async fn before(fault: Vec<Act>, reason: &str, asked_then: [usize; 2]) {
    for door in DOORS {
        let alpha = ScriptedProvider::start(fault.clone()).await;
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = service(&alpha, &beta).await;
        for asked in asked_then {
            assert_eq!(ask(&app, door).await, Got::Text(WHOLE.into()), "{door:?}");
            assert_eq!(
                alpha.asked(),
                asked,
                "{door:?}: requests that the provider saw"
            );
        }
        assert_eq!(beta.asked(), 2, "{door:?}");
        settled(&app, &alpha, reason).await;
    }
}

/// All is given back, little was taken in, and what was wrong with the provider is told.
async fn settled(app: &TestApp, alpha: &ScriptedProvider, reason: &str) {
    app.at_rest().await;
    let counts = alpha.until(|counts| counts.open == 0).await;
    let each = counts.poured / alpha.asked();
    assert!(each < TAKEN, "took {each} bytes in");
    assert_eq!(app.provider("alpha").await["reason"], reason);
}

fn twenty() -> Vec<String> {
    (1..=20)
        .map(|n| {
            if n < 20 {
                format!("{n}, ")
            } else {
                format!("{n},")
            }
        })
        .collect()
}

/// The answer of one who was told to repeat the last 40 characters of `shown` and to go on.
fn going_on(shown: &str) -> Vec<Act> {
    let start = shown.char_indices().rev().nth(39).unwrap().0;
    answer(&format!("{}{REST}", &shown[start..]))
}

async fn after(fault: Vec<Act>, reason: &str) {
    for door in DOORS {
        let words = twenty();
        let mut script = vec![spoken(words.iter().map(String::as_str))];
        script.extend(fault.clone());
        let shown = words.concat();
        let alpha = ScriptedProvider::start(script).await;
        let stream = door == Door::Stream;
        let beta = ScriptedProvider::start(if stream {
            going_on(&shown)
        } else {
            answer(WHOLE)
        })
        .await;
        let expected = if stream {
            shown.clone() + REST
        } else {
            WHOLE.into()
        };
        let app = service(&alpha, &beta).await;
        assert_eq!(ask(&app, door).await, Got::Text(expected), "{door:?}");
        // Never the same one again after text.
        assert_eq!((alpha.asked(), beta.asked()), (1, 1), "{door:?}");
        settled(&app, &alpha, reason).await;
        assert_eq!(
            app.provider("alpha").await["counts"]["restarts"],
            1,
            "{door:?}"
        );
    }
}

/// Events, then the end of the body in good order.
fn events(events: &[&str]) -> Vec<Act> {
    let events: String = events.iter().map(|data| event(data)).collect();
    vec![say(&(head() + &events + &last_chunk()))]
}

fn error(status: u16, headers: &str, body: &Value) -> Vec<Act> {
    let headers = format!("content-type: application/json\r\n{headers}");
    vec![refusal(
        status,
        &headers,
        &json!({ "error": body }).to_string(),
    )]
}

fn broken() -> Value {
    json!({ "message": "The server had an error", "type": "server_error" })
}

macro_rules! before {
    ($($name:ident: $reason:literal, $asked:expr, $script:expr;)+) => { mod before_the_first_token { use super::*; $(
        #[tokio::test]
        async fn $name() {
            before($script, $reason, $asked).await;
        }
    )+ } };
}

macro_rules! after {
    ($($name:ident: $reason:literal, $script:expr;)+) => { mod after_twenty_tokens { use super::*; $(
        #[tokio::test]
        async fn $name() {
            after($script, $reason).await;
        }
    )+ } };
}

/// An event that never ends, a mebibyte at a time.
fn huge_event() -> Act {
    Act::Every(
        Duration::from_millis(1),
        chunk(&"x".repeat(1024 * 1024)).into_bytes(),
    )
}

fn drip() -> [Act; 2] {
    [
        say(&chunk("data:")),
        Act::Every(PAUSE, chunk("x").into_bytes()),
    ]
}

before! {
    reset: "reset", [2, 4], vec![Act::Reset];
    reset_after_the_head: "reset", [2, 4], vec![say(&head()), Act::Reset];
    clean_end: "truncated", [1, 2], events(&[r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#]);
    error_event: "server_error", [2, 4], events(&[&json!({ "error": broken() }).to_string()]);
    garbage: "malformed", [1, 2], events(&[r#"{"choices": [{"del"#]);
    stall: "timeout", [1, 2], vec![say(&head()), Act::Silence];
    keep_alive_for_ever: "timeout", [1, 2], vec![say(&head()), Act::Every(PAUSE, chunk(": keep-alive\n\n").into_bytes())];
    status_500: "server_error", [2, 4], error(500, "", &broken());
    status_503: "overloaded", [1, 2], error(503, "", &json!({ "message": "busy" }));
    limited_for_long: "rate_limited", [1, 1], error(429, "retry-after: 30\r\n", &json!({ "message": "slow down" }));
    unauthorized: "refused", [1, 1], error(401, "", &json!({ "message": "bad key", "code": "invalid_api_key" }));
    web_page: "malformed", [1, 2], vec![refusal(200, "content-type: text/html\r\n", "<!doctype html><p>Please log in")];
    empty: "malformed", [1, 2], events(&[]);
    done_at_once: "malformed", [1, 2], events(&["[DONE]"]);
    drip_of_an_event: "timeout", [1, 2], [&[say(&head())], &drip()[..]].concat();
    huge_event: "malformed", [1, 2], vec![say(&(head() + &chunk("data: "))), super::huge_event()];
}

after! {
    reset: "reset", vec![Act::Reset];
    cut_chunk: "reset", vec![say("40\r\ndata: {\"choices\""), Act::Close];
    clean_end: "truncated", vec![say(&last_chunk())];
    error_event: "server_error", vec![say(&event(&json!({ "error": broken() }).to_string()))];
    garbage: "malformed", vec![say(&event(r#"{"choices": [{"del"#))];
    stall: "stalled", vec![Act::Silence];
    keep_alive_for_ever: "stalled", vec![Act::Every(PAUSE, chunk(": keep-alive\n\n").into_bytes())];
    drip_of_an_event: "stalled", drip().to_vec();
    huge_event: "malformed", vec![say(&chunk("data: ")), super::huge_event()];
}

#[tokio::test]
async fn refused() {
    for door in DOORS {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = service(&alpha, &beta).await;
        alpha.refuse().await;
        for _ in 0..2 {
            assert_eq!(ask(&app, door).await, Got::Text(WHOLE.into()), "{door:?}");
        }
        assert_eq!(
            app.provider("alpha").await["counts"]["failure"],
            2,
            "{door:?}: calls"
        );
    }
}

#[tokio::test]
async fn limited_for_a_moment() {
    for door in DOORS {
        let alpha = ScriptedProvider::answering(WHOLE).await;
        alpha.once(error(
            429,
            "retry-after-ms: 300\r\n",
            &json!({ "message": "slow down" }),
        ));
        let beta = ScriptedProvider::answering("Not needed.").await;
        let app = service(&alpha, &beta).await;
        assert_eq!(ask(&app, door).await, Got::Text(WHOLE.into()), "{door:?}");
        let [(first, _), (second, _)] = &alpha.requests()[..] else {
            panic!("{door:?}: not asked twice")
        };
        assert!(
            *second - *first >= Duration::from_millis(300),
            "{door:?}: asked after {:?}",
            *second - *first
        );
        assert_eq!(beta.asked(), 0, "{door:?}");
    }
}

#[tokio::test]
async fn an_endless_answer() {
    // A mebibyte of it, and the event that goes beyond.
    let words = "0123456789 abcde ghijk mnopq stuvw yzabc ef".repeat(256);
    let most = 1024 * 1024 / words.len() + 1;
    for door in DOORS {
        let alpha = ScriptedProvider::start(vec![
            say(&head()),
            Act::Every(PAUSE, word(&words).into_bytes()),
        ])
        .await;
        let shown = words.repeat(most);
        let stream = door == Door::Stream;
        let beta = ScriptedProvider::start(if stream {
            going_on(&shown)
        } else {
            answer(WHOLE)
        })
        .await;
        let app = service(&alpha, &beta).await;
        let Got::Text(got) = ask(&app, door).await else {
            panic!("{door:?}: an error")
        };
        let expected = if stream { shown + REST } else { WHOLE.into() };
        assert!(
            got == expected,
            "{door:?}: {} bytes instead of {}",
            got.len(),
            expected.len()
        );
        assert_eq!((alpha.asked(), beta.asked()), (1, 1), "{door:?}");
        app.at_rest().await;
    }
}

#[tokio::test]
async fn a_refused_request_is_the_callers_own() {
    for door in DOORS {
        let message = "messages: at least one is required";
        let body =
            json!({ "message": message, "type": "invalid_request_error", "param": "messages" });
        let alpha = ScriptedProvider::start(error(400, "", &body)).await;
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = service(&alpha, &beta).await;
        // More often than would open a breaker.
        for turn in 1..=6 {
            let (got, expected, others) = match door {
                Door::Socket => (ask(&app, door).await, Got::Text(WHOLE.into()), turn),
                Door::Whole => (ask(&app, door).await, Got::Error(400, message.into()), 0),
                Door::Stream => {
                    let answer = app.completion(&streaming("What?")).send().await;
                    let said = answer.json()["error"]["message"]
                        .as_str()
                        .unwrap()
                        .to_owned();
                    (
                        Got::Error(answer.status, said),
                        Got::Error(400, message.into()),
                        0,
                    )
                }
            };
            assert_eq!(got, expected, "{door:?}");
            assert_eq!((alpha.asked(), beta.asked()), (turn, others), "{door:?}");
        }
        assert_eq!(
            app.provider("alpha").await["state"],
            "closed",
            "{door:?}: no breaker counts it"
        );
    }
}
