//! The seam between two attempts: what of a new attempt's text is shown, and when the shown text must be voided. Pure.
//!
//! Two texts are never mixed without their fitting together: what stands is the text of one attempt, the beginning of two that begin alike, or a
//! text and its continuation by who was shown it.

use std::sync::Arc;

use super::anchor::{self, Cut};
use crate::chat::Draft;

/// What to show after new text.
#[derive(Debug, PartialEq, Eq)]
pub enum Show {
    /// Nothing yet: it repeats what stands.
    Nothing,
    /// This, appended to what stands.
    More(String),
    /// What stands is voided and became the newest draft; this stands now.
    Anew(String),
    /// It does not fit to what stands, and that is not to be voided for it: the attempt is of no use. What stands stays.
    Misfit,
}

/// Whose text it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The attempt's number; 0 for what no provider says.
    pub attempt: u32,
    /// The provider's name; the kind of answer where none says it.
    pub provider: Arc<str>,
}

/// How an attempt begins where text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// It answers anew.
    #[default]
    Anew,
    /// It was given what stands as its own beginning, and goes on from there.
    GoesOn,
    /// It was told to repeat the end of what stands, and to go on from there.
    Repeats,
}

/// The text that stands, the drafts that were voided, and the place of the present attempt in it.
#[derive(Debug, Default)]
pub struct Seam {
    shown: String,
    owner: Option<Owner>,
    drafts: Vec<Draft>,
    writer: Option<Owner>,
    place: Place,
    /// Whether what was shown cannot be taken back.
    rigid: bool,
}

/// Where the present attempt is.
#[derive(Debug, Default)]
enum Place {
    /// It goes on where the text ends.
    #[default]
    AtEnd,
    /// It repeats what stands from the beginning: so many bytes of it up to now.
    Repeating(usize),
    /// It is to repeat the end of what stands, and has said this up to now.
    Anchoring(String),
    /// It goes on from what stands, and has said this white space so far.
    Joining(String),
}

impl Seam {
    /// A seam for who cannot take back what was shown: text that does not fit is a [`Show::Misfit`], never [`Show::Anew`].
    pub fn rigid() -> Self {
        Self { rigid: true, ..Self::default() }
    }

    /// A new attempt begins. Where nothing stands it answers anew, whatever `start` says.
    pub fn begin(&mut self, writer: Owner, start: Start) {
        self.writer = Some(writer);
        self.place = match start {
            Start::GoesOn if !self.shown.is_empty() => Place::Joining(String::new()),
            Start::Repeats if !self.shown.is_empty() => Place::Anchoring(String::new()),
            _ => Place::Repeating(0),
        };
    }

    /// The present attempt says more.
    pub fn push(&mut self, text: &str) -> Show {
        match &mut self.place {
            Place::AtEnd => self.append(text),
            Place::Joining(said) => {
                said.push_str(text);
                let said = std::mem::take(said);
                self.join(said)
            }
            Place::Anchoring(said) => {
                said.push_str(text);
                let said = std::mem::take(said);
                self.anchor(said, false)
            }
            Place::Repeating(repeated) => {
                let repeated = *repeated;
                self.repeat(repeated, text)
            }
        }
    }

    /// The present attempt ended whole. It may have ended shorter than what stands.
    pub fn whole(&mut self) -> Show {
        match &mut self.place {
            Place::Repeating(repeated) if *repeated < self.shown.len() => {
                let anew = self.shown.get(..*repeated).unwrap_or_default().to_owned();
                self.void(anew)
            }
            Place::Anchoring(said) => {
                let said = std::mem::take(said);
                self.anchor(said, true)
            }
            _ => Show::Nothing,
        }
    }

    /// Puts `text` in the place of whatever stands.
    pub fn replace(&mut self, writer: Owner, text: &str) -> Show {
        self.writer = Some(writer);
        if self.shown.is_empty() { self.append(text) } else { self.void(text.to_owned()) }
    }

    /// The text that stands.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whose text stands, where any does.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// The text that was voided.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    fn repeat(&mut self, repeated: usize, text: &str) -> Show {
        let rest = self.shown.get(repeated..).unwrap_or_default();
        if rest.len() > text.len() && rest.starts_with(text) {
            self.place = Place::Repeating(repeated + text.len());
            return Show::Nothing;
        }
        if let Some(more) = text.strip_prefix(rest) {
            return self.append(more);
        }
        let mut anew = self.shown.get(..repeated).unwrap_or_default().to_owned();
        anew.push_str(text);
        self.void(anew)
    }

    /// Goes on from what stands, once it is known how much white space the continuation begins with.
    fn join(&mut self, said: String) -> Show {
        if said.trim_start().is_empty() {
            self.place = Place::Joining(said);
            return Show::Nothing;
        }
        let more = anchor::joined(&self.shown, &said).to_owned();
        self.append(&more)
    }

    fn anchor(&mut self, said: String, whole: bool) -> Show {
        match anchor::cut(&self.shown, &said) {
            Cut::At(at) => self.join(said.get(at..).unwrap_or_default().to_owned()),
            Cut::TooShort if !whole => {
                self.place = Place::Anchoring(said);
                Show::Nothing
            }
            // It may have begun the whole answer again.
            Cut::Misfit if self.shown.starts_with(&said) || said.starts_with(&self.shown) => {
                self.repeat(0, &said)
            }
            Cut::TooShort | Cut::Misfit => Show::Misfit,
        }
    }

    /// Appends what fits; from now on the present attempt's text is what stands.
    fn append(&mut self, more: &str) -> Show {
        self.place = Place::AtEnd;
        self.owner.clone_from(&self.writer);
        if more.is_empty() {
            return Show::Nothing;
        }
        self.shown.push_str(more);
        Show::More(more.to_owned())
    }

    fn void(&mut self, anew: String) -> Show {
        if self.rigid {
            return Show::Misfit;
        }
        let text = std::mem::replace(&mut self.shown, anew.clone());
        if let Some(Owner { attempt, provider }) = self.owner.take() {
            self.drafts.push(Draft { attempt, provider, text });
        }
        self.place = Place::AtEnd;
        self.owner.clone_from(&self.writer);
        Show::Anew(anew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(attempt: u32) -> Owner {
        Owner { attempt, provider: Arc::from(format!("p{attempt}")) }
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
        assert_eq!((seam.drafts()[0].attempt, &*seam.drafts()[0].provider), (1, "p1"));
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
        assert_eq!(seam.push("Hello world, again"), Show::More(", again".into()));
        assert_eq!(seam.owner(), Some(&owner(3)));
    }

    #[test]
    fn a_replacement_keeps_the_torn_text_as_a_draft() {
        let mut seam = after("Hello wor");
        assert_eq!(seam.replace(owner(0), "Sorry."), Show::Anew("Sorry.".into()));
        assert_eq!((seam.shown(), seam.drafts().len()), ("Sorry.", 1));
        let mut empty = after("");
        assert_eq!(empty.replace(owner(0), "Sorry."), Show::More("Sorry.".into()));
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
        assert_eq!((seam.shown(), seam.owner()), ("The sky is blue.", Some(&owner(2))));
        assert!(seam.drafts().is_empty());
    }

    #[test]
    fn a_continuation_that_does_not_fit_changes_nothing() {
        let mut seam = continued("The sky is", Start::Repeats);
        assert_eq!(seam.push("Of course! "), Show::Misfit);
        assert_eq!((seam.shown(), seam.owner()), ("The sky is", Some(&owner(1))));
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
}
