//! The peak memory of the process under an endless event and a thousand simultaneous answers: it
//! has to fit beside other programs on small machines.
#![cfg(target_os = "linux")]

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tempfile::TempDir;

use super::exclusive;
use super::memory::{connect_visitors, peak_resident_bytes};
use super::provider::{Behavior, DRIPPED_WORD, Provider, answer_start, full_answer};
use super::service::Service;
use super::stream_reader::StreamedAnswer;
use super::ws_client::ShownTurn;

/// The maximum peak memory, in bytes. The tests run a debug build; a release build uses less.
const MAX_PEAK_BYTES: usize = 120 * 1024 * 1024;

const STREAMS: usize = 1000;

/// The pause between two words of each answer: 2,500 words a second for all of them.
const PAUSE: Duration = Duration::from_millis(400);

/// The number of words that each answer has when the memory is measured.
const WORDS: usize = 8;

#[track_caller]
fn check_peak_memory(service: &Service, what: &str) {
    let peak = peak_resident_bytes(service.pid());
    println!("{what}: at peak {:.1} MB", peak as f64 / 1024.0 / 1024.0);
    assert!(peak < MAX_PEAK_BYTES, "{what}: {peak} bytes");
}

#[tokio::test]
async fn an_endless_event_is_not_buffered() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::EndlessEvent(64)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    check_peak_memory(&service, "at rest");
    let mut visitor = connect_visitors(service.port, 1).await.pop().unwrap();
    let shown = visitor.ask("pour").await;
    assert_eq!(
        (
            shown.done_field("degraded"),
            &shown.done_field("tried")[0]["outcome"]
        ),
        (&json!(true), &json!("malformed"))
    );
    check_peak_memory(&service, "after an endless event over the socket");
    for stream in [true, false] {
        let messages = json!([{ "role": "user", "content": "pour" }]);
        let body = json!({ "model": "auto", "stream": stream, "messages": messages });
        let answer = service.post("/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("fallback"), "{}", answer.body);
        check_peak_memory(&service, "after an endless event over the API");
    }
    provider.set_behavior(Behavior::Answer);
    assert_eq!(visitor.ask("now").await.text, full_answer("now"));
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn many_simultaneous_endless_events_are_not_buffered() {
    const AT_ONCE: usize = 20;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::EndlessEvent(64)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitors = connect_visitors(service.port, AT_ONCE).await;
    for shown in join_all(visitors.iter_mut().map(|visitor| visitor.ask("pour"))).await {
        assert_eq!(*shown.done_field("degraded"), json!(true));
    }
    check_peak_memory(&service, "after twenty endless events at once");
}

#[tokio::test]
async fn a_thousand_websocket_answers_stay_within_the_memory_limit() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Drip(PAUSE)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let question = |n: usize| format!("question {n}");
    let visitors = connect_visitors(service.port, STREAMS).await;
    let begin = visitors
        .into_iter()
        .enumerate()
        .map(async |(n, mut visitor)| {
            let mut shown = ShownTurn::default();
            visitor.send_message(&question(n)).await;
            visitor
                .read_at_least(
                    &mut shown,
                    answer_start(&question(n)).len() + WORDS * DRIPPED_WORD.len(),
                )
                .await;
            (n, visitor, shown)
        });
    let reading = join_all(begin).await;
    assert!(
        reading
            .iter()
            .all(|(_, _, shown)| shown.done.is_none() && shown.text.ends_with(DRIPPED_WORD))
    );
    check_peak_memory(&service, "a thousand answers under way");
    provider.set_behavior(Behavior::Answer);
    let end = reading
        .into_iter()
        .map(async |(n, mut visitor, mut shown)| {
            visitor.read_to_end(&mut shown).await;
            assert_eq!(
                (shown.done_field("source"), shown.done_field("attempts")),
                (&json!("ai"), &json!(1))
            );
            assert!(
                shown.text.starts_with(&answer_start(&question(n)))
                    && shown.text.ends_with("the end of the answer.")
            );
        });
    join_all(end).await;
    check_peak_memory(&service, "a thousand answers over the socket");
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_thousand_api_answers_stay_within_the_memory_limit() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Drip(PAUSE)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let ask =
        async |n: usize| StreamedAnswer::ask(service.port, "auto", &format!("question {n}")).await;
    let asking = stream::iter(0..STREAMS).map(ask).buffer_unordered(32);
    let mut answers: Vec<_> = asking.collect().await;
    let words = |text: &str| text.matches(&format!("{DRIPPED_WORD:?}")).count() >= WORDS;
    join_all(answers.iter_mut().map(|answer| answer.read_until(words))).await;
    check_peak_memory(&service, "a thousand answers under way");
    provider.set_behavior(Behavior::Answer);
    join_all(
        answers
            .iter_mut()
            .map(|answer| answer.read_until(|text| text.contains("data: [DONE]"))),
    )
    .await;
    for answer in &answers {
        assert!(
            answer.text.starts_with("HTTP/1.1 200 OK"),
            "{}",
            answer.text
        );
        assert!(
            answer.text.contains("the end of the answer.") && !answer.text.contains("\"error\"")
        );
    }
    check_peak_memory(&service, "a thousand answers over the API");
    assert_eq!(service.stop().await.code, Some(0));
}
