//! Clients that do not read: they cost little memory, and get a snapshot when they fell behind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, partial_answer, send_text,
    stream_end, token_event,
};

/// The number of frames that a turn's log keeps.
const LOG_FRAMES: u64 = 256;

/// Long answers that together exceed the socket buffers, even where the system grows them.
const FILLING_ANSWERS: usize = 8;

/// A long answer in a hundred pieces.
fn long_answer() -> Vec<ScriptStep> {
    let piece = token_event(&"lorem ipsum ".repeat(700));
    vec![
        partial_answer([]),
        send_text(&piece.repeat(100)),
        send_text(&stream_end()),
    ]
}

/// Two clients in one conversation: one with a small receive buffer that does not read, and one
/// that reads.
async fn two_clients(alpha: &ScriptedProvider) -> (TestApp, WsClient, WsClient) {
    let app = TestApp::with_providers(&[("alpha", alpha)]).await;
    let mut asleep = WsClient::connect_with_small_buffer(app.port).await;
    asleep.send_hello(&json!({})).await;
    let awake = WsClient::join(&app, &asleep.conversation).await;
    (app, asleep, awake)
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_nobody_and_gets_a_snapshot() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(long_answer()).await;
    let (app, mut asleep, mut awake) = two_clients(&alpha).await;
    let started = Instant::now();
    for _ in 0..FILLING_ANSWERS {
        let shown = awake.ask_and_wait("Fill it!").await;
        assert_eq!(shown.text.len(), 100 * 12 * 700);
    }
    println!("{FILLING_ANSWERS} long answers in {:?}", started.elapsed());

    // The next answer has more frames than the log keeps: each word waits for the one before.
    let count = 2 * usize::try_from(LOG_FRAMES).unwrap();
    let mut script = vec![partial_answer([])];
    for number in 0..count {
        script.extend([
            gate.wait_step(),
            send_text(&token_event(&format!("{number} "))),
        ]);
    }
    script.push(send_text(&stream_end()));
    alpha.script_default(script);
    let turn = awake.ask("Count!").await;
    let mut shown_bytes = 0;
    for number in 0..count {
        gate.let_one_through();
        shown_bytes += format!("{number} ").len();
        awake
            .wait_for_turn(&turn, |shown| shown.text.len() == shown_bytes)
            .await;
    }
    let shown = awake.wait_for_done(&turn).await;
    assert!(
        shown.snapshot_frames == 0
            && shown.token_frames == count
            && shown.last_seq > 2 * LOG_FRAMES
    );
    let text = shown.text.clone();
    let last = shown.last_seq;

    // The sleeping client reads on: it gets a snapshot instead of the missed frames, and the end.
    let mut frames = 0;
    while asleep
        .page
        .find_turn(&turn)
        .is_none_or(|shown| shown.done.is_none())
    {
        let frame = asleep.next_frame().await;
        frames += u64::from(frame["turn"] == turn);
    }
    let shown = asleep.page.turn(&turn);
    assert_eq!(
        (shown.text.as_str(), shown.last_seq, shown.snapshot_frames),
        (text.as_str(), last, 1)
    );
    assert!(
        frames <= 2,
        "{frames} frames of that turn were buffered for the sleeping client"
    );
    asleep.assert_no_pending_frame().await;
    app.wait_until_idle().await;
}

/// The connection is dropped after half a minute in which the client's system acknowledges nothing.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_client_that_receives_nothing_is_dropped_after_30_seconds() {
    let alpha = ScriptedProvider::start(long_answer()).await;
    let (app, _asleep, mut awake) = two_clients(&alpha).await;
    let started = Instant::now();
    for _ in 0..FILLING_ANSWERS {
        awake.ask_and_wait("Fill it!").await;
    }
    let sessions = async || {
        let text = app.request("GET", "/metrics").send().await.body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("failsoft_sessions "))
            .unwrap();
        line.parse::<u32>().unwrap()
    };
    assert_eq!(sessions().await, 2);
    // The kernel drops the connection, and no event tells of it.
    let dropped = async {
        while sessions().await > 1 {
            awake.ask_and_wait("Well?").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), dropped)
        .await
        .expect("the connection is never dropped");
    println!("dropped after {:?}", started.elapsed());
    assert!(
        started.elapsed() >= Duration::from_secs(29),
        "dropped after a mere pause in reading"
    );
}
