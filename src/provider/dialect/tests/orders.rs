//! Each dialect converts any message order into one that its servers accept.

use super::*;

/// The role and text of each message as it is sent.
fn sent(
    dialect: &dyn Dialect,
    messages: &[(MessageRole, &str)],
    goes_on: bool,
) -> Vec<(String, String)> {
    let messages = messages
        .iter()
        .map(|(role, text)| ChatMessage {
            role: *role,
            text: (*text).into(),
        })
        .collect();
    let body = body(&dialect.chat_request(&ChatRequest {
        messages,
        ends_with_prefill: goes_on,
        ..ask()
    }));
    if let Some(contents) = body.get("contents") {
        assert_eq!(body["systemInstruction"]["parts"][0]["text"], "Be kind.");
        let each = contents.as_array().unwrap().iter();
        let text = |content: &Value| {
            (
                content["role"]
                    .as_str()
                    .unwrap()
                    .replace("model", "assistant"),
                string(&content["parts"][0]["text"]),
            )
        };
        return each.map(text).collect();
    }
    let messages: Vec<_> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (string(&message["role"]), string(&message["content"])))
        .collect();
    match body.get("system") {
        Some(system) => assert_eq!(system, "Be kind."),
        None => assert_eq!(messages[0], ("system".into(), "Be kind.".into())),
    }
    messages
        .into_iter()
        .filter(|(role, _)| role != "system")
        .collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn expected(messages: &[(&str, &str)]) -> Vec<(String, String)> {
    messages
        .iter()
        .map(|(role, text)| ((*role).to_owned(), (*text).to_owned()))
        .collect()
}

const USER_FIRST_AND_LAST: [DialectKind; 2] = [DialectKind::Anthropic, DialectKind::Gemini];
const ANY_ORDER: [DialectKind; 3] = [DialectKind::OpenAi, DialectKind::Azure, DialectKind::Ollama];
const CONTINUE: (&str, &str) = (
    "user",
    "Go on with your answer from where it ends. Do not repeat any of it.",
);

#[test]
fn neighbours_are_joined_and_blank_texts_dropped() {
    let messages = [
        (MessageRole::User, "a"),
        (MessageRole::User, " \n"),
        (MessageRole::User, "b"),
        (MessageRole::Assistant, "c"),
        (MessageRole::Assistant, ""),
        (MessageRole::Assistant, "d"),
        (MessageRole::User, "e"),
    ];
    for kind in KINDS {
        let sent = sent(dialect(kind).as_ref(), &messages, false);
        assert_eq!(
            sent,
            expected(&[("user", "a\n\nb"), ("assistant", "c\n\nd"), ("user", "e")]),
            "{kind:?}"
        );
    }
}

#[test]
fn opening_prompt_is_added_only_where_required() {
    let messages = [
        (MessageRole::Assistant, "Welcome!"),
        (MessageRole::User, "Hi"),
    ];
    for kind in USER_FIRST_AND_LAST {
        let sent = sent(dialect(kind).as_ref(), &messages, false);
        assert_eq!(
            sent,
            expected(&[
                ("user", "Please begin."),
                ("assistant", "Welcome!"),
                ("user", "Hi")
            ]),
            "{kind:?}"
        );
    }
    for kind in ANY_ORDER {
        let sent = sent(dialect(kind).as_ref(), &messages, false);
        assert_eq!(
            sent,
            expected(&[("assistant", "Welcome!"), ("user", "Hi")]),
            "{kind:?}"
        );
    }
}

#[test]
fn partial_answer_is_continued() {
    let messages = [
        (MessageRole::User, "Hi"),
        (MessageRole::Assistant, "Well, \n"),
    ];
    for kind in KINDS {
        // A continued answer is the last message, trimmed at its end.
        let continued = sent(dialect(kind).as_ref(), &messages, true);
        assert_eq!(
            continued,
            expected(&[("user", "Hi"), ("assistant", "Well,")]),
            "{kind:?}"
        );
    }
    for kind in USER_FIRST_AND_LAST {
        let sent = sent(dialect(kind).as_ref(), &messages, false);
        assert_eq!(
            sent,
            expected(&[("user", "Hi"), ("assistant", "Well, \n"), CONTINUE]),
            "{kind:?}"
        );
    }
    for kind in ANY_ORDER {
        let sent = sent(dialect(kind).as_ref(), &messages, false);
        assert_eq!(
            sent,
            expected(&[("user", "Hi"), ("assistant", "Well, \n")]),
            "{kind:?}"
        );
    }
}

#[test]
fn rejected_message_order_is_not_sent_again() {
    let odd = [
        (MessageRole::Assistant, "Welcome!"),
        (MessageRole::User, "Hi"),
        (MessageRole::Assistant, "Well,"),
    ];
    let request = |messages: &[(MessageRole, &str)]| ChatRequest {
        messages: messages
            .iter()
            .map(|(role, text)| ChatMessage {
                role: *role,
                text: (*text).into(),
            })
            .collect(),
        ..ask()
    };
    for (status, words) in [
        (
            400,
            "Cannot set `add_generation_prompt` to True when the last message is from the assistant.",
        ),
        (
            400,
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        ),
        (
            400,
            "Assistant response prefill is incompatible with enable_thinking.",
        ),
        (
            500,
            "Conversation roles must alternate user/assistant/user/assistant/...",
        ),
    ] {
        let rejection =
            serde_json::json!({"error": {"message": words, "type": "invalid_request_error"}})
                .to_string();
        let response = ErrorResponse {
            status,
            header: &|_| None,
            body: rejection.as_bytes(),
            now: Timestamp(0),
        };
        let dialect = dialect(DialectKind::OpenAi);
        // A conversation in a valid order was rejected for another reason.
        assert!(!dialect.adapt_to_rejection(&dialect.chat_request(&ask()), &response));
        let call = dialect.chat_request(&request(&odd));
        assert!(dialect.adapt_to_rejection(&call, &response), "{words}");
        let adapted = sent(dialect.as_ref(), &odd, false);
        assert_eq!(
            adapted,
            expected(&[
                ("user", "Please begin."),
                ("assistant", "Welcome!"),
                ("user", "Hi"),
                ("assistant", "Well,"),
                CONTINUE
            ])
        );
        assert!(
            !dialect.adapt_to_rejection(&dialect.chat_request(&request(&odd)), &response),
            "already in the required order"
        );
    }
    let dialect = dialect(DialectKind::OpenAi);
    let other = ErrorResponse {
        status: 400,
        header: &|_| None,
        body: br#"{"error":{"message":"The assistant is out"}}"#,
        now: Timestamp(0),
    };
    assert!(!dialect.adapt_to_rejection(&dialect.chat_request(&request(&odd)), &other));
}
