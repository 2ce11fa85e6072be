//! Pages whose lines are cut again and again, in any moment of any answer: what they show in the end is the answer.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::chat::Frame;
use crate::turn::reader::Reader;

/// When a line is cut, how long the page is away, and how long it takes over each frame.
#[derive(Clone, Debug)]
struct Line {
    lasts: Duration,
    away: Duration,
    pace: Duration,
}

fn line() -> impl Strategy<Value = Line> {
    let time = |most: u64| (0..most).prop_map(ms);
    let pace = prop_oneof![3 => Just(ms(0)), 1 => time(400)];
    (time(4_000), time(3_000), pace).prop_map(|(lasts, away, pace)| Line { lasts, away, pace })
}

fn script() -> impl Strategy<Value = Script> {
    let pieces = prop::collection::vec(("[ab ]{1,4}", 0..900_u64), 1..12);
    let last = prop_oneof![
        3 => Just(Act::End(crate::chat::Finish::Stop)),
        1 => Just(Act::Fail(crate::chat::Failure::of(Fault::Reset))),
    ];
    (pieces, last).prop_map(|(pieces, last)| {
        let each = pieces
            .into_iter()
            .flat_map(|(text, pause)| [Act::Say(text), Act::Wait(ms(pause))]);
        each.chain([last]).collect()
    })
}

/// A page that reads until it has the end, over one line after another. It asks by the same name until it is answered.
async fn page(hall: &Hall, lines: Vec<Line>, name: &str) -> Reader {
    let mut reader = Reader::default();
    let mut turn = Value::Null;
    for line in lines.into_iter().chain([Line {
        lasts: s(600),
        away: s(0),
        pace: s(0),
    }]) {
        let resume = if turn.is_null() {
            Value::Null
        } else {
            json!({"turn": turn, "seq": reader.seq})
        };
        let (mut tab, welcome) = hall.enter_at(resume).await;
        let known = welcome["history"]
            .as_array()
            .unwrap()
            .iter()
            .find(|turn| turn["client_msg_id"] == name);
        if known.is_none() || reader.done.is_none() {
            tab.send(name, "?").await;
        }
        let read = async {
            while reader.done.is_none() {
                let frame = tab.hear().await;
                assert!(
                    frame["type"] != "error" || frame["code"] == "busy",
                    "{frame}"
                );
                // Frames of the turn, from whoever's line it was opened.
                if let Ok(frame) = serde_json::from_value::<Frame>(frame) {
                    turn = json!(frame.turn());
                    let seen =
                        frame.seq() <= reader.seq && !matches!(frame, Frame::Snapshot { .. });
                    if !seen {
                        reader.apply(frame);
                    }
                }
                pass(line.pace).await;
            }
        };
        let _ = tokio::time::timeout(line.lasts, read).await;
        if reader.done.is_some() {
            return reader;
        }
        drop(tab);
        pass(line.away).await;
    }
    reader
}

#[test]
fn cut_lines_leave_no_trace() {
    let system = Paused::new();
    let lines = || prop::collection::vec(line(), 0..6);
    let cases = (
        prop::collection::vec(script(), 1..4),
        prop::collection::vec(script(), 1..3),
        lines(),
        lines(),
    );
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&cases, |(first, second, one, other)| {
        system.block_on(async {
            let hall = Hall::following([first, second]);
            let (one, other) = tokio::join!(page(&hall, one, "m"), page(&hall, other, "m"));
            let (one, other) = (one.done(), other.done());
            assert_eq!(
                (&one.text, one.turn, &one.drafts),
                (&other.text, other.turn, &other.drafts)
            );
            let asked = hall.stage.calls(0).len() + hall.stage.calls(1).len();
            assert_eq!(
                asked,
                one.tried.len(),
                "one turn for one message, however often it was sent"
            );
            pass(s(6)).await;
            hall.stage.assert_idle().await;
            assert_eq!(hall.stage.desk.rooms.count(), 0);
        });
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{failure}");
    }
}
