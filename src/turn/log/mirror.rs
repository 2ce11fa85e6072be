//! The log of a turn that another instance answers: it takes that one's frames as they are, with their numbers.

use std::sync::Arc;

use super::told::Question;
use super::{Inner, Kept, LogWriter, TurnLog};
use crate::chat::{Done, Finish, Frame, TurnRecord, TurnState};
use crate::turn::seam::Owner;

/// The one writer of a mirrored log. Dropped without an end, it ends the log as interrupted.
pub struct Mirror(LogWriter);

impl Mirror {
    /// Opens a log with a turn's first frame; none where it is another.
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
        writer.log().write(|inner| inner.held = false);
        Some(Self(writer))
    }

    /// The log that it writes.
    pub fn log(&self) -> &Arc<TurnLog> {
        self.0.log()
    }

    /// Takes frames, a line each, as they come from the stream: those that it has are passed over.
    pub fn take(&mut self, lines: &str) {
        for line in lines.lines() {
            // What does not read is of another version; the next snapshot, or the end, makes up for it.
            if let Ok(frame) = serde_json::from_str::<Frame>(line) {
                self.log().write(|inner| inner.take(frame));
            } else if let Ok(Question { durable }) = serde_json::from_str(line) {
                self.log().durable.send_replace(Some(durable));
            }
        }
    }

    /// The frame that ends the turn as this record says.
    pub fn last(&self, record: &TurnRecord) -> Frame {
        Frame::Done(Box::new(record.done(self.log().lock().seq + 1)))
    }
}

impl Inner {
    fn take(&mut self, frame: Frame) {
        let (seq, snapshot) = (frame.seq(), matches!(frame, Frame::Snapshot { .. }));
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
            // Who stands before it is sent the text.
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

/// A turn's record as its end says it.
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

    fn opened() -> LogWriter {
        let writer = started();
        LogWriter::confirm(writer.log(), true);
        writer
    }

    /// Tells the mirror what is new, with some of what it has, as a batch that was told twice would.
    fn tell(log: &TurnLog, mirror: &mut Mirror, told: &mut u64) {
        while let Some((lines, end, _)) = log.news(*told) {
            mirror.take(&lines);
            mirror.take(&lines);
            *told = end;
        }
    }

    fn mirror_of(log: &TurnLog) -> (Mirror, u64) {
        let (lines, told, _) = log.news(0).unwrap();
        let mut lines = lines.lines();
        let mut mirror =
            Mirror::open(&serde_json::from_str(lines.next().unwrap()).unwrap()).unwrap();
        lines.for_each(|line| mirror.take(line));
        (mirror, told)
    }

    async fn frames(log: &Arc<TurnLog>, after: u64) -> Vec<String> {
        let mut follower = log.resume(after);
        let mut all = Vec::new();
        while let Some(frames) = follower.next().await {
            all.extend(frames.iter().map(ToString::to_string));
        }
        all
    }

    #[tokio::test]
    async fn a_mirror_has_the_same_frames_text_and_end() {
        let mut writer = opened();
        let log = Arc::clone(writer.log());
        let (mut mirror, mut told) = mirror_of(&log);
        writer.attempt(1, "a".into(), "m".into(), Start::Anew);
        assert!(writer.text("One two\nthree"));
        tell(&log, &mut mirror, &mut told);
        assert_eq!(mirror.log().record(), log.record());
        writer.failed("a".into(), Failure::of(Fault::Reset));
        writer.attempt(2, "b".into(), "n".into(), Start::Anew);
        assert!(writer.text("Other ") && writer.text("text"));
        tell(&log, &mut mirror, &mut told);
        assert_eq!(mirror.log().record(), log.record());
        assert_eq!(mirror.log().record().drafts.len(), 1);
        writer.replace(Source::Fallback, "Sorry.");
        let record = writer.ending(|record| {
            record.state = TurnState::Done;
            record.finish = Some(Finish::Stop);
        });
        writer.done(record);
        tell(&log, &mut mirror, &mut told);
        assert!(mirror.log().ended());
        for after in 0..=told {
            assert_eq!(
                frames(mirror.log(), after).await,
                frames(&log, after).await,
                "{after}"
            );
        }
        assert_eq!(mirror.log().record().drafts, log.record().drafts);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_question_it_says_what_its_instance_says() {
        for (confirmed, durable) in [(Some(true), true), (Some(false), false), (None, false)] {
            // The others may know the claim alone, or nothing yet.
            for claimed in [false, true] {
                let mut writer = started();
                let log = Arc::clone(writer.log());
                let start = log.lock().read(Some(0)).0.remove(0);
                let mut mirror = Mirror::open(&serde_json::from_str(&start).unwrap()).unwrap();
                let mut told = u64::from(claimed);
                tell(&log, &mut mirror, &mut told);
                assert!(
                    !mirror.log().durable().await,
                    "it was claimed, no more is known"
                );
                if let Some(confirmed) = confirmed {
                    LogWriter::confirm(&log, confirmed);
                }
                writer.attempt(1, "a".into(), "m".into(), Start::Anew);
                tell(&log, &mut mirror, &mut told);
                assert_eq!(
                    mirror.log().durable().await,
                    durable,
                    "{confirmed:?}, {claimed}"
                );
                let last = encode(&mirror.last(&mirror.log().record().interrupted()));
                mirror.take(&last);
                assert!(
                    mirror.log().ended(),
                    "another one tells that its instance is gone"
                );
                assert_eq!(
                    mirror.log().durable().await,
                    durable,
                    "{confirmed:?}, {claimed}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_late_is_told_of_the_disk_as_well() {
        for durable in [true, false] {
            let mut writer = started();
            let log = Arc::clone(writer.log());
            LogWriter::confirm(&log, durable);
            writer.attempt(1, "a".into(), "m".into(), Start::Anew);
            for n in 0..300 {
                assert!(writer.text(&format!("{n} ")));
            }
            assert_eq!(mirror_of(&log).0.log().durable().await, durable);
        }
    }

    #[tokio::test]
    async fn who_begins_late_or_falls_behind_gets_the_text() {
        let mut writer = opened();
        let log = Arc::clone(writer.log());
        writer.attempt(1, "a".into(), "m".into(), Start::Anew);
        let more = |writer: &mut LogWriter| {
            for n in 0..300 {
                assert!(writer.text(&format!("{n} ")));
            }
        };
        more(&mut writer);
        let (mut mirror, mut told) = mirror_of(&log);
        assert_eq!(mirror.log().record(), log.record());
        more(&mut writer);
        tell(&log, &mut mirror, &mut told);
        assert_eq!(
            (mirror.log().record(), mirror.log().last_seq()),
            (log.record(), log.last_seq())
        );
    }

    #[test]
    fn one_whose_instance_died_is_interrupted_with_its_text() {
        let mut writer = opened();
        let log = Arc::clone(writer.log());
        writer.attempt(1, "a".into(), "m".into(), Start::Anew);
        assert!(writer.text("so far"));
        let (mut mirror, told) = mirror_of(&log);
        let record = mirror.log().record().interrupted();
        let last = mirror.last(&record);
        assert_eq!(
            (record.text.as_str(), record.state),
            ("so far", TurnState::Interrupted)
        );
        mirror.take(&serde_json::to_string(&last).unwrap());
        assert_eq!(
            (mirror.log().record().finish, last.seq()),
            (Some(Finish::Interrupted), told + 1)
        );
    }
}
