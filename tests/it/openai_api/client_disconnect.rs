//! Callers that disconnect: the provider's call is closed within seconds.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::harness::{Act, Gate, ScriptedProvider, TestApp, question, spoken, streaming};

/// Two seconds, which is more than `API_ORPHAN_GRACE`, plus an allowance for a busy machine.
const LIMIT: Duration = Duration::from_millis(3500);

/// The way in which a caller disconnects.
#[derive(Clone, Copy, PartialEq)]
enum Disconnect {
    Close,
    Reset,
    /// Closes the sending half only.
    HalfClose,
}

#[tokio::test]
async fn a_disconnect_closes_the_providers_call() {
    // Disconnects before the first token, and after some text.
    for script in [
        vec![Act::Silence],
        vec![spoken(["Some ", "words "]), Act::Silence],
    ] {
        let alpha = ScriptedProvider::start(script).await;
        let beta = ScriptedProvider::answering("Nobody listens.").await;
        let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
        let mut callers = Vec::new();
        for disconnect in [Disconnect::Close, Disconnect::Reset, Disconnect::HalfClose] {
            for body in [streaming("What?"), question("What?")] {
                callers.push((disconnect, app.completion(&body).begin().await));
            }
        }
        let count = callers.len();
        alpha.until(|counts| counts.asked == count).await;
        let left = Instant::now();
        let mut half_closed = Vec::new();
        for (disconnect, mut caller) in callers {
            match disconnect {
                Disconnect::Close => drop(caller),
                Disconnect::Reset => socket2::SockRef::from(&caller)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap(),
                Disconnect::HalfClose => {
                    caller.shutdown().await.unwrap();
                    half_closed.push(caller);
                }
            }
        }
        alpha.until(|counts| counts.left == count).await;
        assert!(
            left.elapsed() < LIMIT,
            "the provider's calls went on for {:?}",
            left.elapsed()
        );
        app.at_rest().await;
        assert_eq!((alpha.counts().open, beta.asked()), (0, 0));
        // Disconnects are not counted as failures of the provider.
        let vitals = app.provider("alpha").await;
        assert_eq!(
            (&vitals["counts"]["failure"], &vitals["state"]),
            (&0.into(), &"closed".into())
        );
    }
}

#[tokio::test]
async fn a_disconnect_in_mid_answer_closes_the_providers_call() {
    let alpha = ScriptedProvider::start(vec![
        spoken([]),
        Act::Every(
            Duration::from_millis(20),
            crate::harness::word("more ").into_bytes(),
        ),
    ])
    .await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut answer = app.stream("What?").await;
    answer.shows("more more more ").await;
    drop(answer);
    let left = Instant::now();
    alpha.until(|counts| counts.left == 1).await;
    assert!(
        left.elapsed() < LIMIT,
        "the provider's call went on for {:?}",
        left.elapsed()
    );
    app.at_rest().await;
}

#[tokio::test]
async fn a_disconnect_does_not_affect_other_callers() {
    let gate = Gate::default();
    let script = vec![
        spoken(["Some ", "words "]),
        gate.hold(),
        crate::harness::say(&crate::harness::finish()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut staying = app.stream("What?").await;
    staying.shows("Some words ").await;
    let leaving = app.stream("What?").await;
    drop(leaving);
    alpha.until(|counts| counts.left == 1).await;
    gate.open();
    assert_eq!(staying.ended().await.text(), "Some words ");
}
