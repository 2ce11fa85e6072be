//! Every fault, for new calls and for running answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BETA, Drills, alpha_script, alpha_text, alpha_words};
use crate::harness::{
    ScriptGate, ShownTurn, WsClient, eventually, full_answer, partial_answer, question_body,
    send_text, stream_end, token_event,
};

/// Asserts that alpha said `tokens` words and then failed for `reason`; `None` if it did not fail.
#[track_caller]
fn assert_outcome(shown: &ShownTurn, tokens: usize, reason: Option<&str>) {
    let Some(reason) = reason else {
        assert_eq!(
            (shown.text.as_str(), shown.outcomes()),
            (alpha_text(20).as_str(), vec!["ok".to_owned()])
        );
        return;
    };
    assert_eq!(shown.text, BETA);
    assert_eq!(
        shown.provider_path().last(),
        Some(&("beta".to_owned(), reason.to_owned()))
    );
    let drafts: Vec<_> = shown.drafts.iter().map(|(_, text)| text.clone()).collect();
    let expected = if tokens == 0 {
        vec![]
    } else {
        vec![alpha_text(tokens)]
    };
    assert_eq!(drafts, expected, "text before the failure");
}

async fn check_new_call(fault: &str, tokens: usize, reason: Option<&str>) {
    // `slow` takes a second per token, so four tokens have to do.
    let script = if fault == "slow" {
        full_answer("one two three four")
    } else {
        alpha_script()
    };
    let drills = Drills::with_alpha(script, |settings| {
        settings.providers[0].timeouts.stall =
            Duration::from_secs(if fault == "slow" { 5 } else { 1 });
        if fault == "slow" {
            settings.providers[0].timeouts.first_token = vec![Duration::from_secs(10)];
        }
    })
    .await;
    let order = drills.start(fault).await;
    assert_eq!(
        (&order["provider"], &order["fault"], &order["share"]),
        (&json!("alpha"), &json!(fault), &json!(1.0))
    );
    let status = drills.app.status().await;
    for key in ["provider", "fault", "from", "until"] {
        assert_eq!(
            drills.app.provider_status("alpha").await["drill"][key],
            order[key],
            "{key}"
        );
    }
    assert_eq!(status["drill"]["until"], order["until"]);
    assert_eq!(status["providers"][1]["drill"], Value::Null);

    let mut client = WsClient::open(&drills.app).await;
    let asked = Instant::now();
    let shown = client.ask_and_wait("Count!").await;
    if fault == "slow" {
        assert_eq!(
            (shown.text.as_str(), shown.token_frames),
            ("one two three four", 4)
        );
        assert!(
            asked.elapsed() >= Duration::from_secs(4),
            "{:?}",
            asked.elapsed()
        );
    } else {
        assert_outcome(shown, tokens, reason);
        // Over `/v1`, sent text cannot be retracted: an answer is whole or ends with an error.
        let answer = drills
            .app
            .completion_request(&question_body("Count!"))
            .send()
            .await;
        assert_eq!(
            (answer.status, answer.header("x-provider")),
            (200, "beta"),
            "{}",
            answer.body
        );
        let streamed = drills.app.stream_answer("Count!").await.read_to_end().await;
        if streamed.error.is_none() {
            assert!(
                streamed.text() == BETA || streamed.text().starts_with(&alpha_text(tokens)),
                "{}",
                streamed.text()
            );
        } else {
            assert_eq!(streamed.text(), alpha_text(tokens));
        }
    }
    let is_refused = ["down", "rate_limit", "unauthorized", "timeout"].contains(&fault);
    assert_eq!(
        drills.alpha.question_count() == 0,
        is_refused,
        "refused calls never reach the provider"
    );
    assert_eq!(drills.end().await.as_array().unwrap().len(), 1);
    eventually("the end of the drill in the status", async {
        while !drills.app.status().await["drill"].is_null() {}
    })
    .await;
    drills.assert_no_trace().await;
}

async fn check_running_answer(fault: &str, reason: Option<&str>) {
    for over_v1 in [false, true] {
        let gate = ScriptGate::default();
        let words = alpha_words();
        let (first, rest) = words.split_at(3);
        let mut script = vec![
            partial_answer(first.iter().map(String::as_str)),
            gate.wait_step(),
        ];
        script.push(send_text(
            &rest
                .iter()
                .take(3)
                .map(|text| token_event(text))
                .collect::<String>(),
        ));
        script.push(send_text(&stream_end()));
        let drills = Drills::with_alpha(script, |settings| {
            settings.providers[0].timeouts.stall =
                Duration::from_secs(if fault == "slow" { 20 } else { 1 });
        })
        .await;
        if over_v1 {
            let mut streamed = drills.app.stream_answer("Count!").await;
            streamed.read_until_text(&alpha_text(3)).await;
            drills.start(fault).await;
            gate.let_one_through();
            let streamed = streamed.read_to_end().await;
            let is_complete = streamed.error.is_none();
            assert!(
                streamed.text().starts_with(&alpha_text(3)),
                "{}",
                streamed.text()
            );
            assert!(
                is_complete || streamed.text() == alpha_text(3),
                "{}",
                streamed.text()
            );
            if reason.is_none() {
                assert_eq!(streamed.text(), alpha_text(6));
            }
        } else {
            let mut client = WsClient::open(&drills.app).await;
            let turn = client.ask("Count!").await;
            client
                .wait_for_turn(&turn, |shown| shown.text == alpha_text(3))
                .await;
            drills.start(fault).await;
            let started = Instant::now();
            gate.let_one_through();
            let shown = client.wait_for_done(&turn).await;
            if reason.is_none() {
                assert_eq!(shown.text, alpha_text(6));
                assert!(
                    started.elapsed() >= Duration::from_secs(2),
                    "{:?}",
                    started.elapsed()
                );
            } else {
                assert_outcome(shown, 3, reason);
            }
        }
        assert_eq!(drills.end().await.as_array().unwrap().len(), 1);
        drills.assert_no_trace().await;
    }
}

macro_rules! faults {
    ($($name:ident: $fault:literal, $new:expr, $late:expr;)+) => {$(
        mod $name {
            #[tokio::test]
            async fn affects_a_new_call() {
                let (tokens, reason) = $new;
                super::check_new_call($fault, tokens, reason).await;
            }

            #[tokio::test]
            async fn affects_a_running_answer() {
                super::check_running_answer($fault, $late).await;
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
