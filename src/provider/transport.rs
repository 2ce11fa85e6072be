//! The connections to all providers, and the classification of their errors.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use reqwest::{Body, Client, Url};

use super::http::is_loopback;
use super::worker_clients::ThreadLocalClients;
use crate::domain::{Failure, FaultKind};

/// An HTTP client with one connect timeout. Cheap to clone: clones share their connections.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Uses the environment's proxy settings.
    proxied: ThreadLocalClients,
    /// Uses no proxy, because this machine's own servers are seldom reachable through one.
    loopback: ThreadLocalClients,
}

impl Transport {
    /// `connect` limits name resolution, TCP and TLS together.
    ///
    /// Without CA certificates on the system, plain HTTP works and every HTTPS server is rejected.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(connect: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self {
            proxied: ThreadLocalClients::new(connect, true)?,
            loopback: ThreadLocalClients::new(connect, false)?,
        })
    }

    fn client_for(&self, url: &Url) -> Client {
        let pools = if is_loopback(url) {
            &self.loopback
        } else {
            &self.proxied
        };
        pools.for_current_thread()
    }
}

impl HttpTransport for Transport {
    /// Sends the request once. Every error, here and in the body, is a [`Failure`] inside the
    /// [`TransportError`].
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let mut request = request.map(|body| body.map_or_else(Body::default, Body::from));
        for value in request.headers_mut().values_mut() {
            // Includes keys: hides them from `Debug` and from HTTP/2's compression tables.
            value.set_sensitive(true);
        }
        let sent = reqwest::Request::try_from(request).map(|request| {
            let client = self.client_for(request.url());
            client.execute(request)
        });
        Box::pin(async move {
            let response = sent
                .map_err(transport_error)?
                .await
                .map_err(transport_error)?;
            let status = response.status();
            let headers = response.headers().clone();
            let body: ByteStream = Box::pin(response.bytes_stream().map_err(transport_error));
            let mut response = http::Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        })
    }
}

fn transport_error(error: reqwest::Error) -> TransportError {
    TransportError::new(classify_reqwest_error(&error))
}

/// Classifies an error of the connection.
///
/// A body that ends before its announced length or last chunk counts as a reset, because something
/// between us and the provider broke. A complete body without a complete answer is left to the
/// dialect.
fn classify_reqwest_error(error: &reqwest::Error) -> Failure {
    if error.is_builder() {
        let detail = "base_url is not an http or https URL";
        return Failure::with_detail(FaultKind::Misconfigured, detail);
    }
    if error.is_connect() && error.is_timeout() {
        return Failure::with_detail(FaultKind::Timeout, "connect timed out");
    }
    if error.is_connect() {
        // The innermost cause (refused, no such name, bad certificate). Outer ones repeat the
        // address.
        let cause = error_chain(error).last().map(ToString::to_string);
        return Failure::with_detail(FaultKind::Unreachable, &cause.unwrap_or_default());
    }
    let is_malformed = error_chain(error).any(|cause| {
        let http = cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse);
        let body = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        http || matches!(
            body,
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        )
    });
    if is_malformed {
        return Failure::with_detail(FaultKind::Malformed, "response is not HTTP");
    }
    Failure::new(FaultKind::Reset)
}

fn error_chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The transports in use, one per connect timeout, because that belongs to the connection pool.
/// Kept over a reload, so that connections stay open.
#[derive(Debug, Default)]
pub struct TransportCache {
    by_connect_timeout: BTreeMap<Duration, Transport>,
}

impl TransportCache {
    /// Returns the transport with this connect timeout, creating it on first use.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub fn with_connect_timeout(&mut self, connect: Duration) -> Result<Transport, reqwest::Error> {
        if let Some(transport) = self.by_connect_timeout.get(&connect) {
            return Ok(transport.clone());
        }
        let transport = Transport::new(connect)?;
        self.by_connect_timeout.insert(connect, transport.clone());
        Ok(transport)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn equal_connect_timeouts_share_a_transport() {
        let mut transports = TransportCache::default();
        for seconds in [3, 5, 3] {
            transports
                .with_connect_timeout(Duration::from_secs(seconds))
                .unwrap();
        }
        assert_eq!(transports.by_connect_timeout.len(), 2);
    }
}
