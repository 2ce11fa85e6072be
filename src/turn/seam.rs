//! The seam between two attempts: what of a new attempt's text is shown, and when the shown text must be voided. Pure.
//!
//! Two texts are never mixed: what stands is always the text of one attempt, or the beginning of two that begin alike.

use std::sync::Arc;

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
}

/// Whose text it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The attempt's number; 0 for what no provider says.
    pub attempt: u32,
    /// The provider's name; the kind of answer where none says it.
    pub provider: Arc<str>,
}

/// The text that stands, the drafts that were voided, and the place of the present attempt in it.
#[derive(Debug, Default)]
pub struct Seam {
    shown: String,
    owner: Option<Owner>,
    drafts: Vec<Draft>,
    writer: Option<Owner>,
    /// While the present attempt repeats what stands: how much of it, in bytes. None once it has gone on or differed.
    repeated: Option<usize>,
}

impl Seam {
    /// A new attempt begins; all it says so far is compared with what stands.
    pub fn begin(&mut self, writer: Owner) {
        self.writer = Some(writer);
        self.repeated = Some(0);
    }

    /// The present attempt says more.
    pub fn push(&mut self, text: &str) -> Show {
        let Some(repeated) = self.repeated else {
            self.shown.push_str(text);
            return Show::More(text.to_owned());
        };
        let rest = self.shown.get(repeated..).unwrap_or_default();
        if rest.len() > text.len() && rest.starts_with(text) {
            self.repeated = Some(repeated + text.len());
            return Show::Nothing;
        }
        if let Some(more) = text.strip_prefix(rest) {
            let more = more.to_owned();
            self.shown.push_str(&more);
            self.take_over();
            return if more.is_empty() { Show::Nothing } else { Show::More(more) };
        }
        let mut anew = self.shown.get(..repeated).unwrap_or_default().to_owned();
        anew.push_str(text);
        self.void(anew)
    }

    /// The present attempt ended whole. It may have ended shorter than what stands.
    pub fn whole(&mut self) -> Show {
        match self.repeated {
            Some(repeated) if repeated < self.shown.len() => {
                let anew = self.shown.get(..repeated).unwrap_or_default().to_owned();
                self.void(anew)
            }
            _ => Show::Nothing,
        }
    }

    /// Puts `text` in the place of whatever stands.
    pub fn replace(&mut self, writer: Owner, text: &str) -> Show {
        self.writer = Some(writer);
        if self.shown.is_empty() {
            self.shown.push_str(text);
            self.take_over();
            return Show::More(text.to_owned());
        }
        self.void(text.to_owned())
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

    /// The present attempt's text is now what stands.
    fn take_over(&mut self) {
        self.owner = self.writer.clone();
        self.repeated = None;
    }

    fn void(&mut self, anew: String) -> Show {
        let text = std::mem::replace(&mut self.shown, anew.clone());
        if let Some(Owner { attempt, provider }) = self.owner.take() {
            self.drafts.push(Draft { attempt, provider, text });
        }
        self.take_over();
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
        seam.begin(owner(1));
        if !first.is_empty() {
            assert_eq!(seam.push(first), Show::More(first.into()));
        }
        seam.begin(owner(2));
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
        seam.begin(owner(3));
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
                seam.begin(owner(u32::try_from(number).unwrap_or(0) + 1));
                let mut said = String::new();
                let apply = |show: Show, client: &mut String| match show {
                    Show::Nothing => {}
                    Show::More(text) => client.push_str(&text),
                    Show::Anew(text) => *client = text,
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
