//! Builds the requests that models get: system prompt, history, question and partial answers. Pure.

use std::sync::Arc;

use super::anchor::{ANCHOR_CHARS, anchor};
use crate::chat::{Ask, Finish, Load, Message, Role, Source, TurnRecord, TurnState};

/// Builds a request from the history and the question.
///
/// The history consists of the last `history_turns` turns that an AI answered; a follow-up replaces
/// a fallback answer. Retried, refused, interrupted and unanswered turns are left out.
pub fn ask(system: Arc<str>, history: &[TurnRecord], question: &str, limits: Shape) -> Ask {
    let was_retried = |turn| history.iter().any(|other| other.retry_of == Some(turn));
    let mut messages: Vec<Message> = Vec::new();
    let usable = history
        .iter()
        .filter(|record| !was_retried(record.turn) && Some(record.turn) != limits.retry_of);
    let pairs: Vec<_> = usable
        .filter_map(|record| Some((record, answer_of(record)?)))
        .collect();
    let skip = pairs.len().saturating_sub(limits.history_turns);
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
        max_tokens: limits.max_tokens,
        goes_on: false,
        temperature: None,
        stop: Arc::default(),
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub history_turns: usize,
    pub max_tokens: u32,
    /// The turn that is answered again. It is left out of the history.
    pub retry_of: Option<crate::chat::TurnId>,
}

/// The minimum for a continuation: the repeated overlap alone takes some tokens.
const LEAST_TOKENS: u32 = 64;

/// The request with `shown` as a partial answer, for a provider that supports prefill.
pub fn gone_on(request: &Ask, shown: &str) -> Ask {
    let messages = begun(request, shown).collect();
    Ask {
        messages,
        goes_on: true,
        max_tokens: left(request, shown),
        ..request.clone()
    }
}

/// The request with `shown` as a cut-off answer and the instruction to repeat its end and go on,
/// for a provider without prefill. The system prompt is not changed.
pub fn repeated(request: &Ask, shown: &str) -> Ask {
    let instruction = format!(
        "Your previous answer was cut off. Repeat its last {ANCHOR_CHARS} characters exactly as they are, then go on from there \
         to its end. No greeting, no apology, no comment, and do not begin again. Its last {ANCHOR_CHARS} characters are:\n{}",
        anchor(shown)
    );
    let instruction = Message {
        role: Role::User,
        text: instruction.into(),
    };
    let messages = begun(request, shown).chain([instruction]).collect();
    Ask {
        messages,
        max_tokens: left(request, shown),
        ..request.clone()
    }
}

/// The messages with `shown` appended as the assistant's. If a caller's last message is a partial
/// answer, `shown` is appended to that message.
fn begun(request: &Ask, shown: &str) -> impl Iterator<Item = Message> {
    let (last, before) = request
        .messages
        .split_last()
        .map_or((None, &[][..]), |(last, before)| (Some(last), before));
    let (partial, last) = match last {
        Some(last) if last.role == Role::Assistant => (&*last.text, None),
        other => ("", other),
    };
    // Providers reject a partial answer that ends with white space.
    let text = format!("{partial}{}", shown.trim_end()).into();
    before.iter().chain(last).cloned().chain([Message {
        role: Role::Assistant,
        text,
    }])
}

/// The request for a provider that supports prefill: a caller's partial answer at the end of the
/// messages is to be continued.
pub fn taken_up(request: &Ask) -> Ask {
    let ends_with_partial = request
        .messages
        .last()
        .is_some_and(|last| last.role == Role::Assistant);
    Ask {
        goes_on: ends_with_partial,
        ..request.clone()
    }
}

/// Returns `true` if a provider's error message complains about a partial answer.
pub fn refuses_prefill(message: &str) -> bool {
    let message = message.to_lowercase();
    let keywords = [
        "prefill",
        "assistant",
        "model turn",
        "prefix",
        "continue_final_message",
        "add_generation_prompt",
    ];
    keywords.iter().any(|keyword| message.contains(keyword))
}

/// The tokens left for the rest of the answer, estimating four characters a token.
fn left(request: &Ask, shown: &str) -> u32 {
    let used = u32::try_from(shown.chars().count() / 4).unwrap_or(u32::MAX);
    request.max_tokens.saturating_sub(used).max(LEAST_TOKENS)
}

pub fn has_history(request: &Ask) -> bool {
    request.messages.len() > 2
}

#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The number of last messages that always stay: the question and a partial answer.
    pub kept: usize,
    /// The size of the context in tokens, or 0 if it is unknown.
    pub room: u32,
    /// Keep only the newer half of the turns that fit. The provider counts tokens differently and
    /// has rejected the request as too long.
    pub half: bool,
}

/// Cuts a request to a provider's context: removes the oldest turns, and limits the answer to the
/// remaining tokens. The system prompt always stays.
pub fn fitted(request: Ask, limit: Cut) -> Ask {
    let total = request.messages.len();
    let required = limit.kept.min(total);
    let mut turns = (total - required) / 2;
    while turns > 0 && !Load::of_last(&request, required + 2 * turns).fits(limit.room) {
        turns -= 1;
    }
    if limit.half {
        turns /= 2;
    }
    let remaining = required + 2 * turns;
    let max_tokens = Load::of_last(&request, remaining).answer_in(limit.room);
    let messages = match request.messages.get(total - remaining..) {
        Some(last) if remaining < total => last.into(),
        _ => Arc::clone(&request.messages),
    };
    Ask {
        messages,
        max_tokens,
        ..request
    }
}

/// Returns `true` if a finished turn matters to [`build_request`]: by its answer, or because it
/// retries an earlier turn.
pub fn tells(record: &TurnRecord) -> bool {
    record.retry_of.is_some() || answer_of(record).is_some()
}

/// The provider of the last complete AI answer in the history.
pub fn served_by(history: &[TurnRecord]) -> Option<Arc<str>> {
    let is_complete_answer = |record: &&TurnRecord| {
        let is_finished = matches!(record.finish, Some(Finish::Stop | Finish::Length));
        record.state == TurnState::Done && record.source == Some(Source::Ai) && is_finished
    };
    history
        .iter()
        .rev()
        .find(is_complete_answer)?
        .provider
        .clone()
}

/// The answer of a turn as part of the history. `None` if it is left out.
fn answer_of(record: &TurnRecord) -> Option<&str> {
    if let Some(followup) = &record.followup {
        return Some(&followup.text);
    }
    let is_ai_answer = matches!(
        record.source,
        Some(Source::Ai | Source::Cache | Source::StaleCache)
    );
    let has_usable_end = matches!(
        record.finish,
        Some(Finish::Stop | Finish::Length | Finish::Stopped)
    );
    let is_usable = record.state == TurnState::Done && is_ai_answer && has_usable_end;
    (is_usable && !record.text.trim().is_empty()).then_some(record.text.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::chat::{At, Followup, TurnId};

    const LIMITS: Shape = Shape {
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

    fn context(kept: usize, room: u32) -> Cut {
        Cut {
            kept,
            room,
            half: false,
        }
    }

    fn joined_text(request: &Ask) -> String {
        request
            .messages
            .iter()
            .map(|message| &*message.text)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn history_contains_ai_answers_only() {
        let mut followed_up = turn(5, Source::Fallback, Finish::Stop);
        followed_up.followup = Some(Followup {
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
            followed_up,
            turn(6, Source::StaleCache, Finish::Length),
        ];
        let request = ask("s".into(), &history, "now", LIMITS);
        assert_eq!(joined_text(&request), "q1 a1 q5 late q6 a6 now");
    }

    #[test]
    fn retried_turn_is_left_out() {
        let first = turn(1, Source::Ai, Finish::Stop);
        let mut second = turn(2, Source::Ai, Finish::Stop);
        second.retry_of = Some(first.turn);
        let history = [first.clone(), second];
        assert_eq!(
            joined_text(&ask("".into(), &history, "now", LIMITS)),
            "q2 a2 now"
        );
        let retry = Shape {
            retry_of: Some(first.turn),
            ..LIMITS
        };
        assert_eq!(
            joined_text(&ask("".into(), &history[..1], "q1", retry)),
            "q1"
        );
    }

    #[test]
    fn prefill_rejections_are_recognised_by_their_message() {
        for message in [
            "This model does not support assistant message prefill. The conversation must end with a user message.",
            "Requests ending with a model turn are not supported",
            "Cannot set `add_generation_prompt` to True when the last message is from the assistant",
            "Unrecognized request argument supplied: continue_final_message",
            "messages.3.prefix: Extra inputs are not permitted",
            "Assistant response prefill is incompatible with enable_thinking.",
        ] {
            assert!(refuses_prefill(message), "{message}");
        }
        for message in [
            "max_tokens is too large: 64",
            "prompt is too long",
            "Invalid value at 'contents'",
            "",
        ] {
            assert!(!refuses_prefill(message), "{message}");
        }
    }

    #[test]
    fn turns_that_do_not_fit_are_cut_oldest_first() {
        let history: Vec<_> = (1..=4).map(|n| turn(n, Source::Ai, Finish::Stop)).collect();
        // 6 tokens of system prompt, 5 of each message, 9 of the answer.
        let full = ask("system p".into(), &history, "now", LIMITS);
        for (room, expected) in [
            (0, "q1 a1 q2 a2 q3 a3 q4 a4 now"),
            (60, "q1 a1 q2 a2 q3 a3 q4 a4 now"),
            (59, "q2 a2 q3 a3 q4 a4 now"),
            (50, "q2 a2 q3 a3 q4 a4 now"),
            (49, "q3 a3 q4 a4 now"),
            (30, "q4 a4 now"),
            (29, "now"),
            (1, "now"),
        ] {
            let fitted = fitted(full.clone(), context(1, room));
            assert_eq!(
                (joined_text(&fitted).as_str(), &*fitted.system),
                (expected, "system p"),
                "{room}"
            );
            assert_eq!(fitted.messages.first().unwrap().role, Role::User);
        }
        // A provider that found the fitting part too long gets half of it.
        let half = |room| {
            joined_text(&fitted(
                full.clone(),
                Cut {
                    half: true,
                    ..context(1, room)
                },
            ))
        };
        assert_eq!(
            [half(0), half(49), half(30)],
            ["q3 a3 q4 a4 now", "q4 a4 now", "now"]
        );
        // A partial answer stays with its question, and a caller's messages are never cut.
        assert_eq!(
            joined_text(&fitted(gone_on(&full, "Well,"), context(2, 1))),
            "now Well,"
        );
        assert!(
            joined_text(&fitted(repeated(&full, "Well,"), context(3, 1)))
                .starts_with("now Well, Your previous")
        );
        assert_eq!(
            joined_text(&fitted(full.clone(), context(9, 1))),
            joined_text(&full)
        );
    }

    #[test]
    fn answer_is_limited_to_the_remaining_context() {
        let long = ask(
            "".into(),
            &[],
            "now",
            Shape {
                max_tokens: 1000,
                ..LIMITS
            },
        );
        for (room, tokens) in [(0, 1000), (1005, 1000), (1004, 999), (100, 95), (8, 4)] {
            assert_eq!(
                fitted(long.clone(), context(1, room)).max_tokens,
                tokens,
                "{room}"
            );
        }
    }

    #[test]
    fn callers_partial_answer_is_continued_in_one_message() {
        let plain = ask("".into(), &[], "now", LIMITS);
        let partial = Message {
            role: Role::Assistant,
            text: "Well, ".into(),
        };
        let started = Ask {
            messages: [plain.messages[0].clone(), partial].into(),
            ..plain.clone()
        };
        assert!(taken_up(&started).goes_on && !taken_up(&plain).goes_on);
        assert_eq!(joined_text(&gone_on(&started, "yes ")), "now Well, yes");
        assert_eq!(gone_on(&started, "yes ").messages.len(), 2);
        assert!(
            joined_text(&repeated(&started, "yes"))
                .starts_with("now Well, yes Your previous answer")
        );
        assert_eq!(repeated(&started, "yes").messages.len(), 3);
        assert_eq!(gone_on(&plain, "yes").messages.len(), 2);
    }

    #[test]
    fn last_provider_is_that_of_the_last_complete_answer() {
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
    fn oldest_turns_are_cut_first() {
        let history: Vec<_> = (1..=5).map(|n| turn(n, Source::Ai, Finish::Stop)).collect();
        let few = Shape {
            history_turns: 3,
            ..LIMITS
        };
        let request = ask("".into(), &history, "now", few);
        assert_eq!(joined_text(&request), "q3 a3 q4 a4 q5 a5 now");
        let half = |request: Ask| {
            fitted(
                request,
                Cut {
                    kept: 1,
                    room: 0,
                    half: true,
                },
            )
        };
        assert_eq!(joined_text(&half(request.clone())), "q5 a5 now");
        assert_eq!(joined_text(&half(half(request.clone()))), "now");
        assert!(has_history(&request) && !has_history(&half(half(request))));
    }
}
