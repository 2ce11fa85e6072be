//! Merges the text of several attempts: decides which part of a new attempt's text is shown, and
//! when the shown text is retracted. Pure.
//!
//! Texts are never mixed unless they fit together. The shown text is that of one attempt, the
//! common prefix of two, or a text and its continuation by an attempt that was given it.

use std::sync::Arc;

use super::anchor::{self, Cut};
use crate::chat::Draft;

#[derive(Debug, PartialEq, Eq)]
pub enum Show {
    /// The new text repeats what is shown already.
    Nothing,
    More(String),
    /// The shown text became the newest draft and is replaced by this.
    Anew(String),
    /// The new text does not fit, and the shown text must stay. The attempt cannot go on.
    Misfit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The attempt's number, or 0 if no provider wrote the text.
    pub attempt: u32,
    /// The provider's name, or the kind of answer if no provider wrote it.
    pub provider: Arc<str>,
}

/// The way an attempt deals with the text that is already shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// It answers the question from the start.
    #[default]
    Anew,
    /// It is given the shown text as its own partial answer and continues it.
    GoesOn,
    /// It is asked to repeat the end of the shown text and to continue from there.
    Repeats,
}

#[derive(Debug, Default)]
pub struct Seam {
    shown: String,
    owner: Option<Owner>,
    drafts: Vec<Draft>,
    writer: Option<Owner>,
    place: Place,
    append_only: bool,
}

/// The relation of the current attempt's next text to the shown text.
#[derive(Debug, Default)]
enum Place {
    /// The attempt's text is shown; more text is appended.
    #[default]
    AtEnd,
    /// The attempt has repeated this many bytes of the shown text from its start.
    Repeating(usize),
    /// The attempt is to repeat the end of the shown text and has written this so far.
    Anchoring(String),
    /// The attempt continues the shown text but has written this so far, which is also how the
    /// shown text starts. It may be echoing what it was given.
    Echoing(String),
    /// The attempt continues the shown text and has written only this white space so far.
    Joining(String),
}

impl Seam {
    /// A merger for clients that cannot retract text. It returns [`MergeResult::Mismatch`] instead
    /// of [`MergeResult::Restart`].
    pub fn rigid() -> Self {
        Self {
            append_only: true,
            ..Self::default()
        }
    }

    /// Starts a new attempt. If no text is shown, `start` is ignored.
    pub fn begin(&mut self, writer: Owner, start: Start) {
        self.writer = Some(writer);
        self.place = match start {
            Start::GoesOn if !self.shown.is_empty() => Place::Echoing(String::new()),
            Start::Repeats if !self.shown.is_empty() => Place::Anchoring(String::new()),
            _ => Place::Repeating(0),
        };
    }

    pub fn push(&mut self, text: &str) -> Show {
        match &mut self.place {
            Place::AtEnd => self.append(text),
            Place::Joining(held) => {
                held.push_str(text);
                let held_text = std::mem::take(held);
                self.join(held_text)
            }
            Place::Echoing(held) => {
                held.push_str(text);
                let held_text = std::mem::take(held);
                self.echo(held_text, false)
            }
            Place::Anchoring(held) => {
                held.push_str(text);
                let held_text = std::mem::take(held);
                self.anchor(held_text, false)
            }
            Place::Repeating(repeated) => {
                let repeated = *repeated;
                self.repeat(repeated, text)
            }
        }
    }

    /// Ends the current attempt with a complete answer, which may be shorter than the shown text.
    pub fn whole(&mut self) -> Show {
        match &mut self.place {
            Place::Repeating(repeated) if *repeated < self.shown.len() => {
                let anew = self.shown.get(..*repeated).unwrap_or_default().to_owned();
                self.void(anew)
            }
            Place::Anchoring(held) => {
                let held_text = std::mem::take(held);
                self.anchor(held_text, true)
            }
            Place::Echoing(held) => {
                let held_text = std::mem::take(held);
                self.echo(held_text, true)
            }
            _ => Show::Nothing,
        }
    }

    pub fn replace(&mut self, writer: Owner, text: &str) -> Show {
        self.writer = Some(writer);
        if self.shown.is_empty() {
            self.append(text)
        } else {
            self.void(text.to_owned())
        }
    }

    /// Appends text that another instance's merger has shown. It is known to fit.
    pub fn mirror(&mut self, writer: Owner, text: &str) {
        self.writer = Some(writer);
        let _ = self.append(text);
    }

    /// Restores the state of another instance's merger.
    pub fn restore(&mut self, owner: Owner, shown: String, drafts: Vec<Draft>) {
        self.writer = Some(owner.clone());
        self.owner = Some(owner);
        self.place = Place::AtEnd;
        self.shown = shown;
        self.drafts = drafts;
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The attempt whose text is shown. `None` if no text is shown.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

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

    fn anchor(&mut self, text: String, is_complete: bool) -> Show {
        match anchor::cut(&self.shown, &text) {
            Cut::At(at) => self.join(text.get(at..).unwrap_or_default().to_owned()),
            Cut::TooShort if !is_complete => {
                self.place = Place::Anchoring(text);
                Show::Nothing
            }
            // The model may have started the answer again instead of repeating its end.
            Cut::Misfit if self.shown.starts_with(&text) || text.starts_with(&self.shown) => {
                self.repeat(0, &text)
            }
            Cut::TooShort | Cut::Misfit => Show::Misfit,
        }
    }

    /// Drops the echo of the given text, which some servers send before they continue.
    ///
    /// The echo of a short text is not recognised: it might be a real repetition.
    fn echo(&mut self, text: String, is_complete: bool) -> Show {
        let given = self.shown.trim_end();
        let is_long_enough = given.chars().count() >= anchor::ANCHOR_CHARS;
        if is_long_enough && !is_complete && given.len() > text.len() && given.starts_with(&text) {
            self.place = Place::Echoing(text);
            return Show::Nothing;
        }
        let more = text
            .strip_prefix(given)
            .filter(|_| is_long_enough)
            .map(str::to_owned);
        self.join(more.unwrap_or(text))
    }

    /// Appends a continuation, once its leading white space is known.
    fn join(&mut self, text: String) -> Show {
        if text.trim_start().is_empty() {
            self.place = Place::Joining(text);
            return Show::Nothing;
        }
        let more = anchor::joined(&self.shown, &text).to_owned();
        self.append(&more)
    }

    /// Appends text. From now on the shown text belongs to the current attempt.
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
        if self.append_only {
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
