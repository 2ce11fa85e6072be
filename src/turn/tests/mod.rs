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
use super::reader::Reader;
use super::stage::{FALLBACK, House, Stage, question};
use crate::chat::{Failure, Fault, Finish, ProviderState, Source};
use crate::provider::paused::{Paused, elapse, pass, settled};
use crate::provider::scripted::{Act, Script, breaks, fails, limited, says, says_slowly, silent};
use crate::provider::stand::Plan;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn say(text: &str) -> Act {
    Act::Say(text.to_owned())
}

fn end() -> Act {
    Act::End(Finish::Stop)
}

/// The attempts in `done`, each as "number provider outcome milliseconds".
fn tried(reader: &Reader) -> Vec<String> {
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
async fn answer(harness: &Stage) -> Reader {
    let log = harness.ask("m");
    let reader = Reader::follow(&log).await;
    harness.assert_idle().await;
    reader
}

/// Starts a service and asks once.
async fn first_answer(builder: House) -> Reader {
    answer(&builder.open()).await
}

fn assert_fallback(reader: &Reader) {
    let done = reader.done();
    assert_eq!(
        (done.source, done.degraded, &*done.text),
        (Source::Fallback, true, FALLBACK)
    );
    assert_eq!(
        (done.finish, done.provider.as_deref(), done.model.as_deref()),
        (Finish::Stop, None, None)
    );
}

fn assert_answered(reader: &Reader, provider: &str, text: &str) {
    let done = reader.done();
    assert_eq!(
        (done.source, done.degraded, &*done.text),
        (Source::Ai, false, text)
    );
    assert_eq!(
        (done.provider.as_deref(), done.finish),
        (Some(provider), Finish::Stop)
    );
    assert_eq!(done.model.as_deref(), Some(&*format!("{provider}-1")));
}
