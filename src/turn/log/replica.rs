//! The replica of a log that another instance writes. It takes over the frames and their numbers.

use std::sync::Arc;

use super::state::LogState;
use super::{DurabilityNote, LogWriter, TurnLog};
use crate::domain::{Done, FinishReason, Frame, TurnRecord, TurnState};
use crate::turn::merge::TextSource;

/// The only writer of a replicated log. If dropped before the end, it ends the turn as interrupted.
pub struct ReplicaLog(LogWriter);

impl ReplicaLog {
    /// Creates a log from a turn's first frame. Returns `None` if `first` is a different frame.
    pub fn from_start_frame(first: &Frame) -> Option<Self> {
        let Frame::Start {
            turn,
            client_msg_id,
            text,
            at,
            retry_of,
            ..
        } = first
        else {
            return None;
        };
        let record = TurnRecord::new(*turn, client_msg_id.clone(), *at, text.clone(), *retry_of);
        let writer = LogWriter::new(record);
        writer.log().update(|state| state.is_held_back = false);
        Some(Self(writer))
    }

    pub fn log(&self) -> &Arc<TurnLog> {
        self.0.log()
    }

    /// Applies frames from the stream, one per line. Frames that the log already has are ignored.
    pub fn apply_lines(&mut self, lines: &str) {
        for line in lines.lines() {
            // An unreadable line is from another version. The next snapshot or the end repairs the
            // text.
            if let Ok(frame) = serde_json::from_str::<Frame>(line) {
                self.log().update(|state| state.apply_frame(frame));
            } else if let Ok(DurabilityNote { durable }) = serde_json::from_str(line) {
                self.log().durability.send_replace(Some(durable));
            }
        }
    }

    /// Returns the `done` frame that ends the turn with this record.
    pub fn done_frame(&self, record: &TurnRecord) -> Frame {
        Frame::Done(Box::new(record.done_frame(self.log().state.lock().seq + 1)))
    }
}

impl LogState {
    fn apply_frame(&mut self, frame: Frame) {
        let seq = frame.seq();
        let snapshot = matches!(frame, Frame::Snapshot { .. });
        // A snapshot or the end may skip numbers, other frames may not.
        let next =
            seq == self.seq + 1 || (snapshot || matches!(frame, Frame::Done(_))) && seq > self.seq;
        if self.is_finished() || !next {
            return;
        }
        match &frame {
            Frame::Start { .. } => return,
            Frame::Attempt {
                attempt,
                provider,
                model,
                after,
                ..
            } => {
                self.record.attempts = *attempt;
                self.record.provider = Some(Arc::clone(provider));
                self.record.model = Some(Arc::clone(model));
                self.previous_failure.clone_from(after);
            }
            Frame::Token { attempt, text, .. } => {
                let provider = self.record.provider.clone().unwrap_or_else(|| "".into());
                self.merger
                    .append_replica(TextSource::new(*attempt, provider), text);
            }
            Frame::Restart { attempt, to, .. } => {
                let provider = to.clone().unwrap_or_else(|| "".into());
                let _ = self.merger.replace(TextSource::new(*attempt, provider), "");
                if to.is_none() {
                    self.record.provider = None;
                    self.record.model = None;
                }
            }
            Frame::Snapshot {
                attempt,
                provider,
                model,
                text,
                drafts,
                ..
            } => {
                self.record.attempts = self.record.attempts.max(*attempt);
                self.record.provider.clone_from(provider);
                self.record.model.clone_from(model);
                let owner =
                    TextSource::new(*attempt, provider.clone().unwrap_or_else(|| "".into()));
                self.merger.restore(owner, text.clone(), drafts.clone());
            }
            Frame::Done(done) => {
                let provider = done.provider.clone().unwrap_or_else(|| "".into());
                let owner = TextSource::new(done.attempts, provider);
                self.merger
                    .restore(owner, done.text.clone(), done.drafts.clone());
                self.record = record_from_done(&self.record, done);
            }
        }
        if seq > self.seq + 1 || snapshot {
            // A gap: followers before it get a snapshot.
            self.frames.clear();
        }
        self.seq = seq;
        if !snapshot {
            self.retain_frame(frame);
        }
    }
}

/// Returns the turn's record with the fields of its `done` frame.
fn record_from_done(record: &TurnRecord, done: &Done) -> TurnRecord {
    let interrupted = done.finish == FinishReason::Interrupted;
    TurnRecord {
        text: done.text.clone(),
        state: if interrupted {
            TurnState::Interrupted
        } else {
            TurnState::Done
        },
        source: Some(done.source),
        degraded: done.degraded,
        provider: done.provider.clone(),
        model: done.model.clone(),
        finish: Some(done.finish),
        attempts: done.attempts,
        drafts: done.drafts.clone(),
        age_s: done.age_s,
        tried: done.tried.clone(),
        usage: done.usage,
        cost_usd: done.cost_usd,
        first_token_ms: done.first_token_ms,
        total_ms: done.total_ms,
        ..record.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::encode_frame;
    use super::*;
    use crate::domain::{AnswerSource, Failure, FaultKind, Timestamp, TurnId};
    use crate::turn::merge::ContinuationMode;

    fn started() -> LogWriter {
        let turn = TurnId::next_after(None, 5, 7);
        LogWriter::new(TurnRecord::new(
            turn,
            "m".parse().unwrap(),
            Timestamp(5),
            "What?".into(),
            None,
        ))
    }

    fn released() -> LogWriter {
        let writer = started();
        LogWriter::release(writer.log(), true);
        writer
    }

    /// Sends new frames to the replica, each batch twice, as after a retry.
    fn replicate(log: &TurnLog, mirror: &mut ReplicaLog, cursor: &mut u64) {
        while let Some((lines, end, _)) = log.frames_since(*cursor) {
            mirror.apply_lines(&lines);
            mirror.apply_lines(&lines);
            *cursor = end;
        }
    }

    fn replica_of(log: &TurnLog) -> (ReplicaLog, u64) {
        let (lines, cursor, _) = log.frames_since(0).unwrap();
        let mut lines = lines.lines();
        let mut mirror =
            ReplicaLog::from_start_frame(&serde_json::from_str(lines.next().unwrap()).unwrap())
                .unwrap();
        lines.for_each(|line| mirror.apply_lines(line));
        (mirror, cursor)
    }

    async fn frames(log: &Arc<TurnLog>, after: u64) -> Vec<String> {
        let mut follower = log.resume(after);
        let mut collected = Vec::new();
        while let Some(frames) = follower.next().await {
            collected.extend(frames.iter().map(ToString::to_string));
        }
        collected
    }

    #[tokio::test]
    async fn replica_has_the_same_frames_text_and_end() {
        let mut writer = released();
        let log = Arc::clone(writer.log());
        let (mut replica, mut cursor) = replica_of(&log);
        writer.start_attempt(1, "a".into(), "m".into(), ContinuationMode::Restart);
        assert!(writer.push_text("One two\nthree"));
        replicate(&log, &mut replica, &mut cursor);
        assert_eq!(replica.log().record(), log.record());
        writer.fail_attempt("a".into(), Failure::new(FaultKind::Reset));
        writer.start_attempt(2, "b".into(), "n".into(), ContinuationMode::Restart);
        assert!(writer.push_text("Other ") && writer.push_text("text"));
        replicate(&log, &mut replica, &mut cursor);
        assert_eq!(replica.log().record(), log.record());
        assert_eq!(replica.log().record().drafts.len(), 1);
        writer.replace_text(AnswerSource::Fallback, "Sorry.");
        let record = writer.final_record(|record| {
            record.state = TurnState::Done;
            record.finish = Some(FinishReason::Stop);
        });
        writer.finish(record);
        replicate(&log, &mut replica, &mut cursor);
        assert!(replica.log().is_finished());
        for after in 0..=cursor {
            assert_eq!(
                frames(replica.log(), after).await,
                frames(&log, after).await,
                "{after}"
            );
        }
        assert_eq!(replica.log().record().drafts, log.record().drafts);
    }

    #[tokio::test(start_paused = true)]
    async fn replica_reports_the_durability_of_its_instance() {
        for (confirmed, durable) in [(Some(true), true), (Some(false), false), (None, false)] {
            // The replica may know the start frame from the claim, or nothing yet.
            for claimed in [false, true] {
                let mut writer = started();
                let log = Arc::clone(writer.log());
                let start = log.state.lock().frames_after(Some(0)).0.remove(0);
                let mut replica =
                    ReplicaLog::from_start_frame(&serde_json::from_str(&start).unwrap()).unwrap();
                let mut cursor = u64::from(claimed);
                replicate(&log, &mut replica, &mut cursor);
                assert!(
                    !replica.log().await_durability().await,
                    "claimed, nothing else is known"
                );
                if let Some(confirmed) = confirmed {
                    LogWriter::release(&log, confirmed);
                }
                writer.start_attempt(1, "a".into(), "m".into(), ContinuationMode::Restart);
                replicate(&log, &mut replica, &mut cursor);
                assert_eq!(
                    replica.log().await_durability().await,
                    durable,
                    "{confirmed:?}, {claimed}"
                );
                let last =
                    encode_frame(&replica.done_frame(&replica.log().record().into_interrupted()));
                replica.apply_lines(&last);
                assert!(
                    replica.log().is_finished(),
                    "another instance reports the death of the writer"
                );
                assert_eq!(
                    replica.log().await_durability().await,
                    durable,
                    "{confirmed:?}, {claimed}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_replica_receives_the_durability() {
        for durable in [true, false] {
            let mut writer = started();
            let log = Arc::clone(writer.log());
            LogWriter::release(&log, durable);
            writer.start_attempt(1, "a".into(), "m".into(), ContinuationMode::Restart);
            for n in 0..300 {
                assert!(writer.push_text(&format!("{n} ")));
            }
            assert_eq!(replica_of(&log).0.log().await_durability().await, durable);
        }
    }

    #[tokio::test]
    async fn late_or_lagging_replica_receives_the_text() {
        let mut writer = released();
        let log = Arc::clone(writer.log());
        writer.start_attempt(1, "a".into(), "m".into(), ContinuationMode::Restart);
        let push_300 = |writer: &mut LogWriter| {
            for n in 0..300 {
                assert!(writer.push_text(&format!("{n} ")));
            }
        };
        push_300(&mut writer);
        let (mut replica, mut cursor) = replica_of(&log);
        assert_eq!(replica.log().record(), log.record());
        push_300(&mut writer);
        replicate(&log, &mut replica, &mut cursor);
        assert_eq!(
            (replica.log().record(), replica.log().last_seq()),
            (log.record(), log.last_seq())
        );
    }

    #[test]
    fn replica_of_a_dead_instance_is_interrupted_with_its_text() {
        let mut writer = released();
        let log = Arc::clone(writer.log());
        writer.start_attempt(1, "a".into(), "m".into(), ContinuationMode::Restart);
        assert!(writer.push_text("so far"));
        let (mut replica, cursor) = replica_of(&log);
        let record = replica.log().record().into_interrupted();
        let last = replica.done_frame(&record);
        assert_eq!(
            (record.text.as_str(), record.state),
            ("so far", TurnState::Interrupted)
        );
        replica.apply_lines(&serde_json::to_string(&last).unwrap());
        assert_eq!(
            (replica.log().record().finish, last.seq()),
            (Some(FinishReason::Interrupted), cursor + 1)
        );
    }
}
