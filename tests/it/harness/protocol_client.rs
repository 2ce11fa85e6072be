//! A model of a chat page which applies the frames of turns as the protocol specifies. Panics if
//! the server breaks the protocol.

use serde_json::Value;

/// All turns which a page has seen, oldest first.
#[derive(Debug, Default)]
pub struct PageModel {
    turns: Vec<ShownTurn>,
    /// Hedged requests are possible. Attempts which lose the race are not shown, and the winner may
    /// name no failed predecessor.
    pub allows_races: bool,
}

/// A turn as the page shows it.
#[derive(Debug, Default)]
pub struct ShownTurn {
    pub id: String,
    /// The sequence number of the last applied frame.
    pub last_seq: u64,
    pub question: String,
    /// The text which currently stands.
    pub text: String,
    /// Retracted texts, each with its provider.
    pub drafts: Vec<(String, String)>,
    pub attempts: Vec<Value>,
    pub restarts: Vec<Value>,
    pub token_frames: usize,
    pub snapshot_frames: usize,
    pub done: Option<Value>,
    /// The attempt whose text may arrive, or 0 once no provider is left.
    current_attempt: u64,
    allows_races: bool,
}

fn string_or_empty(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl PageModel {
    /// Returns the turn. Panics if the page has not seen it.
    #[track_caller]
    pub fn turn(&self, id: &str) -> &ShownTurn {
        self.find_turn(id)
            .unwrap_or_else(|| panic!("the page has no turn {id}"))
    }

    pub fn find_turn(&self, id: &str) -> Option<&ShownTurn> {
        self.turns.iter().find(|turn| turn.id == id)
    }

    /// Returns the id and last sequence number of the running turn, for the next `hello`.
    pub fn resume_point(&self) -> Option<(String, u64)> {
        let running = self.turns.iter().find(|turn| turn.done.is_none())?;
        Some((running.id.clone(), running.last_seq))
    }

    /// Applies a frame. Frames which belong to no turn change nothing.
    #[track_caller]
    pub fn apply_frame(&mut self, frame: &Value) {
        let kind = frame["type"].as_str().unwrap();
        if !["start", "attempt", "token", "restart", "done", "snapshot"].contains(&kind) {
            return;
        }
        let id = string_or_empty(&frame["turn"]);
        if self.find_turn(&id).is_none() {
            self.turns.push(ShownTurn {
                id: id.clone(),
                allows_races: self.allows_races,
                ..ShownTurn::default()
            });
        }
        let turn = self.turns.iter_mut().find(|turn| turn.id == id).unwrap();
        turn.apply_frame(kind, frame);
    }
}

impl ShownTurn {
    #[track_caller]
    fn apply_frame(&mut self, kind: &str, frame: &Value) {
        let seq = frame["seq"].as_u64().unwrap();
        if kind == "snapshot" {
            return self.apply_snapshot(seq, frame);
        }
        assert!(self.done.is_none(), "after done came {frame}");
        assert_eq!(seq, self.last_seq + 1, "a gap before {frame}");
        assert_eq!(
            kind == "start",
            seq == 1,
            "a turn starts with start, once: {frame}"
        );
        self.last_seq = seq;
        let attempt = frame["attempt"].as_u64();
        match kind {
            "start" => self.question = string_or_empty(&frame["text"]),
            "attempt" => {
                let count = u64::try_from(self.attempts.len()).unwrap();
                let may_skip = self.snapshot_frames > 0 || self.allows_races && count > 0;
                assert!(
                    may_skip || attempt == Some(count + 1),
                    "attempts are numbered from 1: {frame}"
                );
                assert!(
                    attempt.unwrap() > self.current_attempt,
                    "attempts have rising numbers: {frame}"
                );
                let has_expected_predecessor = frame["after"].is_null() == (attempt == Some(1))
                    || self.allows_races && count > 0;
                assert!(
                    has_expected_predecessor,
                    "a missing or unexpected failed predecessor: {frame}"
                );
                self.current_attempt = attempt.unwrap();
                self.attempts.push(frame.clone());
            }
            "token" => {
                let is_local = self.text.is_empty() && attempt == Some(0);
                assert!(
                    is_local || attempt == Some(self.current_attempt),
                    "a token of another attempt: {frame}"
                );
                assert_ne!(frame["text"], "", "an empty token");
                self.token_frames += 1;
                self.text += frame["text"].as_str().unwrap();
            }
            "restart" => {
                assert!(!self.text.is_empty(), "nothing to retract: {frame}");
                assert_eq!(frame["to"].is_null(), attempt == Some(0), "{frame}");
                assert!(
                    attempt == Some(0) || attempt == Some(self.current_attempt),
                    "{frame}"
                );
                self.current_attempt = attempt.unwrap();
                self.drafts.push((
                    string_or_empty(&frame["from"]),
                    std::mem::take(&mut self.text),
                ));
                self.restarts.push(frame.clone());
            }
            _ => self.apply_done(frame),
        }
    }

    #[track_caller]
    fn apply_snapshot(&mut self, seq: u64, frame: &Value) {
        self.last_seq = seq;
        self.snapshot_frames += 1;
        self.done = None;
        self.question = string_or_empty(&frame["question"]);
        self.text = string_or_empty(&frame["text"]);
        self.drafts = parse_drafts(frame);
        self.current_attempt = frame["attempt"].as_u64().unwrap();
    }

    #[track_caller]
    fn apply_done(&mut self, frame: &Value) {
        assert_eq!(
            frame["text"], *self.text,
            "the text of done differs from the text shown"
        );
        assert_eq!(
            parse_drafts(frame),
            self.drafts,
            "the drafts of done differ from the drafts shown"
        );
        let tried = frame["tried"].as_array().unwrap();
        assert_eq!(frame["attempts"], tried.len(), "{frame}");
        for (number, attempt) in (1..).zip(tried) {
            assert_eq!(attempt["attempt"], number, "{frame}");
        }
        if self.snapshot_frames == 0 && !self.allows_races {
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
    pub fn provider_path(&self) -> Vec<(String, String)> {
        let step = |frame: &Value| {
            (
                string_or_empty(&frame["provider"]),
                string_or_empty(&frame["after"]["reason"]),
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
            .map(|attempt| string_or_empty(&attempt["outcome"]))
            .collect()
    }
}

fn parse_drafts(frame: &Value) -> Vec<(String, String)> {
    let drafts = frame["drafts"].as_array().unwrap().iter();
    drafts
        .map(|draft| {
            (
                string_or_empty(&draft["provider"]),
                string_or_empty(&draft["text"]),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply_all(frames: &[Value]) -> PageModel {
        let mut page = PageModel::default();
        for (seq, frame) in (1..).zip(frames) {
            let mut frame = frame.clone();
            let fields = frame.as_object_mut().unwrap();
            fields.entry("turn").or_insert("t".into());
            fields.entry("seq").or_insert(seq.into());
            page.apply_frame(&frame);
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
            (
                turn.question.as_str(),
                turn.text.as_str(),
                turn.token_frames
            ),
            ("why?", "Good day", 3)
        );
        assert_eq!(
            turn.provider_path(),
            [("b".into(), "".into()), ("b".into(), "reset".into())]
        );
        assert_eq!(page.resume_point(), None);
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
        let mut page = PageModel {
            allows_races: true,
            ..PageModel::default()
        };
        for (seq, frame) in (1..).zip(&race) {
            let mut frame = frame.clone();
            frame["turn"] = "t".into();
            frame["seq"] = seq.into();
            page.apply_frame(&frame);
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
