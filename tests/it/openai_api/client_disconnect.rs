//! A caller that leaves costs nothing for long: its provider's call is closed.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::harness::{Act, Gate, ScriptedProvider, TestApp, question, spoken, streaming};

/// Two seconds of patience, and some for a busy machine.
const LIMIT: Duration = Duration::from_millis(3500);

/// How a caller leaves.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// It closes in good order.
    Fin,
    /// It vanishes.
    Rst,
    /// It closes its own half only.
    Half,
}

#[tokio::test]
async fn who_leaves_is_not_paid_for() {
    // Silent from the beginning, and silent after some words.
    for script in [
        vec![Act::Silence],
        vec![spoken(["Some ", "words "]), Act::Silence],
    ] {
        let alpha = ScriptedProvider::start(script).await;
        let beta = ScriptedProvider::answering("Nobody listens.").await;
        let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
        let mut callers = Vec::new();
        for by in [By::Fin, By::Rst, By::Half] {
            for body in [streaming("What?"), question("What?")] {
                callers.push((by, app.completion(&body).begin().await));
            }
        }
        let all = callers.len();
        alpha.until(|counts| counts.asked == all).await;
        let leave = Instant::now();
        let mut halves = Vec::new();
        for (by, mut caller) in callers {
            match by {
                By::Fin => drop(caller),
                By::Rst => socket2::SockRef::from(&caller)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap(),
                By::Half => {
                    caller.shutdown().await.unwrap();
                    halves.push(caller);
                }
            }
        }
        alpha.until(|counts| counts.left == all).await;
        assert!(
            leave.elapsed() < LIMIT,
            "the provider's calls went on for {:?}",
            leave.elapsed()
        );
        app.at_rest().await;
        assert_eq!((alpha.counts().open, beta.asked()), (0, 0));
        // Leaving is no failure of the provider.
        let vitals = app.provider("alpha").await;
        assert_eq!(
            (&vitals["counts"]["failure"], &vitals["state"]),
            (&0.into(), &"closed".into())
        );
    }
}

#[tokio::test]
async fn who_leaves_in_the_middle_of_words_is_noticed_too() {
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
    let leaves = Instant::now();
    alpha.until(|counts| counts.left == 1).await;
    assert!(
        leaves.elapsed() < LIMIT,
        "the provider's call went on for {:?}",
        leaves.elapsed()
    );
    app.at_rest().await;
}

#[tokio::test]
async fn who_stays_keeps_its_answer_while_another_leaves() {
    let gate = Gate::default();
    let script = vec![
        spoken(["Some ", "words "]),
        gate.hold(),
        crate::harness::say(&crate::harness::finish()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut stays = app.stream("What?").await;
    stays.shows("Some words ").await;
    let leaves = app.stream("What?").await;
    drop(leaves);
    alpha.until(|counts| counts.left == 1).await;
    gate.open();
    assert_eq!(stays.ended().await.text(), "Some words ");
}
