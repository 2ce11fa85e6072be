//! The way to the collector of traces: the library's exporter over the house's own HTTP client, so that there is one TLS stack.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use reqwest::Client;
use tokio::runtime::Handle;

use crate::provider::transport;
use crate::settings::Settings;
use crate::telemetry::spans::{EXPORT_LIMIT, Spans};

/// The longest that a connect to the collector may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the last spans may take when the service stops.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Sends batches. The exporter runs on a thread of its own, the client on the service's runtime.
#[derive(Debug)]
struct Collector {
    client: Client,
    runtime: Handle,
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let call = async move { tokio::time::timeout(EXPORT_LIMIT, client.execute(request)).await };
        let answered = self.runtime.spawn(call).await;
        let answered = match answered {
            Ok(Ok(Ok(answer))) => Ok(answer.status()),
            Ok(Ok(Err(_))) => Err("the collector cannot be reached"),
            Ok(Err(_)) => Err("the collector does not answer in time"),
            Err(_) => Err("the service stops"),
        };
        let well = answered.as_ref().is_ok_and(|status| status.is_success());
        // Once, when it begins, and not with every batch.
        if self.failing.swap(!well, Ordering::Relaxed) == well {
            match &answered {
                Ok(status) if well => {
                    tracing::info!(status = status.as_u16(), "traces are taken again")
                }
                Ok(status) => {
                    tracing::warn!(status = status.as_u16(), "traces are not taken and lost")
                }
                Err(why) => tracing::warn!(why, "traces are not taken and lost"),
            }
        }
        // What it says besides is not read.
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = answered?;
        Ok(answer)
    }
}

/// What makes spans, where a collector is configured. One that cannot be reached is no reason not to start.
pub fn spans(settings: &Settings, instance: &str) -> Option<Arc<Spans>> {
    let endpoint = settings.telemetry.otlp_endpoint.as_deref()?;
    let here = reqwest::Url::parse(endpoint).is_ok_and(|url| transport::is_loopback(&url));
    let client = transport::client(
        CONNECT,
        |builder| if here { builder.no_proxy() } else { builder },
    );
    let made = client.ok().and_then(|client| {
        let (runtime, failing) = (Handle::current(), AtomicBool::new(false));
        Spans::to(
            endpoint,
            instance,
            Collector {
                client,
                runtime,
                failing,
            },
        )
        .ok()
    });
    if made.is_none() {
        tracing::error!("traces cannot be sent to telemetry.otlp_endpoint");
    }
    made.map(Arc::new)
}

/// Sends the last spans, on another thread than the one that sends for it.
pub async fn shut_down(spans: Option<Arc<Spans>>) {
    let Some(spans) = spans else { return };
    let sent = tokio::task::spawn_blocking(move || spans.shut_down(LAST_SPANS));
    drop(tokio::time::timeout(LAST_SPANS, sent).await);
}
