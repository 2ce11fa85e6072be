//! Tests of simulators over real sockets.

mod client;

use std::io;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{WireFormat, answers};
use client::*;

#[tokio::test]
async fn healthy_answer_is_complete() {
    for dialect in ALL_FORMATS {
        let simulator = start_simulator(dialect, INSTANT);
        let mut wire = WireClient::ask(&simulator).await;
        wire.read_to_end().await.unwrap();
        assert!(wire.text().starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(
            wire.words(dialect).concat(),
            answers::complete_answer(QUESTION, None, "aurora")
        );
        assert!(wire.body().contains(end_mark(dialect)), "{dialect:?}");
    }
}

#[tokio::test]
async fn words_arrive_one_by_one_and_the_connection_is_reused() {
    let simulator = start_simulator(WireFormat::Ollama, INSTANT);
    let mut wire = WireClient::connect(&simulator).await.unwrap();
    for _ in 0..3 {
        wire.seen.clear();
        wire.send(
            "POST",
            "/api/chat",
            &chat_body(WireFormat::Ollama, true, 5).to_string(),
            "keep-alive",
        )
        .await;
        wire.read_until("\r\n0\r\n\r\n").await;
        assert_eq!(wire.words(WireFormat::Ollama).len(), 5);
        assert!(wire.body().contains("\"done_reason\":\"length\""));
    }
    let simulator = start_simulator(WireFormat::Ollama, ONE_WORD);
    let mut wire = WireClient::ask(&simulator).await;
    wire.read_until("}\n\r\n").await;
    assert_eq!(wire.words(WireFormat::Ollama), ["Hello"]);
}

#[tokio::test]
async fn probe_gets_one_word_and_finish_reason_length() {
    for (dialect, length) in [
        (WireFormat::OpenAi, "\"finish_reason\":\"length\""),
        (WireFormat::Anthropic, "\"stop_reason\":\"max_tokens\""),
        (WireFormat::Ollama, "\"done_reason\":\"length\""),
    ] {
        for stream in [true, false] {
            let simulator = start_simulator(dialect, INSTANT);
            let body = chat_body(dialect, stream, 1).to_string();
            let mut wire =
                WireClient::request(&simulator, "POST", dialect.chat_path(), &body).await;
            wire.read_to_end().await.unwrap();
            assert!(
                wire.body().contains(length) && wire.body().contains("Hello"),
                "{}",
                wire.body()
            );
            assert!(!wire.body().contains(" from"), "{}", wire.body());
        }
    }
}

#[tokio::test]
async fn models_are_listed_and_other_requests_are_rejected() {
    for dialect in ALL_FORMATS {
        let simulator = start_simulator(dialect, INSTANT);
        let mut list = WireClient::request(&simulator, "GET", dialect.models_path(), "").await;
        list.read_to_end().await.unwrap();
        assert!(list.json().to_string().contains(simulator.model()));
        let large = "x".repeat((1 << 20) + 1);
        let refused = [
            ("GET", "/nowhere", "", "404"),
            ("GET", dialect.chat_path(), "", "404"),
            ("POST", dialect.chat_path(), "{", "400"),
            ("POST", dialect.chat_path(), "{\"max_tokens\": 1}", "400"),
            ("POST", dialect.chat_path(), &large, "413"),
        ];
        for (method, path, body, status) in refused {
            let mut wire = WireClient::request(&simulator, method, path, body).await;
            wire.read_until("\r\n\r\n").await;
            wire.read_until("}").await;
            assert!(
                wire.text().starts_with(&format!("HTTP/1.1 {status} ")),
                "{}",
                wire.text()
            );
            assert!(wire.text().contains("\"error\""), "{}", wire.text());
        }
    }
}

#[tokio::test]
async fn dropped_simulator_cuts_its_answers_and_closes_the_port() {
    let simulator = start_simulator(WireFormat::OpenAi, ONE_WORD);
    let address = simulator.address;
    let mut wire = WireClient::ask(&simulator).await;
    wire.read_until("Hello").await;
    drop(simulator);
    let _ = wire.read_to_end().await;
    assert!(!wire.text().contains("[DONE]") && !wire.text().contains("\r\n0\r\n\r\n"));
    assert_eq!(
        TcpStream::connect(address).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}

#[tokio::test]
async fn disconnected_client_ends_the_answer() {
    let simulator = start_simulator(WireFormat::OpenAi, ONE_WORD);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let mut wire = WireClient::ask(&simulator).await;
    wire.read_until("Hello").await;
    assert!(tasks() > before);
    drop(wire);
    timeout(STEP_TIMEOUT, async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
