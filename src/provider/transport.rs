//! The HTTP client under every provider. One request is one request: no redirects (the key must never follow one), no retries, no
//! decompression, no limit of time but for the connect; the caller keeps all others.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use reqwest::{Body, Client, ClientBuilder, Url, redirect, retry};
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt as _;

use super::lookup::Resolver;
use super::pools::Pools;
use crate::chat::{Failure, Fault};

/// How long an unused connection is kept: less than most servers keep theirs, so that a call seldom meets a closing one.
const IDLE: Duration = Duration::from_secs(30);

/// How often an HTTP/2 connection under a call is tested, and how long its peer may take to answer: a dead one is shared, and would
/// fail every later call to its provider too.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Makes ring the process's TLS provider. Any number of times; a provider that is there already stays.
pub fn install_tls() {
    // The error says that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Pools of connections with one limit of time for the connect. Cheap to clone; clones share the pools.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Goes through the environment's proxy, where one is set.
    outside: Pools,
    /// Never does: this machine's own servers are seldom in reach of a proxy.
    loopback: Pools,
}

impl Transport {
    /// A transport that gives up a connect (name, TCP and TLS together) after `connect`.
    ///
    /// Without any CA certificate on the system it still speaks plain HTTP, and refuses every HTTPS server.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(connect: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self {
            outside: Pools::new(connect, true)?,
            loopback: Pools::new(connect, false)?,
        })
    }

    fn client(&self, url: &Url) -> Client {
        let pools = if is_loopback(url) {
            &self.loopback
        } else {
            &self.outside
        };
        pools.here()
    }
}

/// What all clients of this process have in common of TLS: the system's CA certificates, which are some milliseconds' work to read and a megabyte to
/// keep, and the sessions to resume. None where the system has none.
static TLS: LazyLock<Option<ClientConfig>> = LazyLock::new(|| {
    install_tls();
    let mut tls = ClientConfig::with_platform_verifier()
        .inspect_err(|_| {
            tracing::warn!("no CA certificates on this system: nobody can be reached over https");
        })
        .ok()?;
    tls.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Some(tls)
});

/// A client that makes one request of one, and gives up a connect after `connect`; `shape` may say more.
///
/// Without any CA certificate on the system it still speaks plain HTTP, and refuses every HTTPS server.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client(
    connect: Duration,
    shape: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let client = shape(builder(connect));
    match &*TLS {
        Some(tls) => client.tls_backend_preconfigured(tls.clone()),
        None => client.tls_certs_only([]),
    }
    .build()
}

fn builder(connect: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("failsoft/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(connect)
        .dns_resolver(Arc::new(Resolver))
        .pool_idle_timeout(IDLE)
        .http2_keep_alive_interval(PING.0)
        .http2_keep_alive_timeout(PING.1)
}

/// Whether a URL names this very machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let named = host == "localhost" || host.ends_with(".localhost");
    named
        || address
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

impl HttpTransport for Transport {
    /// Sends the request once. Whatever goes wrong, here and in the body, is a [`Failure`] inside the [`TransportError`].
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let mut request = request.map(|body| body.map_or_else(Body::default, Body::from));
        for value in request.headers_mut().values_mut() {
            // Keys are among them: hidden from Debug, and kept out of HTTP/2's compression tables.
            value.set_sensitive(true);
        }
        let sent = reqwest::Request::try_from(request).map(|request| {
            let client = self.client(request.url());
            client.execute(request)
        });
        Box::pin(async move {
            let answer = sent.map_err(failed)?.await.map_err(failed)?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body: ByteStream = Box::pin(answer.bytes_stream().map_err(failed));
            let mut answer = http::Response::new(body);
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            Ok(answer)
        })
    }
}

fn failed(error: reqwest::Error) -> TransportError {
    TransportError::new(failure(&error))
}

/// What an error of the connection means.
///
/// A body that ends before the length or the last chunk that its head promised counts as a reset: something between us and the
/// provider broke. That a well-framed body has no whole answer in it is for the dialect to say.
fn failure(error: &reqwest::Error) -> Failure {
    if error.is_builder() {
        return Failure::with(Fault::Misconfigured, "base_url is no http or https address");
    }
    if error.is_connect() && error.is_timeout() {
        return Failure::with(Fault::Timeout, "no connection in time");
    }
    if error.is_connect() {
        // The innermost cause: refused, no such name, a bad certificate. The outer ones repeat the address.
        return Failure::with(
            Fault::Unreachable,
            &causes(error)
                .last()
                .map(ToString::to_string)
                .unwrap_or_default(),
        );
    }
    let rubbish = causes(error).any(|cause| {
        let http = cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse);
        let body = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        http || matches!(
            body,
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        )
    });
    if rubbish {
        return Failure::with(Fault::Malformed, "not HTTP");
    }
    Failure::of(Fault::Reset)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The transports in use: one for each limit of the connect, because that limit belongs to the pool. Kept over a reload, so that
/// open connections are.
#[derive(Debug, Default)]
pub struct Transports {
    by_connect: BTreeMap<Duration, Transport>,
}

impl Transports {
    /// The transport with this limit, made when it is first asked for.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub fn with_connect(&mut self, connect: Duration) -> Result<Transport, reqwest::Error> {
        if let Some(known) = self.by_connect.get(&connect) {
            return Ok(known.clone());
        }
        let made = Transport::new(connect)?;
        self.by_connect.insert(connect, made.clone());
        Ok(made)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let here = |url: &str| is_loopback(&Url::parse(url).unwrap());
        for url in [
            "http://127.0.0.1:1/",
            "http://127.9.9.9/",
            "https://[::1]:8/v1",
            "http://LOCALHOST/",
            "http://a.localhost/",
        ] {
            assert!(here(url), "{url}");
        }
        for url in [
            "https://api.example.com/",
            "http://10.0.0.1/",
            "http://127.0.0.1.evil.test/",
            "http://notlocalhost/",
        ] {
            assert!(!here(url), "{url}");
        }
    }

    #[test]
    fn providers_with_one_limit_share_a_pool() {
        let mut transports = Transports::default();
        for seconds in [3, 5, 3] {
            transports
                .with_connect(Duration::from_secs(seconds))
                .unwrap();
        }
        assert_eq!(transports.by_connect.len(), 2);
    }
}
