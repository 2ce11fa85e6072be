//! The state of a log: the turn's text and the frames that show it.
//!
//! Up to a thousand logs are retained at once, so token frames are stored without their envelope.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;

use crate::domain::{
    AnswerSource, AttemptOutcome, Failure, FaultKind, Frame, PreviousFailure, TurnId, TurnRecord,
    TurnState,
};
use crate::turn::merge::{MergeResult, TextMerger, TextSource};
use crate::turn::metrics::RestartEvent;

/// The number of frames a log retains for slow followers: some seconds of a fast answer. A follower
/// that is further behind gets a snapshot instead.
const MAX_RETAINED_FRAMES: usize = 256;

pub(super) struct LogState {
    /// The turn as it would be stored now, except for its text and drafts, which the merger holds
    /// until the turn ends.
    pub(super) record: TurnRecord,
    pub(super) merger: TextMerger,
    pub(super) seq: u64,
    /// The last frames. The last of them has number `seq`.
    pub(super) frames: VecDeque<StoredFrame>,
    pub(super) is_held_back: bool,
    /// `false` if nobody reads frames: then none are retained.
    pub(super) has_frames: bool,
    /// `false` if nobody reads before the end: then new text wakes no follower.
    pub(super) is_streamed: bool,
    /// The failure that broke off the shown text.
    pub(super) break_reason: Option<AttemptOutcome>,
    pub(super) previous_failure: Option<PreviousFailure>,
    pub(super) failure_details: Option<Failure>,
    /// The retractions of shown text, in order.
    pub(super) restarts: Vec<RestartEvent>,
    /// The origin of the text, in order. Only recorded if the log has no frames.
    pub(super) spans: Vec<TextSpan>,
}

/// The origin of the text from a byte offset on.
pub(super) struct TextSpan {
    pub(super) start: usize,
    pub(super) attempt: u32,
    pub(super) provider: Option<Arc<str>>,
    pub(super) model: Option<Arc<str>>,
    pub(super) source: AnswerSource,
}

impl LogState {
    /// A log with its `start` frame. See [`super::LogWriter`] for the two flags.
    pub(super) fn new(record: TurnRecord, has_frames: bool, append_only: bool) -> Self {
        let mut state = Self {
            record,
            merger: TextMerger::new(append_only),
            seq: 1,
            frames: VecDeque::new(),
            is_held_back: true,
            has_frames,
            is_streamed: has_frames || append_only,
            break_reason: None,
            previous_failure: None,
            failure_details: None,
            restarts: Vec::new(),
            spans: Vec::new(),
        };
        state.retain_frame(state.start_frame());
        state
    }

    pub(super) fn is_finished(&self) -> bool {
        self.record.state != TurnState::Running
    }

    pub(super) fn current_record(&self) -> TurnRecord {
        let mut record = self.record.clone();
        if self.is_finished() {
            return record;
        }
        self.merger.shown().clone_into(&mut record.text);
        record.drafts = self.merger.drafts().to_vec();
        record
    }

    pub(super) fn append_frame(&mut self, frame: impl FnOnce(TurnId, u64) -> Frame) {
        if self.is_finished() {
            return;
        }
        self.seq += 1;
        if !self.has_frames {
            return;
        }
        let frame = frame(self.record.turn, self.seq);
        self.retain_frame(frame);
    }

    pub(super) fn retain_frame(&mut self, frame: Frame) {
        if self.frames.len() == MAX_RETAINED_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(StoredFrame::from_frame(frame));
    }

    /// Records the origin of the text from byte `from` on, for logs without frames.
    fn record_span(&mut self, attempt: u32, from: usize) {
        let last = self.spans.last();
        if self.has_frames || last.is_some_and(|last| last.attempt == attempt) {
            return;
        }
        self.spans.push(TextSpan {
            start: from,
            attempt,
            provider: self.record.provider.clone(),
            model: self.record.model.clone(),
            source: self.record.source.unwrap_or(AnswerSource::Ai),
        });
    }

    /// Writes the frames that show the result of a merge.
    pub(super) fn apply_merge(&mut self, result: MergeResult, previous_source: Option<TextSource>) {
        let source = self.merger.owner().cloned();
        let attempt = source.as_ref().map_or(0, |source| source.attempt);
        let text = match result {
            MergeResult::NoChange | MergeResult::Mismatch => return,
            MergeResult::Append(text) => {
                self.record_span(attempt, self.merger.shown().len() - text.len());
                text
            }
            MergeResult::Restart(text) => {
                self.spans.clear();
                self.record_span(attempt, 0);
                let previous = self.previous_failure.as_ref();
                let previous_reason = previous.map(|previous| previous.reason);
                let reason = self.break_reason.or(previous_reason);
                let from = previous_source.map_or_else(|| "".into(), |source| source.provider);
                let to = source
                    .filter(|source| source.attempt > 0)
                    .map(|source| source.provider);
                let reason = reason.unwrap_or(AttemptOutcome::from(FaultKind::Diverged));
                self.restarts.push(RestartEvent {
                    from: Arc::clone(&from),
                    to: to.clone(),
                    reason,
                });
                self.append_frame(|turn, seq| Frame::Restart {
                    turn,
                    seq,
                    attempt,
                    from,
                    to,
                    reason,
                });
                text
            }
        };
        if !text.is_empty() {
            self.append_frame(|turn, seq| Frame::Token {
                turn,
                seq,
                attempt,
                text,
            });
        }
    }

    /// Appends `done`. Later frames are ignored.
    pub(super) fn finish(&mut self, record: TurnRecord) {
        self.append_frame(|_, seq| Frame::Done(Box::new(record.done_frame(seq))));
        self.record = record;
    }

    /// Returns the frames that a follower at `cursor` still needs, and its new cursor.
    pub(super) fn frames_after(&self, cursor: Option<u64>) -> (Vec<ByteString>, u64) {
        let turn = self.record.turn;
        let first_kept = self.seq + 1 - self.frames.len() as u64;
        if let Some(cursor) = cursor.filter(|cursor| cursor + 1 >= first_kept) {
            let skip = usize::try_from(cursor + 1 - first_kept).unwrap_or(usize::MAX);
            let frames = (first_kept..).zip(&self.frames).skip(skip);
            let encoded = frames.map(|(seq, kept)| kept.encode(turn, seq));
            return (encoded.collect(), self.seq);
        }
        // Too far behind: send a snapshot. It takes the number before `done`, which follows it.
        let ended = self.is_finished();
        let seq = if ended { self.seq - 1 } else { self.seq };
        let mut frames = vec![encode_frame(&self.snapshot_frame(seq))];
        let done = self.frames.back().filter(|_| ended);
        frames.extend(done.map(|done| done.encode(turn, self.seq)));
        (frames, self.seq)
    }

    fn snapshot_frame(&self, seq: u64) -> Frame {
        let record = &self.record;
        Frame::Snapshot {
            turn: record.turn,
            seq,
            attempt: record.provider.as_ref().map_or(0, |_| record.attempts),
            provider: record.provider.clone(),
            model: record.model.clone(),
            text: self.merger.shown().to_owned(),
            drafts: self.merger.drafts().to_vec(),
            question: record.question.clone(),
        }
    }

    pub(super) fn start_frame(&self) -> Frame {
        let record = &self.record;
        Frame::Start {
            turn: record.turn,
            seq: 1,
            client_msg_id: record.client_msg_id.clone(),
            text: record.question.clone(),
            at: record.at,
            retry_of: record.retry_of,
        }
    }
}

/// A frame without the fields that its log knows.
pub(super) enum StoredFrame {
    /// The most common frame: a few bytes of text. Encoded it would be many times as long.
    Token {
        attempt: u32,
        text: Box<str>,
    },
    Encoded(Box<str>),
}

impl StoredFrame {
    pub(super) fn from_frame(frame: Frame) -> Self {
        match frame {
            Frame::Token { attempt, text, .. } => Self::Token {
                attempt,
                text: text.into(),
            },
            other => Self::Encoded((&*encode_frame(&other)).into()),
        }
    }

    /// Returns the frame as sent to clients.
    pub(super) fn encode(&self, turn: TurnId, seq: u64) -> ByteString {
        match self {
            Self::Token { attempt, text } => encode_frame(&TokenFrame {
                kind: "token",
                turn,
                seq,
                attempt: *attempt,
                text,
            }),
            Self::Encoded(frame) => (&**frame).into(),
        }
    }
}

/// A [`Frame::Token`] that borrows its text from the log.
#[derive(serde::Serialize)]
struct TokenFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    turn: TurnId,
    seq: u64,
    attempt: u32,
    text: &'a str,
}

/// Encodes a frame for the wire. These types cannot fail to serialise; if one did, followers would
/// get an empty frame instead of a panic.
pub fn encode_frame<T: serde::Serialize>(frame: &T) -> ByteString {
    serde_json::to_string(frame).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_token_encodes_like_its_frame() {
        let turn = TurnId::next_after(None, 1, 2);
        let frame = Frame::Token {
            turn,
            seq: 7,
            attempt: 2,
            text: "a\n\"é\"".into(),
        };
        assert_eq!(
            StoredFrame::from_frame(frame.clone()).encode(turn, 7),
            encode_frame(&frame)
        );
    }
}
