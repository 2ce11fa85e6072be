//! What the tests over sockets are made of: the service as it is built, providers that follow a script, clients that hold the
//! server to its protocol.
//!
//! Nothing here sleeps: tests wait for events, each at most [`LIMIT`].

mod app;
mod certificates;
mod client;
mod completion;
mod cut;
mod http;
mod page;
mod provider;
mod receiver;
mod redis;
mod scrape;
mod script;

use std::future::Future;
use std::time::Duration;

pub use app::{TestApp, settings};
pub use certificates::Certificates;
pub use client::{Heard, WsClient, fresh_id, texts, upgrade};
pub use completion::{Completion, question, streaming};
pub use cut::CutProxy;
pub use http::{Answer, Request};
pub use page::{Page, Shown};
pub use provider::ScriptedProvider;
pub use receiver::{Delivery, Receiver, Take};
pub use redis::Redis;
pub use scrape::Scrape;
pub use script::{
    Act, Gate, answer, apart, chunk, event, finish, head, last_chunk, listing, refusal, say,
    spoken, word, words,
};

/// The longest that any one event is waited for: far more than it takes, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits for an event that must come.
#[track_caller]
pub fn soon<T>(what: &str, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LIMIT, event).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: waited in vain for {what}"),
        }
    }
}
