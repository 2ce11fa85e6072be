//! Runs the fuzz targets over their corpora, mutations of them, and random bytes.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// The number of inputs per target. `FAILSOFT_FUZZ_CASES=1000000` overrides it.
const DEFAULT_CASES: u32 = 3_000;

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

#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// Inserts a copy of a part at another position.
    Repeat(Index, Index, Index),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let special = prop::sample::select(b"\"\\{}[]:,.\r\n\0 -0e\xff\xef\xbb\xbf".to_vec());
    let index = any::<Index>;
    prop_oneof![
        (index(), prop_oneof![any::<u8>(), special.clone()])
            .prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (
            index(),
            prop::collection::vec(prop_oneof![any::<u8>(), special], 1..6)
        )
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (index(), index()).prop_map(|(from, to)| Mutation::Remove(from, to)),
        (index(), index(), index()).prop_map(|(from, to, at)| Mutation::Repeat(from, to, at)),
    ]
}

fn mutated(mut bytes: Vec<u8>, changes: &[Mutation]) -> Vec<u8> {
    for change in changes {
        let positions = bytes.len() + 1;
        let part = |from: &Index, to: &Index| {
            let from = from.index(positions);
            let to = to.index(positions);
            from.min(to)..from.max(to)
        };
        match change {
            Mutation::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Mutation::Set(..) => {}
            Mutation::Insert(at, new) => drop(bytes.splice(
                at.index(positions)..at.index(positions),
                new.iter().copied(),
            )),
            Mutation::Remove(from, to) => drop(bytes.drain(part(from, to))),
            Mutation::Repeat(from, to, at) => {
                let copy = bytes[part(from, to)].to_vec();
                drop(bytes.splice(at.index(positions)..at.index(positions), copy));
            }
        }
    }
    bytes
}

fn run_target(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
    corpus.iter().for_each(|bytes| target(bytes));
    let cases =
        std::env::var("FAILSOFT_FUZZ_CASES").map_or(DEFAULT_CASES, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let mutations = (
        prop::sample::select(corpus),
        prop::collection::vec(any_mutation(), 1..6),
    )
        .prop_map(|(bytes, changes)| mutated(bytes, &changes));
    let random = prop::collection::vec(any::<u8>(), 0..200);
    let result = runner.run(&prop_oneof![9 => mutations, 1 => random], |bytes| {
        target(&bytes);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn any_answer_of_a_provider() {
    run_target("answer");
}

#[test]
fn any_refusal_of_a_provider() {
    run_target("refusal");
}

#[test]
fn any_frame_of_a_client() {
    run_target("frame");
}

#[test]
fn any_body_of_a_completion() {
    run_target("completion");
}

#[test]
fn any_configuration_and_any_replies() {
    run_target("configuration");
}

#[test]
fn any_record_of_the_store() {
    run_target("record");
}

#[test]
fn any_token_of_a_visitor() {
    run_target("visitor");
}

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
