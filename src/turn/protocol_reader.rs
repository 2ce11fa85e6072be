//! A protocol client for tests: applies frames to its view and panics on a violation of the
//! grammar.

use std::sync::Arc;

use bytestring::ByteString;

use super::log::{Follower, TurnLog};
use crate::domain::{Done, Draft, Frame};

#[derive(Clone, Debug, Default)]
pub struct ProtocolClient {
    pub frames: Vec<Frame>,
    pub last_seq: u64,
    pub text: String,
    /// Retracted text with its provider.
    pub drafts: Vec<(Arc<str>, String)>,
    /// The number of the last attempt.
    pub attempt: u32,
    pub done: Option<Done>,
}

impl ProtocolClient {
    /// The client as it was after frame `seq`.
    pub fn as_of(&self, seq: u64) -> Self {
        let mut client = Self::default();
        for frame in self.frames.iter().filter(|frame| frame.seq() <= seq) {
            client.apply(frame.clone());
        }
        client
    }

    pub async fn follow(log: &Arc<TurnLog>) -> Self {
        let mut client = Self::default();
        client.read_to_end(&mut log.follow()).await;
        client
    }

    pub async fn read_to_end(&mut self, follower: &mut Follower) {
        while let Some(frames) = follower.next().await {
            self.apply_encoded(&frames);
        }
    }

    pub fn apply_encoded(&mut self, frames: &[ByteString]) {
        for frame in frames {
            self.apply(serde_json::from_str(frame).unwrap());
        }
    }

    /// The `done` frame. Panics if it has not arrived.
    pub fn done(&self) -> &Done {
        self.done.as_ref().unwrap()
    }

    /// The kinds of all frames, separated by spaces.
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

    /// Applies one frame. Panics if it violates the protocol.
    pub fn apply(&mut self, frame: Frame) {
        assert!(self.done.is_none(), "frame after done: {frame:?}");
        let is_snapshot = matches!(frame, Frame::Snapshot { .. });
        assert!(
            is_snapshot || frame.seq() == self.last_seq + 1,
            "a gap after {}: {frame:?}",
            self.last_seq
        );
        let is_start = matches!(frame, Frame::Start { .. });
        assert!(
            is_snapshot || is_start == (frame.seq() == 1),
            "start is the first frame and occurs once: {frame:?}"
        );
        self.last_seq = frame.seq();
        match &frame {
            Frame::Start { .. } => {}
            Frame::Attempt { attempt, .. } => {
                // Abandoned attempts are not shown, so the numbers may have gaps.
                assert!(
                    *attempt > self.attempt,
                    "attempt numbers increase: {frame:?}"
                );
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
                assert!(!self.text.is_empty(), "no text to retract: {frame:?}");
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
                self.drafts = draft_texts(drafts);
                self.attempt = *attempt;
            }
            Frame::Done(done) => {
                assert_eq!(done.text, self.text, "shown text differs from the answer");
                assert_eq!(
                    draft_texts(&done.drafts),
                    self.drafts,
                    "retracted text differs from the drafts"
                );
                assert_eq!(
                    done.attempts as usize,
                    done.tried.len(),
                    "an attempt is not reported"
                );
                self.done = Some((**done).clone());
            }
        }
        self.frames.push(frame);
    }
}

fn draft_texts(drafts: &[Draft]) -> Vec<(Arc<str>, String)> {
    drafts
        .iter()
        .map(|draft| (Arc::clone(&draft.provider), draft.text.clone()))
        .collect()
}
