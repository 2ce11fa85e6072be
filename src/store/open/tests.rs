//! Opening the store on disks in every state.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;
use crate::domain::{FinishReason, TurnState};
use crate::store::BreakerRecord;
use crate::store::contract::{completed, conversation, message, record, turn, turn_id, with_text};

/// The number of random damages tried.
const DAMAGE_SEEDS: u64 = 24;

const NOW: Timestamp = Timestamp(1_795_000_000_123);

fn open_in(folder: &TempDir) -> OpenedStore {
    open(folder.path(), NOW).unwrap()
}

/// `true` if the store saves a turn and returns it.
async fn can_write_and_read(opened: &OpenedStore) -> bool {
    let new = turn(1_000_000, "new", "works?");
    opened
        .store
        .write_turn(conversation(200), new.clone())
        .await
        .unwrap();
    opened.store.turn(conversation(200), new.turn).await == Ok(Some(new))
}

/// `true` if no sentence reveals a path or the folder's name.
fn is_public(problems: &[String], folder: &TempDir) -> bool {
    let name = folder
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    problems
        .iter()
        .all(|problem| !problem.contains('/') && !problem.contains(&name))
}

/// Creates a data folder with `turns` turns of one conversation, and closes it.
async fn folder_with_turns(turns: u64) -> TempDir {
    let folder = TempDir::new().unwrap();
    let opened = open_in(&folder);
    for ms in 1..=turns {
        let turn = completed(turn(ms, &ms.to_string(), "what?"), &"that ".repeat(200));
        opened
            .store
            .write_turn(conversation(1), turn)
            .await
            .unwrap();
    }
    folder
}

#[tokio::test]
async fn new_data_folder_is_private_to_the_service() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("some/data");
    let opened = open(&data_dir, NOW).unwrap();
    assert!(
        !opened.has_earlier_data
            && opened.problems.is_empty()
            && opened.interrupted_turns.is_empty()
    );
    assert!(can_write_and_read(&opened).await);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&data_dir).unwrap());
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[tokio::test]
async fn restart_restores_everything_and_interrupts_running_turns() {
    let folder = TempDir::new().unwrap();
    let opened = open_in(&folder);
    let record = record(1, Some("ann"));
    let breaker = BreakerRecord {
        provider: "one".into(),
        is_blocked: true,
        failed_probes: 3,
        retry_at: Timestamp(9),
        reason: "refused".into(),
        fault: Some(crate::domain::FaultKind::QuotaSpent),
    };
    let ended = completed(turn(1, "a", "first?"), "that");
    let running = turn(2, "b", "second?");
    let store = &opened.store;
    store
        .create_conversation(conversation(1), record.clone())
        .await
        .unwrap();
    store
        .write_turn(conversation(1), ended.clone())
        .await
        .unwrap();
    store
        .write_turn(conversation(1), running.clone())
        .await
        .unwrap();
    store
        .write_turn(conversation(2), running.clone())
        .await
        .unwrap();
    store
        .write_turn(conversation(2), completed(running.clone(), "whole"))
        .await
        .unwrap();
    store.checkpoint(conversation(1), with_text(running.clone(), "so far"));
    store
        .write_breaker("one".into(), Some(breaker.clone()))
        .await
        .unwrap();
    drop(opened);

    let opened = open_in(&folder);
    assert!(opened.has_earlier_data && opened.problems.is_empty());
    let waiting = [(conversation(1), turn_id(2))];
    assert_eq!(
        (
            &opened.interrupted_turns[..],
            opened.store.pending_followups().await
        ),
        (&waiting[..], Ok(waiting.to_vec()))
    );
    let interrupted = with_text(running, "so far").into_interrupted();
    assert_eq!(interrupted.finish, Some(FinishReason::Interrupted));
    let turns = opened.store.turns(conversation(1), None, 100).await;
    assert_eq!(turns, Ok(vec![ended, interrupted.clone()]));
    assert_eq!(
        opened
            .store
            .turn_by_message(conversation(1), message("b"))
            .await,
        Ok(Some(interrupted))
    );
    let ended_turn = opened
        .store
        .turn(conversation(2), turn_id(2))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended_turn.state, TurnState::Done);
    assert_eq!(
        opened.store.conversation(conversation(1)).await,
        Ok(Some(record))
    );
    assert_eq!(opened.store.breakers().await, Ok(vec![breaker]));
    drop(opened);

    assert_eq!(open_in(&folder).interrupted_turns, []);
}

#[tokio::test]
async fn open_returns_locked_while_the_folder_is_in_use() {
    let folder = TempDir::new().unwrap();
    let first = open_in(&folder);
    let second = open(folder.path(), NOW);
    assert!(matches!(second, Err(StoreError::Locked)));
    assert!(can_write_and_read(&first).await);
    drop(first);
    assert!(open_in(&folder).has_earlier_data);
}

#[tokio::test]
async fn damaged_store_is_set_aside_and_replaced() {
    type Damage = fn(PathBuf);
    fn overwrite(file: PathBuf, at: u64, bytes: &[u8]) {
        let mut file = File::options().write(true).open(file).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }
    fn snapshot(store: PathBuf) -> PathBuf {
        let mut files = fs::read_dir(store)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .find(|path| path.to_string_lossy().contains("snap."))
            .unwrap()
    }
    let damages: [(&str, Damage); 5] = [
        ("cut", |store| {
            let file = File::options().write(true).open(store.join("db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 3).unwrap();
        }),
        ("emptied", |store| {
            drop(File::create(store.join("db")).unwrap())
        }),
        ("overwritten", |store| {
            let length = fs::metadata(store.join("db")).unwrap().len() as u32;
            let noise = (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
            overwrite(store.join("db"), 0, &noise.collect::<Vec<_>>());
        }),
        ("index overwritten", |store| {
            overwrite(snapshot(store), 9, b"noise")
        }),
        ("settings overwritten", |store| {
            overwrite(store.join("conf"), 0, b"\xffnoise")
        }),
    ];
    for (name, damage) in damages {
        let folder = folder_with_turns(300).await;
        // Reopened once, so that there is a snapshot of everything.
        drop(open_in(&folder));
        drop(lock_folder(folder.path()).unwrap());
        damage(folder.path().join(TREE_FOLDER));
        let opened = open_in(&folder);
        assert_eq!(opened.problems.len(), 1, "{name}");
        assert!(
            is_public(&opened.problems, &folder),
            "{name}: {:?}",
            opened.problems
        );
        assert!(!opened.has_earlier_data, "{name}");
        assert!(can_write_and_read(&opened).await, "{name}");
        let aside = folder
            .path()
            .join(format!("{TREE_FOLDER}.damaged-{}", NOW.0));
        assert!(aside.join("db").exists(), "{name}");
        drop(opened);
        let again = open_in(&folder);
        assert!(
            again.has_earlier_data && again.problems.is_empty(),
            "{name}"
        );
    }
}

/// sled notices some damage only when it reads the page: a read then returns the original turn or
/// an error.
#[tokio::test]
async fn random_damage_never_stops_the_service_or_changes_a_turn() {
    let folder = folder_with_turns(300).await;
    drop(open_in(&folder));
    drop(lock_folder(folder.path()).unwrap());
    let intact = fs::read(folder.path().join(TREE_FOLDER).join("db")).unwrap();
    for seed in 1..=DAMAGE_SEEDS {
        let copy = TempDir::new().unwrap();
        let store = copy.path().join(TREE_FOLDER);
        fs::create_dir(&store).unwrap();
        for file in fs::read_dir(folder.path().join(TREE_FOLDER)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                fs::copy(&path, store.join(path.file_name().unwrap())).unwrap();
            }
        }
        let mut noise = seed;
        let mut next = || {
            // xorshift64: random enough to scatter the damage.
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise
        };
        let mut damaged = intact.clone();
        for _ in 0..=seed % 40 {
            let at = usize::try_from(next()).unwrap() % intact.len();
            let length = usize::try_from(next()).unwrap() % 700;
            for byte in damaged.iter_mut().skip(at).take(length) {
                *byte = next() as u8;
            }
        }
        fs::write(store.join("db"), damaged).unwrap();
        let opened = open_in(&copy);
        let _ = opened
            .store
            .write_turn(conversation(1), turn(301, "301", "?"))
            .await;
        let mut found = Vec::new();
        for ms in 1..=300 {
            let read = opened.store.turn(conversation(1), turn_id(ms)).await;
            found.extend(read.ok().flatten());
        }
        assert!(opened.has_earlier_data || found.is_empty(), "{seed}");
        assert!(
            found.iter().all(|turn| turn.text == "that ".repeat(200)),
            "{seed}"
        );
        assert!(
            found.len() == 300 || !opened.problems.is_empty() || opened.store.problem().is_some(),
            "{seed}: only {} turns and no problem reported",
            found.len()
        );
    }
}

#[tokio::test]
async fn unfinished_snapshot_is_removed_on_open() {
    let folder = folder_with_turns(3).await;
    drop(lock_folder(folder.path()).unwrap());
    let unfinished = folder
        .path()
        .join(TREE_FOLDER)
        .join("snap.7FFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, b"half").unwrap();
    let opened = open_in(&folder);
    assert_eq!(opened.problems, Vec::<String>::new());
    assert_eq!(
        opened
            .store
            .turns(conversation(1), None, 100)
            .await
            .unwrap()
            .len(),
        3
    );
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn unusable_data_folder_falls_back_to_memory() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let blocked = folder.path().join("blocked");
    fs::create_dir_all(blocked.join(TREE_FOLDER).join("db")).unwrap();
    for data_dir in [file.join("data"), blocked] {
        let opened = open(&data_dir, NOW).unwrap();
        assert_eq!(opened.problems.len(), 1);
        assert!(
            is_public(&opened.problems, &folder),
            "{:?}",
            opened.problems
        );
        assert!(can_write_and_read(&opened).await && !opened.has_earlier_data);
    }
}

#[test]
fn panic_or_hang_of_the_open_thread_is_contained() {
    let folder = TempDir::new().unwrap();
    let panics = open_on_thread(folder.path(), OPEN_TIMEOUT, |_| -> Result<(), _> {
        panic!("asked to")
    });
    assert_eq!(panics, Err(OpenError::Damaged));
    let (release, held) = mpsc::channel::<()>();
    let hangs = open_on_thread(folder.path(), Duration::from_millis(50), move |_| {
        let _ = held.recv();
        Ok(())
    });
    assert_eq!(hangs, Err(OpenError::TimedOut));
    drop(release);
    // The late thread closes its tree.
    assert_eq!(
        retry_while_locked(|| open_on_thread(folder.path(), OPEN_TIMEOUT, |_| Ok(()))),
        Ok(())
    );
}

#[tokio::test]
#[ignore = "writes for a minute; prints how long a large store takes to open"]
async fn large_store_opens_within_two_seconds() {
    let folder = TempDir::new().unwrap();
    let opened = open_in(&folder);
    for n in 0..200_u64 {
        let conversation = ConversationId::from_random((u128::from(n) << 64).to_be_bytes());
        let writes = (0..500_u64).map(|ms| {
            let asked = turn(ms, &ms.to_string(), "what?");
            let text = "that ".repeat(160);
            let is_running = ms == 499;
            let turn = if is_running {
                asked
            } else {
                completed(asked, &text)
            };
            opened.store.write_turn(conversation, turn)
        });
        for result in futures_util::future::join_all(writes).await {
            result.unwrap();
        }
    }
    drop(opened);
    drop(lock_folder(folder.path()).unwrap());
    for start in ["first", "second"] {
        let started = Instant::now();
        let opened = open_in(&folder);
        let took = started.elapsed();
        let interrupted = opened.interrupted_turns.len();
        println!("{start} start on 100,000 turns: {took:?}, {interrupted} interrupted");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
