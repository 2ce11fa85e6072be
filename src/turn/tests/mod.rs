//! Turns with scripted providers, a paused clock and every actor on the test's own thread.

mod durable;
mod failing_over;
mod grammar;
mod leaving;
mod limits;
mod outages;
mod panics;
mod reading;
mod recalling;
mod restarts;
mod seeds;

use std::sync::Arc;
use std::time::Duration;

use super::log::TurnLog;
use super::protocol_reader::ProtocolClient;
use super::test_service::{FALLBACK_TEXT, TestService, TestServiceBuilder, message};
use crate::domain::{AnswerSource, Failure, FaultKind, FinishReason, ProviderState};
use crate::provider::paused_system::{Paused, advance, advance_clock, run_until_idle};
use crate::provider::scripted_client::{
    Script, ScriptStep, break_after, fail_with, hang, rate_limited, reply, reply_slowly,
};
use crate::provider::test_bench::BenchOptions;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn say(text: &str) -> ScriptStep {
    ScriptStep::Say(text.to_owned())
}

fn end() -> ScriptStep {
    ScriptStep::Finish(FinishReason::Stop)
}

/// The attempts in `done`, each as "number provider outcome milliseconds".
pub(super) fn attempt_lines(reader: &ProtocolClient) -> Vec<String> {
    let attempts = reader.done().tried.iter();
    attempts
        .map(|attempt| {
            format!(
                "{} {} {} {}",
                attempt.attempt,
                attempt.provider,
                attempt.outcome.as_str(),
                attempt.ms
            )
        })
        .collect()
}

/// Asks once, reads to the end, and asserts that no permit or connection is left.
pub(super) async fn ask_once(harness: &TestService) -> ProtocolClient {
    let log = harness.ask("m");
    let reader = ProtocolClient::follow(&log).await;
    harness.assert_idle().await;
    reader
}

/// Starts a service and asks once.
async fn first_answer(builder: TestServiceBuilder) -> ProtocolClient {
    ask_once(&builder.start()).await
}

fn assert_fallback(reader: &ProtocolClient) {
    let done = reader.done();
    assert_eq!(
        (done.source, done.degraded, &*done.text),
        (AnswerSource::Fallback, true, FALLBACK_TEXT)
    );
    assert_eq!(
        (done.finish, done.provider.as_deref(), done.model.as_deref()),
        (FinishReason::Stop, None, None)
    );
}

fn assert_answered(reader: &ProtocolClient, provider: &str, text: &str) {
    let done = reader.done();
    assert_eq!(
        (done.source, done.degraded, &*done.text),
        (AnswerSource::Ai, false, text)
    );
    assert_eq!(
        (done.provider.as_deref(), done.finish),
        (Some(provider), FinishReason::Stop)
    );
    assert_eq!(done.model.as_deref(), Some(&*format!("{provider}-1")));
}
