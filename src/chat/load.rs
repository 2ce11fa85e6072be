//! How much of a model's context a question takes. By estimate: each model counts tokens in its own way.

use super::ask::Ask;

/// Bytes of UTF-8 to a token: about four letters of English, as the vendors say, and less of a language that takes more bytes a letter, as it
/// takes more tokens too.
const BYTES_A_TOKEN: usize = 4;

/// Tokens that a message takes besides its text: the marks of its role (OpenAI's cookbook counts three and a few).
const FRAME_TOKENS: usize = 4;

/// What a question and its answer take of a context, in tokens. The default takes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// System prompt and messages.
    pub prompt: u32,
    /// The most that the answer may have.
    pub answer: u32,
}

impl Load {
    /// The load of the whole ask.
    pub fn of(ask: &Ask) -> Self {
        Self::of_last(ask, ask.messages.len())
    }

    /// The load of the ask with no more than its last `messages`.
    pub fn of_last(ask: &Ask, messages: usize) -> Self {
        let texts = ask
            .messages
            .iter()
            .rev()
            .take(messages)
            .map(|message| &message.text);
        let system = Some(&ask.system).filter(|text| !text.is_empty());
        let prompt = texts
            .chain(system)
            .fold(0_usize, |sum, text| sum.saturating_add(tokens(text)));
        Self {
            prompt: u32::try_from(prompt).unwrap_or(u32::MAX),
            answer: ask.max_tokens,
        }
    }

    /// Whether it fits a context of `room` tokens (0: unknown, so it is tried). The answer's part is kept free, but of a small context no more
    /// than half: few answers are as long as they may be.
    pub fn fits(self, room: u32) -> bool {
        room == 0 || self.prompt.saturating_add(self.answer.min(room / 2)) <= room
    }

    /// The most tokens that the answer can have in a context of `room` tokens: servers refuse, or cut, what together is more. At least 1.
    pub fn answer_in(self, room: u32) -> u32 {
        if room == 0 {
            return self.answer;
        }
        let left = room.saturating_sub(self.prompt).max(room / 2);
        self.answer.min(left).max(1)
    }
}

fn tokens(text: &str) -> usize {
    text.len()
        .div_ceil(BYTES_A_TOKEN)
        .saturating_add(FRAME_TOKENS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::{Message, Role};
    use super::*;

    fn load(system: &str, texts: &[&str]) -> Load {
        let message = |text: &&str| Message {
            role: Role::User,
            text: (*text).into(),
        };
        let ask = Ask {
            system: system.into(),
            messages: texts.iter().map(message).collect(),
            max_tokens: 100,
            goes_on: false,
            temperature: None,
            stop: Arc::default(),
        };
        Load::of(&ask)
    }

    #[test]
    fn four_bytes_are_a_token_and_every_message_has_a_frame() {
        assert_eq!(
            load("", &[""]),
            Load {
                prompt: 4,
                answer: 100
            }
        );
        assert_eq!(load("", &["four"]).prompt, 5);
        assert_eq!(load("seven l", &["fours", "four"]).prompt, 6 + 6 + 5);
        assert_eq!(load("", &["Привет!!"]).prompt, 4 + 4, "two bytes a letter");
        assert_eq!(load("", &["你好"]).prompt, 4 + 2, "three");
    }

    #[test]
    fn the_answers_part_is_kept_free() {
        let load = |prompt, answer| Load { prompt, answer };
        assert!(load(u32::MAX, u32::MAX).fits(0), "unknown room is tried");
        assert!(load(900, 100).fits(1_000) && !load(901, 100).fits(1_000));
        // Of a small room no more than half.
        assert!(load(500, 4_096).fits(1_000) && !load(501, 4_096).fits(1_000));
        assert!(!load(u32::MAX, 1).fits(u32::MAX - 1));
        assert!(Load::default().fits(1));
    }

    #[test]
    fn an_answer_is_bounded_by_what_is_left() {
        let load = |prompt, answer| Load { prompt, answer };
        assert_eq!(load(5_000, 100).answer_in(0), 100);
        assert_eq!(load(100, 100).answer_in(1_000), 100);
        assert_eq!(load(300, 4_096).answer_in(1_000), 700);
        assert_eq!(load(2_000, 4_096).answer_in(1_000), 500);
        assert_eq!(load(2_000, 4_096).answer_in(1), 1);
    }
}
