//! Every fault over real sockets, as a client meets it.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{Fault, Pace, Speaks};
use super::client::*;

#[tokio::test]
async fn rejections_have_the_shape_of_the_wire_format() {
    let table = [
        (
            Speaks::OpenAi,
            Fault::RateLimit,
            "429",
            "/error/code",
            "rate_limit_exceeded",
        ),
        (
            Speaks::OpenAi,
            Fault::Unauthorized,
            "401",
            "/error/code",
            "invalid_api_key",
        ),
        (
            Speaks::Anthropic,
            Fault::RateLimit,
            "429",
            "/error/type",
            "rate_limit_error",
        ),
        (
            Speaks::Anthropic,
            Fault::Unauthorized,
            "401",
            "/error/type",
            "authentication_error",
        ),
        (
            Speaks::Ollama,
            Fault::RateLimit,
            "429",
            "/error",
            "Rate limit",
        ),
        (
            Speaks::Ollama,
            Fault::Unauthorized,
            "401",
            "/error",
            "API key",
        ),
    ];
    for (dialect, fault, status, pointer, name) in table {
        let simulator = start(dialect, Pace::INSTANT);
        simulator.break_with(fault, None).await;
        let list = Wire::request(&simulator, "GET", dialect.list_path(), "").await;
        for mut wire in [Wire::ask(&simulator).await, list] {
            wire.read_to_end().await.unwrap();
            assert!(
                wire.text().starts_with(&format!("HTTP/1.1 {status} ")),
                "{}",
                wire.text()
            );
            assert_eq!(
                wire.text().contains("retry-after: 30\r\n"),
                fault == Fault::RateLimit
            );
            assert!(
                wire.json()
                    .pointer(pointer)
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .contains(name),
                "{}",
                wire.text()
            );
        }
    }
}

#[tokio::test]
async fn new_answers_break_after_ten_words() {
    for dialect in ALL {
        let simulator = start(dialect, Pace::INSTANT);

        simulator.break_with(Fault::Cut, None).await;
        let mut wire = Wire::ask(&simulator).await;
        wire.assert_reset().await;
        assert_eq!(wire.words(dialect).len(), 10);

        simulator.break_with(Fault::Garbage, None).await;
        let mut wire = Wire::ask(&simulator).await;
        wire.read_to_end().await.unwrap();
        assert_eq!(wire.words(dialect).len(), 10);
        assert!(!wire.body().contains(end_mark(dialect)));
        let last = wire.body().trim_end().lines().last().unwrap().to_owned();
        assert!(
            serde_json::from_str::<Value>(last.strip_prefix("data: ").unwrap_or(&last)).is_err(),
            "{last}"
        );

        simulator.break_with(Fault::Stall, None).await;
        let mut wire = Wire::ask(&simulator).await;
        wire.assert_silent().await;
        assert_eq!(wire.words(dialect).len(), 10);
        simulator.mend().await;
        wire.assert_reset().await;
        assert_eq!(wire.words(dialect).len(), 10);
    }
}

#[tokio::test]
async fn answer_shorter_than_ten_words_breaks_before_its_end() {
    let simulator = start(Speaks::Anthropic, Pace::INSTANT);
    simulator.break_with(Fault::Cut, None).await;
    for stream in [true, false] {
        let body = chat(Speaks::Anthropic, stream, 1).to_string();
        let mut wire = Wire::request(&simulator, "POST", "/v1/messages", &body).await;
        wire.assert_reset().await;
        assert!(!wire.text().contains("max_tokens"), "{}", wire.text());
    }
}

#[tokio::test]
async fn timeout_is_silence_until_the_fault_is_cleared() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    simulator.break_with(Fault::Timeout, None).await;
    let mut wire = Wire::ask(&simulator).await;
    wire.assert_silent().await;
    assert_eq!(wire.text(), "", "not even headers");
    simulator.mend().await;
    wire.assert_reset().await;
    assert_eq!(wire.text(), "");
}

#[tokio::test]
async fn running_answers_break_at_once() {
    for dialect in ALL {
        for fault in [
            Fault::Down,
            Fault::RateLimit,
            Fault::Unauthorized,
            Fault::Cut,
            Fault::Garbage,
        ] {
            let simulator = start(dialect, ONE_WORD);
            let mut wire = Wire::ask(&simulator).await;
            wire.read_until("Hello").await;
            simulator.break_with(fault, None).await;
            if fault == Fault::Garbage {
                wire.read_to_end().await.unwrap();
                assert!(!wire.body().contains(end_mark(dialect)));
            } else {
                wire.assert_reset().await;
            }
            assert_eq!(wire.words(dialect), ["Hello"], "{dialect:?} {fault}");
        }
    }
}

#[tokio::test]
async fn running_answers_stall_and_are_reset_when_the_fault_is_cleared() {
    for fault in [Fault::Timeout, Fault::Stall] {
        let simulator = start(Speaks::OpenAi, QUICK);
        let mut wire = Wire::ask(&simulator).await;
        wire.read_until("Hello").await;
        simulator.break_with(fault, None).await;
        wire.assert_silent().await;
        assert!(!wire.text().contains("[DONE]"));
        simulator.mend().await;
        wire.assert_reset().await;
    }
}

#[tokio::test]
async fn slow_sends_one_word_per_second_until_cleared() {
    let simulator = start(Speaks::Ollama, QUICK);
    let mut running = Wire::ask(&simulator).await;
    running.read_until("Hello").await;
    simulator.break_with(Fault::Slow, None).await;
    let asked_at = Instant::now();
    let mut new = Wire::ask(&simulator).await;
    new.read_until("Hello").await;
    assert!(asked_at.elapsed() >= Duration::from_secs(1));
    running.assert_silent().await;
    assert!(!running.text().contains("\"done\":true"));
    simulator.mend().await;
    for mut wire in [running, new] {
        wire.read_to_end().await.unwrap();
        assert!(wire.text().contains("\"done\":true"));
    }
}

#[tokio::test]
async fn down_refuses_connections_and_clearing_reopens_the_same_port() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    let url = simulator.base_url();
    let mut idle = Wire::connect(&simulator).await.unwrap();
    for _ in 0..3 {
        idle.seen.clear();
        idle.send("GET", "/v1/models", "", "keep-alive").await;
        idle.read_until("}]").await;
        simulator.break_with(Fault::Down, None).await;
        assert_eq!(simulator.fault(), Some(Fault::Down));
        idle.assert_reset().await;
        let refused = Wire::connect(&simulator).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        simulator.mend().await;
        assert_eq!(
            (simulator.fault(), simulator.base_url()),
            (None, url.clone())
        );
        idle = Wire::connect(&simulator).await.unwrap();
    }
}

#[tokio::test]
async fn fault_ends_after_its_duration() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    let mut conditions = simulator.conditions.subscribe();
    for fault in [Fault::Down, Fault::Stall] {
        simulator
            .break_with(fault, Some(Duration::from_millis(20)))
            .await;
        assert_eq!(simulator.fault(), Some(fault));
        timeout(
            SOON,
            conditions.wait_for(|condition| condition.fault.is_none()),
        )
        .await
        .unwrap()
        .unwrap();
    }
    let mut wire = Wire::ask(&simulator).await;
    wire.read_to_end().await.unwrap();
    assert!(wire.text().contains("[DONE]"));
}

#[tokio::test]
async fn end_of_an_earlier_fault_does_not_clear_a_later_one() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    simulator
        .break_with(Fault::Slow, Some(Duration::from_millis(20)))
        .await;
    simulator.break_with(Fault::Timeout, None).await;
    let mut wire = Wire::ask(&simulator).await;
    wire.assert_silent().await;
    assert_eq!(simulator.fault(), Some(Fault::Timeout));
}

#[tokio::test]
async fn dropped_simulator_cuts_its_answers_and_closes_the_port() {
    let simulator = start(Speaks::OpenAi, ONE_WORD);
    let address = simulator.address;
    let mut wire = Wire::ask(&simulator).await;
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
    let simulator = start(Speaks::OpenAi, ONE_WORD);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let mut wire = Wire::ask(&simulator).await;
    wire.read_until("Hello").await;
    assert!(tasks() > before);
    drop(wire);
    timeout(SOON, async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
