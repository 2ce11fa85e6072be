//! What a page shows that applies the frames of turns just as the protocol says. Panics where the server breaks the protocol.

use serde_json::Value;

/// All turns that a page has seen, oldest first.
#[derive(Debug, Default)]
pub struct Page {
    turns: Vec<Shown>,
    /// A second provider may be asked beside the first: attempts that lose a race are not shown, and whoever wins comes after nobody who
    /// failed.
    pub races: bool,
}

/// One turn as it is shown.
#[derive(Debug, Default)]
pub struct Shown {
    /// Its id.
    pub turn: String,
    /// The last frame that was applied.
    pub seq: u64,
    /// What was asked.
    pub question: String,
    /// The text that stands.
    pub text: String,
    /// Voided text, with whose it was.
    pub drafts: Vec<(String, String)>,
    /// The `attempt` frames.
    pub attempts: Vec<Value>,
    /// The `restart` frames.
    pub restarts: Vec<Value>,
    /// How many `token` frames came.
    pub tokens: usize,
    /// How many `snapshot` frames came.
    pub snapshots: usize,
    /// The `done` frame.
    pub done: Option<Value>,
    /// The attempt whose text may come; 0 once no provider is left.
    speaker: u64,
    races: bool,
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Page {
    /// The turn of this id.
    #[track_caller]
    pub fn turn(&self, id: &str) -> &Shown {
        self.find(id)
            .unwrap_or_else(|| panic!("the page has no turn {id}"))
    }

    /// The turn of this id, where it was seen.
    pub fn find(&self, id: &str) -> Option<&Shown> {
        self.turns.iter().find(|turn| turn.turn == id)
    }

    /// Where the page stands in the turn that runs, for its next hello.
    pub fn resume(&self) -> Option<(String, u64)> {
        let running = self.turns.iter().find(|turn| turn.done.is_none())?;
        Some((running.turn.clone(), running.seq))
    }

    /// Applies a frame; frames of no turn change nothing.
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
            "a turn begins with start, once: {frame}"
        );
        self.seq = seq;
        let attempt = frame["attempt"].as_u64();
        match kind {
            "start" => self.question = string(&frame["text"]),
            "attempt" => {
                let made = u64::try_from(self.attempts.len()).unwrap();
                let gaps = self.snapshots > 0 || self.races && made > 0;
                assert!(
                    gaps || attempt == Some(made + 1),
                    "attempts count from 1: {frame}"
                );
                assert!(
                    attempt.unwrap() > self.speaker,
                    "attempts count upwards: {frame}"
                );
                let known =
                    frame["after"].is_null() == (attempt == Some(1)) || self.races && made > 0;
                assert!(known, "who failed before? {frame}");
                self.speaker = attempt.unwrap();
                self.attempts.push(frame.clone());
            }
            "token" => {
                let first = self.text.is_empty() && attempt == Some(0);
                assert!(
                    first || attempt == Some(self.speaker),
                    "of another attempt: {frame}"
                );
                assert_ne!(frame["text"], "", "an empty token");
                self.tokens += 1;
                self.text += frame["text"].as_str().unwrap();
            }
            "restart" => {
                assert!(!self.text.is_empty(), "nothing to void: {frame}");
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
            "done has another text than what is shown"
        );
        assert_eq!(
            drafts(frame),
            self.drafts,
            "done has other drafts than what was shown"
        );
        let tried = frame["tried"].as_array().unwrap();
        assert_eq!(frame["attempts"], tried.len(), "{frame}");
        for (number, one) in (1..).zip(tried) {
            assert_eq!(one["attempt"], number, "{frame}");
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

    /// The providers of the attempts, in order, each with the reason that the one before failed for.
    pub fn path(&self) -> Vec<(String, String)> {
        let step = |frame: &Value| {
            (
                string(&frame["provider"]),
                string(&frame["after"]["reason"]),
            )
        };
        self.attempts.iter().map(step).collect()
    }

    /// The outcomes of the attempts, as `done` tells them.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<String> {
        let done = self.done.as_ref().expect("the turn has not ended");
        done["tried"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| string(&one["outcome"]))
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

    fn frames(of: &[Value]) -> Page {
        let mut page = Page::default();
        for (seq, frame) in (1..).zip(of) {
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
    fn frames_in_order_are_shown() {
        let draft = json!([{ "attempt": 1, "provider": "a", "text": "Hel" }]);
        let page = frames(&[
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
    fn who_loses_a_race_is_not_shown() {
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
            (frame["turn"], frame["seq"]) = ("t".into(), seq.into());
            page.apply(&frame);
        }
        assert_eq!(page.turn("t").attempts.len(), 2);
        assert!(
            std::panic::catch_unwind(|| frames(&race)).is_err(),
            "where there are none, it is a gap"
        );
    }

    #[test]
    fn a_broken_protocol_is_found() {
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
            let applied = std::panic::catch_unwind(|| frames(&wrong));
            assert!(applied.is_err(), "{wrong:?}");
        }
    }
}
