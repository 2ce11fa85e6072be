//! Protects sinks against server-side request forgery (SSRF).
//!
//! A sink configured by a public name is only called at public addresses, so that whoever controls
//! that name cannot make the service call into its own network. An operator who configures a
//! private address, or a name that is private by its form, means it. The check runs when the name
//! is resolved for the connection, so the checked address is the one that is called. With a proxy
//! from the environment, the proxy resolves.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::{is_private_host, is_public_address};
use crate::provider::dns;

/// A public name resolved to private addresses only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public name leads to a private address")]
pub struct PrivateAddress;

type LookupFn =
    dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync;

/// A DNS resolver for an HTTP client that calls one host.
pub struct PublicOnlyResolver {
    /// The host if it is a public name.
    guarded_host: Option<String>,
    lookup: Arc<LookupFn>,
}

impl PublicOnlyResolver {
    pub fn for_host(host: &str) -> Self {
        Self::with_lookup(host, |name| {
            Box::pin(async move { dns::resolve_host(&name).await })
        })
    }

    fn with_lookup(
        host: &str,
        lookup: impl Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            guarded_host: (!is_private_host(host)).then(|| host.to_ascii_lowercase()),
            lookup: Arc::new(lookup),
        }
    }
}

impl Resolve for PublicOnlyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        // Any other name is that of a proxy, which the operator put into the environment.
        let is_guarded = self.guarded_host.as_deref() == Some(&name.as_str().to_ascii_lowercase());
        let addresses = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let mut addresses = addresses.await?;
            if is_guarded {
                addresses.retain(|address| is_public_address(address.ip()));
                if addresses.is_empty() {
                    return Err(PrivateAddress.into());
                }
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(host: &str, name: &str, to: &[&str]) -> Result<usize, bool> {
        let addresses: Vec<SocketAddr> = to
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect();
        let resolver = PublicOnlyResolver::with_lookup(host, move |_| {
            Box::pin(std::future::ready(Ok(addresses.clone())))
        });
        let found = resolver.resolve(name.parse().unwrap()).await;
        found
            .map(Iterator::count)
            .map_err(|error| error.is::<PrivateAddress>())
    }

    #[tokio::test]
    async fn a_public_name_resolves_to_public_addresses_only() {
        let host = "hooks.example.com";
        assert_eq!(
            resolve(host, host, &["8.8.8.8", "2606:4700::1"]).await,
            Ok(2)
        );
        assert_eq!(
            resolve(host, "HOOKS.example.com", &["8.8.8.8", "10.0.0.1"]).await,
            Ok(1)
        );
        for private in [
            "127.0.0.1",
            "169.254.169.254",
            "10.0.0.1",
            "::1",
            "::ffff:192.168.0.1",
        ] {
            assert_eq!(
                resolve(host, host, &[private]).await,
                Err(true),
                "{private}"
            );
        }
        assert_eq!(
            resolve(host, "proxy.example.com", &["10.0.0.1"]).await,
            Ok(1),
            "a proxy from the environment"
        );
        assert_eq!(
            resolve("hooks.internal", "hooks.internal", &["10.0.0.1"]).await,
            Ok(1),
            "a private name is intended"
        );
    }

    /// With a real client: no connection is made, and the error tells why.
    #[tokio::test]
    async fn a_client_does_not_connect_to_a_private_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let resolver = PublicOnlyResolver::with_lookup("hooks.example.com", move |_| {
            Box::pin(std::future::ready(Ok(vec![address])))
        });
        let resolver = Arc::new(resolver);
        let configure = |builder: reqwest::ClientBuilder| {
            builder.no_proxy().dns_resolver(Arc::clone(&resolver))
        };
        let client =
            crate::provider::http::build_client(std::time::Duration::from_secs(5), configure)
                .unwrap();
        let url = format!("http://hooks.example.com:{}/", address.port());
        let error = client.post(url).send().await.unwrap_err();
        assert!(
            super::super::webhook::is_private_address(&error),
            "{error:?}"
        );
        tokio::select! {
            biased;
            accepted = listener.accept() => panic!("{accepted:?}"),
            () = std::future::ready(()) => {}
        }
    }
}
