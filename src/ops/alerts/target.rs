//! Where a sink's name may lead.
//!
//! A sink that the configuration names by a public name is reached at public addresses alone: whoever can change what that name leads to must not
//! make the service call into its own network. Who writes a private address, or a name that is private by its form, means it. Looked at when the
//! name is resolved for the connection, so what was looked at is what is called. Behind a proxy of the environment it is the proxy that resolves.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::provider::lookup;
use crate::settings::{is_private_host, is_public};

/// A public name leads to an address that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public name leads to a private address")]
pub struct PrivateAddress;

/// What finds a name's addresses.
type Lookup = dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Resolves names for a client that calls one host.
pub struct Resolver {
    /// The host, where its name is a public one.
    guarded: Option<String>,
    lookup: Arc<Lookup>,
}

impl Resolver {
    /// For calls to this host, by the system's own ways.
    pub fn to(host: &str) -> Self {
        Self::by(host, |name| {
            Box::pin(async move { lookup::addresses(&name).await })
        })
    }

    /// The same by another way.
    fn by(
        host: &str,
        lookup: impl Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            guarded: (!is_private_host(host)).then(|| host.to_ascii_lowercase()),
            lookup: Arc::new(lookup),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        // Another name is that of a proxy, which the operator put into the environment.
        let guarded = self.guarded.as_deref() == Some(&name.as_str().to_ascii_lowercase());
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let mut found = found.await?;
            if guarded {
                found.retain(|address| is_public(address.ip()));
                if found.is_empty() {
                    return Err(PrivateAddress.into());
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn leads(host: &str, asked: &str, to: &[&str]) -> Result<usize, bool> {
        let addresses: Vec<SocketAddr> = to
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect();
        let resolver = Resolver::by(host, move |_| {
            Box::pin(std::future::ready(Ok(addresses.clone())))
        });
        let found = resolver.resolve(asked.parse().unwrap()).await;
        found
            .map(Iterator::count)
            .map_err(|error| error.is::<PrivateAddress>())
    }

    #[tokio::test]
    async fn a_public_name_leads_to_public_addresses_alone() {
        let host = "hooks.example.com";
        assert_eq!(leads(host, host, &["8.8.8.8", "2606:4700::1"]).await, Ok(2));
        assert_eq!(
            leads(host, "HOOKS.example.com", &["8.8.8.8", "10.0.0.1"]).await,
            Ok(1)
        );
        for private in [
            "127.0.0.1",
            "169.254.169.254",
            "10.0.0.1",
            "::1",
            "::ffff:192.168.0.1",
        ] {
            assert_eq!(leads(host, host, &[private]).await, Err(true), "{private}");
        }
        assert_eq!(
            leads(host, "proxy.example.com", &["10.0.0.1"]).await,
            Ok(1),
            "the environment's proxy"
        );
        assert_eq!(
            leads("hooks.internal", "hooks.internal", &["10.0.0.1"]).await,
            Ok(1),
            "it is meant"
        );
    }

    /// Over a real client: nobody is called, and the reason is known.
    #[tokio::test]
    async fn a_client_does_not_call_where_it_must_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let resolver = Resolver::by("hooks.example.com", move |_| {
            Box::pin(std::future::ready(Ok(vec![here])))
        });
        let resolver = Arc::new(resolver);
        let shape = |builder: reqwest::ClientBuilder| {
            builder.no_proxy().dns_resolver(Arc::clone(&resolver))
        };
        let client =
            crate::provider::transport::client(std::time::Duration::from_secs(5), shape).unwrap();
        let url = format!("http://hooks.example.com:{}/", here.port());
        let error = client.post(url).send().await.unwrap_err();
        assert!(super::super::post::is_private(&error), "{error:?}");
        tokio::select! {
            biased;
            called = listener.accept() => panic!("{called:?}"),
            () = std::future::ready(()) => {}
        }
    }
}
