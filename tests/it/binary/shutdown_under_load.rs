//! SIGTERM under a thousand running answers: those that end in time are complete, the others are
//! interrupted and not called done, and the process exits within the configured drain.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tempfile::TempDir;

use super::many_connections::raise_open_file_limit;
use super::memory::connect_visitors;
use super::provider::{ANSWER_END, Behavior, DRIPPED_WORD, Provider, answer_start, question};
use super::service::{Service, ms};
use super::stream_reader::StreamedAnswer;
use super::ws_client::{ShownTurn, Visitor};
use super::{exclusive, wait_for};

/// The number of running answers of each kind (WebSocket and API). Half of them end in time.
const ANSWERS_PER_API: usize = 500;

/// Open files that this process and the service each need: two for each answer, and some spare.
const OPEN_FILES: u64 = 3_000;

/// The pause between two words of an answer.
const PAUSE: Duration = Duration::from_millis(400);

/// The configured drain, which includes the rest of the shutdown.
const DRAIN: Duration = Duration::from_secs(6);

/// The provider of the n-th question: one that completes its answers, or one that never does.
fn provider_of(n: usize) -> &'static str {
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

/// Asks over a WebSocket, and reads the start of the answer.
async fn start_over_websocket(n: usize, mut visitor: Visitor) -> (usize, Visitor, ShownTurn) {
    let mut shown = ShownTurn::default();
    let options = json!({ "provider": provider_of(n) });
    visitor
        .send_frame(json!({ "type": "send", "client_msg_id": "m", "text": question(n), "options": options }))
        .await;
    visitor
        .read_at_least(
            &mut shown,
            answer_start(&question(n)).len() + DRIPPED_WORD.len(),
        )
        .await;
    (n, visitor, shown)
}

/// Asks over the API, and reads the start of the answer.
async fn start_over_api(n: usize, port: u16) -> (usize, StreamedAnswer) {
    let mut answer = StreamedAnswer::ask(port, provider_of(n), &question(n)).await;
    answer
        .read_until(|text| text.contains(&format!("{DRIPPED_WORD:?}")))
        .await;
    (n, answer)
}

/// The number of running turns.
async fn running_turns(service: &Service) -> usize {
    let metrics = service.get("/metrics").await.body;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("failsoft_turns_in_flight "));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn sigterm_under_a_thousand_answers_exits_within_the_drain() {
    let _exclusive = exclusive().await;
    if !raise_open_file_limit(OPEN_FILES).await {
        return;
    }
    let folder = TempDir::new().unwrap();
    let ends = Provider::start(Behavior::Drip(PAUSE)).await;
    let endless = Provider::start(Behavior::Drip(PAUSE)).await;
    let config = config(&ends, &endless);
    let service = Service::start(folder.path(), &config).await;
    let port = service.port;
    let visitors = connect_visitors(port, ANSWERS_PER_API)
        .await
        .into_iter()
        .enumerate();
    let (sockets, answers) = tokio::join!(
        join_all(visitors.map(|(n, visitor)| start_over_websocket(n, visitor))),
        stream::iter(0..ANSWERS_PER_API)
            .map(|n| start_over_api(n, port))
            .buffer_unordered(ANSWERS_PER_API)
            .collect::<Vec<_>>(),
    );
    assert_eq!(running_turns(&service).await, 2 * ANSWERS_PER_API);

    let signalled = Instant::now();
    service.signal("TERM").await;
    wait_for("readiness to end", async {
        while service.get("/readyz").await.status != 503 {}
    })
    .await;
    assert_eq!(
        running_turns(&service).await,
        2 * ANSWERS_PER_API,
        "no turn is cut at once"
    );
    ends.set_behavior(Behavior::Answer);
    let over_socket = sockets
        .into_iter()
        .map(async |(n, mut visitor, mut shown)| {
            // Whatever became of the answer, the close code tells the page to reconnect.
            assert_eq!(
                visitor.read_until_close(&mut shown).await,
                Some(1001),
                "{n}"
            );
            (n, visitor.conversation().to_owned(), shown)
        });
    let over_api = answers
        .into_iter()
        .map(async |(n, answer)| (n, answer.read_to_end().await));
    let (over_socket, over_api) = tokio::join!(join_all(over_socket), join_all(over_api));
    let ended = service.wait_for_exit().await;
    let took = signalled.elapsed();
    println!(
        "{} answers ended or cut, and the process gone, {} after SIGTERM",
        2 * ANSWERS_PER_API,
        ms(took)
    );
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(took < DRAIN, "{took:?}");

    for (n, _, shown) in &over_socket {
        let is_complete = provider_of(*n) == "scripted";
        assert_eq!(
            shown.done_field("finish").as_str(),
            Some(if is_complete { "stop" } else { "interrupted" }),
            "{n}"
        );
        assert!(
            shown.text.starts_with(&answer_start(&question(*n))),
            "{n}: {}",
            shown.text
        );
        assert_eq!(
            (
                shown.text.ends_with(ANSWER_END),
                shown.text.ends_with(DRIPPED_WORD)
            ),
            (is_complete, !is_complete),
            "{n}"
        );
    }
    for (n, text) in &over_api {
        let is_complete = provider_of(*n) == "scripted";
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{n}: {text}");
        let marks = [ANSWER_END, "\"finish_reason\":\"stop\"", "data: [DONE]"]
            .map(|mark| text.contains(mark));
        assert_eq!(marks, [is_complete; 3], "{n}: {text}");
        assert_eq!(
            text.contains("stream_interrupted"),
            !is_complete,
            "{n}: {text}"
        );
    }

    // After a restart the stored turns say the same.
    let service = Service::start(folder.path(), &config).await;
    for (n, conversation, shown) in over_socket.iter().step_by(21) {
        let back = Visitor::back(service.port, conversation).await;
        let [turn] = back.history() else {
            panic!("{n}: {:?}", back.history())
        };
        assert_eq!(
            (&turn["finish"], &turn["text"]),
            (shown.done_field("finish"), &json!(shown.text)),
            "{n}"
        );
    }
}
