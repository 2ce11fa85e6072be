//! What is shown over a seam, by example and by chance.

use super::*;
use proptest::prelude::*;

fn owner(attempt: u32) -> Owner {
    Owner {
        attempt,
        provider: Arc::from(format!("p{attempt}")),
    }
}

fn after(first: &str) -> Seam {
    let mut seam = Seam::default();
    seam.begin(owner(1), Start::Anew);
    if !first.is_empty() {
        assert_eq!(seam.push(first), Show::More(first.into()));
    }
    seam.begin(owner(2), Start::Anew);
    seam
}

#[test]
fn the_same_start_needs_no_marker() {
    let mut seam = after("Hello wor");
    assert_eq!(seam.push("Hel"), Show::Nothing);
    assert_eq!(seam.push("lo world"), Show::More("ld".into()));
    assert_eq!(seam.push("!"), Show::More("!".into()));
    assert_eq!(seam.whole(), Show::Nothing);
    assert_eq!((seam.shown(), seam.drafts().len()), ("Hello world!", 0));
    assert_eq!(seam.owner(), Some(&owner(2)));
}

#[test]
fn the_first_difference_voids_all() {
    let mut seam = after("Hello world");
    assert_eq!(seam.push("Hello"), Show::Nothing);
    assert_eq!(seam.push(" moon"), Show::Anew("Hello moon".into()));
    assert_eq!(seam.drafts()[0].text, "Hello world");
    assert_eq!(
        (seam.drafts()[0].attempt, &*seam.drafts()[0].provider),
        (1, "p1")
    );
}

#[test]
fn a_shorter_end_voids_too() {
    let mut seam = after("Hello world");
    assert_eq!(seam.push("Hello"), Show::Nothing);
    assert_eq!(seam.whole(), Show::Anew("Hello".into()));
    assert_eq!(seam.owner(), Some(&owner(2)));
}

#[test]
fn an_equal_answer_changes_hands_without_a_frame() {
    let mut seam = after("Hello");
    assert_eq!(seam.push("Hello"), Show::Nothing);
    assert_eq!(seam.whole(), Show::Nothing);
    assert_eq!((seam.owner(), seam.drafts().len()), (Some(&owner(2)), 0));
}

#[test]
fn who_fails_while_repeating_leaves_what_stands() {
    let mut seam = after("Hello world");
    assert_eq!(seam.push("Hello"), Show::Nothing);
    seam.begin(owner(3), Start::Anew);
    assert_eq!(
        seam.push("Hello world, again"),
        Show::More(", again".into())
    );
    assert_eq!(seam.owner(), Some(&owner(3)));
}

#[test]
fn a_replacement_keeps_the_torn_text_as_a_draft() {
    let mut seam = after("Hello wor");
    assert_eq!(
        seam.replace(owner(0), "Sorry."),
        Show::Anew("Sorry.".into())
    );
    assert_eq!((seam.shown(), seam.drafts().len()), ("Sorry.", 1));
    let mut empty = after("");
    assert_eq!(
        empty.replace(owner(0), "Sorry."),
        Show::More("Sorry.".into())
    );
    assert!(empty.drafts().is_empty());
}

fn continued(first: &str, start: Start) -> Seam {
    let mut seam = after(first);
    seam.begin(owner(2), start);
    seam
}

#[test]
fn a_repeated_end_is_cut_and_the_text_goes_on() {
    let mut seam = continued("The sky is", Start::Repeats);
    assert_eq!(seam.push("The sk"), Show::Nothing);
    assert_eq!(seam.push("y is blue"), Show::More(" blue".into()));
    assert_eq!(seam.push("."), Show::More(".".into()));
    assert_eq!(
        (seam.shown(), seam.owner()),
        ("The sky is blue.", Some(&owner(2)))
    );
    assert!(seam.drafts().is_empty());
}

#[test]
fn a_continuation_that_does_not_fit_changes_nothing() {
    let mut seam = continued("The sky is", Start::Repeats);
    assert_eq!(seam.push("Of course! "), Show::Misfit);
    assert_eq!(
        (seam.shown(), seam.owner()),
        ("The sky is", Some(&owner(1)))
    );
    let mut seam = continued("The sky is", Start::Repeats);
    assert_eq!(seam.push("The"), Show::Nothing);
    assert_eq!(seam.whole(), Show::Misfit, "ended within the repeat");
}

#[test]
fn who_begins_the_answer_again_is_compared_from_the_beginning() {
    let first = format!("Start. {}", "x".repeat(60));
    let mut seam = continued(&first, Start::Repeats);
    assert_eq!(seam.push("Start. "), Show::Nothing);
    assert_eq!(seam.push(&"x".repeat(60)), Show::Nothing);
    assert_eq!(seam.push(" End."), Show::More(" End.".into()));
    // All at once, too.
    let mut seam = continued(&first, Start::Repeats);
    assert_eq!(
        seam.push(&format!("{first} End.")),
        Show::More(" End.".into())
    );
}

#[test]
fn a_prefilled_attempt_just_goes_on() {
    let mut seam = continued("The sky ", Start::GoesOn);
    assert_eq!(seam.push(" is"), Show::More("is".into()));
    assert_eq!(seam.shown(), "The sky is");
}

#[test]
fn a_continuation_is_the_same_however_it_is_cut() {
    for (shown, said, whole) in [
        ("def f():\n", "\n    return 1", "def f():\n    return 1"),
        ("one ", " two", "one two"),
        ("one", " two", "one two"),
    ] {
        for start in [Start::GoesOn, Start::Repeats] {
            let said = if start == Start::Repeats {
                format!("{}{said}", shown.trim_end())
            } else {
                said.to_owned()
            };
            for size in 1..=said.len() {
                let mut seam = continued(shown, start);
                for piece in said.as_bytes().chunks(size) {
                    assert_ne!(seam.push(std::str::from_utf8(piece).unwrap()), Show::Misfit);
                }
                assert_eq!(seam.whole(), Show::Nothing);
                assert_eq!(seam.shown(), whole, "{start:?} in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_beginning_that_is_sent_back_is_cut() {
    let first = format!("Start. {} ", "x".repeat(60));
    for cut in [3, 30, first.len() - 1, first.len(), first.len() + 2] {
        let said = format!("{first}End.");
        let mut seam = continued(&first, Start::GoesOn);
        let _ = (seam.push(&said[..cut]), seam.push(&said[cut..]));
        assert_eq!(
            (seam.whole(), seam.shown()),
            (Show::Nothing, said.as_str()),
            "{cut}"
        );
    }
    // What only begins like it is its continuation, whole or not.
    let mut seam = continued(&first, Start::GoesOn);
    assert_eq!(seam.push("Start"), Show::Nothing);
    assert_eq!(seam.push("ing"), Show::More("Starting".into()));
    let mut seam = continued(&first, Start::GoesOn);
    assert_eq!(seam.push("St"), Show::Nothing);
    assert_eq!(seam.whole(), Show::More("St".into()));
    // A short one may be said again by chance.
    let mut seam = continued("1", Start::GoesOn);
    assert_eq!(seam.push("1"), Show::More("1".into()));
}

#[test]
fn what_cannot_be_taken_back_is_never_voided() {
    let mut seam = Seam::rigid();
    seam.begin(owner(1), Start::Anew);
    assert_eq!(seam.push("Hello"), Show::More("Hello".into()));
    seam.begin(owner(2), Start::Anew);
    assert_eq!(seam.push("Help"), Show::Misfit);
    seam.begin(owner(3), Start::Anew);
    assert_eq!(seam.push("Hell"), Show::Nothing);
    assert_eq!(seam.whole(), Show::Misfit, "shorter");
    seam.begin(owner(3), Start::Anew);
    assert_eq!(seam.push("Hello you"), Show::More(" you".into()));
}

proptest! {
    /// A client that only appends and clears shows just what the seam says stands, and that is a prefix of, or equal to,
    /// what the present attempt said or what stood before: never a mixture.
    #[test]
    fn what_is_shown_is_never_mixed(
        attempts in prop::collection::vec((prop::collection::vec("[ab\u{e9}]{1,3}", 0..6), any::<bool>()), 1..6),
    ) {
        let mut seam = Seam::default();
        let mut client = String::new();
        let mut said_by_all: Vec<String> = Vec::new();
        for (number, (pieces, whole)) in attempts.into_iter().enumerate() {
            let before = client.clone();
            seam.begin(owner(u32::try_from(number).unwrap_or(0) + 1), Start::Anew);
            let mut said = String::new();
            let apply = |show: Show, client: &mut String| match show {
                Show::Nothing => {}
                Show::More(text) => client.push_str(&text),
                Show::Anew(text) => *client = text,
                Show::Misfit => panic!("a misfit where text may be taken back"),
            };
            for piece in pieces {
                said.push_str(&piece);
                apply(seam.push(&piece), &mut client);
                prop_assert_eq!(&client, seam.shown());
                prop_assert!(client == said || (client == before && before.starts_with(&said)));
            }
            if whole && !said.is_empty() {
                apply(seam.whole(), &mut client);
                prop_assert_eq!(&client, &said);
            }
            prop_assert_eq!(&client, seam.shown());
            said_by_all.push(said);
            prop_assert!(client.is_empty() || said_by_all.contains(&client));
        }
    }
}
