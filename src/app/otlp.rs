//! The export of traces: the OpenTelemetry exporter on top of our HTTP client, so that the service
//! has a single TLS stack.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use reqwest::Client;
use tokio::runtime::Handle;

use crate::config::Settings;
use crate::provider::http;
use crate::telemetry::spans::{EXPORT_TIMEOUT, TurnTracer};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends batches of spans. The exporter runs on its own thread, the client on the service's
/// runtime.
#[derive(Debug)]
struct OtlpClient {
    client: Client,
    runtime: Handle,
    is_failing: AtomicBool,
}

#[async_trait]
impl HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let call =
            async move { tokio::time::timeout(EXPORT_TIMEOUT, client.execute(request)).await };
        let response = self.runtime.spawn(call).await;
        let status = match response {
            Ok(Ok(Ok(response))) => Ok(response.status()),
            Ok(Ok(Err(_))) => Err("collector unreachable"),
            Ok(Err(_)) => Err("collector timed out"),
            Err(_) => Err("service is shutting down"),
        };
        let is_success = status.as_ref().is_ok_and(|code| code.is_success());
        // Log only when the state changes, not with every batch.
        if self.is_failing.swap(!is_success, Ordering::Relaxed) == is_success {
            match &status {
                Ok(code) if is_success => {
                    tracing::info!(status = code.as_u16(), "OTLP export recovered")
                }
                Ok(code) => {
                    tracing::warn!(status = code.as_u16(), "OTLP export failed, spans dropped")
                }
                Err(why) => tracing::warn!(why, "OTLP export failed, spans dropped"),
            }
        }
        // The exporter does not use the response body.
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status?;
        Ok(response)
    }
}

/// Creates the tracer, or `None` if no collector is configured. An unusable endpoint does not
/// prevent the start.
pub fn init_tracer(settings: &Settings, instance: &str) -> Option<Arc<TurnTracer>> {
    let endpoint = settings.telemetry.otlp_endpoint.as_deref()?;
    let is_local = reqwest::Url::parse(endpoint).is_ok_and(|url| http::is_loopback(&url));
    let client = http::build_client(CONNECT_TIMEOUT, |builder| {
        if is_local {
            builder.no_proxy()
        } else {
            builder
        }
    });
    let tracer = client.ok().and_then(|client| {
        let client = OtlpClient {
            client,
            runtime: Handle::current(),
            is_failing: AtomicBool::new(false),
        };
        TurnTracer::new(endpoint, instance, client).ok()
    });
    if tracer.is_none() {
        tracing::error!("cannot export traces to telemetry.otlp_endpoint");
    }
    tracer.map(Arc::new)
}

/// Exports the remaining spans. Blocks another thread, since the export needs this runtime.
pub async fn shutdown_tracer(tracer: Option<Arc<TurnTracer>>) {
    if let Some(tracer) = tracer {
        let flushed = tokio::task::spawn_blocking(move || tracer.shutdown(FLUSH_TIMEOUT));
        drop(tokio::time::timeout(FLUSH_TIMEOUT, flushed).await);
    }
}
