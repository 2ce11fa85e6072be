//! Builds the requests that models get: system prompt, history, question and partial answers. Pure.

use std::sync::Arc;

use super::merge::{OVERLAP_CHARS, overlap_tail};
use crate::domain::{
    AnswerSource, ChatMessage, ChatRequest, FinishReason, MessageRole, TokenEstimate, TurnRecord,
    TurnState,
};

/// Builds a request from the history and the question.
///
/// The history consists of the last `history_turns` turns that an AI answered; a follow-up replaces
/// a fallback answer. Retried, refused, interrupted and unanswered turns are left out.
pub fn build_request(
    system: Arc<str>,
    history: &[TurnRecord],
    question: &str,
    limits: PromptLimits,
) -> ChatRequest {
    let was_retried = |turn| history.iter().any(|other| other.retry_of == Some(turn));
    let mut messages: Vec<ChatMessage> = Vec::new();
    let usable = history
        .iter()
        .filter(|record| !was_retried(record.turn) && Some(record.turn) != limits.retry_of);
    let pairs: Vec<_> = usable
        .filter_map(|record| Some((record, context_answer(record)?)))
        .collect();
    let skip = pairs.len().saturating_sub(limits.history_turns);
    for (record, answer) in pairs.into_iter().skip(skip) {
        messages.push(ChatMessage {
            role: MessageRole::User,
            text: record.question.as_str().into(),
        });
        messages.push(ChatMessage {
            role: MessageRole::Assistant,
            text: answer.into(),
        });
    }
    messages.push(ChatMessage {
        role: MessageRole::User,
        text: question.into(),
    });
    ChatRequest {
        system,
        messages: messages.into(),
        max_tokens: limits.max_tokens,
        ends_with_prefill: false,
        temperature: None,
        stop: Arc::default(),
    }
}

#[derive(Clone, Copy, Debug)]
pub struct PromptLimits {
    pub history_turns: usize,
    pub max_tokens: u32,
    /// The turn that is answered again. It is left out of the history.
    pub retry_of: Option<crate::domain::TurnId>,
}

/// The minimum for a continuation: the repeated overlap alone takes some tokens.
const MIN_CONTINUATION_TOKENS: u32 = 64;

/// The request with `shown` as a partial answer, for a provider that supports prefill.
pub fn with_prefill(request: &ChatRequest, shown: &str) -> ChatRequest {
    let messages = append_partial(request, shown).collect();
    ChatRequest {
        messages,
        ends_with_prefill: true,
        max_tokens: remaining_tokens(request, shown),
        ..request.clone()
    }
}

/// The request with `shown` as a cut-off answer and the instruction to repeat its end and go on,
/// for a provider without prefill. The system prompt is not changed.
pub fn with_repeat_instruction(request: &ChatRequest, shown: &str) -> ChatRequest {
    let instruction = format!(
        "Your previous answer was cut off. Repeat its last {OVERLAP_CHARS} characters exactly as they are, then go on from there \
         to its end. No greeting, no apology, no comment, and do not begin again. Its last {OVERLAP_CHARS} characters are:\n{}",
        overlap_tail(shown)
    );
    let instruction = ChatMessage {
        role: MessageRole::User,
        text: instruction.into(),
    };
    let messages = append_partial(request, shown)
        .chain([instruction])
        .collect();
    ChatRequest {
        messages,
        max_tokens: remaining_tokens(request, shown),
        ..request.clone()
    }
}

/// The messages with `shown` appended as the assistant's. If a caller's last message is a partial
/// answer, `shown` is appended to that message.
fn append_partial(request: &ChatRequest, shown: &str) -> impl Iterator<Item = ChatMessage> {
    let (last, before) = request
        .messages
        .split_last()
        .map_or((None, &[][..]), |(last, before)| (Some(last), before));
    let (partial, last) = match last {
        Some(last) if last.role == MessageRole::Assistant => (&*last.text, None),
        other => ("", other),
    };
    // Providers reject a partial answer that ends with white space.
    let text = format!("{partial}{}", shown.trim_end()).into();
    before.iter().chain(last).cloned().chain([ChatMessage {
        role: MessageRole::Assistant,
        text,
    }])
}

/// The request for a provider that supports prefill: a caller's partial answer at the end of the
/// messages is to be continued.
pub fn as_prefill(request: &ChatRequest) -> ChatRequest {
    let ends_with_partial = request
        .messages
        .last()
        .is_some_and(|last| last.role == MessageRole::Assistant);
    ChatRequest {
        ends_with_prefill: ends_with_partial,
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
fn remaining_tokens(request: &ChatRequest, shown: &str) -> u32 {
    let used = u32::try_from(shown.chars().count() / 4).unwrap_or(u32::MAX);
    request
        .max_tokens
        .saturating_sub(used)
        .max(MIN_CONTINUATION_TOKENS)
}

pub fn has_history(request: &ChatRequest) -> bool {
    request.messages.len() > 2
}

#[derive(Clone, Copy, Debug)]
pub struct ContextLimit {
    /// The number of last messages that always stay: the question and a partial answer.
    pub required_messages: usize,
    /// The size of the context in tokens, or 0 if it is unknown.
    pub context_tokens: u32,
    /// Keep only the newer half of the turns that fit. The provider counts tokens differently and
    /// has rejected the request as too long.
    pub halve_history: bool,
}

/// Cuts a request to a provider's context: removes the oldest turns, and limits the answer to the
/// remaining tokens. The system prompt always stays.
pub fn fit_to_context(request: ChatRequest, limit: ContextLimit) -> ChatRequest {
    let total = request.messages.len();
    let required = limit.required_messages.min(total);
    let mut turns = (total - required) / 2;
    while turns > 0
        && !TokenEstimate::for_last_messages(&request, required + 2 * turns)
            .fits(limit.context_tokens)
    {
        turns -= 1;
    }
    if limit.halve_history {
        turns /= 2;
    }
    let remaining = required + 2 * turns;
    let max_tokens =
        TokenEstimate::for_last_messages(&request, remaining).answer_limit(limit.context_tokens);
    let messages = match request.messages.get(total - remaining..) {
        Some(last) if remaining < total => last.into(),
        _ => Arc::clone(&request.messages),
    };
    ChatRequest {
        messages,
        max_tokens,
        ..request
    }
}

/// Returns `true` if a finished turn matters to [`build_request`]: by its answer, or because it
/// retries an earlier turn.
pub fn is_context(record: &TurnRecord) -> bool {
    record.retry_of.is_some() || context_answer(record).is_some()
}

/// The provider of the last complete AI answer in the history.
pub fn last_provider(history: &[TurnRecord]) -> Option<Arc<str>> {
    let is_complete_answer = |record: &&TurnRecord| {
        let is_finished = matches!(
            record.finish,
            Some(FinishReason::Stop | FinishReason::Length)
        );
        record.state == TurnState::Done && record.source == Some(AnswerSource::Ai) && is_finished
    };
    history
        .iter()
        .rev()
        .find(is_complete_answer)?
        .provider
        .clone()
}

/// The answer of a turn as part of the history. `None` if it is left out.
fn context_answer(record: &TurnRecord) -> Option<&str> {
    if let Some(followup) = &record.followup {
        return Some(&followup.text);
    }
    let is_ai_answer = matches!(
        record.source,
        Some(AnswerSource::Ai | AnswerSource::Cache | AnswerSource::StaleCache)
    );
    let has_usable_end = matches!(
        record.finish,
        Some(FinishReason::Stop | FinishReason::Length | FinishReason::Stopped)
    );
    let is_usable = record.state == TurnState::Done && is_ai_answer && has_usable_end;
    (is_usable && !record.text.trim().is_empty()).then_some(record.text.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::{Followup, Timestamp, TurnId};

    const LIMITS: PromptLimits = PromptLimits {
        history_turns: 20,
        max_tokens: 9,
        retry_of: None,
    };

    fn turn(number: u64, source: AnswerSource, finish: FinishReason) -> TurnRecord {
        let id = TurnId::next_after(None, number, 0);
        let question = format!("q{number}");
        let mut record =
            TurnRecord::new(id, "m".parse().unwrap(), Timestamp(number), question, None);
        record.text = format!("a{number}");
        record.state = TurnState::Done;
        record.source = Some(source);
        record.finish = Some(finish);
        record
    }

    fn context(kept: usize, room: u32) -> ContextLimit {
        ContextLimit {
            required_messages: kept,
            context_tokens: room,
            halve_history: false,
        }
    }

    fn joined_text(request: &ChatRequest) -> String {
        request
            .messages
            .iter()
            .map(|message| &*message.text)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn history_contains_ai_answers_only() {
        let mut followed_up = turn(5, AnswerSource::Fallback, FinishReason::Stop);
        followed_up.followup = Some(Followup {
            text: "late".into(),
            provider: "p".into(),
            model: "m".into(),
            at: Timestamp(9),
        });
        let history = [
            turn(1, AnswerSource::Ai, FinishReason::Stop),
            turn(2, AnswerSource::Fallback, FinishReason::Stop),
            turn(3, AnswerSource::Ai, FinishReason::ContentFilter),
            turn(4, AnswerSource::Ai, FinishReason::Stop).into_interrupted(),
            followed_up,
            turn(6, AnswerSource::StaleCache, FinishReason::Length),
        ];
        let request = build_request("s".into(), &history, "now", LIMITS);
        assert_eq!(joined_text(&request), "q1 a1 q5 late q6 a6 now");
    }

    #[test]
    fn retried_turn_is_left_out() {
        let first = turn(1, AnswerSource::Ai, FinishReason::Stop);
        let mut second = turn(2, AnswerSource::Ai, FinishReason::Stop);
        second.retry_of = Some(first.turn);
        let history = [first.clone(), second];
        assert_eq!(
            joined_text(&build_request("".into(), &history, "now", LIMITS)),
            "q2 a2 now"
        );
        let retry = PromptLimits {
            retry_of: Some(first.turn),
            ..LIMITS
        };
        assert_eq!(
            joined_text(&build_request("".into(), &history[..1], "q1", retry)),
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
        let history: Vec<_> = (1..=4)
            .map(|n| turn(n, AnswerSource::Ai, FinishReason::Stop))
            .collect();
        // 6 tokens of system prompt, 5 of each message, 9 of the answer.
        let full = build_request("system p".into(), &history, "now", LIMITS);
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
            let fitted = fit_to_context(full.clone(), context(1, room));
            assert_eq!(
                (joined_text(&fitted).as_str(), &*fitted.system),
                (expected, "system p"),
                "{room}"
            );
            assert_eq!(fitted.messages.first().unwrap().role, MessageRole::User);
        }
        // A provider that found the fitting part too long gets half of it.
        let half = |room| {
            joined_text(&fit_to_context(
                full.clone(),
                ContextLimit {
                    halve_history: true,
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
            joined_text(&fit_to_context(with_prefill(&full, "Well,"), context(2, 1))),
            "now Well,"
        );
        assert!(
            joined_text(&fit_to_context(
                with_repeat_instruction(&full, "Well,"),
                context(3, 1)
            ))
            .starts_with("now Well, Your previous")
        );
        assert_eq!(
            joined_text(&fit_to_context(full.clone(), context(9, 1))),
            joined_text(&full)
        );
    }

    #[test]
    fn answer_is_limited_to_the_remaining_context() {
        let long = build_request(
            "".into(),
            &[],
            "now",
            PromptLimits {
                max_tokens: 1000,
                ..LIMITS
            },
        );
        for (room, tokens) in [(0, 1000), (1005, 1000), (1004, 999), (100, 95), (8, 4)] {
            assert_eq!(
                fit_to_context(long.clone(), context(1, room)).max_tokens,
                tokens,
                "{room}"
            );
        }
    }

    #[test]
    fn callers_partial_answer_is_continued_in_one_message() {
        let plain = build_request("".into(), &[], "now", LIMITS);
        let partial = ChatMessage {
            role: MessageRole::Assistant,
            text: "Well, ".into(),
        };
        let started = ChatRequest {
            messages: [plain.messages[0].clone(), partial].into(),
            ..plain.clone()
        };
        assert!(as_prefill(&started).ends_with_prefill && !as_prefill(&plain).ends_with_prefill);
        assert_eq!(
            joined_text(&with_prefill(&started, "yes ")),
            "now Well, yes"
        );
        assert_eq!(with_prefill(&started, "yes ").messages.len(), 2);
        assert!(
            joined_text(&with_repeat_instruction(&started, "yes"))
                .starts_with("now Well, yes Your previous answer")
        );
        assert_eq!(with_repeat_instruction(&started, "yes").messages.len(), 3);
        assert_eq!(with_prefill(&plain, "yes").messages.len(), 2);
    }

    #[test]
    fn last_provider_is_that_of_the_last_complete_answer() {
        let by = |name: &str, turn: TurnRecord| TurnRecord {
            provider: Some(name.into()),
            ..turn
        };
        let mut history = vec![
            by("a", turn(1, AnswerSource::Ai, FinishReason::Stop)),
            by("b", turn(2, AnswerSource::Ai, FinishReason::Length)),
            by("c", turn(3, AnswerSource::Ai, FinishReason::Stopped)),
            by(
                "d",
                turn(4, AnswerSource::Ai, FinishReason::Stop).into_interrupted(),
            ),
            by("e", turn(5, AnswerSource::Ai, FinishReason::ContentFilter)),
            turn(6, AnswerSource::Fallback, FinishReason::Stop),
        ];
        assert_eq!(last_provider(&history).as_deref(), Some("b"));
        history.remove(1);
        assert_eq!(last_provider(&history).as_deref(), Some("a"));
        assert_eq!(last_provider(&history[1..]), None);
    }

    #[test]
    fn oldest_turns_are_cut_first() {
        let history: Vec<_> = (1..=5)
            .map(|n| turn(n, AnswerSource::Ai, FinishReason::Stop))
            .collect();
        let few = PromptLimits {
            history_turns: 3,
            ..LIMITS
        };
        let request = build_request("".into(), &history, "now", few);
        assert_eq!(joined_text(&request), "q3 a3 q4 a4 q5 a5 now");
        let half = |request: ChatRequest| {
            fit_to_context(
                request,
                ContextLimit {
                    required_messages: 1,
                    context_tokens: 0,
                    halve_history: true,
                },
            )
        };
        assert_eq!(joined_text(&half(request.clone())), "q5 a5 now");
        assert_eq!(joined_text(&half(half(request.clone()))), "now");
        assert!(has_history(&request) && !has_history(&half(half(request))));
    }
}
