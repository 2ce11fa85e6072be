//! A model of a chat page which applies the frames of turns as the protocol specifies. Panics if
//! the server breaks the protocol.

use serde_json::Value;

/// All turns which a page has seen, oldest first.
#[derive(Debug, Default)]
pub struct Page {
    turns: Vec<Shown>,
    /// Hedged requests are possible. Attempts which lose the race are not shown, and the winner may
    /// name no failed predecessor.
    pub races: bool,
}

/// A turn as the page shows it.
#[derive(Debug, Default)]
pub struct Shown {
    pub turn: String,
    /// The sequence number of the last applied frame.
    pub seq: u64,
    pub question: String,
    /// The text which currently stands.
    pub text: String,
    /// Retracted texts, each with its provider.
    pub drafts: Vec<(String, String)>,
    pub attempts: Vec<Value>,
    pub restarts: Vec<Value>,
    pub tokens: usize,
    pub snapshots: usize,
    pub done: Option<Value>,
    /// The attempt whose text may arrive, or 0 once no provider is left.
    speaker: u64,
    races: bool,
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Page {
    /// Returns the turn. Panics if the page has not seen it.
    #[track_caller]
    pub fn turn(&self, id: &str) -> &Shown {
        self.find(id)
            .unwrap_or_else(|| panic!("the page has no turn {id}"))
    }

    pub fn find(&self, id: &str) -> Option<&Shown> {
        self.turns.iter().find(|turn| turn.turn == id)
    }

    /// Returns the id and last sequence number of the running turn, for the next `hello`.
    pub fn resume(&self) -> Option<(String, u64)> {
        let running = self.turns.iter().find(|turn| turn.done.is_none())?;
        Some((running.turn.clone(), running.seq))
    }

    /// Applies a frame. Frames which belong to no turn change nothing.
    #[track_caller]
    pub fn apply(&mut self, frame: &Value) {
        let kind = frame["type"].as_str().unwrap();
        if !["start", "attempt", "token", "restart", "done", "snapshot"].contains(&kind) {
            return;
        }
        let id = string(&frame["turn"]);
        if self.find(&id).is_none() {
            self.turns.push(Shown {
                turn: id.clone(),
                races: self.races,
                ..Shown::default()
            });
        }
        let turn = self.turns.iter_mut().find(|turn| turn.turn == id).unwrap();
        turn.apply(kind, frame);
    }
}

impl Shown {
    #[track_caller]
    fn apply(&mut self, kind: &str, frame: &Value) {
        let seq = frame["seq"].as_u64().unwrap();
        if kind == "snapshot" {
            return self.snapshot(seq, frame);
        }
        assert!(self.done.is_none(), "after done came {frame}");
        assert_eq!(seq, self.seq + 1, "a gap before {frame}");
        assert_eq!(
            kind == "start",
            seq == 1,
            "a turn starts with start, once: {frame}"
        );
        self.seq = seq;
        let attempt = frame["attempt"].as_u64();
        match kind {
            "start" => self.question = string(&frame["text"]),
            "attempt" => {
                let count = u64::try_from(self.attempts.len()).unwrap();
                let may_skip = self.snapshots > 0 || self.races && count > 0;
                assert!(
                    may_skip || attempt == Some(count + 1),
                    "attempts are numbered from 1: {frame}"
                );
                assert!(
                    attempt.unwrap() > self.speaker,
                    "attempts have rising numbers: {frame}"
                );
                let has_expected_predecessor =
                    frame["after"].is_null() == (attempt == Some(1)) || self.races && count > 0;
                assert!(
                    has_expected_predecessor,
                    "a missing or unexpected failed predecessor: {frame}"
                );
                self.speaker = attempt.unwrap();
                self.attempts.push(frame.clone());
            }
            "token" => {
                let is_local = self.text.is_empty() && attempt == Some(0);
                assert!(
                    is_local || attempt == Some(self.speaker),
                    "a token of another attempt: {frame}"
                );
                assert_ne!(frame["text"], "", "an empty token");
                self.tokens += 1;
                self.text += frame["text"].as_str().unwrap();
            }
            "restart" => {
                assert!(!self.text.is_empty(), "nothing to retract: {frame}");
                assert_eq!(frame["to"].is_null(), attempt == Some(0), "{frame}");
                assert!(
                    attempt == Some(0) || attempt == Some(self.speaker),
                    "{frame}"
                );
                self.speaker = attempt.unwrap();
                self.drafts
                    .push((string(&frame["from"]), std::mem::take(&mut self.text)));
                self.restarts.push(frame.clone());
            }
            _ => self.end(frame),
        }
    }

    #[track_caller]
    fn snapshot(&mut self, seq: u64, frame: &Value) {
        self.seq = seq;
        self.snapshots += 1;
        self.done = None;
        self.question = string(&frame["question"]);
        self.text = string(&frame["text"]);
        self.drafts = drafts(frame);
        self.speaker = frame["attempt"].as_u64().unwrap();
    }

    #[track_caller]
    fn end(&mut self, frame: &Value) {
        assert_eq!(
            frame["text"], *self.text,
            "the text of done differs from the text shown"
        );
        assert_eq!(
            drafts(frame),
            self.drafts,
            "the drafts of done differ from the drafts shown"
        );
        let tried = frame["tried"].as_array().unwrap();
        assert_eq!(frame["attempts"], tried.len(), "{frame}");
        for (number, attempt) in (1..).zip(tried) {
            assert_eq!(attempt["attempt"], number, "{frame}");
        }
        if self.snapshots == 0 && !self.races {
            assert_eq!(frame["attempts"], self.attempts.len(), "{frame}");
        }
        let source = frame["source"].as_str().unwrap();
        assert_eq!(
            frame["degraded"],
            !["ai", "cache"].contains(&source),
            "{frame}"
        );
        assert!(
            frame["degraded"] == false || frame["provider"].is_null(),
            "{frame}"
        );
        self.done = Some(frame.clone());
    }

    /// Returns the provider of each attempt, with the reason why its predecessor failed.
    pub fn path(&self) -> Vec<(String, String)> {
        let step = |frame: &Value| {
            (
                string(&frame["provider"]),
                string(&frame["after"]["reason"]),
            )
        };
        self.attempts.iter().map(step).collect()
    }

    /// Returns the outcomes of the attempts listed in `done`.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<String> {
        let done = self.done.as_ref().expect("the turn has not ended");
        done["tried"]
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| string(&attempt["outcome"]))
            .collect()
    }
}

fn drafts(frame: &Value) -> Vec<(String, String)> {
    let drafts = frame["drafts"].as_array().unwrap().iter();
    drafts
        .map(|draft| (string(&draft["provider"]), string(&draft["text"])))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply_all(frames: &[Value]) -> Page {
        let mut page = Page::default();
        for (seq, frame) in (1..).zip(frames) {
            let mut frame = frame.clone();
            let fields = frame.as_object_mut().unwrap();
            fields.entry("turn").or_insert("t".into());
            fields.entry("seq").or_insert(seq.into());
            page.apply(&frame);
        }
        page
    }

    fn start() -> Value {
        json!({ "type": "start", "text": "why?" })
    }

    fn attempt(attempt: u64) -> Value {
        let after = (attempt > 1).then(|| json!({ "provider": "a", "reason": "reset" }));
        json!({ "type": "attempt", "attempt": attempt, "provider": "b", "after": after })
    }

    fn token(attempt: u64, text: &str) -> Value {
        json!({ "type": "token", "attempt": attempt, "text": text })
    }

    fn restart(attempt: u64) -> Value {
        let to = (attempt > 0).then_some("b");
        json!({ "type": "restart", "attempt": attempt, "from": "a", "to": to, "reason": "reset" })
    }

    fn done(text: &str, attempts: u64, drafts: &Value) -> Value {
        let tried: Vec<_> = (1..=attempts).map(|n| json!({ "attempt": n })).collect();
        json!({
            "type": "done", "text": text, "attempts": attempts, "tried": tried, "drafts": drafts, "source": "ai",
            "degraded": false, "provider": "b",
        })
    }

    #[test]
    fn frames_in_order_update_the_turn() {
        let draft = json!([{ "attempt": 1, "provider": "a", "text": "Hel" }]);
        let page = apply_all(&[
            start(),
            attempt(1),
            token(1, "He"),
            token(1, "l"),
            attempt(2),
            restart(2),
            token(2, "Good day"),
            done("Good day", 2, &draft),
        ]);
        let turn = page.turn("t");
        assert_eq!(
            (turn.question.as_str(), turn.text.as_str(), turn.tokens),
            ("why?", "Good day", 3)
        );
        assert_eq!(
            turn.path(),
            [("b".into(), "".into()), ("b".into(), "reset".into())]
        );
        assert_eq!(page.resume(), None);
    }

    #[test]
    fn race_accepts_gaps_between_attempts() {
        let race = [
            start(),
            attempt(1),
            attempt(3),
            token(3, "Hello"),
            done("Hello", 3, &json!([])),
        ];
        let mut page = Page {
            races: true,
            ..Page::default()
        };
        for (seq, frame) in (1..).zip(&race) {
            let mut frame = frame.clone();
            frame["turn"] = "t".into();
            frame["seq"] = seq.into();
            page.apply(&frame);
        }
        assert_eq!(page.turn("t").attempts.len(), 2);
        assert!(
            std::panic::catch_unwind(|| apply_all(&race)).is_err(),
            "without races it is a gap"
        );
    }

    #[test]
    fn protocol_violations_panic() {
        let none = json!([]);
        let gap = json!({ "type": "token", "attempt": 1, "text": "x", "seq": 4 });
        for wrong in [
            vec![attempt(1)],
            vec![start(), start()],
            vec![start(), attempt(1), gap],
            vec![start(), attempt(2)],
            vec![start(), attempt(1), attempt(2), token(1, "late")],
            vec![start(), attempt(1), token(1, "x"), token(0, "mixed")],
            vec![start(), attempt(1), token(1, "")],
            vec![start(), attempt(1), restart(1)],
            vec![start(), attempt(1), token(1, "x"), attempt(2), restart(1)],
            vec![start(), attempt(1), token(1, "x"), done("y", 1, &none)],
            vec![start(), attempt(1), token(1, "x"), done("x", 2, &none)],
            vec![
                start(),
                attempt(1),
                token(1, "x"),
                done("x", 1, &json!([{ "provider": "a", "text": "z" }])),
            ],
            vec![
                start(),
                attempt(1),
                token(1, "x"),
                done("x", 1, &none),
                token(1, "more"),
            ],
        ] {
            let result = std::panic::catch_unwind(|| apply_all(&wrong));
            assert!(result.is_err(), "{wrong:?}");
        }
    }
}
