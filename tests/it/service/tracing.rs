//! Spans of turns and attempts, as an OTLP collector receives them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;

use crate::harness::{
    AlertReceiver, ScriptStep, ScriptedProvider, TestApp, WsClient, partial_answer, test_settings,
};

fn spans(receiver: &AlertReceiver) -> Vec<Span> {
    let batches = receiver.deliveries().into_iter().map(|delivery| {
        assert_eq!(delivery.header("content-type"), "application/x-protobuf");
        ExportTraceServiceRequest::decode(&delivery.body_bytes[..]).unwrap()
    });
    let scopes = batches
        .flat_map(|batch| batch.resource_spans)
        .flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn attribute_map(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
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
async fn a_fail_over_is_exported_as_a_turn_with_two_attempts() {
    let alpha =
        ScriptedProvider::start(vec![partial_answer(["Half ", "an "]), ScriptStep::Reset]).await;
    let beta = ScriptedProvider::answering("A whole answer.").await;
    let receiver = AlertReceiver::start().await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.telemetry.otlp_endpoint = Some(receiver.url().replace("/hook", ""));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("A canary of a question?").await;
    assert_eq!(client.wait_for_done(&turn).await.text, "A whole answer.");
    receiver.wait_for(|deliveries| !deliveries.is_empty()).await;
    let spans = spans(&receiver);
    assert_eq!(spans.len(), 3, "{spans:#?}");
    let named = |name: &str| {
        spans
            .iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    let root = named("turn")[0];
    let attempts = named("attempt");
    let attributes = attribute_map(root);
    assert_eq!(
        (
            attributes["failsoft.turn"].as_str(),
            attributes["failsoft.source"].as_str()
        ),
        (turn.as_str(), "ai")
    );
    assert_eq!(
        (
            attributes["failsoft.attempts"].as_str(),
            attributes["failsoft.provider"].as_str()
        ),
        ("2", "beta")
    );
    assert_eq!(root.parent_span_id, [0; 0]);
    let expected = [
        ("1", "alpha", "reset", StatusCode::Error),
        ("2", "beta", "ok", StatusCode::Unset),
    ];
    for (span, (number, provider, outcome, status)) in attempts.iter().zip(expected) {
        let attributes = attribute_map(span);
        let actual = ["attempt", "provider", "outcome"]
            .map(|key| attributes[&format!("failsoft.{key}")].as_str());
        assert_eq!(actual, [number, provider, outcome]);
        assert_eq!(
            (&span.trace_id, &span.parent_span_id),
            (&root.trace_id, &root.span_id)
        );
        assert_eq!(
            span.status
                .as_ref()
                .map_or(StatusCode::Unset, |status| status.code()),
            status
        );
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        // The turn's duration has a resolution of a millisecond.
        let turn_time = root.start_time_unix_nano.saturating_sub(2_000_000)
            ..=root.end_time_unix_nano + 2_000_000;
        assert!(
            turn_time.contains(&span.start_time_unix_nano)
                && turn_time.contains(&span.end_time_unix_nano)
        );
    }
    assert!(attempts[0].end_time_unix_nano <= attempts[1].end_time_unix_nano);
    let bytes: Vec<u8> = receiver
        .deliveries()
        .into_iter()
        .flat_map(|delivery| delivery.body_bytes)
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    for canary in ["canary", "whole answer", "Half"] {
        assert!(!text.contains(canary), "{canary}");
    }
}

#[tokio::test]
async fn an_unreachable_collector_affects_no_turn() {
    let alpha = ScriptedProvider::answering("Yes.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    // No service listens on a port that was just released.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    settings.telemetry.otlp_endpoint = Some(format!("http://127.0.0.1:{port}"));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    for n in 0..20 {
        assert_eq!(
            client.ask_and_wait(&format!("Question {n}")).await.text,
            "Yes."
        );
    }
    app.wait_until_idle().await;
    assert_eq!(app.status().await["problems"], serde_json::json!([]));
    app.shut_down().await;
}

#[tokio::test]
async fn pending_spans_are_exported_at_shutdown() {
    let alpha = ScriptedProvider::answering("Yes.").await;
    let receiver = AlertReceiver::start().await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.telemetry.otlp_endpoint = Some(format!("{}/v1/traces", receiver.url()));
    let app = TestApp::start(settings).await;
    WsClient::open(&app).await.ask_and_wait("One").await;
    app.shut_down().await;
    assert_eq!(spans(&receiver).len(), 2);
}
