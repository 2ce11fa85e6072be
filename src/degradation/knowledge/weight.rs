//! Memory and query time of a large index.

use std::fs;
use std::time::{Duration, Instant};

use super::index::PassageIndex;
use super::passages::Passage;

/// Passages of 90 words whose frequencies follow Zipf's law: word `n` is in about one of `n`.
fn passages(count: usize) -> Vec<Passage> {
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 33).unwrap()
    };
    let mut word = move || {
        // Evenly spread logarithms approximate Zipf's law.
        let log = f64::from(random()) / f64::from(u32::MAX >> 1);
        format!("w{:.0}x", (log * 30_000_f64.ln()).exp())
    };
    let passage = |n: usize| {
        let text: Vec<String> = (0..90).map(|_| word()).collect();
        Passage {
            title: format!("Part {}", n / 10).into(),
            file: format!("{}.md", n / 100).into(),
            text: text.join(" ").into(),
        }
    };
    (0..count).map(passage).collect()
}

fn questions() -> impl Iterator<Item = String> {
    (1..=40_u32).map(|n| {
        let words = (0..n % 8 + 3).map(|k| format!("w{}x", (n * 37 + k * k * 101) % 2_000 + k));
        format!("What about w1x {}?", words.collect::<Vec<_>>().join(" "))
    })
}

fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0_usize)
        * 4096
}

#[test]
fn query_reads_only_the_postings_of_its_terms() {
    let index = PassageIndex::build(passages(2_000));
    assert_eq!(index.passages().len(), 2_000);
    let times = questions().map(|question| {
        let started = Instant::now();
        index.find(&question);
        started.elapsed()
    });
    // An index that scans all passages takes a second here, in a debug build.
    assert!(times.min().unwrap() < Duration::from_millis(20));
    assert!(
        index.memory_bytes() < 2_000 * 5_000,
        "{}",
        index.memory_bytes()
    );
}

#[test]
fn ten_thousand_passages_are_queried_within_5_ms() {
    let before = resident();
    let started = Instant::now();
    let index = PassageIndex::build(passages(10_000));
    println!(
        "indexed in {:?}, {} MiB resident, {} MiB counted",
        started.elapsed(),
        resident().saturating_sub(before) >> 20,
        index.memory_bytes() >> 20
    );
    let mut times: Vec<Duration> = questions()
        .flat_map(|question| (0..5).map(move |_| question.clone()))
        .map(|question| {
            let started = Instant::now();
            index.find(&question);
            started.elapsed()
        })
        .collect();
    times.sort();
    let median = times[times.len() / 2];
    println!(
        "a query: median {median:?}, slowest {:?}",
        times.last().unwrap()
    );
    assert_eq!(index.passages().len(), 10_000);
    assert!(median < Duration::from_millis(5), "{median:?}");
    assert!(
        index.memory_bytes() < 100 << 20,
        "{} bytes",
        index.memory_bytes()
    );
}
