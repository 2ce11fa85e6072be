//! A provider is down for a minute while it is asked every four seconds: everyone is answered, it is left alone but for one try an open
//! time, and it is found well again within half a minute.
//!
//! A clock cannot be paused over real sockets, so every time here is a twentieth of what the configuration has by default; the turns' own
//! tests go through the same minute at full size.

use std::time::{Duration, Instant};

use failsoft::domain::ProviderState;
use tokio::time::interval;

use crate::harness::{Act, ScriptedProvider, TestApp, WsClient, answer, refusal, settings};

/// What takes a second by default, takes this long here.
const SECOND: Duration = Duration::from_millis(1000 / 20);

const ALPHA: &str = "The first provider's answer.";

const BETA: &str = "The second provider's answer.";

/// The calls that open it; the default.
const OPENING: usize = 5;

/// What a busy machine may take for itself: it does not become faster with the clock.
const BUSY: Duration = Duration::from_secs(3);

/// Who asks.
enum Door {
    Socket(Box<WsClient>),
    Stream,
}

impl Door {
    /// Asks, and gives the text and the providers that were asked for it.
    async fn ask(&mut self, app: &TestApp) -> (String, usize) {
        match self {
            Self::Socket(client) => {
                let shown = client.answered("What?").await;
                assert_eq!(shown.done.as_ref().unwrap()["source"], "ai");
                (shown.text.clone(), shown.attempts.len())
            }
            Self::Stream => {
                let answer = app.stream("What?").await.ended().await;
                assert_eq!((answer.status, &answer.error), (200, &None));
                let last = answer.speakers();
                let [speaker] = &last[..] else {
                    panic!("{last:?}")
                };
                let attempt = speaker.split(' ').nth(1).unwrap().parse().unwrap();
                (answer.text(), attempt)
            }
        }
    }
}

/// Alpha, beta and a service whose breakers are a twentieth as patient.
async fn service(fault: Vec<Act>) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let (alpha, beta) = (
        ScriptedProvider::start(fault).await,
        ScriptedProvider::answering(BETA).await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    for provider in &mut settings.providers {
        provider.breaker.open_for = 10 * SECOND;
        provider.breaker.open_max = 25 * SECOND;
    }
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// The tries after it had opened: each begins an open time after the one before had failed. They double, to the cap, and may be a fifth
/// shorter.
fn left_alone(alpha: &ScriptedProvider, opened: usize) {
    let mut calls = alpha.calls();
    // What came later came when it was closed again.
    calls.truncate(opened + alpha.counts().probes);
    let least = [8, 16].into_iter().chain(std::iter::repeat(20));
    for ((number, pair), least) in calls.windows(2).enumerate().skip(opened - 1).zip(least) {
        let pause = pair[1] - pair[0];
        assert!(
            pause >= least * SECOND,
            "try {number} came {pause:?} after the one before"
        );
    }
}

async fn a_minute(mut door: Door, alpha: ScriptedProvider, app: TestApp) {
    let begun = Instant::now();
    let mut every = interval(4 * SECOND);
    let mut asked = 0;
    while begun.elapsed() < 60 * SECOND {
        every.tick().await;
        let (text, attempts) = door.ask(&app).await;
        assert_eq!(text, BETA);
        asked += 1;
        assert!(
            asked <= OPENING || attempts == 1,
            "question {asked} took {attempts} attempts"
        );
    }
    assert_eq!(alpha.asked(), OPENING, "visitors were the probes");
    left_alone(&alpha, OPENING);

    alpha.usually(answer(ALPHA));
    let mended = Instant::now();
    loop {
        every.tick().await;
        let (text, attempts) = door.ask(&app).await;
        assert_eq!(attempts, 1);
        if text == ALPHA {
            break;
        }
        assert_eq!(text, BETA);
    }
    println!(
        "asked {asked} times while it was down, back {:?} after it was well",
        mended.elapsed()
    );
    assert!(
        mended.elapsed() < 30 * SECOND + BUSY,
        "back {:?} after it was well",
        mended.elapsed()
    );
    left_alone(&alpha, OPENING);
    app.at_rest().await;
}

#[tokio::test]
async fn everyone_is_answered_over_the_socket() {
    let busy = vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let (alpha, _beta, app) = service(busy).await;
    let client = WsClient::open(&app).await;
    a_minute(Door::Socket(Box::new(client)), alpha, app).await;
}

#[tokio::test]
async fn everyone_is_answered_over_the_api() {
    let (alpha, _beta, app) = service(vec![Act::Reset]).await;
    a_minute(Door::Stream, alpha, app).await;
}

#[tokio::test]
async fn it_is_found_well_with_nobody_asking() {
    // Down for a moment, and until its open time has grown to the cap.
    for probes in [0, 3] {
        let (alpha, _beta, app) = service(vec![Act::Close]).await;
        let mut client = WsClient::open(&app).await;
        while app.provider("alpha").await["state"] == "closed" {
            assert_eq!(client.answered("What?").await.text, BETA);
        }
        let asked = alpha.asked();
        alpha.until(|counts| counts.probes >= probes).await;
        alpha.usually(answer(ALPHA));
        let mended = Instant::now();
        app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
            .await;
        println!("found {:?} after it was well", mended.elapsed());
        assert!(
            mended.elapsed() < 30 * SECOND + BUSY,
            "found {:?} after it was well",
            mended.elapsed()
        );
        assert_eq!(alpha.asked(), asked, "no visitor was the probe");
        left_alone(&alpha, asked);
        let shown = client.answered("What?").await;
        assert_eq!((shown.text.as_str(), shown.attempts.len()), (ALPHA, 1));
    }
}
