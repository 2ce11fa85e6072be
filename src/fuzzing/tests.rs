//! The fuzzer's bodies over its corpora, mutations of them, and any bytes.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Mutations of each target's corpus. `FAILSOFT_FUZZ_CASES=1000000` tries that many.
const CASES: u32 = 3_000;

/// One seed of a target, by its name.
pub fn corpus_of(target: &str, name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target)
            .join(name),
    )
    .unwrap()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// One change to bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// A part once more, somewhere else.
    Repeat(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let telling = prop::sample::select(b"\"\\{}[]:,.\r\n\0 -0e\xff\xef\xbb\xbf".to_vec());
    let index = any::<Index>;
    prop_oneof![
        (index(), prop_oneof![any::<u8>(), telling.clone()])
            .prop_map(|(at, byte)| Change::Set(at, byte)),
        (
            index(),
            prop::collection::vec(prop_oneof![any::<u8>(), telling], 1..6)
        )
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), index()).prop_map(|(from, to)| Change::Remove(from, to)),
        (index(), index(), index()).prop_map(|(from, to, at)| Change::Repeat(from, to, at)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let places = bytes.len() + 1;
        let part = |from: &Index, to: &Index| {
            let (from, to) = (from.index(places), to.index(places));
            from.min(to)..from.max(to)
        };
        match change {
            Change::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Set(..) => {}
            Change::Insert(at, new) => {
                drop(bytes.splice(at.index(places)..at.index(places), new.iter().copied()))
            }
            Change::Remove(from, to) => drop(bytes.drain(part(from, to))),
            Change::Repeat(from, to, at) => {
                let again = bytes[part(from, to)].to_vec();
                drop(bytes.splice(at.index(places)..at.index(places), again));
            }
        }
    }
    bytes
}

fn tried(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
    corpus.iter().for_each(|bytes| target(bytes));
    let cases = std::env::var("FAILSOFT_FUZZ_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let known = (
        prop::sample::select(corpus),
        prop::collection::vec(change(), 1..6),
    )
        .prop_map(|(bytes, changes)| changed(bytes, &changes));
    let any = prop::collection::vec(any::<u8>(), 0..200);
    let ran = runner.run(&prop_oneof![9 => known, 1 => any], |bytes| {
        target(&bytes);
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{failure}");
    }
}

#[test]
fn any_answer_of_a_provider() {
    tried("answer");
}

#[test]
fn any_refusal_of_a_provider() {
    tried("refusal");
}

#[test]
fn any_frame_of_a_client() {
    tried("frame");
}

#[test]
fn any_body_of_a_completion() {
    tried("completion");
}

#[test]
fn any_configuration_and_any_replies() {
    tried("configuration");
}

#[test]
fn any_record_of_the_store() {
    tried("record");
}

#[test]
fn any_token_of_a_visitor() {
    tried("visitor");
}

/// Each has its target for the fuzzer, and nothing else is there.
#[test]
fn the_fuzzer_has_the_same_targets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned()
        })
        .collect();
    files.sort();
    let mut known = TARGETS.map(|(name, _)| name);
    known.sort_unstable();
    assert_eq!(files, known);
}
