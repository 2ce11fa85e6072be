//! The merged text of several attempts, by examples and by property tests.

use super::*;
use proptest::prelude::*;

fn source(attempt: u32) -> TextSource {
    TextSource {
        attempt,
        provider: Arc::from(format!("p{attempt}")),
    }
}

fn after_attempt(first: &str) -> TextMerger {
    let mut merger = TextMerger::default();
    merger.start_attempt(source(1), ContinuationMode::Restart);
    if !first.is_empty() {
        assert_eq!(merger.push_text(first), MergeResult::Append(first.into()));
    }
    merger.start_attempt(source(2), ContinuationMode::Restart);
    merger
}

#[test]
fn equal_prefix_is_shown_once() {
    let mut merger = after_attempt("Hello wor");
    assert_eq!(merger.push_text("Hel"), MergeResult::NoChange);
    assert_eq!(
        merger.push_text("lo world"),
        MergeResult::Append("ld".into())
    );
    assert_eq!(merger.push_text("!"), MergeResult::Append("!".into()));
    assert_eq!(merger.finish_attempt(), MergeResult::NoChange);
    assert_eq!((merger.shown(), merger.drafts().len()), ("Hello world!", 0));
    assert_eq!(merger.owner(), Some(&source(2)));
}

#[test]
fn first_difference_restarts_the_text() {
    let mut merger = after_attempt("Hello world");
    assert_eq!(merger.push_text("Hello"), MergeResult::NoChange);
    assert_eq!(
        merger.push_text(" moon"),
        MergeResult::Restart("Hello moon".into())
    );
    assert_eq!(merger.drafts()[0].text, "Hello world");
    assert_eq!(
        (merger.drafts()[0].attempt, &*merger.drafts()[0].provider),
        (1, "p1")
    );
}

#[test]
fn shorter_answer_restarts_the_text() {
    let mut merger = after_attempt("Hello world");
    assert_eq!(merger.push_text("Hello"), MergeResult::NoChange);
    assert_eq!(
        merger.finish_attempt(),
        MergeResult::Restart("Hello".into())
    );
    assert_eq!(merger.owner(), Some(&source(2)));
}

#[test]
fn equal_answer_changes_the_owner_without_a_frame() {
    let mut merger = after_attempt("Hello");
    assert_eq!(merger.push_text("Hello"), MergeResult::NoChange);
    assert_eq!(merger.finish_attempt(), MergeResult::NoChange);
    assert_eq!(
        (merger.owner(), merger.drafts().len()),
        (Some(&source(2)), 0)
    );
}

#[test]
fn failure_within_the_prefix_keeps_the_shown_text() {
    let mut merger = after_attempt("Hello world");
    assert_eq!(merger.push_text("Hello"), MergeResult::NoChange);
    merger.start_attempt(source(3), ContinuationMode::Restart);
    assert_eq!(
        merger.push_text("Hello world, again"),
        MergeResult::Append(", again".into())
    );
    assert_eq!(merger.owner(), Some(&source(3)));
}

#[test]
fn replacement_keeps_the_shown_text_as_a_draft() {
    let mut merger = after_attempt("Hello wor");
    assert_eq!(
        merger.replace(source(0), "Sorry."),
        MergeResult::Restart("Sorry.".into())
    );
    assert_eq!((merger.shown(), merger.drafts().len()), ("Sorry.", 1));
    let mut empty = after_attempt("");
    assert_eq!(
        empty.replace(source(0), "Sorry."),
        MergeResult::Append("Sorry.".into())
    );
    assert!(empty.drafts().is_empty());
}

fn continued(first: &str, start: ContinuationMode) -> TextMerger {
    let mut merger = after_attempt(first);
    merger.start_attempt(source(2), start);
    merger
}

#[test]
fn repeated_overlap_is_dropped() {
    let mut merger = continued("The sky is", ContinuationMode::RepeatOverlap);
    assert_eq!(merger.push_text("The sk"), MergeResult::NoChange);
    assert_eq!(
        merger.push_text("y is blue"),
        MergeResult::Append(" blue".into())
    );
    assert_eq!(merger.push_text("."), MergeResult::Append(".".into()));
    assert_eq!(
        (merger.shown(), merger.owner()),
        ("The sky is blue.", Some(&source(2)))
    );
    assert!(merger.drafts().is_empty());
}

#[test]
fn mismatching_continuation_keeps_the_shown_text() {
    let mut merger = continued("The sky is", ContinuationMode::RepeatOverlap);
    assert_eq!(merger.push_text("Of course! "), MergeResult::Mismatch);
    assert_eq!(
        (merger.shown(), merger.owner()),
        ("The sky is", Some(&source(1)))
    );
    let mut merger = continued("The sky is", ContinuationMode::RepeatOverlap);
    assert_eq!(merger.push_text("The"), MergeResult::NoChange);
    assert_eq!(
        merger.finish_attempt(),
        MergeResult::Mismatch,
        "ended within the overlap"
    );
}

#[test]
fn restarted_answer_is_matched_from_its_start() {
    let first = format!("Start. {}", "x".repeat(60));
    let mut merger = continued(&first, ContinuationMode::RepeatOverlap);
    assert_eq!(merger.push_text("Start. "), MergeResult::NoChange);
    assert_eq!(merger.push_text(&"x".repeat(60)), MergeResult::NoChange);
    assert_eq!(
        merger.push_text(" End."),
        MergeResult::Append(" End.".into())
    );
    // The same in one piece.
    let mut merger = continued(&first, ContinuationMode::RepeatOverlap);
    assert_eq!(
        merger.push_text(&format!("{first} End.")),
        MergeResult::Append(" End.".into())
    );
}

#[test]
fn prefilled_attempt_is_appended() {
    let mut merger = continued("The sky ", ContinuationMode::Prefill);
    assert_eq!(merger.push_text(" is"), MergeResult::Append("is".into()));
    assert_eq!(merger.shown(), "The sky is");
}

#[test]
fn chunk_size_does_not_affect_a_continuation() {
    for (shown, continuation, expected) in [
        ("def f():\n", "\n    return 1", "def f():\n    return 1"),
        ("one ", " two", "one two"),
        ("one", " two", "one two"),
    ] {
        for start in [ContinuationMode::Prefill, ContinuationMode::RepeatOverlap] {
            let continuation = if start == ContinuationMode::RepeatOverlap {
                format!("{}{continuation}", shown.trim_end())
            } else {
                continuation.to_owned()
            };
            for size in 1..=continuation.len() {
                let mut merger = continued(shown, start);
                for piece in continuation.as_bytes().chunks(size) {
                    assert_ne!(
                        merger.push_text(std::str::from_utf8(piece).unwrap()),
                        MergeResult::Mismatch
                    );
                }
                assert_eq!(merger.finish_attempt(), MergeResult::NoChange);
                assert_eq!(merger.shown(), expected, "{start:?} in pieces of {size}");
            }
        }
    }
}

#[test]
fn echo_of_the_prefill_is_dropped() {
    let first = format!("Start. {} ", "x".repeat(60));
    for cut in [3, 30, first.len() - 1, first.len(), first.len() + 2] {
        let said = format!("{first}End.");
        let mut merger = continued(&first, ContinuationMode::Prefill);
        let _ = (
            merger.push_text(&said[..cut]),
            merger.push_text(&said[cut..]),
        );
        assert_eq!(
            (merger.finish_attempt(), merger.shown()),
            (MergeResult::NoChange, said.as_str()),
            "{cut}"
        );
    }
    // A text that only starts like the prefill is a continuation, complete or not.
    let mut merger = continued(&first, ContinuationMode::Prefill);
    assert_eq!(merger.push_text("Start"), MergeResult::NoChange);
    assert_eq!(
        merger.push_text("ing"),
        MergeResult::Append("Starting".into())
    );
    let mut merger = continued(&first, ContinuationMode::Prefill);
    assert_eq!(merger.push_text("St"), MergeResult::NoChange);
    assert_eq!(merger.finish_attempt(), MergeResult::Append("St".into()));
    // The echo of a short text may be a real repetition.
    let mut merger = continued("1", ContinuationMode::Prefill);
    assert_eq!(merger.push_text("1"), MergeResult::Append("1".into()));
}

#[test]
fn append_only_merger_never_retracts() {
    let mut merger = TextMerger::new(true);
    merger.start_attempt(source(1), ContinuationMode::Restart);
    assert_eq!(
        merger.push_text("Hello"),
        MergeResult::Append("Hello".into())
    );
    merger.start_attempt(source(2), ContinuationMode::Restart);
    assert_eq!(merger.push_text("Help"), MergeResult::Mismatch);
    merger.start_attempt(source(3), ContinuationMode::Restart);
    assert_eq!(merger.push_text("Hell"), MergeResult::NoChange);
    assert_eq!(merger.finish_attempt(), MergeResult::Mismatch, "shorter");
    merger.start_attempt(source(3), ContinuationMode::Restart);
    assert_eq!(
        merger.push_text("Hello you"),
        MergeResult::Append(" you".into())
    );
}

proptest! {
    /// A client that only appends and clears shows the merger's text, and that is the current
    /// attempt's text or the text before it: never a mixture.
    #[test]
    fn texts_are_never_mixed(
        attempts in prop::collection::vec((prop::collection::vec("[ab\u{e9}]{1,3}", 0..6), any::<bool>()), 1..6),
    ) {
        let mut merger = TextMerger::default();
        let mut client = String::new();
        let mut attempt_texts: Vec<String> = Vec::new();
        for (number, (pieces, is_complete)) in attempts.into_iter().enumerate() {
            let before = client.clone();
            merger.start_attempt(source(u32::try_from(number).unwrap_or(0) + 1), ContinuationMode::Restart);
            let mut text = String::new();
            let apply = |result: MergeResult, client: &mut String| match result {
                MergeResult::NoChange => {}
                MergeResult::Append(text) => client.push_str(&text),
                MergeResult::Restart(text) => *client = text,
                MergeResult::Mismatch => panic!("mismatch although text can be retracted"),
            };
            for piece in pieces {
                text.push_str(&piece);
                apply(merger.push_text(&piece), &mut client);
                prop_assert_eq!(&client, merger.shown());
                prop_assert!(client == text || (client == before && before.starts_with(&text)));
            }
            if is_complete && !text.is_empty() {
                apply(merger.finish_attempt(), &mut client);
                prop_assert_eq!(&client, &text);
            }
            prop_assert_eq!(&client, merger.shown());
            attempt_texts.push(text);
            prop_assert!(client.is_empty() || attempt_texts.contains(&client));
        }
    }
}

#[test]
fn overlap_is_the_last_forty_characters() {
    let shown = format!("{}é{} ", "a".repeat(50), "b".repeat(39));
    assert_eq!(overlap_tail(&shown), format!("é{}", "b".repeat(39)));
    assert_eq!(overlap_tail("short"), "short");
    assert_eq!(overlap_tail(""), "");
}

#[test]
fn overlap_matches_regardless_of_white_space() {
    for text in [
        "one two three four",
        "one  two\nthree four",
        " onetwothree four",
    ] {
        let OverlapMatch::EndsAt(at) = match_overlap("one two three", text) else {
            panic!("{text}")
        };
        assert_eq!(&text[at..], " four");
    }
    assert_eq!(match_overlap("one two", "one"), OverlapMatch::Incomplete);
    assert_eq!(match_overlap("one two", ""), OverlapMatch::Incomplete);
    assert_eq!(match_overlap("one two", "one two"), OverlapMatch::EndsAt(7));
    assert_eq!(
        match_overlap("one two", "Sure! one two"),
        OverlapMatch::Mismatch
    );
    assert_eq!(match_overlap("one two", "one too"), OverlapMatch::Mismatch);
}

#[test]
fn common_white_space_is_removed_once() {
    assert_eq!(strip_common_whitespace("one ", " two"), "two");
    assert_eq!(strip_common_whitespace("one", " two"), " two");
    assert_eq!(
        strip_common_whitespace("def f():\n", "\n    return 1"),
        "    return 1"
    );
    assert_eq!(
        strip_common_whitespace("def f():\n", "    return 1"),
        "    return 1"
    );
}
