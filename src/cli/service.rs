//! A running service as a command reaches it: one request a call, with a limit, and its answer as JSON.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use launchdarkly_sdk_transport::HttpTransport as _;
use serde_json::Value;

use crate::provider::transport::Transport;
use crate::settings::Secret;

/// How long the service may take to accept the connection.
const CONNECT: Duration = Duration::from_secs(3);

/// How long an answer may take in all.
const LIMIT: Duration = Duration::from_secs(10);

/// More than this is no answer of ours.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Where a service is, and who asks.
#[derive(Clone, Copy)]
pub struct Service<'s> {
    /// Its address, without a slash at the end.
    pub url: &'s str,
    /// The admin token, where there is one.
    pub token: Option<&'s Secret>,
}

/// What it said.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, where it is JSON.
    pub body: Option<Value>,
}

impl Service<'_> {
    /// Asks it, once.
    ///
    /// # Errors
    /// It cannot be reached, or does not answer in time or within bounds.
    pub async fn ask(
        self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let asked = tokio::time::timeout(LIMIT, self.sent(method, path, body)).await;
        asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", LIMIT.as_secs())))
    }

    async fn sent(
        self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let transport = Transport::new(CONNECT).context("no HTTP client can be made")?;
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(|body| Bytes::from(body.to_string())));
        // Its values are not told: the token is among them.
        let request = request
            .ok()
            .context("the address or the token cannot be sent over HTTP")?;
        // The error within says it all; what is around it would only say it twice.
        let answer = transport
            .request(request)
            .await
            .map_err(|error| anyhow::anyhow!("{}", error.inner()))?;
        let status = answer.status();
        let (mut body, mut bytes) = (answer.into_body(), Vec::new());
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part?);
            anyhow::ensure!(
                bytes.len() <= MOST_BYTES,
                "what listens there is no Failsoft: its answer has no end"
            );
        }
        Ok(Answer {
            status,
            body: serde_json::from_slice(&bytes).ok(),
        })
    }
}

/// Where to reach a service that listens there, from this machine.
///
/// # Errors
/// The port is not known before the service runs.
pub fn url_of(listen: &str) -> anyhow::Result<String> {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "80"));
    anyhow::ensure!(
        port != "0",
        "server.listen leaves the port open; say where the service is with --url"
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
    fn a_service_is_reached_where_it_listens() {
        for (listen, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:81", "http://127.0.0.1:81"),
            ("[::]:82", "http://[::1]:82"),
            ("localhost:83", "http://localhost:83"),
        ] {
            assert_eq!(url_of(listen).unwrap(), url);
        }
        assert!(
            url_of("127.0.0.1:0")
                .unwrap_err()
                .to_string()
                .contains("--url")
        );
    }
}
