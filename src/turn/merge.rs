//! Merges the text of several attempts: decides which part of a new attempt's text is shown, and
//! when the shown text is retracted. Pure.
//!
//! Texts are never mixed unless they fit together. The shown text is that of one attempt, the
//! common prefix of two, or a text and its continuation by an attempt that was given it.
//!
//! A model that cannot be given a partial answer is asked to repeat its last characters and to go
//! on from there. Only a repetition that matches, ignoring white space, proves that it does so.

use std::sync::Arc;

use crate::domain::Draft;

/// The number of characters that a continuation is asked to repeat.
pub const OVERLAP_CHARS: usize = 40;

#[derive(Debug, PartialEq, Eq)]
pub enum MergeResult {
    /// The new text repeats what is shown already.
    NoChange,
    Append(String),
    /// The shown text became the newest draft and is replaced by this.
    Restart(String),
    /// The new text does not fit, and the shown text must stay. The attempt cannot go on.
    Mismatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSource {
    /// The attempt's number, or 0 if no provider wrote the text.
    pub attempt: u32,
    /// The provider's name, or the kind of answer if no provider wrote it.
    pub provider: Arc<str>,
}

impl TextSource {
    pub fn new(attempt: u32, provider: Arc<str>) -> Self {
        Self { attempt, provider }
    }
}

/// The way an attempt deals with the text that is already shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContinuationMode {
    /// It answers the question from the start.
    #[default]
    Restart,
    /// It is given the shown text as its own partial answer and continues it.
    Prefill,
    /// It is asked to repeat the end of the shown text and to continue from there.
    RepeatOverlap,
}

#[derive(Debug, Default)]
pub struct TextMerger {
    shown: String,
    owner: Option<TextSource>,
    drafts: Vec<Draft>,
    current_source: Option<TextSource>,
    state: MergeState,
    append_only: bool,
}

/// The relation of the current attempt's next text to the shown text.
#[derive(Debug, Default)]
enum MergeState {
    /// The attempt's text is shown; more text is appended.
    #[default]
    Appending,
    /// The attempt has repeated this many bytes of the shown text from its start.
    MatchingPrefix(usize),
    /// The attempt is to repeat the end of the shown text and has written this so far.
    MatchingOverlap(String),
    /// The attempt continues the shown text but has written this so far, which is also how the
    /// shown text starts. It may be echoing what it was given.
    StrippingEcho(String),
    /// The attempt continues the shown text and has written only this white space so far.
    JoiningWhitespace(String),
}

impl TextMerger {
    /// An empty merger. If the client cannot retract text, `append_only`, it returns
    /// [`MergeResult::Mismatch`] instead of [`MergeResult::Restart`].
    pub fn new(append_only: bool) -> Self {
        Self {
            append_only,
            ..Self::default()
        }
    }

    /// Starts a new attempt. If no text is shown, `start` is ignored.
    pub fn start_attempt(&mut self, writer: TextSource, start: ContinuationMode) {
        self.current_source = Some(writer);
        self.state = match start {
            ContinuationMode::Prefill if !self.shown.is_empty() => {
                MergeState::StrippingEcho(String::new())
            }
            ContinuationMode::RepeatOverlap if !self.shown.is_empty() => {
                MergeState::MatchingOverlap(String::new())
            }
            _ => MergeState::MatchingPrefix(0),
        };
    }

    pub fn push_text(&mut self, text: &str) -> MergeResult {
        match &mut self.state {
            MergeState::Appending => self.append(text),
            MergeState::JoiningWhitespace(held) => {
                held.push_str(text);
                let held_text = std::mem::take(held);
                self.append_joined(held_text)
            }
            MergeState::StrippingEcho(held) => {
                held.push_str(text);
                let held_text = std::mem::take(held);
                self.strip_echo(held_text, false)
            }
            MergeState::MatchingOverlap(held) => {
                held.push_str(text);
                let held_text = std::mem::take(held);
                self.match_overlap(held_text, false)
            }
            MergeState::MatchingPrefix(repeated) => {
                let repeated = *repeated;
                self.match_prefix(repeated, text)
            }
        }
    }

    /// Ends the current attempt with a complete answer, which may be shorter than the shown text.
    pub fn finish_attempt(&mut self) -> MergeResult {
        match &mut self.state {
            MergeState::MatchingPrefix(repeated) if *repeated < self.shown.len() => {
                let anew = self.shown.get(..*repeated).unwrap_or_default().to_owned();
                self.retract(anew)
            }
            MergeState::MatchingOverlap(held) => {
                let held_text = std::mem::take(held);
                self.match_overlap(held_text, true)
            }
            MergeState::StrippingEcho(held) => {
                let held_text = std::mem::take(held);
                self.strip_echo(held_text, true)
            }
            _ => MergeResult::NoChange,
        }
    }

    pub fn replace(&mut self, writer: TextSource, text: &str) -> MergeResult {
        self.current_source = Some(writer);
        if self.shown.is_empty() {
            self.append(text)
        } else {
            self.retract(text.to_owned())
        }
    }

    /// Appends text that another instance's merger has shown. It is known to fit.
    pub fn append_replica(&mut self, writer: TextSource, text: &str) {
        self.current_source = Some(writer);
        let _ = self.append(text);
    }

    /// Restores the state of another instance's merger.
    pub fn restore(&mut self, owner: TextSource, shown: String, drafts: Vec<Draft>) {
        self.current_source = Some(owner.clone());
        self.owner = Some(owner);
        self.state = MergeState::Appending;
        self.shown = shown;
        self.drafts = drafts;
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The attempt whose text is shown. `None` if no text is shown.
    pub fn owner(&self) -> Option<&TextSource> {
        self.owner.as_ref()
    }

    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    fn match_prefix(&mut self, repeated: usize, text: &str) -> MergeResult {
        let rest = self.shown.get(repeated..).unwrap_or_default();
        if rest.len() > text.len() && rest.starts_with(text) {
            self.state = MergeState::MatchingPrefix(repeated + text.len());
            return MergeResult::NoChange;
        }
        if let Some(more) = text.strip_prefix(rest) {
            return self.append(more);
        }
        let mut anew = self.shown.get(..repeated).unwrap_or_default().to_owned();
        anew.push_str(text);
        self.retract(anew)
    }

    fn match_overlap(&mut self, text: String, is_complete: bool) -> MergeResult {
        match match_overlap(&self.shown, &text) {
            OverlapMatch::EndsAt(at) => {
                self.append_joined(text.get(at..).unwrap_or_default().to_owned())
            }
            OverlapMatch::Incomplete if !is_complete => {
                self.state = MergeState::MatchingOverlap(text);
                MergeResult::NoChange
            }
            // The model may have started the answer again instead of repeating its end.
            OverlapMatch::Mismatch
                if self.shown.starts_with(&text) || text.starts_with(&self.shown) =>
            {
                self.match_prefix(0, &text)
            }
            OverlapMatch::Incomplete | OverlapMatch::Mismatch => MergeResult::Mismatch,
        }
    }

    /// Drops the echo of the given text, which some servers send before they continue.
    ///
    /// The echo of a short text is not recognised: it might be a real repetition.
    fn strip_echo(&mut self, text: String, is_complete: bool) -> MergeResult {
        let given = self.shown.trim_end();
        let is_long_enough = given.chars().count() >= OVERLAP_CHARS;
        if is_long_enough && !is_complete && given.len() > text.len() && given.starts_with(&text) {
            self.state = MergeState::StrippingEcho(text);
            return MergeResult::NoChange;
        }
        let more = text
            .strip_prefix(given)
            .filter(|_| is_long_enough)
            .map(str::to_owned);
        self.append_joined(more.unwrap_or(text))
    }

    /// Appends a continuation, once its leading white space is known.
    fn append_joined(&mut self, text: String) -> MergeResult {
        if text.trim_start().is_empty() {
            self.state = MergeState::JoiningWhitespace(text);
            return MergeResult::NoChange;
        }
        let more = strip_common_whitespace(&self.shown, &text).to_owned();
        self.append(&more)
    }

    /// Appends text. From now on the shown text belongs to the current attempt.
    fn append(&mut self, more: &str) -> MergeResult {
        self.state = MergeState::Appending;
        self.owner.clone_from(&self.current_source);
        if more.is_empty() {
            return MergeResult::NoChange;
        }
        self.shown.push_str(more);
        MergeResult::Append(more.to_owned())
    }

    fn retract(&mut self, anew: String) -> MergeResult {
        if self.append_only {
            return MergeResult::Mismatch;
        }
        let text = std::mem::replace(&mut self.shown, anew.clone());
        if let Some(TextSource { attempt, provider }) = self.owner.take() {
            self.drafts.push(Draft {
                attempt,
                provider,
                text,
            });
        }
        self.state = MergeState::Appending;
        self.owner.clone_from(&self.current_source);
        MergeResult::Restart(anew)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OverlapMatch {
    /// The text up to this byte repeats the overlap; the rest is new.
    EndsAt(usize),
    /// The text matches so far but does not contain the whole overlap yet.
    Incomplete,
    Mismatch,
}

/// The end of `shown` that a continuation has to repeat.
pub fn overlap_tail(shown: &str) -> &str {
    let shown = shown.trim_end();
    let start = shown
        .char_indices()
        .rev()
        .take(OVERLAP_CHARS)
        .last()
        .map_or(0, |(at, _)| at);
    shown.get(start..).unwrap_or_default()
}

/// Matches the start of `text` against the overlap of `shown`, ignoring white space.
fn match_overlap(shown: &str, text: &str) -> OverlapMatch {
    let mut expected = overlap_tail(shown)
        .chars()
        .filter(|c| !c.is_whitespace())
        .peekable();
    for (at, c) in text.char_indices() {
        match expected.peek() {
            None => return OverlapMatch::EndsAt(at),
            Some(_) if c.is_whitespace() => {}
            Some(next) if *next == c => drop(expected.next()),
            Some(_) => return OverlapMatch::Mismatch,
        }
    }
    if expected.peek().is_none() {
        OverlapMatch::EndsAt(text.len())
    } else {
        OverlapMatch::Incomplete
    }
}

/// Removes white space from the start of `more` that `shown` already ends with.
///
/// Only the common part is removed, because the continuation may be indented.
fn strip_common_whitespace<'a>(shown: &str, more: &'a str) -> &'a str {
    let end = shown.get(shown.trim_end().len()..).unwrap_or_default();
    let common = end
        .chars()
        .zip(more.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum();
    more.get(common..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
