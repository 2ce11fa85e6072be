//! The merged text of several attempts, by examples and by property tests.

use super::*;
use proptest::prelude::*;

fn source(attempt: u32) -> Owner {
    Owner {
        attempt,
        provider: Arc::from(format!("p{attempt}")),
    }
}

fn after_attempt(first: &str) -> Seam {
    let mut merger = Seam::default();
    merger.begin(source(1), Start::Anew);
    if !first.is_empty() {
        assert_eq!(merger.push(first), Show::More(first.into()));
    }
    merger.begin(source(2), Start::Anew);
    merger
}

#[test]
fn equal_prefix_is_shown_once() {
    let mut merger = after_attempt("Hello wor");
    assert_eq!(merger.push("Hel"), Show::Nothing);
    assert_eq!(merger.push("lo world"), Show::More("ld".into()));
    assert_eq!(merger.push("!"), Show::More("!".into()));
    assert_eq!(merger.whole(), Show::Nothing);
    assert_eq!((merger.shown(), merger.drafts().len()), ("Hello world!", 0));
    assert_eq!(merger.owner(), Some(&source(2)));
}

#[test]
fn first_difference_restarts_the_text() {
    let mut merger = after_attempt("Hello world");
    assert_eq!(merger.push("Hello"), Show::Nothing);
    assert_eq!(merger.push(" moon"), Show::Anew("Hello moon".into()));
    assert_eq!(merger.drafts()[0].text, "Hello world");
    assert_eq!(
        (merger.drafts()[0].attempt, &*merger.drafts()[0].provider),
        (1, "p1")
    );
}

#[test]
fn shorter_answer_restarts_the_text() {
    let mut merger = after_attempt("Hello world");
    assert_eq!(merger.push("Hello"), Show::Nothing);
    assert_eq!(merger.whole(), Show::Anew("Hello".into()));
    assert_eq!(merger.owner(), Some(&source(2)));
}

#[test]
fn equal_answer_changes_the_owner_without_a_frame() {
    let mut merger = after_attempt("Hello");
    assert_eq!(merger.push("Hello"), Show::Nothing);
    assert_eq!(merger.whole(), Show::Nothing);
    assert_eq!(
        (merger.owner(), merger.drafts().len()),
        (Some(&source(2)), 0)
    );
}

#[test]
fn failure_within_the_prefix_keeps_the_shown_text() {
    let mut merger = after_attempt("Hello world");
    assert_eq!(merger.push("Hello"), Show::Nothing);
    merger.begin(source(3), Start::Anew);
    assert_eq!(
        merger.push("Hello world, again"),
        Show::More(", again".into())
    );
    assert_eq!(merger.owner(), Some(&source(3)));
}

#[test]
fn replacement_keeps_the_shown_text_as_a_draft() {
    let mut merger = after_attempt("Hello wor");
    assert_eq!(
        merger.replace(source(0), "Sorry."),
        Show::Anew("Sorry.".into())
    );
    assert_eq!((merger.shown(), merger.drafts().len()), ("Sorry.", 1));
    let mut empty = after_attempt("");
    assert_eq!(
        empty.replace(source(0), "Sorry."),
        Show::More("Sorry.".into())
    );
    assert!(empty.drafts().is_empty());
}

fn continued(first: &str, start: Start) -> Seam {
    let mut merger = after_attempt(first);
    merger.begin(source(2), start);
    merger
}

#[test]
fn repeated_overlap_is_dropped() {
    let mut merger = continued("The sky is", Start::Repeats);
    assert_eq!(merger.push("The sk"), Show::Nothing);
    assert_eq!(merger.push("y is blue"), Show::More(" blue".into()));
    assert_eq!(merger.push("."), Show::More(".".into()));
    assert_eq!(
        (merger.shown(), merger.owner()),
        ("The sky is blue.", Some(&source(2)))
    );
    assert!(merger.drafts().is_empty());
}

#[test]
fn mismatching_continuation_keeps_the_shown_text() {
    let mut merger = continued("The sky is", Start::Repeats);
    assert_eq!(merger.push("Of course! "), Show::Misfit);
    assert_eq!(
        (merger.shown(), merger.owner()),
        ("The sky is", Some(&source(1)))
    );
    let mut merger = continued("The sky is", Start::Repeats);
    assert_eq!(merger.push("The"), Show::Nothing);
    assert_eq!(merger.whole(), Show::Misfit, "ended within the overlap");
}

#[test]
fn restarted_answer_is_matched_from_its_start() {
    let first = format!("Start. {}", "x".repeat(60));
    let mut merger = continued(&first, Start::Repeats);
    assert_eq!(merger.push("Start. "), Show::Nothing);
    assert_eq!(merger.push(&"x".repeat(60)), Show::Nothing);
    assert_eq!(merger.push(" End."), Show::More(" End.".into()));
    // The same in one piece.
    let mut merger = continued(&first, Start::Repeats);
    assert_eq!(
        merger.push(&format!("{first} End.")),
        Show::More(" End.".into())
    );
}

#[test]
fn prefilled_attempt_is_appended() {
    let mut merger = continued("The sky ", Start::GoesOn);
    assert_eq!(merger.push(" is"), Show::More("is".into()));
    assert_eq!(merger.shown(), "The sky is");
}

#[test]
fn chunk_size_does_not_affect_a_continuation() {
    for (shown, continuation, expected) in [
        ("def f():\n", "\n    return 1", "def f():\n    return 1"),
        ("one ", " two", "one two"),
        ("one", " two", "one two"),
    ] {
        for start in [Start::GoesOn, Start::Repeats] {
            let continuation = if start == Start::Repeats {
                format!("{}{continuation}", shown.trim_end())
            } else {
                continuation.to_owned()
            };
            for size in 1..=continuation.len() {
                let mut merger = continued(shown, start);
                for piece in continuation.as_bytes().chunks(size) {
                    assert_ne!(
                        merger.push(std::str::from_utf8(piece).unwrap()),
                        Show::Misfit
                    );
                }
                assert_eq!(merger.whole(), Show::Nothing);
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
        let mut merger = continued(&first, Start::GoesOn);
        let _ = (merger.push(&said[..cut]), merger.push(&said[cut..]));
        assert_eq!(
            (merger.whole(), merger.shown()),
            (Show::Nothing, said.as_str()),
            "{cut}"
        );
    }
    // A text that only starts like the prefill is a continuation, complete or not.
    let mut merger = continued(&first, Start::GoesOn);
    assert_eq!(merger.push("Start"), Show::Nothing);
    assert_eq!(merger.push("ing"), Show::More("Starting".into()));
    let mut merger = continued(&first, Start::GoesOn);
    assert_eq!(merger.push("St"), Show::Nothing);
    assert_eq!(merger.whole(), Show::More("St".into()));
    // The echo of a short text may be a real repetition.
    let mut merger = continued("1", Start::GoesOn);
    assert_eq!(merger.push("1"), Show::More("1".into()));
}

#[test]
fn append_only_merger_never_retracts() {
    let mut merger = Seam::rigid();
    merger.begin(source(1), Start::Anew);
    assert_eq!(merger.push("Hello"), Show::More("Hello".into()));
    merger.begin(source(2), Start::Anew);
    assert_eq!(merger.push("Help"), Show::Misfit);
    merger.begin(source(3), Start::Anew);
    assert_eq!(merger.push("Hell"), Show::Nothing);
    assert_eq!(merger.whole(), Show::Misfit, "shorter");
    merger.begin(source(3), Start::Anew);
    assert_eq!(merger.push("Hello you"), Show::More(" you".into()));
}

proptest! {
    /// A client that only appends and clears shows the merger's text, and that is the current
    /// attempt's text or the text before it: never a mixture.
    #[test]
    fn texts_are_never_mixed(
        attempts in prop::collection::vec((prop::collection::vec("[ab\u{e9}]{1,3}", 0..6), any::<bool>()), 1..6),
    ) {
        let mut merger = Seam::default();
        let mut client = String::new();
        let mut attempt_texts: Vec<String> = Vec::new();
        for (number, (pieces, is_complete)) in attempts.into_iter().enumerate() {
            let before = client.clone();
            merger.begin(source(u32::try_from(number).unwrap_or(0) + 1), Start::Anew);
            let mut text = String::new();
            let apply = |result: Show, client: &mut String| match result {
                Show::Nothing => {}
                Show::More(text) => client.push_str(&text),
                Show::Anew(text) => *client = text,
                Show::Misfit => panic!("mismatch although text can be retracted"),
            };
            for piece in pieces {
                text.push_str(&piece);
                apply(merger.push(&piece), &mut client);
                prop_assert_eq!(&client, merger.shown());
                prop_assert!(client == text || (client == before && before.starts_with(&text)));
            }
            if is_complete && !text.is_empty() {
                apply(merger.whole(), &mut client);
                prop_assert_eq!(&client, &text);
            }
            prop_assert_eq!(&client, merger.shown());
            attempt_texts.push(text);
            prop_assert!(client.is_empty() || attempt_texts.contains(&client));
        }
    }
}
