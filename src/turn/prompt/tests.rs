//! The requests built from a history, and how they are cut.

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
    let mut record = TurnRecord::new(id, "m".parse().unwrap(), Timestamp(number), question, None);
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
