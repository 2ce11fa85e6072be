//! The shared parts of the integration tests: the service as built for production, scripted
//! providers, and clients which check the server's protocol.
//!
//! Nothing here sleeps: tests wait for events, each for at most `EVENT_TIMEOUT`.

mod alert_receiver;
mod app;
mod certificates;
mod client;
mod completion;
mod cutting_proxy;
mod http;
mod openai_script;
mod prometheus_scrape;
mod protocol_client;
mod provider;
mod redis;

use std::future::Future;
use std::time::Duration;

pub use alert_receiver::{Delivery, Receiver, Take};
pub use app::{TestApp, settings};
pub use certificates::Certificates;
pub use client::{Heard, WsClient, fresh_id, texts, upgrade};
pub use completion::{Completion, question, streaming};
pub use cutting_proxy::CutProxy;
pub use http::{Answer, Request};
pub use openai_script::{
    Act, Gate, answer, apart, chunk, event, finish, head, last_chunk, listing, refusal, say,
    spoken, word, words,
};
pub use prometheus_scrape::Scrape;
pub use protocol_client::{Page, Shown};
pub use provider::ScriptedProvider;
pub use redis::Redis;

/// The longest wait for any one event. Far more than it takes, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits for an event. Panics with `what` and the caller's location if it does not occur in time.
#[track_caller]
pub fn soon<T>(what: &str, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LIMIT, event).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: timed out waiting for {what}"),
        }
    }
}
