//! Every fault over real sockets, as a client meets it.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{InjectedFault, TypingSpeed, WireFormat};
use super::client::*;

#[tokio::test]
async fn rejections_have_the_shape_of_the_wire_format() {
    let table = [
        (
            WireFormat::OpenAi,
            InjectedFault::RateLimit,
            "429",
            "/error/code",
            "rate_limit_exceeded",
        ),
        (
            WireFormat::OpenAi,
            InjectedFault::Unauthorized,
            "401",
            "/error/code",
            "invalid_api_key",
        ),
        (
            WireFormat::Anthropic,
            InjectedFault::RateLimit,
            "429",
            "/error/type",
            "rate_limit_error",
        ),
        (
            WireFormat::Anthropic,
            InjectedFault::Unauthorized,
            "401",
            "/error/type",
            "authentication_error",
        ),
        (
            WireFormat::Ollama,
            InjectedFault::RateLimit,
            "429",
            "/error",
            "Rate limit",
        ),
        (
            WireFormat::Ollama,
            InjectedFault::Unauthorized,
            "401",
            "/error",
            "API key",
        ),
    ];
    for (dialect, fault, status, pointer, name) in table {
        let simulator = start_simulator(dialect, TypingSpeed::INSTANT);
        simulator.inject_fault(fault, None).await;
        let list = WireClient::request(&simulator, "GET", dialect.models_path(), "").await;
        for mut wire in [WireClient::ask(&simulator).await, list] {
            wire.read_to_end().await.unwrap();
            assert!(
                wire.text().starts_with(&format!("HTTP/1.1 {status} ")),
                "{}",
                wire.text()
            );
            assert_eq!(
                wire.text().contains("retry-after: 30\r\n"),
                fault == InjectedFault::RateLimit
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
    for dialect in ALL_FORMATS {
        let simulator = start_simulator(dialect, TypingSpeed::INSTANT);

        simulator.inject_fault(InjectedFault::Cut, None).await;
        let mut wire = WireClient::ask(&simulator).await;
        wire.assert_reset().await;
        assert_eq!(wire.words(dialect).len(), 10);

        simulator.inject_fault(InjectedFault::Garbage, None).await;
        let mut wire = WireClient::ask(&simulator).await;
        wire.read_to_end().await.unwrap();
        assert_eq!(wire.words(dialect).len(), 10);
        assert!(!wire.body().contains(end_mark(dialect)));
        let last = wire.body().trim_end().lines().last().unwrap().to_owned();
        assert!(
            serde_json::from_str::<Value>(last.strip_prefix("data: ").unwrap_or(&last)).is_err(),
            "{last}"
        );

        simulator.inject_fault(InjectedFault::Stall, None).await;
        let mut wire = WireClient::ask(&simulator).await;
        wire.assert_silent().await;
        assert_eq!(wire.words(dialect).len(), 10);
        simulator.clear_fault().await;
        wire.assert_reset().await;
        assert_eq!(wire.words(dialect).len(), 10);
    }
}

#[tokio::test]
async fn answer_shorter_than_ten_words_breaks_before_its_end() {
    let simulator = start_simulator(WireFormat::Anthropic, TypingSpeed::INSTANT);
    simulator.inject_fault(InjectedFault::Cut, None).await;
    for stream in [true, false] {
        let body = chat_body(WireFormat::Anthropic, stream, 1).to_string();
        let mut wire = WireClient::request(&simulator, "POST", "/v1/messages", &body).await;
        wire.assert_reset().await;
        assert!(!wire.text().contains("max_tokens"), "{}", wire.text());
    }
}

#[tokio::test]
async fn timeout_is_silence_until_the_fault_is_cleared() {
    let simulator = start_simulator(WireFormat::OpenAi, TypingSpeed::INSTANT);
    simulator.inject_fault(InjectedFault::Timeout, None).await;
    let mut wire = WireClient::ask(&simulator).await;
    wire.assert_silent().await;
    assert_eq!(wire.text(), "", "not even headers");
    simulator.clear_fault().await;
    wire.assert_reset().await;
    assert_eq!(wire.text(), "");
}

#[tokio::test]
async fn running_answers_break_at_once() {
    for dialect in ALL_FORMATS {
        for fault in [
            InjectedFault::Down,
            InjectedFault::RateLimit,
            InjectedFault::Unauthorized,
            InjectedFault::Cut,
            InjectedFault::Garbage,
        ] {
            let simulator = start_simulator(dialect, ONE_WORD);
            let mut wire = WireClient::ask(&simulator).await;
            wire.read_until("Hello").await;
            simulator.inject_fault(fault, None).await;
            if fault == InjectedFault::Garbage {
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
    for fault in [InjectedFault::Timeout, InjectedFault::Stall] {
        let simulator = start_simulator(WireFormat::OpenAi, FAST);
        let mut wire = WireClient::ask(&simulator).await;
        wire.read_until("Hello").await;
        simulator.inject_fault(fault, None).await;
        wire.assert_silent().await;
        assert!(!wire.text().contains("[DONE]"));
        simulator.clear_fault().await;
        wire.assert_reset().await;
    }
}

#[tokio::test]
async fn slow_sends_one_word_per_second_until_cleared() {
    let simulator = start_simulator(WireFormat::Ollama, FAST);
    let mut running = WireClient::ask(&simulator).await;
    running.read_until("Hello").await;
    simulator.inject_fault(InjectedFault::Slow, None).await;
    let asked_at = Instant::now();
    let mut new = WireClient::ask(&simulator).await;
    new.read_until("Hello").await;
    assert!(asked_at.elapsed() >= Duration::from_secs(1));
    running.assert_silent().await;
    assert!(!running.text().contains("\"done\":true"));
    simulator.clear_fault().await;
    for mut wire in [running, new] {
        wire.read_to_end().await.unwrap();
        assert!(wire.text().contains("\"done\":true"));
    }
}

#[tokio::test]
async fn down_refuses_connections_and_clearing_reopens_the_same_port() {
    let simulator = start_simulator(WireFormat::OpenAi, TypingSpeed::INSTANT);
    let url = simulator.base_url();
    let mut idle = WireClient::connect(&simulator).await.unwrap();
    for _ in 0..3 {
        idle.seen.clear();
        idle.send("GET", "/v1/models", "", "keep-alive").await;
        idle.read_until("}]").await;
        simulator.inject_fault(InjectedFault::Down, None).await;
        assert_eq!(simulator.current_fault(), Some(InjectedFault::Down));
        idle.assert_reset().await;
        let refused = WireClient::connect(&simulator).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        simulator.clear_fault().await;
        assert_eq!(
            (simulator.current_fault(), simulator.base_url()),
            (None, url.clone())
        );
        idle = WireClient::connect(&simulator).await.unwrap();
    }
}

#[tokio::test]
async fn fault_ends_after_its_duration() {
    let simulator = start_simulator(WireFormat::OpenAi, TypingSpeed::INSTANT);
    let mut conditions = simulator.fault_state.subscribe();
    for fault in [InjectedFault::Down, InjectedFault::Stall] {
        simulator
            .inject_fault(fault, Some(Duration::from_millis(20)))
            .await;
        assert_eq!(simulator.current_fault(), Some(fault));
        timeout(
            STEP_TIMEOUT,
            conditions.wait_for(|condition| condition.fault.is_none()),
        )
        .await
        .unwrap()
        .unwrap();
    }
    let mut wire = WireClient::ask(&simulator).await;
    wire.read_to_end().await.unwrap();
    assert!(wire.text().contains("[DONE]"));
}

#[tokio::test]
async fn end_of_an_earlier_fault_does_not_clear_a_later_one() {
    let simulator = start_simulator(WireFormat::OpenAi, TypingSpeed::INSTANT);
    simulator
        .inject_fault(InjectedFault::Slow, Some(Duration::from_millis(20)))
        .await;
    simulator.inject_fault(InjectedFault::Timeout, None).await;
    let mut wire = WireClient::ask(&simulator).await;
    wire.assert_silent().await;
    assert_eq!(simulator.current_fault(), Some(InjectedFault::Timeout));
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
