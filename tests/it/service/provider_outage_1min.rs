//! A provider is down for a minute while a question comes every four seconds: all are answered, the
//! provider gets one probe per open time, and it is used again within half a minute of its
//! recovery.
//!
//! A clock cannot be paused over real sockets, so every time here is a twentieth of its default.
//! The unit tests of `turn` cover the same minute at full length.

use std::time::{Duration, Instant};

use failsoft::domain::ProviderState;
use tokio::time::interval;

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer, test_settings,
};

/// Stands for a second of the default configuration.
const SECOND: Duration = Duration::from_millis(1000 / 20);

const ALPHA: &str = "The first provider's answer.";

const BETA: &str = "The second provider's answer.";

/// The number of failures that open the breaker (the default).
const FAILURES_TO_OPEN: usize = 5;

/// Allowance for a busy machine, which the shortened times do not speed up.
const SLACK: Duration = Duration::from_secs(3);

/// A client of one of the two interfaces.
enum Caller {
    Socket(Box<WsClient>),
    Stream,
}

impl Caller {
    /// Asks, and returns the text and the number of attempts.
    async fn ask(&mut self, app: &TestApp) -> (String, usize) {
        match self {
            Self::Socket(client) => {
                let shown = client.ask_and_wait("What?").await;
                assert_eq!(shown.done.as_ref().unwrap()["source"], "ai");
                (shown.text.clone(), shown.attempts.len())
            }
            Self::Stream => {
                let answer = app.stream_answer("What?").await.read_to_end().await;
                assert_eq!((answer.status, &answer.error), (200, &None));
                let last = answer.text_sources();
                let [speaker] = &last[..] else {
                    panic!("{last:?}")
                };
                let attempt = speaker.split(' ').nth(1).unwrap().parse().unwrap();
                (answer.text(), attempt)
            }
        }
    }
}

/// A service with alpha and beta whose open times are a twentieth of the defaults.
async fn service(fault: Vec<ScriptStep>) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::start(fault).await;
    let beta = ScriptedProvider::answering(BETA).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    for provider in &mut settings.providers {
        provider.breaker.open_for = 10 * SECOND;
        provider.breaker.open_max = 25 * SECOND;
    }
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Asserts that each call after the breaker opened came at least an open time after the one before.
/// Open times double up to the maximum; jitter may shorten them by a fifth.
fn assert_probes_spaced(alpha: &ScriptedProvider, opened: usize) {
    let mut calls = alpha.call_times();
    // Later calls were made after the breaker had closed again.
    calls.truncate(opened + alpha.counts().probes);
    let min_pauses = [8, 16].into_iter().chain(std::iter::repeat(20));
    for ((number, pair), min_pause) in calls
        .windows(2)
        .enumerate()
        .skip(opened - 1)
        .zip(min_pauses)
    {
        let pause = pair[1] - pair[0];
        assert!(
            pause >= min_pause * SECOND,
            "call {number} came {pause:?} after the one before"
        );
    }
}

async fn run_one_minute(mut caller: Caller, alpha: ScriptedProvider, app: TestApp) {
    let started = Instant::now();
    let mut ticks = interval(4 * SECOND);
    let mut asked = 0;
    while started.elapsed() < 60 * SECOND {
        ticks.tick().await;
        let (text, attempts) = caller.ask(&app).await;
        assert_eq!(text, BETA);
        asked += 1;
        assert!(
            asked <= FAILURES_TO_OPEN || attempts == 1,
            "question {asked} took {attempts} attempts"
        );
    }
    assert_eq!(
        alpha.question_count(),
        FAILURES_TO_OPEN,
        "visitors' turns served as probes"
    );
    assert_probes_spaced(&alpha, FAILURES_TO_OPEN);

    alpha.script_default(full_answer(ALPHA));
    let recovered = Instant::now();
    loop {
        ticks.tick().await;
        let (text, attempts) = caller.ask(&app).await;
        assert_eq!(attempts, 1);
        if text == ALPHA {
            break;
        }
        assert_eq!(text, BETA);
    }
    println!(
        "asked {asked} times while it was down, used again {:?} after recovery",
        recovered.elapsed()
    );
    assert!(
        recovered.elapsed() < 30 * SECOND + SLACK,
        "used again {:?} after recovery",
        recovered.elapsed()
    );
    assert_probes_spaced(&alpha, FAILURES_TO_OPEN);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn every_question_over_the_socket_is_answered() {
    let busy = vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let (alpha, _beta, app) = service(busy).await;
    let client = WsClient::open(&app).await;
    run_one_minute(Caller::Socket(Box::new(client)), alpha, app).await;
}

#[tokio::test]
async fn every_question_over_the_api_is_answered() {
    let (alpha, _beta, app) = service(vec![ScriptStep::Reset]).await;
    run_one_minute(Caller::Stream, alpha, app).await;
}

#[tokio::test]
async fn the_recovery_is_noticed_without_any_turn() {
    // A short outage, and one that lasts until the open time has grown to its maximum.
    for probes in [0, 3] {
        let (alpha, _beta, app) = service(vec![ScriptStep::Close]).await;
        let mut client = WsClient::open(&app).await;
        while app.provider_status("alpha").await["state"] == "closed" {
            assert_eq!(client.ask_and_wait("What?").await.text, BETA);
        }
        let asked = alpha.question_count();
        alpha.wait_for(|counts| counts.probes >= probes).await;
        alpha.script_default(full_answer(ALPHA));
        let recovered = Instant::now();
        app.wait_for_status("alpha", |provider_status| {
            provider_status.state == ProviderState::Closed
        })
        .await;
        println!("closed {:?} after recovery", recovered.elapsed());
        assert!(
            recovered.elapsed() < 30 * SECOND + SLACK,
            "closed {:?} after recovery",
            recovered.elapsed()
        );
        assert_eq!(alpha.question_count(), asked, "no turn served as a probe");
        assert_probes_spaced(&alpha, asked);
        let shown = client.ask_and_wait("What?").await;
        assert_eq!((shown.text.as_str(), shown.attempts.len()), (ALPHA, 1));
    }
}
