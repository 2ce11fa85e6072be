//! Estimated token counts. Each model has its own tokenizer, so they are estimates.

use super::request::ChatRequest;

/// Bytes of UTF-8 per token. Vendors name four English letters per token. Other languages take more
/// bytes per letter, and also more tokens.
const BYTES_PER_TOKEN: usize = 4;

/// The overhead of a message for its role marks. OpenAI's cookbook counts slightly more than three.
const MESSAGE_OVERHEAD_TOKENS: usize = 4;

/// The tokens that a request and its answer take of a context window. The default is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenEstimate {
    pub prompt_tokens: u32,
    pub max_answer_tokens: u32,
}

impl TokenEstimate {
    pub fn for_request(ask: &ChatRequest) -> Self {
        Self::for_last_messages(ask, ask.messages.len())
    }

    /// The estimate for the system prompt and the last `messages` messages.
    pub fn for_last_messages(ask: &ChatRequest, messages: usize) -> Self {
        let texts = ask
            .messages
            .iter()
            .rev()
            .take(messages)
            .map(|message| &message.text);
        let system = Some(&ask.system).filter(|text| !text.is_empty());
        let prompt = texts.chain(system).fold(0_usize, |sum, text| {
            sum.saturating_add(estimate_tokens(text))
        });
        Self {
            prompt_tokens: u32::try_from(prompt).unwrap_or(u32::MAX),
            max_answer_tokens: ask.max_tokens,
        }
    }

    /// Returns `true` if the request fits a context of `context_tokens` (0: unknown, always fits).
    ///
    /// Reserves the maximum length of the answer, but at most half of the context, because few
    /// answers reach the maximum.
    pub fn fits(self, context_tokens: u32) -> bool {
        context_tokens == 0
            || self
                .prompt_tokens
                .saturating_add(self.max_answer_tokens.min(context_tokens / 2))
                <= context_tokens
    }

    /// The maximum length of the answer in a context of `context_tokens` (0: unknown). At least 1.
    ///
    /// Servers reject or truncate requests whose prompt and answer together exceed the context.
    pub fn answer_limit(self, context_tokens: u32) -> u32 {
        if context_tokens == 0 {
            return self.max_answer_tokens;
        }
        let left = context_tokens
            .saturating_sub(self.prompt_tokens)
            .max(context_tokens / 2);
        self.max_answer_tokens.min(left).max(1)
    }
}

fn estimate_tokens(text: &str) -> usize {
    text.len()
        .div_ceil(BYTES_PER_TOKEN)
        .saturating_add(MESSAGE_OVERHEAD_TOKENS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::{ChatMessage, MessageRole};
    use super::*;

    fn estimate(system: &str, texts: &[&str]) -> TokenEstimate {
        let message = |text: &&str| ChatMessage {
            role: MessageRole::User,
            text: (*text).into(),
        };
        let request = ChatRequest {
            system: system.into(),
            messages: texts.iter().map(message).collect(),
            max_tokens: 100,
            ends_with_prefill: false,
            temperature: None,
            stop: Arc::default(),
        };
        TokenEstimate::for_request(&request)
    }

    #[test]
    fn four_bytes_count_as_a_token_and_each_message_adds_overhead() {
        assert_eq!(
            estimate("", &[""]),
            TokenEstimate {
                prompt_tokens: 4,
                max_answer_tokens: 100
            }
        );
        assert_eq!(estimate("", &["four"]).prompt_tokens, 5);
        assert_eq!(
            estimate("seven l", &["fours", "four"]).prompt_tokens,
            6 + 6 + 5
        );
        assert_eq!(
            estimate("", &["Привет!!"]).prompt_tokens,
            4 + 4,
            "two bytes per letter"
        );
        assert_eq!(
            estimate("", &["你好"]).prompt_tokens,
            4 + 2,
            "three bytes per letter"
        );
    }

    #[test]
    fn fits_reserves_room_for_the_answer() {
        let estimate = |prompt, answer| TokenEstimate {
            prompt_tokens: prompt,
            max_answer_tokens: answer,
        };
        assert!(
            estimate(u32::MAX, u32::MAX).fits(0),
            "an unknown context always fits"
        );
        assert!(estimate(900, 100).fits(1_000) && !estimate(901, 100).fits(1_000));
        // At most half of a small context is reserved.
        assert!(estimate(500, 4_096).fits(1_000) && !estimate(501, 4_096).fits(1_000));
        assert!(!estimate(u32::MAX, 1).fits(u32::MAX - 1));
        assert!(TokenEstimate::default().fits(1));
    }

    #[test]
    fn answer_is_limited_to_the_remaining_context() {
        let estimate = |prompt, answer| TokenEstimate {
            prompt_tokens: prompt,
            max_answer_tokens: answer,
        };
        assert_eq!(estimate(5_000, 100).answer_limit(0), 100);
        assert_eq!(estimate(100, 100).answer_limit(1_000), 100);
        assert_eq!(estimate(300, 4_096).answer_limit(1_000), 700);
        assert_eq!(estimate(2_000, 4_096).answer_limit(1_000), 500);
        assert_eq!(estimate(2_000, 4_096).answer_limit(1), 1);
    }
}
