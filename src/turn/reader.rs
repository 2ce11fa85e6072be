//! A client as the protocol describes it: it applies frames, and breaks where a frame breaks the grammar. For tests.

use std::sync::Arc;

use bytestring::ByteString;

use super::log::{Follower, TurnLog};
use crate::chat::{Done, Draft, Frame};

/// A client's view of one turn.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// The frames as they came.
    pub frames: Vec<Frame>,
    /// The last frame applied.
    pub seq: u64,
    /// What is shown.
    pub text: String,
    /// What was voided, and whose it was.
    pub drafts: Vec<(Arc<str>, String)>,
    /// The last attempt that was opened.
    pub attempt: u32,
    /// The end.
    pub done: Option<Done>,
}

impl Reader {
    /// A client that stands where this one stood after frame `seq`.
    pub fn as_of(&self, seq: u64) -> Self {
        let mut reader = Self::default();
        for frame in self.frames.iter().filter(|frame| frame.seq() <= seq) {
            reader.apply(frame.clone());
        }
        reader
    }

    /// Follows a turn to its end.
    pub async fn follow(log: &Arc<TurnLog>) -> Self {
        let mut reader = Self::default();
        reader.read(&mut log.follow()).await;
        reader
    }

    /// Reads on to the end.
    pub async fn read(&mut self, follower: &mut Follower) {
        while let Some(frames) = follower.next().await {
            self.take(&frames);
        }
    }

    /// Applies what a follower was sent.
    pub fn take(&mut self, frames: &[ByteString]) {
        for frame in frames {
            self.apply(serde_json::from_str(frame).unwrap());
        }
    }

    /// The end; there must be one.
    pub fn done(&self) -> &Done {
        self.done.as_ref().unwrap()
    }

    /// The kinds of the frames, in one word each.
    pub fn kinds(&self) -> String {
        let kinds: Vec<_> = self
            .frames
            .iter()
            .map(|frame| match frame {
                Frame::Start { .. } => "start",
                Frame::Attempt { .. } => "attempt",
                Frame::Token { .. } => "token",
                Frame::Restart { .. } => "restart",
                Frame::Done(_) => "done",
                Frame::Snapshot { .. } => "snapshot",
            })
            .collect();
        kinds.join(" ")
    }

    /// Applies one frame.
    ///
    /// Panics where it breaks the protocol.
    pub fn apply(&mut self, frame: Frame) {
        assert!(self.done.is_none(), "after the end: {frame:?}");
        let snapshot = matches!(frame, Frame::Snapshot { .. });
        assert!(
            snapshot || frame.seq() == self.seq + 1,
            "a gap after {}: {frame:?}",
            self.seq
        );
        let start = matches!(frame, Frame::Start { .. });
        assert!(
            snapshot || start == (frame.seq() == 1),
            "start is the first, and only that: {frame:?}"
        );
        self.seq = frame.seq();
        match &frame {
            Frame::Start { .. } => {}
            Frame::Attempt { attempt, .. } => {
                // One that was given up for a faster one was not shown: a gap.
                assert!(*attempt > self.attempt, "attempts count up: {frame:?}");
                self.attempt = *attempt;
            }
            Frame::Token { attempt, text, .. } => {
                assert!(!text.is_empty());
                assert!(
                    [0, self.attempt].contains(attempt),
                    "text of an earlier attempt: {frame:?}"
                );
                self.text.push_str(text);
            }
            Frame::Restart {
                attempt, from, to, ..
            } => {
                assert!(
                    [0, self.attempt].contains(attempt),
                    "a restart for an earlier attempt: {frame:?}"
                );
                assert_eq!(*attempt == 0, to.is_none(), "{frame:?}");
                assert!(!self.text.is_empty(), "nothing to void: {frame:?}");
                self.drafts
                    .push((Arc::clone(from), std::mem::take(&mut self.text)));
            }
            Frame::Snapshot {
                attempt,
                text,
                drafts,
                ..
            } => {
                self.text.clone_from(text);
                self.drafts = named(drafts);
                self.attempt = *attempt;
            }
            Frame::Done(done) => {
                assert_eq!(done.text, self.text, "what is shown is the answer");
                assert_eq!(
                    named(&done.drafts),
                    self.drafts,
                    "what was voided are the drafts"
                );
                assert_eq!(
                    done.attempts as usize,
                    done.tried.len(),
                    "every attempt is reported"
                );
                self.done = Some((**done).clone());
            }
        }
        self.frames.push(frame);
    }
}

fn named(drafts: &[Draft]) -> Vec<(Arc<str>, String)> {
    drafts
        .iter()
        .map(|draft| (Arc::clone(&draft.provider), draft.text.clone()))
        .collect()
}
