//! DNS lookups through the system's resolver, which cannot be cancelled and may block for half a
//! minute on one name.
//!
//! Each lookup has its own thread, so nobody waits for it longer than wanted, not even at process
//! exit. Tokio's blocking pool does not fit: it has few threads per worker, and hanging names would
//! leave none for the store. Concurrent requests for one name share a lookup, which bounds the
//! number of threads because all names come from the configuration.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

/// The age up to which a running lookup is shared by new requests for its name. A slower one may be
/// lost, while a new one may succeed.
const JOIN_WINDOW: Duration = Duration::from_secs(1);

/// The maximum number of concurrent lookups per name. Further requests share the youngest.
const MAX_CONCURRENT_LOOKUPS: usize = 4;

static LOOKUPS: LazyLock<Arc<DnsLookups>> =
    LazyLock::new(|| DnsLookups::new(|name| Ok((name, 0).to_socket_addrs()?.collect())));

/// Resolves a host name. Has no time limit of its own.
///
/// # Errors
/// The system resolver's error, such as an unknown name or an unreachable DNS server.
pub async fn resolve_host(name: &str) -> io::Result<Vec<SocketAddr>> {
    LOOKUPS.resolve(name).await
}

#[derive(Clone, Copy, Debug)]
pub struct DnsResolver;

impl Resolve for DnsResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(
            async move { Ok(Box::new(resolve_host(name.as_str()).await?.into_iter()) as Addrs) },
        )
    }
}

// The error's parts, because `io::Error` cannot be cloned.
type LookupResult = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

type ResolveFn = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct DnsLookup {
    started_at: Instant,
    result: watch::Receiver<Option<LookupResult>>,
}

/// The running lookups of each name, the oldest first.
struct DnsLookups {
    resolve_fn: Box<ResolveFn>,
    by_name: Mutex<HashMap<String, Vec<DnsLookup>>>,
}

impl DnsLookups {
    fn new(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            resolve_fn: Box::new(ask),
            by_name: Mutex::default(),
        })
    }

    async fn resolve(self: &Arc<Self>, name: &str) -> io::Result<Vec<SocketAddr>> {
        let mut receiver = self.join_or_start(name, Instant::now())?;
        let result = receiver
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|result| result.clone());
        // The sender is dropped without a result if the resolver panics.
        let result =
            result.unwrap_or_else(|| Err((io::ErrorKind::Other, "DNS lookup failed".into())));
        result.map_err(|(kind, message)| io::Error::new(kind, message))
    }

    /// Returns the youngest lookup if it may be shared, or starts a new one.
    fn join_or_start(
        self: &Arc<Self>,
        name: &str,
        now: Instant,
    ) -> io::Result<watch::Receiver<Option<LookupResult>>> {
        let mut by_name = self.by_name.lock();
        let under_way = by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        if let Some(youngest) = under_way.last()
            && (under_way.len() >= MAX_CONCURRENT_LOOKUPS
                || now.saturating_duration_since(youngest.started_at) < JOIN_WINDOW)
        {
            return Ok(youngest.result.clone());
        }
        let (sender, result) = watch::channel(None);
        let lookup = DnsLookup {
            started_at: now,
            result: result.clone(),
        };
        let lookups = Arc::clone(self);
        let host = name.to_owned();
        thread::Builder::new()
            .name("lookup".into())
            .spawn(move || {
                // Not before the thread runs: dropping a guard takes the lock.
                let guard = LookupGuard {
                    lookups,
                    name: host,
                    started_at: now,
                };
                let result = (guard.lookups.resolve_fn)(&guard.name)
                    .map_err(|error| (error.kind(), error.to_string()));
                // Unregister before publishing: a finished lookup must not be shared any more.
                drop(guard);
                sender.send_replace(Some(result));
            })?;
        by_name.entry(name.to_owned()).or_default().push(lookup);
        Ok(result)
    }
}

/// Unregisters a lookup when it is dropped, also after a panic of its thread.
struct LookupGuard {
    lookups: Arc<DnsLookups>,
    name: String,
    started_at: Instant,
}

impl Drop for LookupGuard {
    fn drop(&mut self) {
        let mut by_name = self.lookups.by_name.lock();
        if let Some(under_way) = by_name.get_mut(&self.name) {
            under_way.retain(|lookup| lookup.started_at != self.started_at);
            if under_way.is_empty() {
                by_name.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parking_lot::Condvar;

    use futures_util::future::join_all;

    use super::*;

    /// A resolver on which the name "hangs" blocks until `release`, and other names resolve at
    /// once.
    #[derive(Default)]
    struct Net {
        requests: Mutex<Vec<String>>,
        is_released: Mutex<bool>,
        changed: Condvar,
    }

    impl Net {
        fn lookups(self: &Arc<Self>) -> Arc<DnsLookups> {
            let net = Arc::clone(self);
            DnsLookups::new(move |name| {
                net.requests.lock().push(name.to_owned());
                net.changed.notify_all();
                if name == "hangs" {
                    net.changed
                        .wait_while(&mut net.is_released.lock(), |is_released| !*is_released);
                }
                match name {
                    "unknown" => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                    _ => Ok(vec![([127, 0, 0, 1], 0).into()]),
                }
            })
        }

        fn release(&self) {
            *self.is_released.lock() = true;
            self.changed.notify_all();
        }

        fn request_count(&self, name: &str) -> usize {
            self.requests
                .lock()
                .iter()
                .filter(|request| *request == name)
                .count()
        }
    }

    #[tokio::test]
    async fn requests_for_one_name_share_a_lookup_and_other_names_do_not_wait() {
        let net = Arc::<Net>::default();
        let lookups = net.lookups();
        let now = Instant::now();
        let waiting: Vec<_> = (0..100)
            .map(|_| lookups.join_or_start("hangs", now).unwrap())
            .collect();
        assert_eq!(lookups.resolve("known").await.unwrap().len(), 1);
        let error = lookups.resolve("unknown").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::NotFound, "no such name")
        );
        assert!(waiting.iter().all(|result| result.borrow().is_none()));
        net.release();
        let counts = join_all(waiting.into_iter().map(async |mut result| {
            result
                .wait_for(Option::is_some)
                .await
                .unwrap()
                .clone()
                .unwrap()
                .unwrap()
                .len()
        }));
        assert_eq!(counts.await, [1; 100]);
        assert_eq!(net.request_count("hangs"), 1);
        assert!(lookups.by_name.lock().is_empty());
        // A request after the end starts a new lookup.
        lookups.resolve("hangs").await.unwrap();
        assert_eq!(net.request_count("hangs"), 2);
    }

    #[tokio::test]
    async fn hanging_name_is_retried_each_second_up_to_the_limit() {
        let net = Arc::<Net>::default();
        let lookups = net.lookups();
        let started_at = Instant::now();
        let mut waiting: Vec<_> = (0..600)
            .map(|tenth| {
                lookups
                    .join_or_start("hangs", started_at + Duration::from_millis(100) * tenth)
                    .unwrap()
            })
            .collect();
        assert_eq!(
            lookups.by_name.lock()["hangs"].len(),
            MAX_CONCURRENT_LOOKUPS
        );
        net.release();
        for result in &mut waiting {
            assert!(result.wait_for(Option::is_some).await.unwrap().is_some());
        }
        assert_eq!(
            (net.request_count("hangs"), lookups.by_name.lock().len()),
            (MAX_CONCURRENT_LOOKUPS, 0)
        );
    }

    #[tokio::test]
    async fn panicking_lookup_fails_and_is_unregistered() {
        let lookups = DnsLookups::new(|_| panic!("broken resolver"));
        assert!(lookups.resolve("any").await.is_err());
        assert!(lookups.by_name.lock().is_empty());
    }

    #[tokio::test]
    async fn system_resolver_is_used() {
        assert!(
            resolve_host("localhost")
                .await
                .unwrap()
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        assert!(resolve_host("provider.invalid").await.is_err());
    }
}
