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

pub use alert_receiver::{AlertReceiver, Delivery, DeliveryResponse};
pub use app::{TestApp, test_settings};
pub use certificates::TestCertificates;
pub use client::{ClientEvent, WsClient, string_fields, try_upgrade, unique_message_id};
pub use completion::{CompletionStream, question_body, streaming_body};
pub use cutting_proxy::CuttingProxy;
pub use http::{TestRequest, TestResponse};
pub use openai_script::{
    ScriptGate, ScriptStep, answer_in_pieces, error_response, full_answer, http_chunk,
    last_http_chunk, model_list, partial_answer, send_text, split_words, sse_event, stream_end,
    stream_head, token_event,
};
pub use prometheus_scrape::MetricsScrape;
pub use protocol_client::{PageModel, ShownTurn};
pub use provider::ScriptedProvider;
pub use redis::RedisServer;

/// The longest wait for any one event. Far more than it takes, even on a busy machine.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for an event. Panics with `what` and the caller's location if it does not occur in time.
#[track_caller]
pub fn eventually<T>(what: &str, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(EVENT_TIMEOUT, event).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: timed out waiting for {what}"),
        }
    }
}
