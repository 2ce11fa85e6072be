//! Each dialect converts any message order into one that its servers accept.

use super::*;

/// The role and text of each message as it is sent.
fn sent(dialect: &dyn Dialect, messages: &[(Role, &str)], goes_on: bool) -> Vec<(String, String)> {
    let messages = messages
        .iter()
        .map(|(role, text)| Message {
            role: *role,
            text: (*text).into(),
        })
        .collect();
    let body = body(&dialect.request(&Ask {
        messages,
        goes_on,
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

const USER_FIRST_AND_LAST: [Kind; 2] = [Kind::Anthropic, Kind::Gemini];
const ANY_ORDER: [Kind; 3] = [Kind::Openai, Kind::Azure, Kind::Ollama];
const CONTINUE: (&str, &str) = (
    "user",
    "Go on with your answer from where it ends. Do not repeat any of it.",
);

#[test]
fn neighbours_are_joined_and_blank_texts_dropped() {
    let messages = [
        (Role::User, "a"),
        (Role::User, " \n"),
        (Role::User, "b"),
        (Role::Assistant, "c"),
        (Role::Assistant, ""),
        (Role::Assistant, "d"),
        (Role::User, "e"),
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
    let messages = [(Role::Assistant, "Welcome!"), (Role::User, "Hi")];
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
    let messages = [(Role::User, "Hi"), (Role::Assistant, "Well, \n")];
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
        (Role::Assistant, "Welcome!"),
        (Role::User, "Hi"),
        (Role::Assistant, "Well,"),
    ];
    let request = |messages: &[(Role, &str)]| Ask {
        messages: messages
            .iter()
            .map(|(role, text)| Message {
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
        let response = Refused {
            status,
            header: &|_| None,
            body: rejection.as_bytes(),
            now: At(0),
        };
        let dialect = dialect(Kind::Openai);
        // A conversation in a valid order was rejected for another reason.
        assert!(!dialect.adapt(&dialect.request(&ask()), &response));
        let call = dialect.request(&request(&odd));
        assert!(dialect.adapt(&call, &response), "{words}");
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
            !dialect.adapt(&dialect.request(&request(&odd)), &response),
            "already in the required order"
        );
    }
    let dialect = dialect(Kind::Openai);
    let other = Refused {
        status: 400,
        header: &|_| None,
        body: br#"{"error":{"message":"The assistant is out"}}"#,
        now: At(0),
    };
    assert!(!dialect.adapt(&dialect.request(&request(&odd)), &other));
}
