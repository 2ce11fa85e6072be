//! What the model sees of a conversation. Pure.

use std::sync::Arc;

use super::anchor::{ANCHOR_CHARS, anchor};
use crate::chat::{Ask, Finish, Load, Message, Role, Source, TurnRecord, TurnState};

/// The history and the question as an [`Ask`]: the turns that an AI answered (a late answer stands for the degraded one), oldest first, at
/// most `history_turns` of them. Turns that were retried, refused, interrupted or stayed degraded are left out.
pub fn ask(system: Arc<str>, history: &[TurnRecord], question: &str, shape: Shape) -> Ask {
    let retried = |turn| history.iter().any(|later| later.retry_of == Some(turn));
    let mut messages: Vec<Message> = Vec::new();
    let usable = history
        .iter()
        .filter(|record| !retried(record.turn) && Some(record.turn) != shape.retry_of);
    let pairs: Vec<_> = usable
        .filter_map(|record| Some((record, answer_of(record)?)))
        .collect();
    let skip = pairs.len().saturating_sub(shape.history_turns);
    for (record, answer) in pairs.into_iter().skip(skip) {
        messages.push(Message {
            role: Role::User,
            text: record.question.as_str().into(),
        });
        messages.push(Message {
            role: Role::Assistant,
            text: answer.into(),
        });
    }
    messages.push(Message {
        role: Role::User,
        text: question.into(),
    });
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
    let messages = begun(ask, shown).collect();
    Ask {
        messages,
        goes_on: true,
        max_tokens: left(ask, shown),
        ..ask.clone()
    }
}

/// The same question with `shown` as a cut-off answer, and the instruction to repeat its end and to go on: for a provider without prefill. The
/// system prompt stays as it is.
pub fn repeated(ask: &Ask, shown: &str) -> Ask {
    let instruction = format!(
        "Your previous answer was cut off. Repeat its last {ANCHOR_CHARS} characters exactly as they are, then go on from there \
         to its end. No greeting, no apology, no comment, and do not begin again. Its last {ANCHOR_CHARS} characters are:\n{}",
        anchor(shown)
    );
    let told = Message {
        role: Role::User,
        text: instruction.into(),
    };
    let messages = begun(ask, shown).chain([told]).collect();
    Ask {
        messages,
        max_tokens: left(ask, shown),
        ..ask.clone()
    }
}

/// The messages with `shown` as the last, the model's own. Where a caller's end with a started answer, it is one with what goes on from it.
fn begun(ask: &Ask, shown: &str) -> impl Iterator<Item = Message> {
    let (last, before) = ask
        .messages
        .split_last()
        .map_or((None, &[][..]), |(last, before)| (Some(last), before));
    let (started, last) = match last {
        Some(last) if last.role == Role::Assistant => (&*last.text, None),
        other => ("", other),
    };
    // No provider takes a beginning that ends in white space.
    let text = format!("{started}{}", shown.trim_end()).into();
    before.iter().chain(last).cloned().chain([Message {
        role: Role::Assistant,
        text,
    }])
}

/// The same question for a provider that goes on from a started answer, where a caller's messages end with one.
pub fn taken_up(ask: &Ask) -> Ask {
    let begun = ask
        .messages
        .last()
        .is_some_and(|last| last.role == Role::Assistant);
    Ask {
        goes_on: begun,
        ..ask.clone()
    }
}

/// Whether a provider's complaint is about a started answer rather than about anything else in the request.
pub fn refuses_prefill(complaint: &str) -> bool {
    let complaint = complaint.to_lowercase();
    let about = [
        "prefill",
        "assistant",
        "model turn",
        "prefix",
        "continue_final_message",
        "add_generation_prompt",
    ];
    about.iter().any(|word| complaint.contains(word))
}

/// The tokens that are left of an answer's limit, at about four characters each.
fn left(ask: &Ask, shown: &str) -> u32 {
    let used = u32::try_from(shown.chars().count() / 4).unwrap_or(u32::MAX);
    ask.max_tokens.saturating_sub(used).max(LEAST_TOKENS)
}

/// Whether there is history that could be left out.
pub fn has_history(ask: &Ask) -> bool {
    ask.messages.len() > 2
}

/// What of an [`Ask`] goes to one provider.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The last messages that always stay: the question, and what was begun of its answer.
    pub kept: usize,
    /// The room of the provider's context in tokens; 0: unknown.
    pub room: u32,
    /// Of the turns that fit only the newer half: it counts otherwise than we do, and found them too long.
    pub half: bool,
}

/// The same question as far as it can be made to fit: without the oldest turns, and with an answer no longer than the rest of the room. The
/// system prompt always stays.
pub fn fitted(ask: Ask, cut: Cut) -> Ask {
    let all = ask.messages.len();
    let kept = cut.kept.min(all);
    let mut turns = (all - kept) / 2;
    while turns > 0 && !Load::of_last(&ask, kept + 2 * turns).fits(cut.room) {
        turns -= 1;
    }
    if cut.half {
        turns /= 2;
    }
    let left = kept + 2 * turns;
    let max_tokens = Load::of_last(&ask, left).answer_in(cut.room);
    let messages = match ask.messages.get(all - left..) {
        Some(last) if left < all => last.into(),
        _ => Arc::clone(&ask.messages),
    };
    Ask {
        messages,
        max_tokens,
        ..ask
    }
}

/// Whether an ended turn says anything to [`ask`]: by its answer, or of the turn that was asked again with it.
pub fn tells(record: &TurnRecord) -> bool {
    record.retry_of.is_some() || answer_of(record).is_some()
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
    let by_ai = matches!(
        record.source,
        Some(Source::Ai | Source::Cache | Source::StaleCache)
    );
    let kept = matches!(
        record.finish,
        Some(Finish::Stop | Finish::Length | Finish::Stopped)
    );
    let whole = record.state == TurnState::Done && by_ai && kept;
    (whole && !record.text.trim().is_empty()).then_some(record.text.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::chat::{At, Followup, TurnId};

    const SHAPE: Shape = Shape {
        history_turns: 20,
        max_tokens: 9,
        retry_of: None,
    };

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

    fn to(kept: usize, room: u32) -> Cut {
        Cut {
            kept,
            room,
            half: false,
        }
    }

    fn said(ask: &Ask) -> String {
        ask.messages
            .iter()
            .map(|message| &*message.text)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn only_what_an_ai_answered_is_history() {
        let mut late = turn(5, Source::Fallback, Finish::Stop);
        late.followup = Some(Followup {
            text: "late".into(),
            provider: "p".into(),
            model: "m".into(),
            at: At(9),
        });
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
        let again = Shape {
            retry_of: Some(first.turn),
            ..SHAPE
        };
        assert_eq!(said(&ask("".into(), &history[..1], "q1", again)), "q1");
    }

    #[test]
    fn refusals_of_a_started_answer_are_known_by_their_words() {
        for words in [
            "This model does not support assistant message prefill. The conversation must end with a user message.",
            "Requests ending with a model turn are not supported",
            "Cannot set `add_generation_prompt` to True when the last message is from the assistant",
            "Unrecognized request argument supplied: continue_final_message",
            "messages.3.prefix: Extra inputs are not permitted",
            "Assistant response prefill is incompatible with enable_thinking.",
        ] {
            assert!(refuses_prefill(words), "{words}");
        }
        for words in [
            "max_tokens is too large: 64",
            "prompt is too long",
            "Invalid value at 'contents'",
            "",
        ] {
            assert!(!refuses_prefill(words), "{words}");
        }
    }

    #[test]
    fn what_does_not_fit_goes_turn_by_turn() {
        let history: Vec<_> = (1..=4).map(|n| turn(n, Source::Ai, Finish::Stop)).collect();
        // 6 tokens of system prompt, 5 of each message, 9 of the answer.
        let whole = ask("system p".into(), &history, "now", SHAPE);
        for (room, left) in [
            (0, "q1 a1 q2 a2 q3 a3 q4 a4 now"),
            (60, "q1 a1 q2 a2 q3 a3 q4 a4 now"),
            (59, "q2 a2 q3 a3 q4 a4 now"),
            (50, "q2 a2 q3 a3 q4 a4 now"),
            (49, "q3 a3 q4 a4 now"),
            (30, "q4 a4 now"),
            (29, "now"),
            (1, "now"),
        ] {
            let fitted = fitted(whole.clone(), to(1, room));
            assert_eq!(
                (said(&fitted).as_str(), &*fitted.system),
                (left, "system p"),
                "{room}"
            );
            assert_eq!(fitted.messages.first().unwrap().role, Role::User);
        }
        // Half of what fits goes to who found that too long.
        let half = |room| {
            said(&fitted(
                whole.clone(),
                Cut {
                    half: true,
                    ..to(1, room)
                },
            ))
        };
        assert_eq!(
            [half(0), half(49), half(30)],
            ["q3 a3 q4 a4 now", "q4 a4 now", "now"]
        );
        // What was begun stays with its question, and what the caller sent stays whole.
        assert_eq!(
            said(&fitted(gone_on(&whole, "Well,"), to(2, 1))),
            "now Well,"
        );
        assert!(
            said(&fitted(repeated(&whole, "Well,"), to(3, 1)))
                .starts_with("now Well, Your previous")
        );
        assert_eq!(said(&fitted(whole.clone(), to(9, 1))), said(&whole));
    }

    #[test]
    fn the_answer_gets_what_room_is_left() {
        let long = ask(
            "".into(),
            &[],
            "now",
            Shape {
                max_tokens: 1000,
                ..SHAPE
            },
        );
        for (room, tokens) in [(0, 1000), (1005, 1000), (1004, 999), (100, 95), (8, 4)] {
            assert_eq!(
                fitted(long.clone(), to(1, room)).max_tokens,
                tokens,
                "{room}"
            );
        }
    }

    #[test]
    fn a_callers_started_answer_is_taken_up_and_is_one_with_what_follows() {
        let plain = ask("".into(), &[], "now", SHAPE);
        let begun = Message {
            role: Role::Assistant,
            text: "Well, ".into(),
        };
        let started = Ask {
            messages: [plain.messages[0].clone(), begun].into(),
            ..plain.clone()
        };
        assert!(taken_up(&started).goes_on && !taken_up(&plain).goes_on);
        assert_eq!(said(&gone_on(&started, "yes ")), "now Well, yes");
        assert_eq!(gone_on(&started, "yes ").messages.len(), 2);
        assert!(said(&repeated(&started, "yes")).starts_with("now Well, yes Your previous answer"));
        assert_eq!(repeated(&started, "yes").messages.len(), 3);
        assert_eq!(gone_on(&plain, "yes").messages.len(), 2);
    }

    #[test]
    fn a_conversation_was_served_by_who_gave_its_last_whole_answer() {
        let by = |name: &str, turn: TurnRecord| TurnRecord {
            provider: Some(name.into()),
            ..turn
        };
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
        let few = Shape {
            history_turns: 3,
            ..SHAPE
        };
        let ask = ask("".into(), &history, "now", few);
        assert_eq!(said(&ask), "q3 a3 q4 a4 q5 a5 now");
        let half = |ask: Ask| {
            fitted(
                ask,
                Cut {
                    kept: 1,
                    room: 0,
                    half: true,
                },
            )
        };
        assert_eq!(said(&half(ask.clone())), "q5 a5 now");
        assert_eq!(said(&half(half(ask.clone()))), "now");
        assert!(has_history(&ask) && !has_history(&half(half(ask))));
    }
}
