//! What a request asks for, whatever its dialect. Pure.

use serde_json::Value;

/// A chat request, as far as a simulator cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// Word by word, or one JSON answer.
    pub stream: bool,
    /// Should a stream tell its usage? Only OpenAI's dialect leaves the choice.
    pub usage: bool,
    /// The most words to answer with.
    pub limit: Option<usize>,
    /// The last question, which is what gets answered.
    pub question: String,
    /// The question before it.
    pub earlier: Option<String>,
    /// An answer begun elsewhere, which is to be carried on.
    pub begun: Option<Begun>,
    /// Words in all messages; stands for the prompt's tokens.
    pub prompt_words: usize,
}

/// The beginning of an answer that another provider left unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    /// What there is of it.
    pub text: String,
    /// Asked in words to repeat its end first, and not just by an assistant's message at the end.
    pub repeat: bool,
}

struct Said {
    role: String,
    text: String,
}

impl Heard {
    /// Reads `messages` as all three dialects have them; the other fields are the dialect's to fill.
    ///
    /// # Errors
    /// What is wrong, in words for the error object.
    pub fn read(body: &Value) -> Result<Self, String> {
        let messages = body
            .get("messages")
            .and_then(Value::as_array)
            .ok_or("'messages' must be an array")?;
        let said = messages.iter().map(said).collect::<Result<Vec<_>, _>>()?;
        let questions: Vec<usize> = said
            .iter()
            .enumerate()
            .filter(|(_, one)| one.role == "user")
            .map(|(at, _)| at)
            .collect();
        let text_at = |at: usize| said.get(at).map(|one| one.text.clone());
        let begun_at = |at: usize| {
            said.get(at)
                .filter(|one| one.role == "assistant" && !one.text.is_empty())
                .map(|one| one.text.clone())
        };

        let mut back = questions.iter().rev().copied();
        let last = back
            .next()
            .ok_or("'messages' must contain a message of the user")?;
        let mut question_at = last;
        let mut begun = None;
        if let Some(text) = begun_at(last + 1) {
            begun = Some(Begun {
                text,
                repeat: false,
            });
        } else if text_at(last).is_some_and(|text| asks_to_carry_on(&text))
            && let Some(text) = last.checked_sub(1).and_then(begun_at)
            && let Some(before) = back.next()
        {
            question_at = before;
            begun = Some(Begun { text, repeat: true });
        }
        Ok(Self {
            stream: false,
            usage: true,
            limit: None,
            question: text_at(question_at).unwrap_or_default(),
            earlier: back.next().and_then(text_at),
            begun,
            prompt_words: said
                .iter()
                .map(|one| one.text.split_whitespace().count())
                .sum(),
        })
    }
}

/// The request to finish an answer that was cut off, which no visitor would word like that by chance.
fn asks_to_carry_on(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("cut off") && text.contains("repeat") || text.contains("last 40 characters")
}

fn said(message: &Value) -> Result<Said, String> {
    let role = message
        .get("role")
        .and_then(Value::as_str)
        .ok_or("each message needs a 'role'")?;
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        Some(Value::Null) => String::new(),
        _ => return Err("each message needs a 'content'".to_owned()),
    };
    Ok(Said {
        role: role.to_owned(),
        text,
    })
}

/// A limit as numbers come in JSON; anything but a positive one is none.
pub(super) fn limit(value: Option<&Value>) -> Option<usize> {
    value
        .and_then(Value::as_u64)
        .filter(|limit| *limit > 0)
        .and_then(|limit| usize::try_from(limit).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(messages: &Value) -> Heard {
        Heard::read(&json!({ "messages": messages })).unwrap()
    }

    #[test]
    fn the_last_question_counts_and_the_one_before_is_known() {
        let heard = read(&json!([
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "an answer"},
            {"role": "user", "content": [{"type": "text", "text": "sec"}, {"type": "text", "text": "ond"}]},
        ]));
        assert_eq!(
            (heard.question.as_str(), heard.earlier.as_deref()),
            ("second", Some("first"))
        );
        assert_eq!((heard.begun, heard.prompt_words), (None, 6));
    }

    #[test]
    fn an_answer_cut_off_is_to_be_carried_on() {
        let mut messages = vec![
            json!({"role": "user", "content": "zero"}),
            json!({"role": "user", "content": "first"}),
            json!({"role": "assistant", "content": "half an"}),
        ];
        let prefilled = read(&Value::Array(messages.clone()));
        assert_eq!(
            prefilled.begun,
            Some(Begun {
                text: "half an".to_owned(),
                repeat: false
            })
        );

        messages.push(
            json!({"role": "user", "content": "It was cut off. Repeat its last 40 characters."}),
        );
        let asked = read(&Value::Array(messages));
        assert_eq!(
            asked.begun,
            Some(Begun {
                text: "half an".to_owned(),
                repeat: true
            })
        );
        assert_eq!(
            (asked.question.as_str(), asked.earlier.as_deref()),
            ("first", Some("zero"))
        );
    }

    #[test]
    fn what_is_no_chat_is_said_so() {
        for body in [
            json!({}),
            json!({"messages": "hi"}),
            json!({"messages": []}),
            json!({"messages": [{"role": "user"}]}),
        ] {
            assert!(Heard::read(&body).is_err(), "{body}");
        }
    }
}
