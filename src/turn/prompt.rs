//! What the model sees of a conversation. Pure.

use std::sync::Arc;

use super::anchor::{ANCHOR_CHARS, anchor};
use crate::chat::{Ask, Finish, Message, Role, Source, TurnRecord, TurnState};

/// The history and the question as an [`Ask`]: the turns that an AI answered (a late answer stands for the degraded one), oldest first, at
/// most `history_turns` of them. Turns that were retried, refused, interrupted or stayed degraded are left out.
pub fn ask(system: Arc<str>, history: &[TurnRecord], question: &str, shape: Shape) -> Ask {
    let retried = |turn| history.iter().any(|later| later.retry_of == Some(turn));
    let mut messages: Vec<Message> = Vec::new();
    let usable = history.iter().filter(|record| !retried(record.turn) && Some(record.turn) != shape.retry_of);
    let pairs: Vec<_> = usable.filter_map(|record| Some((record, answer_of(record)?))).collect();
    let skip = pairs.len().saturating_sub(shape.history_turns);
    for (record, answer) in pairs.into_iter().skip(skip) {
        messages.push(Message { role: Role::User, text: record.question.as_str().into() });
        messages.push(Message { role: Role::Assistant, text: answer.into() });
    }
    messages.push(Message { role: Role::User, text: question.into() });
    Ask {
        system,
        messages: messages.into(),
        max_tokens: shape.max_tokens,
        goes_on: false,
        temperature: None,
        stop: Arc::default(),
    }
}

/// The measures of an [`ask`].
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many turns of the history go to the model at most.
    pub history_turns: usize,
    /// The most tokens to answer with.
    pub max_tokens: u32,
    /// The turn that is answered again: it is no history.
    pub retry_of: Option<crate::chat::TurnId>,
}

/// A continuation gets at least this many tokens: the anchor alone takes some.
const LEAST_TOKENS: u32 = 64;

/// The same question with `shown` as the beginning of the answer, for a provider that goes on from it (prefill).
pub fn gone_on(ask: &Ask, shown: &str) -> Ask {
    // No provider takes a beginning that ends in white space.
    let begun = Message { role: Role::Assistant, text: shown.trim_end().into() };
    let messages = ask.messages.iter().cloned().chain([begun]).collect();
    Ask { messages, goes_on: true, max_tokens: left(ask, shown), ..ask.clone() }
}

/// The same question with `shown` as a cut-off answer, and the instruction to repeat its end and to go on: for a provider without prefill. The
/// system prompt stays as it is.
pub fn repeated(ask: &Ask, shown: &str) -> Ask {
    let begun = Message { role: Role::Assistant, text: shown.trim_end().into() };
    let instruction = format!(
        "Your previous answer was cut off. Repeat its last {ANCHOR_CHARS} characters exactly as they are, then go on from there \
         to its end. No greeting, no apology, no comment, and do not begin again. Its last {ANCHOR_CHARS} characters are:\n{}",
        anchor(shown)
    );
    let told = Message { role: Role::User, text: instruction.into() };
    let messages = ask.messages.iter().cloned().chain([begun, told]).collect();
    Ask { messages, max_tokens: left(ask, shown), ..ask.clone() }
}

/// Whether a provider's complaint is about a started answer rather than about anything else in the request.
pub fn refuses_prefill(complaint: &str) -> bool {
    let complaint = complaint.to_lowercase();
    let about =
        ["prefill", "assistant", "model turn", "prefix", "continue_final_message", "add_generation_prompt"];
    about.iter().any(|word| complaint.contains(word))
}

/// The tokens that are left of an answer's limit, at about four characters each.
fn left(ask: &Ask, shown: &str) -> u32 {
    let used = u32::try_from(shown.chars().count() / 4).unwrap_or(u32::MAX);
    ask.max_tokens.saturating_sub(used).max(LEAST_TOKENS)
}

/// The same question with the older half of its history left out; `None` where there is no history to halve.
pub fn halved(ask: &Ask) -> Option<Ask> {
    let pairs = ask.messages.len().checked_sub(1)? / 2;
    if pairs == 0 {
        return None;
    }
    let messages = ask.messages.get(pairs.div_ceil(2) * 2..)?.into();
    Some(Ask { messages, ..ask.clone() })
}

/// Who gave the last whole AI answer of this history.
pub fn served_by(history: &[TurnRecord]) -> Option<Arc<str>> {
    let whole = |record: &&TurnRecord| {
        let served = matches!(record.finish, Some(Finish::Stop | Finish::Length));
        record.state == TurnState::Done && record.source == Some(Source::Ai) && served
    };
    history.iter().rev().find(whole)?.provider.clone()
}

fn answer_of(record: &TurnRecord) -> Option<&str> {
    if let Some(late) = &record.followup {
        return Some(&late.text);
    }
    let by_ai = matches!(record.source, Some(Source::Ai | Source::Cache | Source::StaleCache));
    let kept = matches!(record.finish, Some(Finish::Stop | Finish::Length | Finish::Stopped));
    let whole = record.state == TurnState::Done && by_ai && kept;
    (whole && !record.text.trim().is_empty()).then_some(record.text.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::chat::{At, Followup, TurnId};

    const SHAPE: Shape = Shape { history_turns: 20, max_tokens: 9, retry_of: None };

    fn turn(number: u64, source: Source, finish: Finish) -> TurnRecord {
        let id = TurnId::after(None, number, 0);
        let question = format!("q{number}");
        let mut record = TurnRecord::asked(id, "m".parse().unwrap(), At(number), question, None);
        record.text = format!("a{number}");
        record.state = TurnState::Done;
        record.source = Some(source);
        record.finish = Some(finish);
        record
    }

    fn said(ask: &Ask) -> String {
        ask.messages.iter().map(|message| &*message.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_an_ai_answered_is_history() {
        let mut late = turn(5, Source::Fallback, Finish::Stop);
        late.followup =
            Some(Followup { text: "late".into(), provider: "p".into(), model: "m".into(), at: At(9) });
        let history = [
            turn(1, Source::Ai, Finish::Stop),
            turn(2, Source::Fallback, Finish::Stop),
            turn(3, Source::Ai, Finish::ContentFilter),
            turn(4, Source::Ai, Finish::Stop).interrupted(),
            late,
            turn(6, Source::StaleCache, Finish::Length),
        ];
        let ask = ask("s".into(), &history, "now", SHAPE);
        assert_eq!(said(&ask), "q1 a1 q5 late q6 a6 now");
    }

    #[test]
    fn a_retried_turn_is_left_out() {
        let first = turn(1, Source::Ai, Finish::Stop);
        let mut second = turn(2, Source::Ai, Finish::Stop);
        second.retry_of = Some(first.turn);
        let history = [first.clone(), second];
        assert_eq!(said(&ask("".into(), &history, "now", SHAPE)), "q2 a2 now");
        let again = Shape { retry_of: Some(first.turn), ..SHAPE };
        assert_eq!(said(&ask("".into(), &history[..1], "q1", again)), "q1");
    }

    #[test]
    fn a_conversation_was_served_by_who_gave_its_last_whole_answer() {
        let by = |name: &str, turn: TurnRecord| TurnRecord { provider: Some(name.into()), ..turn };
        let mut history = vec![
            by("a", turn(1, Source::Ai, Finish::Stop)),
            by("b", turn(2, Source::Ai, Finish::Length)),
            by("c", turn(3, Source::Ai, Finish::Stopped)),
            by("d", turn(4, Source::Ai, Finish::Stop).interrupted()),
            by("e", turn(5, Source::Ai, Finish::ContentFilter)),
            turn(6, Source::Fallback, Finish::Stop),
        ];
        assert_eq!(served_by(&history).as_deref(), Some("b"));
        history.remove(1);
        assert_eq!(served_by(&history).as_deref(), Some("a"));
        assert_eq!(served_by(&history[1..]), None);
    }

    #[test]
    fn the_oldest_go_first() {
        let history: Vec<_> = (1..=5).map(|n| turn(n, Source::Ai, Finish::Stop)).collect();
        let few = Shape { history_turns: 3, ..SHAPE };
        let ask = ask("".into(), &history, "now", few);
        assert_eq!(said(&ask), "q3 a3 q4 a4 q5 a5 now");
        let half = halved(&ask).unwrap();
        assert_eq!(said(&half), "q5 a5 now");
        assert_eq!(said(&halved(&half).unwrap()), "now");
        assert!(halved(&halved(&half).unwrap()).is_none());
    }
}
