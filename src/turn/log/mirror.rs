//! The replica of a log that another instance writes. It takes over the frames and their numbers.

use std::sync::Arc;

use super::told::Question;
use super::{Inner, Kept, LogWriter, TurnLog};
use crate::chat::{Done, Finish, Frame, TurnRecord, TurnState};
use crate::turn::seam::Owner;

/// The only writer of a replicated log. If dropped before the end, it ends the turn as interrupted.
pub struct Mirror(LogWriter);

impl Mirror {
    /// Creates a log from a turn's first frame. Returns `None` if `first` is a different frame.
    pub fn open(first: &Frame) -> Option<Self> {
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
        let record = TurnRecord::asked(*turn, client_msg_id.clone(), *at, text.clone(), *retry_of);
        let writer = LogWriter::open(record);
        writer.log().write(|state| state.held = false);
        Some(Self(writer))
    }

    pub fn log(&self) -> &Arc<TurnLog> {
        self.0.log()
    }

    /// Applies frames from the stream, one per line. Frames that the log already has are ignored.
    pub fn take(&mut self, lines: &str) {
        for line in lines.lines() {
            // An unreadable line is from another version. The next snapshot or the end repairs the
            // text.
            if let Ok(frame) = serde_json::from_str::<Frame>(line) {
                self.log().write(|state| state.take(frame));
            } else if let Ok(Question { durable }) = serde_json::from_str(line) {
                self.log().durability.send_replace(Some(durable));
            }
        }
    }

    /// Returns the `done` frame that ends the turn with this record.
    pub fn last(&self, record: &TurnRecord) -> Frame {
        Frame::Done(Box::new(record.done(self.log().lock().seq + 1)))
    }
}

impl Inner {
    fn take(&mut self, frame: Frame) {
        let seq = frame.seq();
        let snapshot = matches!(frame, Frame::Snapshot { .. });
        // A snapshot or the end may skip numbers, other frames may not.
        let next =
            seq == self.seq + 1 || (snapshot || matches!(frame, Frame::Done(_))) && seq > self.seq;
        if self.record.state != TurnState::Running || !next {
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
                self.last_failure.clone_from(after);
            }
            Frame::Token { attempt, text, .. } => {
                let provider = self.record.provider.clone().unwrap_or_else(|| "".into());
                self.seam.mirror(
                    Owner {
                        attempt: *attempt,
                        provider,
                    },
                    text,
                );
            }
            Frame::Restart { attempt, to, .. } => {
                let provider = to.clone().unwrap_or_else(|| "".into());
                let _ = self.seam.replace(
                    Owner {
                        attempt: *attempt,
                        provider,
                    },
                    "",
                );
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
                let owner = Owner {
                    attempt: *attempt,
                    provider: provider.clone().unwrap_or_else(|| "".into()),
                };
                self.seam.restore(owner, text.clone(), drafts.clone());
            }
            Frame::Done(done) => {
                let provider = done.provider.clone().unwrap_or_else(|| "".into());
                let owner = Owner {
                    attempt: done.attempts,
                    provider,
                };
                self.seam
                    .restore(owner, done.text.clone(), done.drafts.clone());
                self.record = ended(&self.record, done);
            }
        }
        if seq > self.seq + 1 || snapshot {
            // A gap: followers before it get a snapshot.
            self.frames.clear();
        }
        self.seq = seq;
        if !snapshot {
            if self.frames.len() == super::KEPT_FRAMES {
                self.frames.pop_front();
            }
            self.frames.push_back(Kept::of(frame));
        }
    }
}

/// Returns the turn's record with the fields of its `done` frame.
fn ended(record: &TurnRecord, done: &Done) -> TurnRecord {
    let interrupted = done.finish == Finish::Interrupted;
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

    use super::super::encode;
    use super::*;
    use crate::chat::{At, Failure, Fault, Source, TurnId};
    use crate::turn::seam::Start;

    fn started() -> LogWriter {
        let turn = TurnId::after(None, 5, 7);
        LogWriter::open(TurnRecord::asked(
            turn,
            "m".parse().unwrap(),
            At(5),
            "What?".into(),
            None,
        ))
    }

    fn released() -> LogWriter {
        let writer = started();
        LogWriter::confirm(writer.log(), true);
        writer
    }

    /// Sends new frames to the replica, each batch twice, as after a retry.
    fn replicate(log: &TurnLog, mirror: &mut Mirror, cursor: &mut u64) {
        while let Some((lines, end, _)) = log.news(*cursor) {
            mirror.take(&lines);
            mirror.take(&lines);
            *cursor = end;
        }
    }

    fn replica_of(log: &TurnLog) -> (Mirror, u64) {
        let (lines, cursor, _) = log.news(0).unwrap();
        let mut lines = lines.lines();
        let mut mirror =
            Mirror::open(&serde_json::from_str(lines.next().unwrap()).unwrap()).unwrap();
        lines.for_each(|line| mirror.take(line));
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
        writer.attempt(1, "a".into(), "m".into(), Start::Anew);
        assert!(writer.text("One two\nthree"));
        replicate(&log, &mut replica, &mut cursor);
        assert_eq!(replica.log().record(), log.record());
        writer.failed("a".into(), Failure::of(Fault::Reset));
        writer.attempt(2, "b".into(), "n".into(), Start::Anew);
        assert!(writer.text("Other ") && writer.text("text"));
        replicate(&log, &mut replica, &mut cursor);
        assert_eq!(replica.log().record(), log.record());
        assert_eq!(replica.log().record().drafts.len(), 1);
        writer.replace(Source::Fallback, "Sorry.");
        let record = writer.ending(|record| {
            record.state = TurnState::Done;
            record.finish = Some(Finish::Stop);
        });
        writer.done(record);
        replicate(&log, &mut replica, &mut cursor);
        assert!(replica.log().ended());
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
                let start = log.lock().read(Some(0)).0.remove(0);
                let mut replica = Mirror::open(&serde_json::from_str(&start).unwrap()).unwrap();
                let mut cursor = u64::from(claimed);
                replicate(&log, &mut replica, &mut cursor);
                assert!(
                    !replica.log().durable().await,
                    "claimed, nothing else is known"
                );
                if let Some(confirmed) = confirmed {
                    LogWriter::confirm(&log, confirmed);
                }
                writer.attempt(1, "a".into(), "m".into(), Start::Anew);
                replicate(&log, &mut replica, &mut cursor);
                assert_eq!(
                    replica.log().durable().await,
                    durable,
                    "{confirmed:?}, {claimed}"
                );
                let last = encode(&replica.last(&replica.log().record().interrupted()));
                replica.take(&last);
                assert!(
                    replica.log().ended(),
                    "another instance reports the death of the writer"
                );
                assert_eq!(
                    replica.log().durable().await,
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
            LogWriter::confirm(&log, durable);
            writer.attempt(1, "a".into(), "m".into(), Start::Anew);
            for n in 0..300 {
                assert!(writer.text(&format!("{n} ")));
            }
            assert_eq!(replica_of(&log).0.log().durable().await, durable);
        }
    }

    #[tokio::test]
    async fn late_or_lagging_replica_receives_the_text() {
        let mut writer = released();
        let log = Arc::clone(writer.log());
        writer.attempt(1, "a".into(), "m".into(), Start::Anew);
        let push_300 = |writer: &mut LogWriter| {
            for n in 0..300 {
                assert!(writer.text(&format!("{n} ")));
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
        writer.attempt(1, "a".into(), "m".into(), Start::Anew);
        assert!(writer.text("so far"));
        let (mut replica, cursor) = replica_of(&log);
        let record = replica.log().record().interrupted();
        let last = replica.last(&record);
        assert_eq!(
            (record.text.as_str(), record.state),
            ("so far", TurnState::Interrupted)
        );
        replica.take(&serde_json::to_string(&last).unwrap());
        assert_eq!(
            (replica.log().record().finish, last.seq()),
            (Some(Finish::Interrupted), cursor + 1)
        );
    }
}
