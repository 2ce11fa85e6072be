//! What the whole process weighs when it has most to carry: an endless event, and a thousand answers at once. It runs beside other things on
//! small machines.
#![cfg(target_os = "linux")]

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tempfile::TempDir;

use super::alone;
use super::memory::{come, most_resident};
use super::provider::{Manner, Provider, WORD, first, whole};
use super::service::Service;
use super::stream_reader::Streamed;
use super::ws_client::Shown;

/// The most that the process may ever have used, in bytes. The build under test is not optimised; one that is uses less.
const MOST: usize = 120 * 1024 * 1024;

/// How many answers are under way at once.
const STREAMS: usize = 1000;

/// From word to word of each: together 2,500 words a second.
const PAUSE: Duration = Duration::from_millis(400);

/// How many words each has had when the process is weighed.
const WORDS: usize = 8;

#[track_caller]
fn weigh(service: &Service, what: &str) {
    let most = most_resident(service.pid());
    println!("{what}: at most {:.1} MB", most as f64 / 1024.0 / 1024.0);
    assert!(most < MOST, "{what}: {most} bytes");
}

#[tokio::test]
async fn an_event_without_an_end_is_not_taken_in() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Pour(64)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    weigh(&service, "at rest");
    let mut visitor = come(service.port, 1).await.pop().unwrap();
    let shown = visitor.ask("pour").await;
    assert_eq!(
        (shown.end("degraded"), &shown.end("tried")[0]["outcome"]),
        (&json!(true), &json!("malformed"))
    );
    weigh(&service, "after an endless event over the socket");
    for stream in [true, false] {
        let messages = json!([{ "role": "user", "content": "pour" }]);
        let body = json!({ "model": "auto", "stream": stream, "messages": messages });
        let answer = service.post("/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("fallback"), "{}", answer.body);
        weigh(&service, "after an endless event over the API");
    }
    provider.now(Manner::Answer);
    assert_eq!(visitor.ask("now").await.text, whole("now"));
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn many_endless_events_at_once_are_not_taken_in_either() {
    const AT_ONCE: usize = 20;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Pour(64)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitors = come(service.port, AT_ONCE).await;
    for shown in join_all(visitors.iter_mut().map(|visitor| visitor.ask("pour"))).await {
        assert_eq!(*shown.end("degraded"), json!(true));
    }
    weigh(&service, "after twenty endless events at once");
}

#[tokio::test]
async fn a_thousand_answers_at_once_over_the_socket() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Drip(PAUSE)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let question = |n: usize| format!("question {n}");
    let visitors = come(service.port, STREAMS).await;
    let begin = visitors
        .into_iter()
        .enumerate()
        .map(async |(n, mut visitor)| {
            let mut shown = Shown::default();
            visitor.send(&question(n)).await;
            visitor
                .read(&mut shown, first(&question(n)).len() + WORDS * WORD.len())
                .await;
            (n, visitor, shown)
        });
    let reading = join_all(begin).await;
    assert!(
        reading
            .iter()
            .all(|(_, _, shown)| shown.done.is_none() && shown.text.ends_with(WORD))
    );
    weigh(&service, "a thousand answers under way");
    provider.now(Manner::Answer);
    let end = reading
        .into_iter()
        .map(async |(n, mut visitor, mut shown)| {
            visitor.read(&mut shown, usize::MAX).await;
            assert_eq!(
                (shown.end("source"), shown.end("attempts")),
                (&json!("ai"), &json!(1))
            );
            assert!(
                shown.text.starts_with(&first(&question(n)))
                    && shown.text.ends_with("the end of the answer.")
            );
        });
    join_all(end).await;
    weigh(&service, "a thousand answers told over the socket");
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_thousand_answers_at_once_over_the_api() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Drip(PAUSE)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let ask = async |n: usize| Streamed::ask(service.port, "auto", &format!("question {n}")).await;
    let asking = stream::iter(0..STREAMS).map(ask).buffer_unordered(32);
    let mut answers: Vec<_> = asking.collect().await;
    let words = |text: &str| text.matches(&format!("{WORD:?}")).count() >= WORDS;
    join_all(answers.iter_mut().map(|answer| answer.read(words))).await;
    weigh(&service, "a thousand answers under way");
    provider.now(Manner::Answer);
    join_all(
        answers
            .iter_mut()
            .map(|answer| answer.read(|text| text.contains("data: [DONE]"))),
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
    weigh(&service, "a thousand answers told over the API");
    assert_eq!(service.stop().await.code, Some(0));
}
