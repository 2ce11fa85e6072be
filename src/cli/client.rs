//! The HTTP client for a running service. Each call is one request with a time limit and a JSON
//! reply.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use launchdarkly_sdk_transport::HttpTransport as _;
use serde_json::Value;

use crate::config::Secret;
use crate::provider::transport::Transport;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

#[derive(Clone, Copy)]
pub struct StatusClient<'s> {
    pub url: &'s str,
    pub token: Option<&'s Secret>,
}

pub struct HttpReply {
    pub status: StatusCode,
    /// `None` if the body is not JSON.
    pub body: Option<Value>,
}

impl StatusClient<'_> {
    /// Sends a single request.
    ///
    /// # Errors
    /// The service is unreachable, too slow, or its reply is too large.
    pub async fn request(
        self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<HttpReply> {
        let reply = tokio::time::timeout(REQUEST_TIMEOUT, self.send(method, path, body)).await;
        let seconds = REQUEST_TIMEOUT.as_secs();
        reply.map_err(|_| anyhow::anyhow!("no answer within {seconds} s"))?
    }

    async fn send(self, method: Method, path: &str, body: Option<&Value>) -> Result<HttpReply> {
        let transport = Transport::new(CONNECT_TIMEOUT).context("cannot create the HTTP client")?;
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(|body| Bytes::from(body.to_string())));
        // The error must not show the values: the token is one of them.
        let request = request
            .ok()
            .context("the address or the token cannot be sent over HTTP")?;
        // The inner error is complete. The outer one would repeat it.
        let response = transport
            .request(request)
            .await
            .map_err(|error| anyhow::anyhow!("{}", error.inner()))?;
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk?);
            anyhow::ensure!(
                bytes.len() <= MAX_REPLY_BYTES,
                "what listens there is no Failsoft: its answer has no end"
            );
        }
        Ok(HttpReply {
            status,
            body: serde_json::from_slice(&bytes).ok(),
        })
    }
}

/// A list in a reply. Empty if it is missing.
pub(super) fn as_list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value as a single line without control characters.
pub(super) fn single_line(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    without_controls(&text)
}

/// Replaces control characters, which could move the cursor.
pub(super) fn without_controls(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The URL under which this machine reaches a service with the given `server.listen`.
///
/// # Errors
/// The port is 0, so it is only known to the running service.
pub fn service_url(listen: &str) -> Result<String> {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "80"));
    anyhow::ensure!(
        port != "0",
        "server.listen leaves the port open; pass the address of the service with --url"
    );
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    Ok(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_url_follows_the_listen_address() {
        for (listen, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:81", "http://127.0.0.1:81"),
            ("[::]:82", "http://[::1]:82"),
            ("localhost:83", "http://localhost:83"),
        ] {
            assert_eq!(service_url(listen).unwrap(), url);
        }
        assert!(
            service_url("127.0.0.1:0")
                .unwrap_err()
                .to_string()
                .contains("--url")
        );
    }
}
