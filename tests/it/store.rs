//! The store of a process that is killed, and on a full disk. The test binary runs itself as that
//! process.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use failsoft::domain::{ConversationId, FinishReason, Timestamp, TurnId, TurnRecord, TurnState};
use failsoft::store::{OpenedStore, Store, open};
use tempfile::TempDir;

/// Environment variables of the child process: its data folder, and its task.
const FOLDER: &str = "FAILSOFT_TEST_STORE";
const TASK: &str = "FAILSOFT_TEST_STORE_WORK";

/// The time between two checkpoints, and between two polls of a store that does not work.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(20);

/// The number of conversations that the child writes to concurrently.
const WRITERS: u8 = 8;

/// A running child process and its output. It is killed on drop.
struct ChildProcess {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl ChildProcess {
    fn start(mut command: Command, task: &str, folder: &Path) -> Self {
        command.args(["--exact", "store::child", "--ignored", "--nocapture"]);
        command.env(FOLDER, folder).env(TASK, task);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output }
    }

    fn this_binary() -> Command {
        Command::new(std::env::current_exe().unwrap())
    }

    /// Waits for the next line that starts with `word`, and returns the rest of it.
    fn wait_for_line(&mut self, word: &str) -> String {
        let lines = self.output.by_ref().map(Result::unwrap);
        let mut found = lines.filter_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
        found
            .next()
            .unwrap_or_else(|| panic!("the child ended before it printed {word}"))
    }

    /// Kills the process, and returns the rest of its output.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // The kill may have cut the last line.
        self.output.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print_line(what: &str) {
    println!("\n{what}");
}

fn conversation(n: u8) -> ConversationId {
    ConversationId::from_random([n; 16])
}

/// A text from which a test can see whether it is complete.
fn text_for(ms: u64) -> String {
    let length = usize::try_from(ms * 37 % 3000).unwrap();
    format!("{ms}:{}:end", "x".repeat(length))
}

fn running_turn(ms: u64) -> TurnRecord {
    let id = TurnId::next_after(None, ms, 0);
    TurnRecord::new(
        id,
        format!("m{ms}").parse().unwrap(),
        Timestamp(ms),
        text_for(ms),
        None,
    )
}

fn done_turn(ms: u64) -> TurnRecord {
    TurnRecord {
        state: TurnState::Done,
        text: text_for(ms),
        ..running_turn(ms)
    }
}

#[test]
#[ignore = "the process that other tests kill"]
fn child() {
    let (Ok(folder), Ok(task)) = (std::env::var(FOLDER), std::env::var(TASK)) else {
        return;
    };
    let opened = open(Path::new(&folder), Timestamp(0)).unwrap();
    assert_eq!(opened.problems, Vec::<String>::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match task.as_str() {
            "turns" => write_turns(opened.store).await,
            "checkpoints" => write_checkpoints(&*opened.store).await,
            _ => fill_the_disk(&*opened.store).await,
        }
    });
}

/// Writes turns without end, and prints each acknowledged write.
async fn write_turns(store: Arc<dyn Store>) {
    let writer = async |n: u8| {
        let id = conversation(n);
        let last = store.turns(id, None, 1).await.unwrap();
        let first = last.first().map_or(1, |turn| turn.at.0 + 1);
        for ms in first.. {
            store.write_turn(id, running_turn(ms)).await.unwrap();
            print_line(&format!("asked {n} {ms}"));
            for end in 0..3 {
                let text = text_for(ms).chars().take(end * 10).collect();
                store.checkpoint(
                    id,
                    TurnRecord {
                        text,
                        ..running_turn(ms)
                    },
                );
                tokio::task::yield_now().await;
            }
            store.write_turn(id, done_turn(ms)).await.unwrap();
            print_line(&format!("done {n} {ms}"));
        }
    };
    futures_util::future::join_all((0..WRITERS).map(writer)).await;
}

/// Prints each checkpoint with the time since the start.
async fn write_checkpoints(store: &dyn Store) {
    store
        .write_turn(conversation(0), running_turn(1))
        .await
        .unwrap();
    let started = Instant::now();
    for n in 0_u64.. {
        let text = n.to_string();
        store.checkpoint(
            conversation(0),
            TurnRecord {
                text,
                ..running_turn(1)
            },
        );
        print_line(&format!("at {} {n}", started.elapsed().as_millis()));
        tokio::time::sleep(CHECKPOINT_INTERVAL).await;
    }
}

/// Writes until five writes have failed, waits until the disk accepts writes again, and writes once
/// more.
async fn fill_the_disk(store: &dyn Store) {
    let mut refused = 0;
    for ms in 1.. {
        match store.write_turn(conversation(0), done_turn(ms)).await {
            Ok(()) if refused > 0 => return print_line(&format!("again {ms}")),
            Ok(()) => {}
            Err(_) => refused += 1,
        }
        if refused == 5 {
            let problem = store.problem().unwrap();
            assert!(!problem.contains('/'), "{problem}");
            print_line("refused");
            while store.problem().is_some() {
                tokio::time::sleep(CHECKPOINT_INTERVAL).await;
            }
        }
    }
}

/// Asserts that every acknowledged write is stored, no turn is incomplete, and none is running.
async fn assert_store_matches(opened: &OpenedStore, acknowledged: &BTreeMap<(u8, u64), bool>) {
    let store = &opened.store;
    let mut interrupted = Vec::new();
    for n in 0..WRITERS {
        let turns = store
            .turns(conversation(n), None, usize::MAX)
            .await
            .unwrap();
        for turn in turns {
            let ms = turn.at.0;
            assert_eq!(turn.question, text_for(ms));
            match turn.state {
                TurnState::Done => assert_eq!(turn.text, text_for(ms)),
                TurnState::Interrupted => {
                    assert!(text_for(ms).starts_with(&turn.text));
                    assert_eq!(turn.finish, Some(FinishReason::Interrupted));
                    interrupted.push((conversation(n), turn.turn));
                }
                TurnState::Running => panic!("{n} {ms} runs"),
            }
            let by_message = store
                .turn_by_message(conversation(n), turn.client_msg_id.clone())
                .await
                .unwrap();
            assert_eq!(by_message, Some(turn));
        }
    }
    for (&(n, ms), &ended) in acknowledged {
        let turn = store
            .turn(conversation(n), running_turn(ms).turn)
            .await
            .unwrap();
        let turn = turn.unwrap_or_else(|| panic!("{n} {ms} is gone"));
        assert!(
            !ended || turn.state == TurnState::Done,
            "{n} {ms}: its end is gone"
        );
    }
    for id in &opened.interrupted_turns {
        assert!(interrupted.contains(id));
    }
}

#[tokio::test]
async fn a_killed_process_keeps_every_acknowledged_turn_complete() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeMap::new();
    let rounds = std::env::var("FAILSOFT_TEST_KILLS").map_or(3, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut child = ChildProcess::start(ChildProcess::this_binary(), "turns", folder.path());
        let mut output = Vec::new();
        for _ in 0..100 + 13 * round {
            output.push(format!("done {}", child.wait_for_line("done")));
        }
        output.extend(child.kill());
        for line in output {
            let mut words = line.split(' ');
            let word = words.next();
            let n = words.next();
            let ms = words.next();
            let (Some(n), Some(ms)) = (
                n.and_then(|n| n.parse().ok()),
                ms.and_then(|ms| ms.parse().ok()),
            ) else {
                continue;
            };
            match word {
                Some("asked") => drop(acknowledged.entry((n, ms)).or_insert(false)),
                Some("done") => drop(acknowledged.insert((n, ms), true)),
                _ => {}
            }
        }
        let opened = open(folder.path(), Timestamp(round)).unwrap();
        assert!(opened.has_earlier_data);
        assert_eq!(opened.problems, Vec::<String>::new());
        assert_store_matches(&opened, &acknowledged).await;
    }
    assert!(acknowledged.len() > 100);
}

#[tokio::test]
async fn a_checkpoint_survives_a_kill_half_a_second_later() {
    let folder = TempDir::new().unwrap();
    let mut child = ChildProcess::start(ChildProcess::this_binary(), "checkpoints", folder.path());
    let mut printed = Vec::new();
    loop {
        let line = child.wait_for_line("at");
        let (at, n) = line.split_once(' ').unwrap();
        let at = at.parse::<u64>().unwrap();
        printed.push((at, n.parse::<u64>().unwrap()));
        if at > 1500 {
            break;
        }
    }
    child.kill();
    let (last, _) = *printed.last().unwrap();
    let (_, safe) = *printed.iter().rfind(|(at, _)| at + 500 <= last).unwrap();
    let opened = open(folder.path(), Timestamp(0)).unwrap();
    let turn = opened
        .store
        .turn(conversation(0), running_turn(1).turn)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(turn.state, TurnState::Interrupted);
    let saved = turn.text.parse::<u64>().unwrap();
    assert!(
        saved >= safe,
        "saved {saved}, half a second before the end it was {safe}"
    );
}

/// Simulates a full disk with a file size limit.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_full_disk_loses_no_turn_once_it_has_space() {
    let folder = TempDir::new().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -S -f 8000; exec \"$0\" \"$@\""]);
    limited.arg(std::env::current_exe().unwrap());
    let mut child = ChildProcess::start(limited, "fill", folder.path());
    child.wait_for_line("refused");
    let mut more = Command::new("prlimit");
    more.args([
        "--fsize=unlimited:unlimited",
        "--pid",
        &child.child.id().to_string(),
    ]);
    assert!(more.status().unwrap().success());
    let last = child.wait_for_line("again").parse::<u64>().unwrap();
    child.kill();
    let opened = open(folder.path(), Timestamp(0)).unwrap();
    assert_eq!(opened.problems, Vec::<String>::new());
    let turns = opened
        .store
        .turns(conversation(0), None, usize::MAX)
        .await
        .unwrap();
    let found = turns.iter().map(|turn| turn.at.0).collect::<Vec<_>>();
    assert_eq!(found, (1..=last).collect::<Vec<_>>());
    assert!(turns.iter().all(|turn| turn.text == text_for(turn.at.0)));
}
