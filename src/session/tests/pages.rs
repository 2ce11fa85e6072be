//! Clients that disconnect again and again, at any moment of an answer, show the same final answer.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::domain::Frame;
use crate::turn::protocol_reader::ProtocolClient;

#[derive(Clone, Debug)]
struct Connection {
    duration: Duration,
    /// The time before the next connection.
    offline: Duration,
    /// The time the client takes for each frame.
    frame_delay: Duration,
}

fn connection() -> impl Strategy<Value = Connection> {
    let time = |max: u64| (0..max).prop_map(ms);
    let delay = prop_oneof![3 => Just(ms(0)), 1 => time(400)];
    (time(4_000), time(3_000), delay).prop_map(|(duration, offline, frame_delay)| Connection {
        duration,
        offline,
        frame_delay,
    })
}

fn script() -> impl Strategy<Value = Script> {
    let pieces = prop::collection::vec(("[ab ]{1,4}", 0..900_u64), 1..12);
    let last = prop_oneof![
        3 => Just(ScriptStep::Finish(crate::domain::FinishReason::Stop)),
        1 => Just(ScriptStep::Fail(crate::domain::Failure::new(FaultKind::Reset))),
    ];
    (pieces, last).prop_map(|(pieces, last)| {
        let each = pieces
            .into_iter()
            .flat_map(|(text, pause)| [ScriptStep::Say(text), ScriptStep::Pause(ms(pause))]);
        each.chain([last]).collect()
    })
}

/// Reads a turn to its end over several connections, repeating the message until it is answered.
async fn read_turn(chat: &TestChat, connections: Vec<Connection>, name: &str) -> ProtocolClient {
    let mut reader = ProtocolClient::default();
    let mut turn = Value::Null;
    for connection in connections.into_iter().chain([Connection {
        duration: s(600),
        offline: s(0),
        frame_delay: s(0),
    }]) {
        let resume = if turn.is_null() {
            Value::Null
        } else {
            json!({"turn": turn, "seq": reader.last_seq})
        };
        let (mut client, welcome) = chat.connect_resuming(resume).await;
        let known = welcome["history"]
            .as_array()
            .unwrap()
            .iter()
            .find(|turn| turn["client_msg_id"] == name);
        if known.is_none() || reader.done.is_none() {
            client.send(name, "?").await;
        }
        let read = async {
            while reader.done.is_none() {
                let frame = client.recv().await;
                assert!(
                    frame["type"] != "error" || frame["code"] == "busy",
                    "{frame}"
                );
                // Frames of the turn, whichever client started it.
                if let Ok(frame) = serde_json::from_value::<Frame>(frame) {
                    turn = json!(frame.turn());
                    let is_known =
                        frame.seq() <= reader.last_seq && !matches!(frame, Frame::Snapshot { .. });
                    if !is_known {
                        reader.apply(frame);
                    }
                }
                advance(connection.frame_delay).await;
            }
        };
        let _ = tokio::time::timeout(connection.duration, read).await;
        if reader.done.is_some() {
            return reader;
        }
        drop(client);
        advance(connection.offline).await;
    }
    reader
}

#[test]
fn disconnects_never_change_the_final_answer() {
    let system = Paused::new();
    let connections = || prop::collection::vec(connection(), 0..6);
    let cases = (
        prop::collection::vec(script(), 1..4),
        prop::collection::vec(script(), 1..3),
        connections(),
        connections(),
    );
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&cases, |(script_a, script_b, first, second)| {
        system.block_on(async {
            let chat = TestChat::with_providers([script_a, script_b]);
            let (first, second) =
                tokio::join!(read_turn(&chat, first, "m"), read_turn(&chat, second, "m"));
            let first = first.done();
            let second = second.done();
            assert_eq!(
                (&first.text, first.turn, &first.drafts),
                (&second.text, second.turn, &second.drafts)
            );
            let calls = chat.harness.calls(0).len() + chat.harness.calls(1).len();
            assert_eq!(
                calls,
                first.tried.len(),
                "one turn per message, however often it was sent"
            );
            advance(s(6)).await;
            chat.harness.assert_idle().await;
            assert_eq!(chat.harness.turns.conversations.count(), 0);
        });
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
