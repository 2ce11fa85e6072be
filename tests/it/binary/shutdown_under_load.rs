//! Told to stop under a thousand answers: those that end in time end whole, the others are cut and not called done, and the process is gone
//! within the time that it was given.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tempfile::TempDir;

use super::many_connections::may_open;
use super::memory::come;
use super::provider::{END, Manner, Provider, WORD, first, question};
use super::service::{Service, ms};
use super::stream_reader::Streamed;
use super::ws_client::{Shown, Visitor};
use super::{alone, within};

/// Answers under way at each door: half of them end in time.
const EACH: usize = 500;

/// Files of this process, or of the service: two for each answer, and some besides.
const FILES: u64 = 3_000;

/// From word to word of each answer.
const PAUSE: Duration = Duration::from_millis(400);

/// How long running answers may go on, all that follows included.
const DRAIN: Duration = Duration::from_secs(6);

/// Whom the n-th question goes to: the one that ends in time, or the one that does not.
fn whose(n: usize) -> &'static str {
    if n.is_multiple_of(2) {
        "scripted"
    } else {
        "endless"
    }
}

fn config(ends: &Provider, endless: &Provider) -> String {
    format!(
        r#"
server.drain = "{}ms"
[chat]
visitor_options = true
[[providers]]
name = "endless"
dialect = "openai"
base_url = "{}"
model = "endless-1"
api_key = "a-key"
max_concurrent = 10000
{}"#,
        DRAIN.as_millis(),
        endless.base_url(),
        ends.config()
    )
}

/// A visitor who has read the beginning of their answer.
async fn over_the_socket(n: usize, mut visitor: Visitor) -> (usize, Visitor, Shown) {
    let mut shown = Shown::default();
    let options = json!({ "provider": whose(n) });
    visitor
        .say(json!({ "type": "send", "client_msg_id": "m", "text": question(n), "options": options }))
        .await;
    visitor
        .read(&mut shown, first(&question(n)).len() + WORD.len())
        .await;
    (n, visitor, shown)
}

/// The same over the API.
async fn over_the_api(n: usize, port: u16) -> (usize, Streamed) {
    let mut answer = Streamed::ask(port, whose(n), &question(n)).await;
    answer
        .read(|text| text.contains(&format!("{WORD:?}")))
        .await;
    (n, answer)
}

/// How many turns are under way.
async fn turns(service: &Service) -> usize {
    let metrics = service.get("/metrics").await.body;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("failsoft_turns_in_flight "));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn under_a_thousand_answers_it_is_gone_within_the_drain_and_no_cut_one_is_called_done() {
    let _alone = alone().await;
    if !may_open(FILES).await {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (ends, endless) = (
        Provider::start(Manner::Drip(PAUSE)).await,
        Provider::start(Manner::Drip(PAUSE)).await,
    );
    let config = config(&ends, &endless);
    let service = Service::start(folder.path(), &config).await;
    let port = service.port;
    let visitors = come(port, EACH).await.into_iter().enumerate();
    let (sockets, answers) = tokio::join!(
        join_all(visitors.map(|(n, visitor)| over_the_socket(n, visitor))),
        stream::iter(0..EACH)
            .map(|n| over_the_api(n, port))
            .buffer_unordered(EACH)
            .collect::<Vec<_>>(),
    );
    assert_eq!(turns(&service).await, 2 * EACH);

    let told = Instant::now();
    service.signal("TERM").await;
    within("readiness to go", async {
        while service.get("/readyz").await.status != 503 {}
    })
    .await;
    assert_eq!(turns(&service).await, 2 * EACH, "none is cut at once");
    ends.now(Manner::Answer);
    let over_socket = sockets
        .into_iter()
        .map(async |(n, mut visitor, mut shown)| {
            // Whatever became of the answer, the page is told to come back.
            assert_eq!(visitor.leave(&mut shown).await, Some(1001), "{n}");
            (n, visitor.conversation().to_owned(), shown)
        });
    let over_api = answers
        .into_iter()
        .map(async |(n, answer)| (n, answer.end().await));
    let (over_socket, over_api) = tokio::join!(join_all(over_socket), join_all(over_api));
    let ended = service.ended().await;
    let took = told.elapsed();
    println!(
        "{} answers ended or cut, and the process gone, {} after SIGTERM",
        2 * EACH,
        ms(took)
    );
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(took < DRAIN, "{took:?}");

    for (n, _, shown) in &over_socket {
        let whole = whose(*n) == "scripted";
        assert_eq!(
            shown.end("finish").as_str(),
            Some(if whole { "stop" } else { "interrupted" }),
            "{n}"
        );
        assert!(
            shown.text.starts_with(&first(&question(*n))),
            "{n}: {}",
            shown.text
        );
        assert_eq!(
            (shown.text.ends_with(END), shown.text.ends_with(WORD)),
            (whole, !whole),
            "{n}"
        );
    }
    for (n, text) in &over_api {
        let whole = whose(*n) == "scripted";
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{n}: {text}");
        let marks =
            [END, "\"finish_reason\":\"stop\"", "data: [DONE]"].map(|mark| text.contains(mark));
        assert_eq!(marks, [whole; 3], "{n}: {text}");
        assert_eq!(text.contains("stream_interrupted"), !whole, "{n}: {text}");
    }

    // Nor is any called so later, when they come back.
    let service = Service::start(folder.path(), &config).await;
    for (n, conversation, shown) in over_socket.iter().step_by(21) {
        let back = Visitor::back(service.port, conversation).await;
        let [turn] = back.history() else {
            panic!("{n}: {:?}", back.history())
        };
        assert_eq!(
            (&turn["finish"], &turn["text"]),
            (shown.end("finish"), &json!(shown.text)),
            "{n}"
        );
    }
}
