//! Graceful shutdown: the answers that still complete, the refused requests, and the exit code.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::provider::{Behavior, Provider, answer_start, full_answer, question};
use super::service::{Service, ms};
use super::ws_client::{ShownTurn, Visitor};
use super::{exclusive, wait_for};

/// The number of running answers at the stop signal.
const ANSWERS: usize = 200;

/// A visitor, and the start of their answer.
type Reading = (Visitor, ShownTurn);

/// Connects visitors who each have read the start of their answer.
async fn start_answers(port: u16, count: usize) -> Vec<Reading> {
    let begin = async |n: usize| {
        let mut visitor = Visitor::new(port).await;
        let mut shown = ShownTurn::default();
        visitor.send_message(&question(n)).await;
        visitor
            .read_at_least(&mut shown, answer_start(&question(n)).len())
            .await;
        assert_eq!(shown.text, answer_start(&question(n)));
        (visitor, shown)
    };
    join_all((0..count).map(begin)).await
}

/// Reads each answer to its end. Returns it with the close code of the socket.
async fn read_to_close(reading: Vec<Reading>) -> Vec<(Visitor, ShownTurn, Option<u16>)> {
    let end = async |(mut visitor, mut shown): Reading| {
        let code = visitor.read_until_close(&mut shown).await;
        (visitor, shown, code)
    };
    join_all(reading.into_iter().map(end)).await
}

/// Waits until `/readyz` answers 503 with `Retry-After`.
async fn wait_until_not_ready(service: &Service) -> Value {
    let asking = async {
        loop {
            let answer = service.get("/readyz").await;
            if answer.status == 503 {
                assert!(
                    answer
                        .head
                        .to_ascii_lowercase()
                        .contains("\r\nretry-after: "),
                    "{}",
                    answer.head
                );
                return answer.json();
            }
            assert_eq!(answer.status, 200);
        }
    };
    wait_for("readiness to end", asking).await
}

async fn assert_refused(visitor: &mut Visitor) {
    let id = visitor.send_message("one more").await;
    let error = visitor.next_error("shutting_down").await;
    assert_eq!(error["client_msg_id"], id);
    assert!(error["retry_after_s"].is_u64(), "{error}");
}

#[tokio::test]
async fn stop_signals_let_running_answers_finish_and_refuse_new_ones() {
    let _exclusive = exclusive().await;
    for signal in ["TERM", "INT"] {
        let folder = TempDir::new().unwrap();
        let provider = Provider::start(Behavior::Pause).await;
        let service = Service::start(folder.path(), &provider.config()).await;
        let mut idle = Visitor::new(service.port).await;
        let reading = start_answers(service.port, ANSWERS).await;

        let signalled = Instant::now();
        // Twice, as impatient operators do: the second signal does not cut the answers.
        service.signal(signal).await;
        service.signal(signal).await;
        assert_eq!(
            wait_until_not_ready(&service).await["error"]["code"],
            "shutting_down"
        );
        assert_refused(&mut idle).await;
        let http_answer = service
            .post("/api/chat", json!({ "message": "one more" }))
            .await;
        assert_eq!(
            (http_answer.status, &http_answer.json()["error"]["code"]),
            (503, &json!("shutting_down"))
        );
        assert_eq!(service.get("/healthz").await.status, 200);
        // A tab that opens now still follows the running answer.
        let mut tab = Visitor::back(service.port, reading[0].0.conversation()).await;
        let mut seen = ShownTurn::default();
        tab.read_at_least(&mut seen, 1).await;

        provider.set_behavior(Behavior::Answer);
        let ended = read_to_close(reading).await;
        for (n, (_, shown, code)) in ended.iter().enumerate() {
            assert_eq!(
                (shown.done_field("finish").as_str(), shown.text.as_str()),
                (Some("stop"), &*full_answer(&question(n)))
            );
            assert_eq!(*code, Some(1001), "{n}");
        }
        assert_eq!(tab.read_until_close(&mut seen).await, Some(1001));
        assert_eq!(
            (seen.done_field("finish").as_str(), seen.text.as_str()),
            (Some("stop"), &*full_answer(&question(0)))
        );
        assert_eq!(
            idle.read_until_close(&mut ShownTurn::default()).await,
            Some(1001)
        );
        let exit = service.wait_for_exit().await;
        println!(
            "{ANSWERS} answers drained and the process gone {} after SIG{signal}",
            ms(signalled.elapsed())
        );
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(
            signalled.elapsed().as_secs() < 30,
            "within the default drain"
        );
        // No question was sent twice, and no refused one at all.
        assert_eq!(provider.requests().len(), ANSWERS);
    }
}

#[tokio::test]
async fn a_short_drain_marks_running_answers_as_interrupted() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Pause).await;
    let config = format!("server.drain = \"500ms\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let reading = start_answers(service.port, ANSWERS).await;
    let signalled = Instant::now();
    service.signal("TERM").await;
    let ended = read_to_close(reading).await;
    for (n, (_, shown, code)) in ended.iter().enumerate() {
        let end = (shown.done_field("finish").as_str(), shown.text.as_str());
        assert_eq!(end, (Some("interrupted"), &*answer_start(&question(n))));
        assert_eq!(*code, Some(1001), "{n}");
    }
    let exit = service.wait_for_exit().await;
    println!(
        "{ANSWERS} answers interrupted and the process gone {} after SIGTERM",
        ms(signalled.elapsed())
    );
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    provider.set_behavior(Behavior::Answer);
    let service = Service::start(folder.path(), &config).await;
    for (n, (visitor, ..)) in ended.iter().enumerate().step_by(17) {
        let mut back = Visitor::back(service.port, visitor.conversation()).await;
        let turn = back.history()[0].clone();
        assert_eq!(
            (&turn["state"], &turn["finish"]),
            (&json!("interrupted"), &json!("interrupted"))
        );
        assert_eq!(
            (&turn["question"], &turn["text"]),
            (&json!(question(n)), &json!(answer_start(&question(n))))
        );
        back.send_frame(json!({ "type": "retry", "turn": turn["turn"], "client_msg_id": "again" }))
            .await;
        let shown = back.read_answer().await;
        assert_eq!(shown.start.as_ref().unwrap()["retry_of"], turn["turn"]);
        assert_eq!(shown.text, full_answer(&question(n)));
    }
}

#[tokio::test]
async fn sigterm_exits_at_once_without_running_answers() {
    let folder = TempDir::new().unwrap();
    let service = Service::start(folder.path(), "").await;
    let mut visitors = join_all((0..10).map(|_| Visitor::new(service.port))).await;
    // Clients that read nothing, or never complete their request.
    let _not_reading = join_all((0..10).map(|_| Visitor::new(service.port))).await;
    let mut incomplete = Vec::new();
    for start in [
        "",
        "GET / HTTP/1.1\r\n",
        "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", service.port))
            .await
            .unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        incomplete.push(stream);
    }
    let signalled = Instant::now();
    service.signal("TERM").await;
    for visitor in &mut visitors {
        assert_eq!(
            visitor.read_until_close(&mut ShownTurn::default()).await,
            Some(1001)
        );
    }
    assert_eq!(service.wait_for_exit().await.code, Some(0));
    println!(
        "gone {} after SIGTERM with nothing under way",
        ms(signalled.elapsed())
    );
    assert!(
        signalled.elapsed().as_secs() < 20,
        "{:?}",
        signalled.elapsed()
    );
}

/// The body of a `/v1/chat/completions` request.
fn completion_request(question: &str, stream: bool) -> Value {
    json!({ "model": "auto", "stream": stream, "messages": [{ "role": "user", "content": question }] })
}

#[tokio::test]
async fn sigterm_lets_running_http_answers_finish() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Pause).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut reading = start_answers(service.port, 1).await;
    let (chat, plain, streamed, ()) = tokio::join!(
        service.post("/api/chat", json!({ "message": "over HTTP" })),
        service.post("/v1/chat/completions", completion_request("plain", false)),
        service.post("/v1/chat/completions", completion_request("streamed", true)),
        async {
            wait_for("the questions", provider.wait_for_requests(4)).await;
            service.signal("TERM").await;
            wait_until_not_ready(&service).await;
            let late = service
                .post("/v1/chat/completions", completion_request("late", true))
                .await;
            assert_eq!(late.status, 503, "{}", late.body);
            provider.set_behavior(Behavior::Answer);
        }
    );
    assert_eq!(
        (chat.status, &chat.json()["message"]),
        (200, &json!(full_answer("over HTTP")))
    );
    let message = &plain.json()["choices"][0]["message"]["content"];
    assert_eq!((plain.status, message), (200, &json!(full_answer("plain"))));
    assert_eq!(streamed.status, 200);
    assert!(
        streamed.body.contains("the end of the answer.") && streamed.body.contains("[DONE]"),
        "{}",
        streamed.body
    );
    let (visitor, shown) = &mut reading[0];
    assert_eq!(visitor.read_until_close(shown).await, Some(1001));
    assert_eq!(service.wait_for_exit().await.code, Some(0));
}

#[tokio::test]
async fn an_interrupted_http_answer_is_an_error() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Pause).await;
    let config = format!("server.drain = \"100ms\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let (chat, plain, streamed, ()) = tokio::join!(
        service.post("/api/chat", json!({ "message": "cut" })),
        service.post("/v1/chat/completions", completion_request("plain", false)),
        service.post("/v1/chat/completions", completion_request("streamed", true)),
        async {
            wait_for("the questions", provider.wait_for_requests(3)).await;
            service.signal("TERM").await;
        }
    );
    assert_eq!(
        (chat.status, &chat.json()["error"]["code"]),
        (503, &json!("shutting_down"))
    );
    assert_eq!(plain.status, 503, "{}", plain.body);
    assert_eq!(streamed.status, 200, "{}", streamed.body);
    assert!(
        streamed.body.contains("stream_interrupted"),
        "{}",
        streamed.body
    );
    assert!(!streamed.body.contains("[DONE]"), "{}", streamed.body);
    assert_eq!(service.wait_for_exit().await.code, Some(0));
}
