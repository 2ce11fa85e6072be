//! Spans of turns and attempts, as a collector gets them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;

use crate::harness::{Act, Receiver, ScriptedProvider, TestApp, WsClient, settings, spoken};

fn spans(receiver: &Receiver) -> Vec<Span> {
    let batches = receiver.came().into_iter().map(|one| {
        assert_eq!(one.header("content-type"), "application/x-protobuf");
        ExportTraceServiceRequest::decode(&one.bytes[..]).unwrap()
    });
    let scopes = batches
        .flat_map(|batch| batch.resource_spans)
        .flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn said(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(whether) => whether.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs
        .map(|pair| {
            (
                pair.key.clone(),
                text(pair.value.as_ref().unwrap().value.as_ref().unwrap()),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_fail_over_is_a_turn_with_two_attempts() {
    let (alpha, beta) = (
        ScriptedProvider::start(vec![spoken(["Half ", "an "]), Act::Reset]).await,
        ScriptedProvider::answering("A whole answer.").await,
    );
    let receiver = Receiver::start().await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.telemetry.otlp_endpoint = Some(receiver.url().replace("/hook", ""));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("A canary of a question?").await;
    assert_eq!(client.done(&turn).await.text, "A whole answer.");
    receiver.until(|all| !all.is_empty()).await;
    let all = spans(&receiver);
    assert_eq!(all.len(), 3, "{all:#?}");
    let named = |name: &str| {
        all.iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    let (whole, attempts) = (named("turn")[0], named("attempt"));
    let about = said(whole);
    assert_eq!(
        (
            about["failsoft.turn"].as_str(),
            about["failsoft.source"].as_str()
        ),
        (turn.as_str(), "ai")
    );
    assert_eq!(
        (
            about["failsoft.attempts"].as_str(),
            about["failsoft.provider"].as_str()
        ),
        ("2", "beta")
    );
    assert_eq!(whole.parent_span_id, [0; 0]);
    let expected = [
        ("1", "alpha", "reset", StatusCode::Error),
        ("2", "beta", "ok", StatusCode::Unset),
    ];
    for (span, (number, provider, outcome, status)) in attempts.iter().zip(expected) {
        let about = said(span);
        let told = ["attempt", "provider", "outcome"]
            .map(|key| about[&format!("failsoft.{key}")].as_str());
        assert_eq!(told, [number, provider, outcome]);
        assert_eq!(
            (&span.trace_id, &span.parent_span_id),
            (&whole.trace_id, &whole.span_id)
        );
        assert_eq!(
            span.status
                .as_ref()
                .map_or(StatusCode::Unset, |one| one.code()),
            status
        );
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        // The turn's length is told in whole milliseconds.
        let within = whole.start_time_unix_nano.saturating_sub(2_000_000)
            ..=whole.end_time_unix_nano + 2_000_000;
        assert!(
            within.contains(&span.start_time_unix_nano)
                && within.contains(&span.end_time_unix_nano)
        );
    }
    assert!(attempts[0].end_time_unix_nano <= attempts[1].end_time_unix_nano);
    let bytes: Vec<u8> = receiver
        .came()
        .into_iter()
        .flat_map(|one| one.bytes)
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    for canary in ["canary", "whole answer", "Half"] {
        assert!(!text.contains(canary), "{canary}");
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_nothing() {
    let alpha = ScriptedProvider::answering("Yes.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    // Nobody listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    settings.telemetry.otlp_endpoint = Some(format!("http://127.0.0.1:{port}"));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    for n in 0..20 {
        assert_eq!(client.answered(&format!("Question {n}")).await.text, "Yes.");
    }
    app.at_rest().await;
    assert_eq!(app.status().await["problems"], serde_json::json!([]));
    app.stopped().await;
}

#[tokio::test]
async fn the_last_spans_go_out_at_the_stop() {
    let alpha = ScriptedProvider::answering("Yes.").await;
    let receiver = Receiver::start().await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.telemetry.otlp_endpoint = Some(format!("{}/v1/traces", receiver.url()));
    let app = TestApp::start(settings).await;
    WsClient::open(&app).await.answered("One").await;
    app.stopped().await;
    assert_eq!(spans(&receiver).len(), 2);
}
