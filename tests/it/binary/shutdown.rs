//! Going down in good order: what ends, what is refused, what is said, and with which exit code.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::provider::{Manner, Provider, first, question, whole};
use super::service::{Service, ms};
use super::ws_client::{Shown, Visitor};
use super::{alone, within};

/// How many answers are under way when the service is told to stop.
const ANSWERS: usize = 200;

/// A visitor with the beginning of an answer.
type Reading = (Visitor, Shown);

/// Visitors who each have read the first part of their answer.
async fn under_way(port: u16, count: usize) -> Vec<Reading> {
    let begin = async |n: usize| {
        let mut visitor = Visitor::new(port).await;
        let mut shown = Shown::default();
        visitor.send(&question(n)).await;
        visitor.read(&mut shown, first(&question(n)).len()).await;
        assert_eq!(shown.text, first(&question(n)));
        (visitor, shown)
    };
    join_all((0..count).map(begin)).await
}

/// Each visitor's answer and the close code of their socket.
async fn ends(reading: Vec<Reading>) -> Vec<(Visitor, Shown, Option<u16>)> {
    let end = async |(mut visitor, mut shown): Reading| {
        let code = visitor.leave(&mut shown).await;
        (visitor, shown, code)
    };
    join_all(reading.into_iter().map(end)).await
}

/// Waits until the service says that it takes no more.
async fn unready(service: &Service) -> Value {
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
    within("readiness to go", asking).await
}

async fn refused(visitor: &mut Visitor) {
    let id = visitor.send("one more").await;
    let error = visitor.next_error("shutting_down").await;
    assert_eq!(error["client_msg_id"], id);
    assert!(error["retry_after_s"].is_u64(), "{error}");
}

#[tokio::test]
async fn told_to_stop_it_lets_every_answer_end_and_takes_no_new_one() {
    let _alone = alone().await;
    for signal in ["TERM", "INT"] {
        let folder = TempDir::new().unwrap();
        let provider = Provider::start(Manner::Pause).await;
        let service = Service::start(folder.path(), &provider.config()).await;
        let mut idle = Visitor::new(service.port).await;
        let reading = under_way(service.port, ANSWERS).await;

        let told = Instant::now();
        // Told twice, as impatient operators do: the answers are not cut for it.
        service.signal(signal).await;
        service.signal(signal).await;
        assert_eq!(unready(&service).await["error"]["code"], "shutting_down");
        refused(&mut idle).await;
        let over_http = service
            .post("/api/chat", json!({ "message": "one more" }))
            .await;
        assert_eq!(
            (over_http.status, &over_http.json()["error"]["code"]),
            (503, &json!("shutting_down"))
        );
        assert_eq!(service.get("/healthz").await.status, 200);
        // A tab that is opened now still gets the answer that is under way.
        let mut tab = Visitor::back(service.port, reading[0].0.conversation()).await;
        let mut seen = Shown::default();
        tab.read(&mut seen, 1).await;

        provider.now(Manner::Answer);
        let ended = ends(reading).await;
        for (n, (_, shown, code)) in ended.iter().enumerate() {
            assert_eq!(
                (shown.end("finish").as_str(), shown.text.as_str()),
                (Some("stop"), &*whole(&question(n)))
            );
            assert_eq!(*code, Some(1001), "{n}");
        }
        assert_eq!(tab.leave(&mut seen).await, Some(1001));
        assert_eq!(
            (seen.end("finish").as_str(), seen.text.as_str()),
            (Some("stop"), &*whole(&question(0)))
        );
        assert_eq!(idle.leave(&mut Shown::default()).await, Some(1001));
        let service = service.ended().await;
        println!(
            "{ANSWERS} answers drained and the process gone {} after SIG{signal}",
            ms(told.elapsed())
        );
        assert_eq!(service.code, Some(0), "{}", service.err);
        assert!(told.elapsed().as_secs() < 30, "the drain's own limit");
        // Nothing was asked twice, and nothing that was refused.
        assert_eq!(provider.requests().len(), ANSWERS);
    }
}

#[tokio::test]
async fn a_drain_that_is_too_short_interrupts_answers_and_calls_none_of_them_whole() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Pause).await;
    let config = format!("server.drain = \"500ms\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let reading = under_way(service.port, ANSWERS).await;
    let told = Instant::now();
    service.signal("TERM").await;
    let ended = ends(reading).await;
    for (n, (_, shown, code)) in ended.iter().enumerate() {
        let end = (shown.end("finish").as_str(), shown.text.as_str());
        assert_eq!(end, (Some("interrupted"), &*first(&question(n))));
        assert_eq!(*code, Some(1001), "{n}");
    }
    let service = service.ended().await;
    println!(
        "{ANSWERS} answers interrupted and the process gone {} after SIGTERM",
        ms(told.elapsed())
    );
    assert_eq!(service.code, Some(0), "{}", service.err);

    provider.now(Manner::Answer);
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
            (&json!(question(n)), &json!(first(&question(n))))
        );
        back.say(json!({ "type": "retry", "turn": turn["turn"], "client_msg_id": "again" }))
            .await;
        let shown = back.answer().await;
        assert_eq!(shown.start.as_ref().unwrap()["retry_of"], turn["turn"]);
        assert_eq!(shown.text, whole(&question(n)));
    }
}

#[tokio::test]
async fn with_nothing_under_way_it_goes_at_once_whatever_clients_do() {
    let folder = TempDir::new().unwrap();
    let service = Service::start(folder.path(), "").await;
    let mut visitors = join_all((0..10).map(|_| Visitor::new(service.port))).await;
    // Clients that read nothing, say nothing, or never come to an end.
    let _deaf = join_all((0..10).map(|_| Visitor::new(service.port))).await;
    let mut mute = Vec::new();
    for begun in [
        "",
        "GET / HTTP/1.1\r\n",
        "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", service.port))
            .await
            .unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        mute.push(stream);
    }
    let told = Instant::now();
    service.signal("TERM").await;
    for visitor in &mut visitors {
        assert_eq!(visitor.leave(&mut Shown::default()).await, Some(1001));
    }
    assert_eq!(service.ended().await.code, Some(0));
    println!(
        "gone {} after SIGTERM with nothing under way",
        ms(told.elapsed())
    );
    assert!(told.elapsed().as_secs() < 20, "{:?}", told.elapsed());
}

/// A request to the API that OpenAI's clients know.
fn completion(question: &str, stream: bool) -> Value {
    json!({ "model": "auto", "stream": stream, "messages": [{ "role": "user", "content": question }] })
}

#[tokio::test]
async fn answers_over_http_end_too_before_the_service_does() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Pause).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut reading = under_way(service.port, 1).await;
    let (chat, plain, streamed, ()) = tokio::join!(
        service.post("/api/chat", json!({ "message": "over HTTP" })),
        service.post("/v1/chat/completions", completion("plain", false)),
        service.post("/v1/chat/completions", completion("streamed", true)),
        async {
            within("the questions", provider.asked(4)).await;
            service.signal("TERM").await;
            unready(&service).await;
            let late = service
                .post("/v1/chat/completions", completion("late", true))
                .await;
            assert_eq!(late.status, 503, "{}", late.body);
            provider.now(Manner::Answer);
        }
    );
    assert_eq!(
        (chat.status, &chat.json()["message"]),
        (200, &json!(whole("over HTTP")))
    );
    let message = &plain.json()["choices"][0]["message"]["content"];
    assert_eq!((plain.status, message), (200, &json!(whole("plain"))));
    assert_eq!(streamed.status, 200);
    assert!(
        streamed.body.contains("the end of the answer.") && streamed.body.contains("[DONE]"),
        "{}",
        streamed.body
    );
    let (visitor, shown) = &mut reading[0];
    assert_eq!(visitor.leave(shown).await, Some(1001));
    assert_eq!(service.ended().await.code, Some(0));
}

#[tokio::test]
async fn an_answer_over_http_that_is_cut_is_an_error_and_no_answer() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Pause).await;
    let config = format!("server.drain = \"100ms\"\n{}", provider.config());
    let service = Service::start(folder.path(), &config).await;
    let (chat, plain, streamed, ()) = tokio::join!(
        service.post("/api/chat", json!({ "message": "cut" })),
        service.post("/v1/chat/completions", completion("plain", false)),
        service.post("/v1/chat/completions", completion("streamed", true)),
        async {
            within("the questions", provider.asked(3)).await;
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
    assert_eq!(service.ended().await.code, Some(0));
}
