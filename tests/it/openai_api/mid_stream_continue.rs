//! A streamed answer that breaks is continued by the next provider, which is told to repeat its
//! end; the repeated part is checked and removed.

use serde_json::json;

use crate::harness::{
    CompletionStream, ScriptGate, ScriptStep, ScriptedProvider, TestApp, answer_in_pieces,
    full_answer, partial_answer, send_text, sse_event, stream_end, stream_head, streaming_body,
    token_event,
};

/// The text before the failure, longer than the overlap that is asked for.
const SENT: &str = "The quick brown fox jumps over the lazy dog, and then it";

/// The last 40 characters of [`SENT`].
const OVERLAP: &str = "fox jumps over the lazy dog, and then it";

/// Breaks alpha once the caller has `sent`; beta runs `second`. Returns the completed stream.
async fn break_after(
    sent: &str,
    second: Vec<ScriptStep>,
) -> (CompletionStream, ScriptedProvider, TestApp) {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer([sent]),
        gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let beta = ScriptedProvider::start(second).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut answer = app.stream_answer("What?").await;
    answer.read_until_text(sent).await;
    gate.let_one_through();
    let answer = answer.read_to_end().await;
    app.wait_until_idle().await;
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    (answer, beta, app)
}

#[tokio::test]
async fn the_next_provider_repeats_the_overlap_and_continues() {
    let (answer, beta, _app) = break_after(SENT, full_answer(&format!("{OVERLAP} sleeps."))).await;
    assert_eq!(
        (answer.text(), answer.finish_reason()),
        (format!("{SENT} sleeps."), "stop".into())
    );
    assert_eq!(answer.text_sources(), ["alpha 1 ai", "beta 2 ai"]);
    let last = answer.chunks.last().unwrap();
    assert_eq!(
        last["failsoft"],
        json!({ "provider": "beta", "attempt": 2, "source": "ai" })
    );
    assert_eq!(
        (&answer.chunks[0]["model"], &last["model"]),
        (&json!("alpha-model"), &json!("beta-model"))
    );
    // The response head was sent before the failure.
    assert_eq!(
        (answer.header("x-provider"), answer.header("x-attempts")),
        ("alpha", "1")
    );

    let request = &beta.requests()[0].1;
    let messages = request["messages"].as_array().unwrap();
    assert_eq!(
        messages[..2],
        [
            json!({ "role": "user", "content": "What?" }),
            json!({ "role": "assistant", "content": SENT })
        ]
    );
    let [_, _, instruction] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(instruction["role"], "user");
    assert!(
        instruction["content"]
            .as_str()
            .unwrap()
            .ends_with(&format!("\n{OVERLAP}")),
        "{instruction}"
    );
}

#[tokio::test]
async fn white_space_in_the_overlap_is_ignored() {
    for repeat in [
        "fox jumps over the\nlazy dog,  and then it",
        "foxjumpsoverthelazydog,andthenit",
        " \nfox jumps over the lazy dog, and then it",
    ] {
        let (answer, ..) = break_after(SENT, full_answer(&format!("{repeat} sleeps."))).await;
        assert_eq!(answer.text(), format!("{SENT} sleeps."), "{repeat:?}");
    }
}

#[tokio::test]
async fn no_space_is_lost_or_doubled_where_texts_are_joined() {
    for (sent, more) in [
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
        let whole = format!("{sent}{more}");
        // In one piece, split after the overlap, split after the white space, and letter by letter.
        let end = whole.trim_end_matches(|c| c != 't').len();
        let overlap = &whole[end - 40..end];
        let rest = &whole[end..];
        let letters: Vec<String> = format!("{overlap}{rest}")
            .chars()
            .map(String::from)
            .collect();
        let space = rest.len() - rest.trim_start().len();
        for pieces in [
            vec![format!("{overlap}{rest}")],
            vec![overlap.to_owned(), rest.to_owned()],
            vec![
                format!("{overlap}{}", &rest[..space]),
                rest[space..].to_owned(),
            ],
            vec![
                overlap.to_owned(),
                rest[..space].to_owned(),
                rest[space..].to_owned(),
            ],
            letters,
        ] {
            let script = answer_in_pieces(
                pieces
                    .iter()
                    .map(String::as_str)
                    .filter(|piece| !piece.is_empty()),
            );
            let (answer, ..) = break_after(sent, script).await;
            assert_eq!(answer.text(), whole, "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn a_text_shorter_than_the_overlap_is_repeated_whole() {
    let (answer, beta, _app) = break_after("One, ", full_answer("One, two.")).await;
    assert_eq!(answer.text(), "One, two.");
    let instruction = beta.requests()[0].1["messages"][2]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(instruction.ends_with("\nOne,"), "{instruction}");
}

#[tokio::test]
async fn the_overlap_is_counted_in_characters() {
    let sent = "日本語の文章は、単語の間に空白を置かない。だから、単語の数は文字の数とは別に数える必要がある。そして🙂";
    let start = sent.char_indices().rev().nth(39).unwrap().0;
    let (answer, beta, _app) =
        break_after(sent, full_answer(&format!("{}終わり。", &sent[start..]))).await;
    assert_eq!(answer.text(), format!("{sent}終わり。"));
    let instruction = beta.requests()[0].1["messages"][2]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        instruction.ends_with(&format!("\n{}", &sent[start..])),
        "{instruction}"
    );
}

#[tokio::test]
async fn a_second_answer_that_starts_over_is_joined() {
    let whole = format!("{SENT} sleeps.");
    let letters: Vec<String> = whole.chars().map(String::from).collect();
    for second in [
        answer_in_pieces([&*whole]),
        answer_in_pieces([&whole[..10], &whole[10..]]),
        answer_in_pieces([&whole[..10], &whole[10..50], &whole[50..]]),
        answer_in_pieces(letters.iter().map(String::as_str)),
    ] {
        let (answer, ..) = break_after(SENT, second).await;
        assert_eq!(
            (answer.text(), answer.finish_reason()),
            (whole.clone(), "stop".into())
        );
        assert_eq!(answer.text_sources(), ["alpha 1 ai", "beta 2 ai"]);
    }
}

#[tokio::test]
async fn a_second_answer_that_adds_nothing_completes_the_stream() {
    // Alpha broke between its last word and its end mark.
    for second in [full_answer(OVERLAP), full_answer(SENT)] {
        let (answer, ..) = break_after(SENT, second).await;
        assert_eq!(
            (answer.text(), answer.finish_reason()),
            (SENT.into(), "stop".into())
        );
        assert_eq!(
            answer.chunks.last().unwrap()["failsoft"]["provider"],
            "beta"
        );
    }
}

#[tokio::test]
async fn a_broken_continuation_is_continued_by_a_third_provider() {
    let first_gate = ScriptGate::default();
    let second_gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer([SENT]),
        first_gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let beta = vec![
        partial_answer([OVERLAP, " sleeps under"]),
        second_gate.wait_step(),
        send_text(&crate::harness::last_http_chunk()),
    ];
    let beta = ScriptedProvider::start(beta).await;
    let gamma = full_answer("r the lazy dog, and then it sleeps under a tree.");
    let gamma = ScriptedProvider::start(gamma).await;
    let app =
        TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]).await;
    let mut body = streaming_body("What?");
    body["stream_options"] = json!({ "include_usage": true });
    let mut answer = CompletionStream::open(app.completion_request(&body)).await;
    answer.read_until_text(SENT).await;
    first_gate.let_one_through();
    answer
        .read_until_text(&format!("{SENT} sleeps under"))
        .await;
    second_gate.let_one_through();
    let answer = answer.read_to_end().await;
    assert_eq!(answer.text(), format!("{SENT} sleeps under a tree."));
    assert_eq!(
        answer.text_sources(),
        ["alpha 1 ai", "beta 2 ai", "gamma 3 ai"]
    );
    // The two broken attempts reported no usage, so theirs is estimated; all three are added up.
    let usage = &answer.chunks.last().unwrap()["usage"];
    assert!(usage["completion_tokens"].as_u64() > Some(15), "{usage}");
    assert_eq!(
        (
            alpha.question_count(),
            beta.question_count(),
            gamma.question_count()
        ),
        (1, 1, 1)
    );
    app.wait_until_idle().await;
}

#[tokio::test]
async fn reasoning_of_a_continuation_is_not_sent() {
    let thought =
        sse_event(r#"{"choices":[{"index":0,"delta":{"reasoning_content":"fox jumps? hm."}}]}"#);
    let script = vec![
        send_text(&(stream_head() + &thought)),
        send_text(&(token_event(&format!("{OVERLAP} sleeps.")) + &stream_end())),
    ];
    let (answer, ..) = break_after(SENT, script).await;
    assert_eq!(answer.text(), format!("{SENT} sleeps."));
}

#[tokio::test]
async fn without_streaming_the_next_provider_starts_over() {
    let alpha = ScriptedProvider::start(vec![partial_answer([SENT]), ScriptStep::Reset]).await;
    let beta = ScriptedProvider::answering("Something else.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app
        .completion_request(&crate::harness::question_body("What?"))
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
