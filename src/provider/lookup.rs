//! Finding the addresses of a name, by the system's own resolver. That one cannot be told to stop, and where the network says nothing it may take
//! half a minute over one name, long after whoever asked has gone to another provider.
//!
//! So each look-up has a thread of its own, which nobody waits for longer than they want to, also not at the end of the process: on the runtime's
//! threads for what blocks, of which a worker has a few, names that hang would leave none for the store. Many who ask for one name
//! at once share a look-up, so that there are never more than a few of a name; names are the configuration's.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

/// How long a look-up is joined by those who ask for the same name. One that takes longer may be lost, and another one may come through.
const JOINED: Duration = Duration::from_secs(1);

/// Look-ups of one name at once; who asks for it then joins the youngest.
const MOST: usize = 4;

/// Those of this process.
static LOOKUPS: LazyLock<Arc<Lookups>> =
    LazyLock::new(|| Lookups::by(|name| Ok((name, 0).to_socket_addrs()?.collect())));

/// Finds the addresses of a name. Its limit of time is the caller's.
///
/// # Errors
/// There is no such name, or nobody to ask, in the system's words.
pub async fn addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    LOOKUPS.find(name).await
}

/// Finds names for a client of HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(addresses(name.as_str()).await?.into_iter()) as Addrs) })
    }
}

/// What a look-up found. An [`io::Error`] for many.
type Found = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// How it is looked up: blocking.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// A look-up under way.
struct Lookup {
    begun: Instant,
    found: watch::Receiver<Option<Found>>,
}

/// The look-ups under way, of each name the oldest first.
struct Lookups {
    ask: Box<Ask>,
    by_name: Mutex<HashMap<String, Vec<Lookup>>>,
}

impl Lookups {
    fn by(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            ask: Box::new(ask),
            by_name: Mutex::default(),
        })
    }

    async fn find(self: &Arc<Self>, name: &str) -> io::Result<Vec<SocketAddr>> {
        let mut found = self.join(name, Instant::now())?;
        let found = found
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|found| found.clone());
        let found =
            found.unwrap_or_else(|| Err((io::ErrorKind::Other, "the look-up failed".into())));
        found.map_err(|(kind, why)| io::Error::new(kind, why))
    }

    /// The look-up to wait for: the youngest, or one that is begun now.
    fn join(
        self: &Arc<Self>,
        name: &str,
        now: Instant,
    ) -> io::Result<watch::Receiver<Option<Found>>> {
        let mut by_name = self.lock();
        let under_way = by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        if let Some(youngest) = under_way.last()
            && (under_way.len() >= MOST || now.saturating_duration_since(youngest.begun) < JOINED)
        {
            return Ok(youngest.found.clone());
        }
        let (tell, found) = watch::channel(None);
        let lookup = Lookup {
            begun: now,
            found: found.clone(),
        };
        let (all, asked) = (Arc::clone(self), name.to_owned());
        thread::Builder::new()
            .name("lookup".into())
            .spawn(move || {
                let ended = Ended {
                    all,
                    name: asked,
                    begun: now,
                };
                let answer =
                    (ended.all.ask)(&ended.name).map_err(|error| (error.kind(), error.to_string()));
                // Nobody joins one that has ended: what it found is of that moment.
                drop(ended);
                tell.send_replace(Some(answer));
            })?;
        by_name.entry(name.to_owned()).or_default().push(lookup);
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Lookup>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a look-up off the list when it is dropped, on the look-up's thread.
struct Ended {
    all: Arc<Lookups>,
    name: String,
    begun: Instant,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut by_name = self.all.lock();
        if let Some(under_way) = by_name.get_mut(&self.name) {
            under_way.retain(|one| one.begun != self.begun);
            if under_way.is_empty() {
                by_name.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Condvar;

    use futures_util::future::join_all;

    use super::*;

    /// A network on which one name hangs until it is let go, and each other one is known at once.
    #[derive(Default)]
    struct Net {
        asked: Mutex<Vec<String>>,
        let_go: Mutex<bool>,
        changed: Condvar,
    }

    impl Net {
        fn lookups(self: &Arc<Self>) -> Arc<Lookups> {
            let net = Arc::clone(self);
            Lookups::by(move |name| {
                net.asked.lock().unwrap().push(name.to_owned());
                net.changed.notify_all();
                if name == "hangs" {
                    drop(
                        net.changed
                            .wait_while(net.let_go.lock().unwrap(), |let_go| !*let_go),
                    );
                }
                match name {
                    "unknown" => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                    _ => Ok(vec![([127, 0, 0, 1], 0).into()]),
                }
            })
        }

        fn let_go(&self) {
            *self.let_go.lock().unwrap() = true;
            self.changed.notify_all();
        }

        fn asked(&self, name: &str) -> usize {
            self.asked
                .lock()
                .unwrap()
                .iter()
                .filter(|asked| *asked == name)
                .count()
        }
    }

    #[tokio::test]
    async fn many_who_ask_for_a_name_share_a_look_up_and_others_do_not_wait_for_it() {
        let net = Arc::<Net>::default();
        let lookups = net.lookups();
        let now = Instant::now();
        let waiting: Vec<_> = (0..100)
            .map(|_| lookups.join("hangs", now).unwrap())
            .collect();
        assert_eq!(lookups.find("well").await.unwrap().len(), 1);
        let error = lookups.find("unknown").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::NotFound, "no such name")
        );
        assert!(waiting.iter().all(|found| found.borrow().is_none()));
        net.let_go();
        let found = join_all(waiting.into_iter().map(async |mut found| {
            found
                .wait_for(Option::is_some)
                .await
                .unwrap()
                .clone()
                .unwrap()
                .unwrap()
                .len()
        }));
        assert_eq!(found.await, [1; 100]);
        assert_eq!(net.asked("hangs"), 1);
        assert!(lookups.lock().is_empty());
        // What is asked for after the end is looked up anew.
        lookups.find("hangs").await.unwrap();
        assert_eq!(net.asked("hangs"), 2);
    }

    #[tokio::test]
    async fn a_name_that_hangs_is_tried_again_each_second_by_a_few_at_once() {
        let net = Arc::<Net>::default();
        let lookups = net.lookups();
        let begun = Instant::now();
        let mut waiting: Vec<_> = (0..600)
            .map(|tenth| {
                lookups
                    .join("hangs", begun + Duration::from_millis(100) * tenth)
                    .unwrap()
            })
            .collect();
        assert_eq!(lookups.lock()["hangs"].len(), MOST);
        net.let_go();
        for found in &mut waiting {
            assert!(found.wait_for(Option::is_some).await.unwrap().is_some());
        }
        assert_eq!((net.asked("hangs"), lookups.lock().len()), (MOST, 0));
    }

    #[tokio::test]
    async fn one_that_panics_fails_and_is_off_the_list() {
        let lookups = Lookups::by(|_| panic!("a resolver that breaks"));
        assert!(lookups.find("any").await.is_err());
        assert!(lookups.lock().is_empty());
    }

    #[tokio::test]
    async fn the_systems_own_is_asked() {
        assert!(
            addresses("localhost")
                .await
                .unwrap()
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        assert!(addresses("provider.invalid").await.is_err());
    }
}
