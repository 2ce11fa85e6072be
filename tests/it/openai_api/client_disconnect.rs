//! Callers that disconnect: the provider's call is closed within seconds.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, partial_answer, question_body,
    streaming_body,
};

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
        vec![ScriptStep::Hang],
        vec![partial_answer(["Some ", "words "]), ScriptStep::Hang],
    ] {
        let alpha = ScriptedProvider::start(script).await;
        let beta = ScriptedProvider::answering("Nobody listens.").await;
        let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
        let mut callers = Vec::new();
        for disconnect in [Disconnect::Close, Disconnect::Reset, Disconnect::HalfClose] {
            for body in [streaming_body("What?"), question_body("What?")] {
                callers.push((
                    disconnect,
                    app.completion_request(&body).send_without_reading().await,
                ));
            }
        }
        let count = callers.len();
        alpha.wait_for(|counts| counts.questions == count).await;
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
        alpha
            .wait_for(|counts| counts.client_disconnects == count)
            .await;
        assert!(
            left.elapsed() < LIMIT,
            "the provider's calls went on for {:?}",
            left.elapsed()
        );
        app.wait_until_idle().await;
        assert_eq!((alpha.counts().in_flight, beta.question_count()), (0, 0));
        // Disconnects are not counted as failures of the provider.
        let provider_status = app.provider_status("alpha").await;
        assert_eq!(
            (
                &provider_status["counts"]["failure"],
                &provider_status["state"]
            ),
            (&0.into(), &"closed".into())
        );
    }
}

#[tokio::test]
async fn a_disconnect_in_mid_answer_closes_the_providers_call() {
    let alpha = ScriptedProvider::start(vec![
        partial_answer([]),
        ScriptStep::Repeat(
            Duration::from_millis(20),
            crate::harness::token_event("more ").into_bytes(),
        ),
    ])
    .await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut answer = app.stream_answer("What?").await;
    answer.read_until_text("more more more ").await;
    drop(answer);
    let left = Instant::now();
    alpha
        .wait_for(|counts| counts.client_disconnects == 1)
        .await;
    assert!(
        left.elapsed() < LIMIT,
        "the provider's call went on for {:?}",
        left.elapsed()
    );
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_disconnect_does_not_affect_other_callers() {
    let gate = ScriptGate::default();
    let script = vec![
        partial_answer(["Some ", "words "]),
        gate.wait_step(),
        crate::harness::send_text(&crate::harness::stream_end()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut staying = app.stream_answer("What?").await;
    staying.read_until_text("Some words ").await;
    let leaving = app.stream_answer("What?").await;
    drop(leaving);
    alpha
        .wait_for(|counts| counts.client_disconnects == 1)
        .await;
    gate.let_one_through();
    assert_eq!(staying.read_to_end().await.text(), "Some words ");
}
