//! One HTTP client, and thus connection pool, per thread. A connection is driven by the thread that
//! opened it. Other threads would stall with that thread and lose the connection when it ends.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use super::transport;

thread_local! {
    /// This thread's clients. Dropped with the thread; unused ones when another is created.
    static HERE: RefCell<Vec<(Weak<Shape>, Client)>> = const { RefCell::new(Vec::new()) };
}

/// HTTP clients with equal options, one per thread. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Pools(Arc<Shape>);

#[derive(Debug)]
struct Shape {
    connect: Duration,
    proxied: bool,
    /// Used if a thread cannot build its own.
    first: Client,
}

fn client(connect: Duration, proxied: bool) -> Result<Client, reqwest::Error> {
    transport::client(connect, |builder| {
        if proxied {
            builder
        } else {
            ClientBuilder::no_proxy(builder)
        }
    })
}

impl Pools {
    /// `proxied` enables the environment's proxy settings.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(connect: Duration, proxied: bool) -> Result<Self, reqwest::Error> {
        let first = client(connect, proxied)?;
        let pools = Self(Arc::new(Shape {
            connect,
            proxied,
            first: first.clone(),
        }));
        pools.keep(first);
        Ok(pools)
    }

    pub fn here(&self) -> Client {
        let is_own = |(options, _): &&(Weak<Shape>, Client)| {
            std::ptr::eq(options.as_ptr(), Arc::as_ptr(&self.0))
        };
        let known = HERE.with_borrow(|clients| {
            clients
                .iter()
                .find(is_own)
                .map(|(_, client)| client.clone())
        });
        known.unwrap_or_else(|| {
            let client =
                client(self.0.connect, self.0.proxied).unwrap_or_else(|_| self.0.first.clone());
            self.keep(client.clone());
            client
        })
    }

    fn keep(&self, client: Client) {
        HERE.with_borrow_mut(|clients| {
            clients.retain(|(options, _)| options.strong_count() > 0);
            clients.push((Arc::downgrade(&self.0), client));
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn client_count() -> usize {
        HERE.with_borrow(Vec::len)
    }

    #[test]
    fn each_thread_has_its_own_client_while_it_is_used() {
        let seconds = Duration::from_secs;
        let first = Pools::new(seconds(1), false).unwrap();
        let second = Pools::new(seconds(2), true).unwrap();
        drop((first.here(), first.clone().here(), second.here()));
        assert_eq!(client_count(), 2);
        let shared = first.clone();
        let on_new_thread = std::thread::spawn(client_count);
        assert_eq!(on_new_thread.join().unwrap(), 0);
        let after_use = std::thread::spawn(move || {
            drop((shared.here(), shared.here()));
            client_count()
        });
        assert_eq!(after_use.join().unwrap(), 1);
        drop(first);
        let _third = Pools::new(seconds(3), false).unwrap();
        assert_eq!(client_count(), 2, "the first client is no longer in use");
    }
}
