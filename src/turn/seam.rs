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
    /// It was given what stands, to go on from there, and has said this up to now, with which what stands begins: perhaps an echo.
    Echoing(String),
    /// It goes on from what stands, and has said this white space so far.
    Joining(String),
}

impl Seam {
    /// A seam for who cannot take back what was shown: text that does not fit is a [`Show::Misfit`], never [`Show::Anew`].
    pub fn rigid() -> Self {
        Self {
            rigid: true,
            ..Self::default()
        }
    }

    /// A new attempt begins. Where nothing stands it answers anew, whatever `start` says.
    pub fn begin(&mut self, writer: Owner, start: Start) {
        self.writer = Some(writer);
        self.place = match start {
            Start::GoesOn if !self.shown.is_empty() => Place::Echoing(String::new()),
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
            Place::Echoing(said) => {
                said.push_str(text);
                let said = std::mem::take(said);
                self.echo(said, false)
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
            Place::Echoing(said) => {
                let said = std::mem::take(said);
                self.echo(said, true)
            }
            _ => Show::Nothing,
        }
    }

    /// Puts `text` in the place of whatever stands.
    pub fn replace(&mut self, writer: Owner, text: &str) -> Show {
        self.writer = Some(writer);
        if self.shown.is_empty() {
            self.append(text)
        } else {
            self.void(text.to_owned())
        }
    }

    /// Appends what another seam showed: it is known to fit.
    pub fn mirror(&mut self, writer: Owner, text: &str) {
        self.writer = Some(writer);
        let _ = self.append(text);
    }

    /// Takes another seam's state for its own.
    pub fn restore(&mut self, owner: Owner, shown: String, drafts: Vec<Draft>) {
        self.writer = Some(owner.clone());
        self.owner = Some(owner);
        self.place = Place::AtEnd;
        (self.shown, self.drafts) = (shown, drafts);
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

    /// Some servers send the beginning that they were given back before they go on; of a short one that would not be certain.
    fn echo(&mut self, said: String, whole: bool) -> Show {
        let given = self.shown.trim_end();
        let certain = given.chars().count() >= anchor::ANCHOR_CHARS;
        if certain && !whole && given.len() > said.len() && given.starts_with(&said) {
            self.place = Place::Echoing(said);
            return Show::Nothing;
        }
        let more = said
            .strip_prefix(given)
            .filter(|_| certain)
            .map(str::to_owned);
        self.join(more.unwrap_or(said))
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
            self.drafts.push(Draft {
                attempt,
                provider,
                text,
            });
        }
        self.place = Place::AtEnd;
        self.owner.clone_from(&self.writer);
        Show::Anew(anew)
    }
}

#[cfg(test)]
mod tests;
