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
        messages.push(message(MessageRole::User, record.question.as_str()));
        messages.push(message(MessageRole::Assistant, answer));
    }
    messages.push(message(MessageRole::User, question));
    ChatRequest {
        system,
        messages: messages.into(),
        max_tokens: limits.max_tokens,
        ends_with_prefill: false,
        temperature: None,
        stop: Arc::default(),
    }
}

fn message(role: MessageRole, text: impl Into<Arc<str>>) -> ChatMessage {
    ChatMessage {
        role,
        text: text.into(),
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
    let instruction = message(MessageRole::User, instruction);
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
    let text = format!("{partial}{}", shown.trim_end());
    before
        .iter()
        .chain(last)
        .cloned()
        .chain([message(MessageRole::Assistant, text)])
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
mod tests;
