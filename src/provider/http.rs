//! Builds HTTP clients. Each request is sent once: no redirects (a key must never follow one), no
//! retries, no decompression. The connect timeout is the only time limit.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url, redirect, retry};
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt as _;

use super::dns::DnsResolver;

/// The time for which an idle connection is kept. Most servers keep theirs longer, so a request
/// seldom meets a connection that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval of pings on an HTTP/2 connection in use. A dead connection is shared and would fail
/// later requests too.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(10);

const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);

pub fn install_tls() {
    // An error means that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The TLS configuration that all clients share: the system's CA certificates (some milliseconds to
/// read, a megabyte to keep) and the session cache. `None` if the system has no certificates.
static TLS_CONFIG: LazyLock<Option<ClientConfig>> = LazyLock::new(|| {
    install_tls();
    let mut tls = ClientConfig::with_platform_verifier()
        .inspect_err(|_| {
            tracing::warn!("no CA certificates on this system, https requests will fail");
        })
        .ok()?;
    tls.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Some(tls)
});

/// Builds a client that sends each request once. `shape` may add further options.
///
/// Without CA certificates on the system, plain HTTP works and every HTTPS server is rejected.
///
/// # Errors
/// If TLS cannot be set up.
pub fn build_client(
    connect: Duration,
    shape: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let client = shape(client_builder(connect));
    match &*TLS_CONFIG {
        Some(tls) => client.tls_backend_preconfigured(tls.clone()),
        None => client.tls_certs_only([]),
    }
    .build()
}

fn client_builder(connect: Duration) -> ClientBuilder {
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
        .dns_resolver(Arc::new(DnsResolver))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
        .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
}

pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let is_localhost = host == "localhost" || host.ends_with(".localhost");
    is_localhost || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn loopback_urls_are_recognised() {
        let is_local = |url: &str| is_loopback(&Url::parse(url).unwrap());
        for url in [
            "http://127.0.0.1:1/",
            "http://127.9.9.9/",
            "https://[::1]:8/v1",
            "http://LOCALHOST/",
            "http://a.localhost/",
        ] {
            assert!(is_local(url), "{url}");
        }
        for url in [
            "https://api.example.com/",
            "http://10.0.0.1/",
            "http://127.0.0.1.evil.test/",
            "http://notlocalhost/",
        ] {
            assert!(!is_local(url), "{url}");
        }
    }
}
