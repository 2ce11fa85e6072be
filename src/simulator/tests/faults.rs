//! Every fault over real sockets, as a client meets it.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{Fault, Pace, Speaks};
use super::client::*;

#[tokio::test]
async fn refusals_have_the_shape_of_the_dialect() {
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
            wire.end().await.unwrap();
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
        wire.is_reset().await;
        assert_eq!(wire.told(dialect).len(), 10);

        simulator.break_with(Fault::Garbage, None).await;
        let mut wire = Wire::ask(&simulator).await;
        wire.end().await.unwrap();
        assert_eq!(wire.told(dialect).len(), 10);
        assert!(!wire.body().contains(end_mark(dialect)));
        let last = wire.body().trim_end().lines().last().unwrap().to_owned();
        assert!(
            serde_json::from_str::<Value>(last.strip_prefix("data: ").unwrap_or(&last)).is_err(),
            "{last}"
        );

        simulator.break_with(Fault::Stall, None).await;
        let mut wire = Wire::ask(&simulator).await;
        wire.falls_silent().await;
        assert_eq!(wire.told(dialect).len(), 10);
        simulator.mend().await;
        wire.is_reset().await;
        assert_eq!(wire.told(dialect).len(), 10);
    }
}

#[tokio::test]
async fn an_answer_shorter_than_ten_words_breaks_before_its_end() {
    let simulator = start(Speaks::Anthropic, Pace::INSTANT);
    simulator.break_with(Fault::Cut, None).await;
    for stream in [true, false] {
        let body = chat(Speaks::Anthropic, stream, 1).to_string();
        let mut wire = Wire::request(&simulator, "POST", "/v1/messages", &body).await;
        wire.is_reset().await;
        assert!(!wire.text().contains("max_tokens"), "{}", wire.text());
    }
}

#[tokio::test]
async fn a_timeout_is_silence_until_it_is_mended() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    simulator.break_with(Fault::Timeout, None).await;
    let mut wire = Wire::ask(&simulator).await;
    wire.falls_silent().await;
    assert_eq!(wire.text(), "", "not even headers");
    simulator.mend().await;
    wire.is_reset().await;
    assert_eq!(wire.text(), "");
}

#[tokio::test]
async fn answers_under_way_break_at_once() {
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
            wire.until("Hello").await;
            simulator.break_with(fault, None).await;
            if fault == Fault::Garbage {
                wire.end().await.unwrap();
                assert!(!wire.body().contains(end_mark(dialect)));
            } else {
                wire.is_reset().await;
            }
            assert_eq!(wire.told(dialect), ["Hello"], "{dialect:?} {fault}");
        }
    }
}

#[tokio::test]
async fn answers_under_way_fall_silent_for_good() {
    for fault in [Fault::Timeout, Fault::Stall] {
        let simulator = start(Speaks::OpenAi, QUICK);
        let mut wire = Wire::ask(&simulator).await;
        wire.until("Hello").await;
        simulator.break_with(fault, None).await;
        wire.falls_silent().await;
        assert!(!wire.text().contains("[DONE]"));
        simulator.mend().await;
        wire.is_reset().await;
    }
}

#[tokio::test]
async fn slow_is_a_word_a_second_and_mending_quickens_it() {
    let simulator = start(Speaks::Ollama, QUICK);
    let mut under_way = Wire::ask(&simulator).await;
    under_way.until("Hello").await;
    simulator.break_with(Fault::Slow, None).await;
    let asked = Instant::now();
    let mut new = Wire::ask(&simulator).await;
    new.until("Hello").await;
    assert!(asked.elapsed() >= Duration::from_secs(1));
    under_way.falls_silent().await;
    assert!(!under_way.text().contains("\"done\":true"));
    simulator.mend().await;
    for mut wire in [under_way, new] {
        wire.end().await.unwrap();
        assert!(wire.text().contains("\"done\":true"));
    }
}

#[tokio::test]
async fn down_refuses_and_mending_opens_the_same_port() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    let (url, mut idle) = (
        simulator.base_url(),
        Wire::connect(&simulator).await.unwrap(),
    );
    for _ in 0..3 {
        idle.seen.clear();
        idle.send("GET", "/v1/models", "", "keep-alive").await;
        idle.until("}]").await;
        simulator.break_with(Fault::Down, None).await;
        assert_eq!(simulator.fault(), Some(Fault::Down));
        idle.is_reset().await;
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
async fn a_fault_ends_by_itself() {
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
    wire.end().await.unwrap();
    assert!(wire.text().contains("[DONE]"));
}

#[tokio::test]
async fn a_later_fault_is_not_ended_by_an_earlier_ones_time() {
    let simulator = start(Speaks::OpenAi, Pace::INSTANT);
    simulator
        .break_with(Fault::Slow, Some(Duration::from_millis(20)))
        .await;
    simulator.break_with(Fault::Timeout, None).await;
    let mut wire = Wire::ask(&simulator).await;
    wire.falls_silent().await;
    assert_eq!(simulator.fault(), Some(Fault::Timeout));
}

#[tokio::test]
async fn a_dropped_simulator_cuts_its_answers_and_leaves_the_port() {
    let simulator = start(Speaks::OpenAi, ONE_WORD);
    let address = simulator.address;
    let mut wire = Wire::ask(&simulator).await;
    wire.until("Hello").await;
    drop(simulator);
    let _ = wire.end().await;
    assert!(!wire.text().contains("[DONE]") && !wire.text().contains("\r\n0\r\n\r\n"));
    assert_eq!(
        TcpStream::connect(address).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}

#[tokio::test]
async fn who_stops_listening_ends_the_answer() {
    let simulator = start(Speaks::OpenAi, ONE_WORD);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let mut wire = Wire::ask(&simulator).await;
    wire.until("Hello").await;
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
