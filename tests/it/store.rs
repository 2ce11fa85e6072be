//! The store under a process that is killed, and on a disk that is full: the test binary runs itself as the process.

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

/// Where the child finds its folder, and what it does there.
const FOLDER: &str = "FAILSOFT_TEST_STORE";
const WORK: &str = "FAILSOFT_TEST_STORE_WORK";

/// The time between two checkpoints, and between two looks at a store that does not work.
const PACE: Duration = Duration::from_millis(20);

/// How many conversations the child writes to at once.
const WRITERS: u8 = 8;

/// A running child, with what it says. It is killed when the test is done with it.
struct Writing {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Writing {
    fn start(mut command: Command, work: &str, folder: &Path) -> Self {
        command.args(["--exact", "store::child", "--ignored", "--nocapture"]);
        command.env(FOLDER, folder).env(WORK, work);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    fn this_binary() -> Command {
        Command::new(std::env::current_exe().unwrap())
    }

    /// What follows the next line that begins with `word`.
    fn next(&mut self, word: &str) -> String {
        let lines = self.said.by_ref().map(Result::unwrap);
        let mut found = lines.filter_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
        found
            .next()
            .unwrap_or_else(|| panic!("it ended without a word of {word}"))
    }

    /// Ends the process as a crash does, and gives all else it said.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // The last line may have been cut by the end.
        self.said.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    println!("\n{what}");
}

fn conversation(n: u8) -> ConversationId {
    ConversationId::from_random([n; 16])
}

/// A text that shows by itself whether it is whole.
fn whole(ms: u64) -> String {
    let length = usize::try_from(ms * 37 % 3000).unwrap();
    format!("{ms}:{}:end", "x".repeat(length))
}

fn asked(ms: u64) -> TurnRecord {
    let id = TurnId::next_after(None, ms, 0);
    TurnRecord::new(
        id,
        format!("m{ms}").parse().unwrap(),
        Timestamp(ms),
        whole(ms),
        None,
    )
}

fn done(ms: u64) -> TurnRecord {
    TurnRecord {
        state: TurnState::Done,
        text: whole(ms),
        ..asked(ms)
    }
}

#[test]
#[ignore = "the process that other tests kill"]
fn child() {
    let (Ok(folder), Ok(work)) = (std::env::var(FOLDER), std::env::var(WORK)) else {
        return;
    };
    let opened = open(Path::new(&folder), Timestamp(0)).unwrap();
    assert_eq!(opened.problems, Vec::<String>::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match work.as_str() {
            "turns" => write_turns(opened.store).await,
            "checkpoints" => write_checkpoints(&*opened.store).await,
            _ => fill_the_disk(&*opened.store).await,
        }
    });
}

/// Asks and answers without end, saying each write that is acknowledged.
async fn write_turns(store: Arc<dyn Store>) {
    let writer = async |n: u8| {
        let id = conversation(n);
        let last = store.turns(id, None, 1).await.unwrap();
        let first = last.first().map_or(1, |turn| turn.at.0 + 1);
        for ms in first.. {
            store.write_turn(id, asked(ms)).await.unwrap();
            say(&format!("asked {n} {ms}"));
            for end in 0..3 {
                let text = whole(ms).chars().take(end * 10).collect();
                store.checkpoint(id, TurnRecord { text, ..asked(ms) });
                tokio::task::yield_now().await;
            }
            store.write_turn(id, done(ms)).await.unwrap();
            say(&format!("done {n} {ms}"));
        }
    };
    futures_util::future::join_all((0..WRITERS).map(writer)).await;
}

/// Says each checkpoint with the time.
async fn write_checkpoints(store: &dyn Store) {
    store.write_turn(conversation(0), asked(1)).await.unwrap();
    let began = Instant::now();
    for n in 0_u64.. {
        let text = n.to_string();
        store.checkpoint(conversation(0), TurnRecord { text, ..asked(1) });
        say(&format!("at {} {n}", began.elapsed().as_millis()));
        tokio::time::sleep(PACE).await;
    }
}

/// Writes until it is refused five times, waits until the disk takes writes again, and writes once more.
async fn fill_the_disk(store: &dyn Store) {
    let mut refused = 0;
    for ms in 1.. {
        match store.write_turn(conversation(0), done(ms)).await {
            Ok(()) if refused > 0 => return say(&format!("again {ms}")),
            Ok(()) => {}
            Err(_) => refused += 1,
        }
        if refused == 5 {
            let problem = store.problem().unwrap();
            assert!(!problem.contains('/'), "{problem}");
            say("refused");
            while store.problem().is_some() {
                tokio::time::sleep(PACE).await;
            }
        }
    }
}

/// Everything that was acknowledged is there, nothing is half, nothing runs any more.
async fn check(opened: &OpenedStore, acknowledged: &BTreeMap<(u8, u64), bool>) {
    let store = &opened.store;
    let mut interrupted = Vec::new();
    for n in 0..WRITERS {
        let turns = store
            .turns(conversation(n), None, usize::MAX)
            .await
            .unwrap();
        for turn in turns {
            let ms = turn.at.0;
            assert_eq!(turn.question, whole(ms));
            match turn.state {
                TurnState::Done => assert_eq!(turn.text, whole(ms)),
                TurnState::Interrupted => {
                    assert!(whole(ms).starts_with(&turn.text));
                    assert_eq!(turn.finish, Some(FinishReason::Interrupted));
                    interrupted.push((conversation(n), turn.turn));
                }
                TurnState::Running => panic!("{n} {ms} runs"),
            }
            let of = store
                .turn_by_message(conversation(n), turn.client_msg_id.clone())
                .await
                .unwrap();
            assert_eq!(of, Some(turn));
        }
    }
    for (&(n, ms), &ended) in acknowledged {
        let turn = store.turn(conversation(n), asked(ms).turn).await.unwrap();
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
async fn a_killed_process_leaves_every_acknowledged_turn_and_none_half() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeMap::new();
    let rounds = std::env::var("FAILSOFT_TEST_KILLS").map_or(3, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut child = Writing::start(Writing::this_binary(), "turns", folder.path());
        let mut said = Vec::new();
        for _ in 0..100 + 13 * round {
            said.push(format!("done {}", child.next("done")));
        }
        said.extend(child.kill());
        for line in said {
            let mut words = line.split(' ');
            let (word, n, ms) = (words.next(), words.next(), words.next());
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
        check(&opened, &acknowledged).await;
    }
    assert!(acknowledged.len() > 100);
}

#[tokio::test]
async fn a_checkpoint_outlives_a_kill_half_a_second_later() {
    let folder = TempDir::new().unwrap();
    let mut child = Writing::start(Writing::this_binary(), "checkpoints", folder.path());
    let mut said = Vec::new();
    loop {
        let line = child.next("at");
        let (at, n) = line.split_once(' ').unwrap();
        let at = at.parse::<u64>().unwrap();
        said.push((at, n.parse::<u64>().unwrap()));
        if at > 1500 {
            break;
        }
    }
    child.kill();
    let (last, _) = *said.last().unwrap();
    let (_, safe) = *said.iter().rfind(|(at, _)| at + 500 <= last).unwrap();
    let opened = open(folder.path(), Timestamp(0)).unwrap();
    let turn = opened
        .store
        .turn(conversation(0), asked(1).turn)
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

/// A file that may not grow stands for a disk that is full.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_full_disk_stops_nothing_and_what_it_refused_is_made_up_for() {
    let folder = TempDir::new().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -S -f 8000; exec \"$0\" \"$@\""]);
    limited.arg(std::env::current_exe().unwrap());
    let mut child = Writing::start(limited, "fill", folder.path());
    child.next("refused");
    let mut more = Command::new("prlimit");
    more.args([
        "--fsize=unlimited:unlimited",
        "--pid",
        &child.child.id().to_string(),
    ]);
    assert!(more.status().unwrap().success());
    let last = child.next("again").parse::<u64>().unwrap();
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
    assert!(turns.iter().all(|turn| turn.text == whole(turn.at.0)));
}
