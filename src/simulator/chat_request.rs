//! The parts of a chat request that all wire formats share. Pure.

use serde_json::Value;

/// A chat request, reduced to what a simulator uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimulatedRequest {
    /// Stream word by word instead of sending one JSON answer.
    pub stream: bool,
    /// Report the usage at the end of a stream. Only OpenAI's format makes it optional.
    pub include_usage: bool,
    pub max_words: Option<usize>,
    /// The question to answer: the last one.
    pub question: String,
    pub previous_question: Option<String>,
    pub partial_answer: Option<PartialAnswer>,
    /// The number of words in all messages, reported as the prompt's tokens.
    pub prompt_words: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartialAnswer {
    pub text: String,
    /// Repeat the last characters of `text` first. `false` if the request only ends in an assistant
    /// message.
    pub repeat_end: bool,
}

struct RequestMessage {
    role: String,
    text: String,
}

impl SimulatedRequest {
    /// Parses `messages`, which all three formats share. The caller fills in the other fields.
    ///
    /// # Errors
    /// A message for the error object.
    pub fn parse(body: &Value) -> Result<Self, String> {
        let messages = body
            .get("messages")
            .and_then(Value::as_array)
            .ok_or("'messages' must be an array")?;
        let messages = messages
            .iter()
            .map(parse_message)
            .collect::<Result<Vec<_>, _>>()?;
        let questions: Vec<usize> = messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.role == "user")
            .map(|(index, _)| index)
            .collect();
        let text_at = |index: usize| messages.get(index).map(|message| message.text.clone());
        let answer_at = |index: usize| {
            messages
                .get(index)
                .filter(|message| message.role == "assistant" && !message.text.is_empty())
                .map(|message| message.text.clone())
        };

        let mut newest_first = questions.iter().rev().copied();
        let last = newest_first
            .next()
            .ok_or("'messages' must contain a message of the user")?;
        let mut question_at = last;
        let mut begun = None;
        // A partial answer either ends the request (prefill), or a request to continue follows it.
        if let Some(text) = answer_at(last + 1) {
            begun = Some(PartialAnswer {
                text,
                repeat_end: false,
            });
        } else if text_at(last).is_some_and(|text| asks_to_continue(&text))
            && let Some(text) = last.checked_sub(1).and_then(answer_at)
            && let Some(before) = newest_first.next()
        {
            question_at = before;
            begun = Some(PartialAnswer {
                text,
                repeat_end: true,
            });
        }
        Ok(Self {
            stream: false,
            include_usage: true,
            max_words: None,
            question: text_at(question_at).unwrap_or_default(),
            previous_question: newest_first.next().and_then(text_at),
            partial_answer: begun,
            prompt_words: messages
                .iter()
                .map(|message| message.text.split_whitespace().count())
                .sum(),
        })
    }
}

/// Recognizes the router's request to continue an answer, by words unlikely in a visitor's message.
fn asks_to_continue(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("cut off") && text.contains("repeat") || text.contains("last 40 characters")
}

fn parse_message(message: &Value) -> Result<RequestMessage, String> {
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
    Ok(RequestMessage {
        role: role.to_owned(),
        text,
    })
}

pub(super) fn parse_limit(value: Option<&Value>) -> Option<usize> {
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

    fn read(messages: &Value) -> SimulatedRequest {
        SimulatedRequest::parse(&json!({ "messages": messages })).unwrap()
    }

    #[test]
    fn last_question_is_answered_and_the_previous_one_is_known() {
        let chat = read(&json!([
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "an answer"},
            {"role": "user", "content": [{"type": "text", "text": "sec"}, {"type": "text", "text": "ond"}]},
        ]));
        assert_eq!(
            (chat.question.as_str(), chat.previous_question.as_deref()),
            ("second", Some("first"))
        );
        assert_eq!((chat.partial_answer, chat.prompt_words), (None, 6));
    }

    #[test]
    fn partial_answer_is_recognized_in_both_forms() {
        let mut messages = vec![
            json!({"role": "user", "content": "zero"}),
            json!({"role": "user", "content": "first"}),
            json!({"role": "assistant", "content": "half an"}),
        ];
        let prefilled = read(&Value::Array(messages.clone()));
        assert_eq!(
            prefilled.partial_answer,
            Some(PartialAnswer {
                text: "half an".to_owned(),
                repeat_end: false
            })
        );

        messages.push(
            json!({"role": "user", "content": "It was cut off. Repeat its last 40 characters."}),
        );
        let asked = read(&Value::Array(messages));
        assert_eq!(
            asked.partial_answer,
            Some(PartialAnswer {
                text: "half an".to_owned(),
                repeat_end: true
            })
        );
        assert_eq!(
            (asked.question.as_str(), asked.previous_question.as_deref()),
            ("first", Some("zero"))
        );
    }

    #[test]
    fn malformed_chats_are_rejected() {
        for body in [
            json!({}),
            json!({"messages": "hi"}),
            json!({"messages": []}),
            json!({"messages": [{"role": "user"}]}),
        ] {
            assert!(SimulatedRequest::parse(&body).is_err(), "{body}");
        }
    }
}
