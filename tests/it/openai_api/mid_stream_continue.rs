//! A streamed answer that breaks after some text goes on with the next provider: told to repeat the end of what was said, checked, and cut.

use serde_json::json;

use crate::harness::{
    Act, Completion, Gate, ScriptedProvider, TestApp, answer, apart, event, finish, head, say,
    spoken, streaming, word,
};

/// What was said before the break: longer than the repeat that is asked for.
const SAID: &str = "The quick brown fox jumps over the lazy dog, and then it";

/// Its last 40 characters.
const LAST: &str = "fox jumps over the lazy dog, and then it";

/// Says this and breaks once the caller has it; the second provider does that then. Gives the answer to its end.
async fn broken(said: &str, second: Vec<Act>) -> (Completion, ScriptedProvider, TestApp) {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![spoken([said]), gate.hold(), Act::Reset]).await;
    let beta = ScriptedProvider::start(second).await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut answer = app.stream("What?").await;
    answer.shows(said).await;
    gate.open();
    let answer = answer.ended().await;
    app.at_rest().await;
    assert_eq!((alpha.asked(), beta.asked()), (1, 1));
    (answer, beta, app)
}

#[tokio::test]
async fn the_next_repeats_the_end_and_goes_on() {
    let (answer, beta, _app) = broken(SAID, answer(&format!("{LAST} sleeps."))).await;
    assert_eq!(
        (answer.text(), answer.finish()),
        (format!("{SAID} sleeps."), "stop".into())
    );
    assert_eq!(answer.speakers(), ["alpha 1 ai", "beta 2 ai"]);
    let last = answer.chunks.last().unwrap();
    assert_eq!(
        last["failsoft"],
        json!({ "provider": "beta", "attempt": 2, "source": "ai" })
    );
    assert_eq!(
        (&answer.chunks[0]["model"], &last["model"]),
        (&json!("alpha-model"), &json!("beta-model"))
    );
    // The head went out before the break.
    assert_eq!(
        (answer.header("x-provider"), answer.header("x-attempts")),
        ("alpha", "1")
    );

    let asked = &beta.requests()[0].1;
    let messages = asked["messages"].as_array().unwrap();
    assert_eq!(
        messages[..2],
        [
            json!({ "role": "user", "content": "What?" }),
            json!({ "role": "assistant", "content": SAID })
        ]
    );
    let [_, _, told] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(told["role"], "user");
    assert!(
        told["content"]
            .as_str()
            .unwrap()
            .ends_with(&format!("\n{LAST}")),
        "{told}"
    );
}

#[tokio::test]
async fn white_space_of_the_repeat_does_not_count() {
    for repeat in [
        "fox jumps over the\nlazy dog,  and then it",
        "foxjumpsoverthelazydog,andthenit",
        " \nfox jumps over the lazy dog, and then it",
    ] {
        let (answer, ..) = broken(SAID, answer(&format!("{repeat} sleeps."))).await;
        assert_eq!(answer.text(), format!("{SAID} sleeps."), "{repeat:?}");
    }
}

#[tokio::test]
async fn no_space_is_lost_or_doubled_at_the_seam() {
    for (said, more) in [
        (
            "The quick brown fox jumps over the lazy dog, and then it ",
            "sleeps.",
        ),
        (
            "The quick brown fox jumps over the lazy dog, and then it\n\n",
            "sleeps.",
        ),
        (
            "The quick brown fox jumps over the lazy dog, and then it",
            " sleeps.",
        ),
        (
            "The quick brown fox jumps over the lazy dog, and then it",
            "ch goes.",
        ),
    ] {
        let whole = format!("{said}{more}");
        // In one piece; cut behind the repeat; behind the white space after it; letter by letter.
        let at = whole.trim_end_matches(|c| c != 't').len();
        let repeat = &whole[at - 40..at];
        let rest = &whole[at..];
        let letters: Vec<String> = format!("{repeat}{rest}")
            .chars()
            .map(String::from)
            .collect();
        let space = rest.len() - rest.trim_start().len();
        for pieces in [
            vec![format!("{repeat}{rest}")],
            vec![repeat.to_owned(), rest.to_owned()],
            vec![
                format!("{repeat}{}", &rest[..space]),
                rest[space..].to_owned(),
            ],
            vec![
                repeat.to_owned(),
                rest[..space].to_owned(),
                rest[space..].to_owned(),
            ],
            letters,
        ] {
            let script = apart(
                pieces
                    .iter()
                    .map(String::as_str)
                    .filter(|piece| !piece.is_empty()),
            );
            let (answer, ..) = broken(said, script).await;
            assert_eq!(answer.text(), whole, "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn a_text_shorter_than_the_repeat_is_repeated_whole() {
    let (answer, beta, _app) = broken("One, ", answer("One, two.")).await;
    assert_eq!(answer.text(), "One, two.");
    let told = beta.requests()[0].1["messages"][2]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(told.ends_with("\nOne,"), "{told}");
}

#[tokio::test]
async fn characters_are_counted_not_bytes() {
    let said = "日本語の文章は、単語の間に空白を置かない。だから、単語の数は文字の数とは別に数える必要がある。そして🙂";
    let at = said.char_indices().rev().nth(39).unwrap().0;
    let (answer, beta, _app) = broken(said, answer(&format!("{}終わり。", &said[at..]))).await;
    assert_eq!(answer.text(), format!("{said}終わり。"));
    let told = beta.requests()[0].1["messages"][2]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(told.ends_with(&format!("\n{}", &said[at..])), "{told}");
}

#[tokio::test]
async fn who_begins_again_with_the_same_words_joins_too() {
    let whole = format!("{SAID} sleeps.");
    let letters: Vec<String> = whole.chars().map(String::from).collect();
    for second in [
        apart([&*whole]),
        apart([&whole[..10], &whole[10..]]),
        apart([&whole[..10], &whole[10..50], &whole[50..]]),
        apart(letters.iter().map(String::as_str)),
    ] {
        let (answer, ..) = broken(SAID, second).await;
        assert_eq!(
            (answer.text(), answer.finish()),
            (whole.clone(), "stop".into())
        );
        assert_eq!(answer.speakers(), ["alpha 1 ai", "beta 2 ai"]);
    }
}

#[tokio::test]
async fn who_has_nothing_to_add_ends_it() {
    // The first one broke between its last word and its end mark.
    for second in [answer(LAST), answer(SAID)] {
        let (answer, ..) = broken(SAID, second).await;
        assert_eq!(
            (answer.text(), answer.finish()),
            (SAID.into(), "stop".into())
        );
        assert_eq!(
            answer.chunks.last().unwrap()["failsoft"]["provider"],
            "beta"
        );
    }
}

#[tokio::test]
async fn a_continuation_that_breaks_is_continued() {
    let (one, two) = (Gate::default(), Gate::default());
    let alpha = ScriptedProvider::start(vec![spoken([SAID]), one.hold(), Act::Reset]).await;
    let beta = vec![
        spoken([LAST, " sleeps under"]),
        two.hold(),
        say(&crate::harness::last_chunk()),
    ];
    let beta = ScriptedProvider::start(beta).await;
    let gamma = answer("r the lazy dog, and then it sleeps under a tree.");
    let gamma = ScriptedProvider::start(gamma).await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]).await;
    let mut body = streaming("What?");
    body["stream_options"] = json!({ "include_usage": true });
    let mut answer = Completion::open(app.completion(&body)).await;
    answer.shows(SAID).await;
    one.open();
    answer.shows(&format!("{SAID} sleeps under")).await;
    two.open();
    let answer = answer.ended().await;
    assert_eq!(answer.text(), format!("{SAID} sleeps under a tree."));
    assert_eq!(answer.speakers(), ["alpha 1 ai", "beta 2 ai", "gamma 3 ai"]);
    // Two attempts told no usage: theirs is estimated, and all three are summed up.
    let usage = &answer.chunks.last().unwrap()["usage"];
    assert!(usage["completion_tokens"].as_u64() > Some(15), "{usage}");
    assert_eq!((alpha.asked(), beta.asked(), gamma.asked()), (1, 1, 1));
    app.at_rest().await;
}

#[tokio::test]
async fn who_is_full_of_thoughts_says_none_of_them() {
    let thought =
        event(r#"{"choices":[{"index":0,"delta":{"reasoning_content":"fox jumps? hm."}}]}"#);
    let script = vec![
        say(&(head() + &thought)),
        say(&(word(&format!("{LAST} sleeps.")) + &finish())),
    ];
    let (answer, ..) = broken(SAID, script).await;
    assert_eq!(answer.text(), format!("{SAID} sleeps."));
}

#[tokio::test]
async fn a_whole_answer_begins_anew_instead() {
    let alpha = ScriptedProvider::start(vec![spoken([SAID]), Act::Reset]).await;
    let beta = ScriptedProvider::answering("Something else.").await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app
        .completion(&crate::harness::question("What?"))
        .send()
        .await;
    for (name, value) in [
        ("x-provider", "beta"),
        ("x-source", "ai"),
        ("x-degraded", "false"),
        ("x-attempts", "2"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let answer = answer.json();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "Something else."
    );
    assert_eq!(
        answer["failsoft"],
        json!({ "provider": "beta", "attempt": 2, "source": "ai" })
    );
    let messages = beta.requests()[0].1["messages"].clone();
    assert_eq!(messages, json!([{ "role": "user", "content": "What?" }]));
}
