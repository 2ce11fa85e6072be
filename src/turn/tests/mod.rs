//! Turns on a stage: scripted providers, a paused clock, every actor on the test's own thread.

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

/// The attempts as `done` reports them: each one's number, provider, outcome, milliseconds.
fn tried(reader: &Reader) -> Vec<String> {
    let each = reader.done().tried.iter();
    each.map(|one| {
        format!(
            "{} {} {} {}",
            one.attempt,
            one.provider,
            one.outcome.as_str(),
            one.ms
        )
    })
    .collect()
}

/// Asks once, reads to the end, and finds nothing left behind.
async fn answer(stage: &Stage) -> Reader {
    let log = stage.ask("m");
    let reader = Reader::follow(&log).await;
    stage.assert_idle().await;
    reader
}

/// The same in a house that was just opened.
async fn first_answer(house: House) -> Reader {
    answer(&house.open()).await
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
