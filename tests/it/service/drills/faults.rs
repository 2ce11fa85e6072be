//! Every fault, for a new call and for an answer under way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BETA, Ground, counts, told, twenty};
use crate::harness::{Gate, Shown, WsClient, answer, finish, question, say, soon, spoken, word};

/// What a turn must have been: the tokens that alpha told first, the reason that it failed for; none where it did not.
#[track_caller]
fn is(shown: &Shown, tokens: usize, reason: Option<&str>) {
    let Some(reason) = reason else {
        assert_eq!(
            (shown.text.as_str(), shown.outcomes()),
            (told(20).as_str(), vec!["ok".to_owned()])
        );
        return;
    };
    assert_eq!(shown.text, BETA);
    assert_eq!(
        shown.path().last(),
        Some(&("beta".to_owned(), reason.to_owned()))
    );
    let drafts: Vec<_> = shown.drafts.iter().map(|(_, text)| text.clone()).collect();
    let expected = if tokens == 0 {
        vec![]
    } else {
        vec![told(tokens)]
    };
    assert_eq!(drafts, expected, "just so much was told before it broke");
}

async fn befalls_a_new_call(fault: &str, tokens: usize, reason: Option<&str>) {
    // A token a second is a long answer; four of them are enough.
    let script = if fault == "slow" {
        answer("one two three four")
    } else {
        counts()
    };
    let ground = Ground::of(script, |settings| {
        settings.providers[0].timeouts.stall =
            Duration::from_secs(if fault == "slow" { 5 } else { 1 });
        if fault == "slow" {
            settings.providers[0].timeouts.first_token = vec![Duration::from_secs(10)];
        }
    })
    .await;
    let begun = ground.begin(fault).await;
    assert_eq!(
        (&begun["provider"], &begun["fault"], &begun["share"]),
        (&json!("alpha"), &json!(fault), &json!(1.0))
    );
    let status = ground.app.status().await;
    for key in ["provider", "fault", "from", "until"] {
        assert_eq!(
            ground.app.provider("alpha").await["drill"][key],
            begun[key],
            "{key}"
        );
    }
    assert_eq!(status["drill"]["until"], begun["until"]);
    assert_eq!(status["providers"][1]["drill"], Value::Null);

    let mut client = WsClient::open(&ground.app).await;
    let asked = Instant::now();
    let shown = client.answered("Count!").await;
    if fault == "slow" {
        assert_eq!(
            (shown.text.as_str(), shown.tokens),
            ("one two three four", 4)
        );
        assert!(
            asked.elapsed() >= Duration::from_secs(4),
            "{:?}",
            asked.elapsed()
        );
    } else {
        is(shown, tokens, reason);
        // The other door, where what was sent cannot be taken back: whole, or torn with an error, never mixed.
        let plain = ground.app.completion(&question("Count!")).send().await;
        assert_eq!(
            (plain.status, plain.header("x-provider")),
            (200, "beta"),
            "{}",
            plain.body
        );
        let streamed = ground.app.stream("Count!").await.ended().await;
        if streamed.error.is_none() {
            assert!(
                streamed.text() == BETA || streamed.text().starts_with(&told(tokens)),
                "{}",
                streamed.text()
            );
        } else {
            assert_eq!(streamed.text(), told(tokens));
        }
    }
    let refused = ["down", "rate_limit", "unauthorized", "timeout"].contains(&fault);
    assert_eq!(
        ground.alpha.asked() == 0,
        refused,
        "what is refused never leaves the house"
    );
    assert_eq!(ground.end().await.as_array().unwrap().len(), 1);
    soon("the status to say so", async {
        while !ground.app.status().await["drill"].is_null() {}
    })
    .await;
    ground.is_lifted().await;
}

async fn befalls_an_answer_under_way(fault: &str, reason: Option<&str>) {
    for v1 in [false, true] {
        let gate = Gate::default();
        let words = twenty();
        let (first, rest) = words.split_at(3);
        let mut script = vec![spoken(first.iter().map(String::as_str)), gate.hold()];
        script.push(say(&rest
            .iter()
            .take(3)
            .map(|text| word(text))
            .collect::<String>()));
        script.push(say(&finish()));
        let ground = Ground::of(script, |settings| {
            settings.providers[0].timeouts.stall =
                Duration::from_secs(if fault == "slow" { 20 } else { 1 });
        })
        .await;
        if v1 {
            let mut streamed = ground.app.stream("Count!").await;
            streamed.shows(&told(3)).await;
            ground.begin(fault).await;
            gate.open();
            let streamed = streamed.ended().await;
            let whole = streamed.error.is_none();
            assert!(streamed.text().starts_with(&told(3)), "{}", streamed.text());
            assert!(whole || streamed.text() == told(3), "{}", streamed.text());
            if reason.is_none() {
                assert_eq!(streamed.text(), told(6));
            }
        } else {
            let mut client = WsClient::open(&ground.app).await;
            let turn = client.ask("Count!").await;
            client.shows(&turn, |shown| shown.text == told(3)).await;
            ground.begin(fault).await;
            let begun = Instant::now();
            gate.open();
            let shown = client.done(&turn).await;
            if reason.is_none() {
                assert_eq!(shown.text, told(6));
                assert!(
                    begun.elapsed() >= Duration::from_secs(2),
                    "{:?}",
                    begun.elapsed()
                );
            } else {
                is(shown, 3, reason);
            }
        }
        assert_eq!(ground.end().await.as_array().unwrap().len(), 1);
        ground.is_lifted().await;
    }
}

macro_rules! faults {
    ($($name:ident: $fault:literal, $new:expr, $late:expr;)+) => {$(
        mod $name {
            #[tokio::test]
            async fn befalls_a_new_call() {
                let (tokens, reason) = $new;
                super::befalls_a_new_call($fault, tokens, reason).await;
            }

            #[tokio::test]
            async fn befalls_an_answer_under_way() {
                super::befalls_an_answer_under_way($fault, $late).await;
            }
        }
    )+};
}

faults! {
    down: "down", (0, Some("refused")), Some("reset");
    rate_limit: "rate_limit", (0, Some("rate_limited")), Some("reset");
    unauthorized: "unauthorized", (0, Some("refused")), Some("reset");
    timeout: "timeout", (0, Some("timeout")), Some("stalled");
    stall: "stall", (10, Some("stalled")), Some("stalled");
    cut: "cut", (10, Some("reset")), Some("reset");
    garbage: "garbage", (10, Some("malformed")), Some("malformed");
    slow: "slow", (20, None), None;
}
