//! Conversations in the orders that programs send: each dialect makes of them what its servers take.

use super::*;

/// What is sent of these messages: each one's role and text.
fn sent(dialect: &dyn Dialect, said: &[(Role, &str)], goes_on: bool) -> Vec<(String, String)> {
    let messages = said
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
        let text = |one: &Value| {
            (
                one["role"].as_str().unwrap().replace("model", "assistant"),
                told(&one["parts"][0]["text"]),
            )
        };
        return each.map(text).collect();
    }
    let all: Vec<_> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (told(&one["role"]), told(&one["content"])))
        .collect();
    match body.get("system") {
        Some(system) => assert_eq!(system, "Be kind."),
        None => assert_eq!(all[0], ("system".into(), "Be kind.".into())),
    }
    all.into_iter()
        .filter(|(role, _)| role != "system")
        .collect()
}

fn told(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn expected(said: &[(&str, &str)]) -> Vec<(String, String)> {
    said.iter()
        .map(|(role, text)| ((*role).to_owned(), (*text).to_owned()))
        .collect()
}

const STRICT: [Kind; 2] = [Kind::Anthropic, Kind::Gemini];
const FREE: [Kind; 3] = [Kind::Openai, Kind::Azure, Kind::Ollama];
const GO_ON: (&str, &str) = (
    "user",
    "Go on with your answer from where it ends. Do not repeat any of it.",
);

#[test]
fn neighbours_of_one_role_are_one_and_blank_texts_none() {
    let said = [
        (Role::User, "a"),
        (Role::User, " \n"),
        (Role::User, "b"),
        (Role::Assistant, "c"),
        (Role::Assistant, ""),
        (Role::Assistant, "d"),
        (Role::User, "e"),
    ];
    for kind in KINDS {
        let sent = sent(dialect(kind).as_ref(), &said, false);
        assert_eq!(
            sent,
            expected(&[("user", "a\n\nb"), ("assistant", "c\n\nd"), ("user", "e")]),
            "{kind:?}"
        );
    }
}

#[test]
fn a_conversation_that_the_model_begins_gets_an_opening_where_it_must() {
    let said = [(Role::Assistant, "Welcome!"), (Role::User, "Hi")];
    for kind in STRICT {
        let sent = sent(dialect(kind).as_ref(), &said, false);
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
    for kind in FREE {
        let sent = sent(dialect(kind).as_ref(), &said, false);
        assert_eq!(
            sent,
            expected(&[("assistant", "Welcome!"), ("user", "Hi")]),
            "{kind:?}"
        );
    }
}

#[test]
fn a_started_answer_is_gone_on_with_where_that_can_be() {
    let said = [(Role::User, "Hi"), (Role::Assistant, "Well, \n")];
    for kind in KINDS {
        // Taken up: it stands last, and without white space at its end.
        let taken = sent(dialect(kind).as_ref(), &said, true);
        assert_eq!(
            taken,
            expected(&[("user", "Hi"), ("assistant", "Well,")]),
            "{kind:?}"
        );
    }
    for kind in STRICT {
        let sent = sent(dialect(kind).as_ref(), &said, false);
        assert_eq!(
            sent,
            expected(&[("user", "Hi"), ("assistant", "Well, \n"), GO_ON]),
            "{kind:?}"
        );
    }
    for kind in FREE {
        let sent = sent(dialect(kind).as_ref(), &said, false);
        assert_eq!(
            sent,
            expected(&[("user", "Hi"), ("assistant", "Well, \n")]),
            "{kind:?}"
        );
    }
}

#[test]
fn an_order_that_is_refused_is_not_sent_again() {
    let odd = [
        (Role::Assistant, "Welcome!"),
        (Role::User, "Hi"),
        (Role::Assistant, "Well,"),
    ];
    let messages = |said: &[(Role, &str)]| Ask {
        messages: said
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
        let said =
            serde_json::json!({"error": {"message": words, "type": "invalid_request_error"}})
                .to_string();
        let answer = Refused {
            status,
            header: &|_| None,
            body: said.as_bytes(),
            now: At(0),
        };
        let dialect = dialect(Kind::Openai);
        // A conversation in good order is refused for something else.
        assert!(!dialect.adapt(&dialect.request(&ask()), &answer));
        let call = dialect.request(&messages(&odd));
        assert!(dialect.adapt(&call, &answer), "{words}");
        let strict = sent(dialect.as_ref(), &odd, false);
        assert_eq!(
            strict,
            expected(&[
                ("user", "Please begin."),
                ("assistant", "Welcome!"),
                ("user", "Hi"),
                ("assistant", "Well,"),
                GO_ON
            ])
        );
        assert!(
            !dialect.adapt(&dialect.request(&messages(&odd)), &answer),
            "it has it as it wants it"
        );
    }
    let dialect = dialect(Kind::Openai);
    let other = Refused {
        status: 400,
        header: &|_| None,
        body: br#"{"error":{"message":"The assistant is out"}}"#,
        now: At(0),
    };
    assert!(!dialect.adapt(&dialect.request(&messages(&odd)), &other));
}
