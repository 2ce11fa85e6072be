//! A page that does not read: it costs a cursor, and finds a snapshot where it was too far behind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Act, Gate, ScriptedProvider, TestApp, WsClient, finish, say, spoken, word};

/// How many frames a turn's log keeps.
const KEPT: u64 = 256;

/// Answers that together are more than the buffers between two sockets hold, even on a machine that grows them.
const FILLING: usize = 8;

/// A long answer, in a hundred pieces.
fn filling() -> Vec<Act> {
    let piece = word(&"lorem ipsum ".repeat(700));
    vec![spoken([]), say(&piece.repeat(100)), say(&finish())]
}

/// Two pages in one conversation: one that takes little in at a time, and does not read, and one that does.
async fn two_pages(alpha: &ScriptedProvider) -> (TestApp, WsClient, WsClient) {
    let app = TestApp::of(&[("alpha", alpha)]).await;
    let mut asleep = WsClient::narrow(app.port).await;
    asleep.say_hello(&json!({})).await;
    let awake = WsClient::join(&app, &asleep.conversation).await;
    (app, asleep, awake)
}

#[tokio::test]
async fn a_page_that_never_reads_holds_nothing_up_and_nothing_back() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(filling()).await;
    let (app, mut asleep, mut awake) = two_pages(&alpha).await;
    let begun = Instant::now();
    for _ in 0..FILLING {
        let shown = awake.answered("Fill it!").await;
        assert_eq!(shown.text.len(), 100 * 12 * 700);
    }
    println!("{FILLING} long answers in {:?}", begun.elapsed());

    // Now an answer of more frames than are kept: one word a frame, because each waits for the one before.
    let count = 2 * usize::try_from(KEPT).unwrap();
    let mut script = vec![spoken([])];
    for number in 0..count {
        script.extend([gate.hold(), say(&word(&format!("{number} ")))]);
    }
    script.push(say(&finish()));
    alpha.usually(script);
    let turn = awake.ask("Count!").await;
    let mut told = 0;
    for number in 0..count {
        gate.open();
        told += format!("{number} ").len();
        awake.shows(&turn, |shown| shown.text.len() == told).await;
    }
    let shown = awake.done(&turn).await;
    assert!(shown.snapshots == 0 && shown.tokens == count && shown.seq > 2 * KEPT);
    let (text, last) = (shown.text.clone(), shown.seq);

    // The sleeper wakes: what it missed was not kept for it, what stands is shown, and the end.
    let mut frames = 0;
    while asleep
        .page
        .find(&turn)
        .is_none_or(|shown| shown.done.is_none())
    {
        let frame = asleep.next().await;
        frames += u64::from(frame["turn"] == turn);
    }
    let shown = asleep.page.turn(&turn);
    assert_eq!(
        (shown.text.as_str(), shown.seq, shown.snapshots),
        (text.as_str(), last, 1)
    );
    assert!(
        frames <= 2,
        "{frames} frames of that turn were held back for it"
    );
    asleep.quiet().await;
    app.at_rest().await;
}

/// Whose system takes in nothing more is dropped after half a minute, with its place among the connections.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_page_that_takes_nothing_in_is_dropped() {
    let alpha = ScriptedProvider::start(filling()).await;
    let (app, _asleep, mut awake) = two_pages(&alpha).await;
    let begun = Instant::now();
    for _ in 0..FILLING {
        awake.answered("Fill it!").await;
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
    // No event tells of it: the kernel drops the connection by itself. Each look is a connection of its own.
    let dropped = async {
        while sessions().await > 1 {
            awake.answered("Well?").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), dropped)
        .await
        .expect("it is never dropped");
    println!("dropped after {:?}", begun.elapsed());
    assert!(
        begun.elapsed() >= Duration::from_secs(29),
        "a pause in reading is no reason to drop it"
    );
}
