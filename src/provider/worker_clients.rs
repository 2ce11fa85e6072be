//! One HTTP client, and thus connection pool, per thread. A connection is driven by the thread that
//! opened it. Other threads would stall with that thread and lose the connection when it ends.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use super::http;

thread_local! {
    /// This thread's clients. Dropped with the thread; unused ones when another is created.
    static THREAD_CLIENTS: RefCell<Vec<(Weak<ClientOptions>, Client)>> = const { RefCell::new(Vec::new()) };
}

/// HTTP clients with equal options, one per thread. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct ThreadLocalClients(Arc<ClientOptions>);

#[derive(Debug)]
struct ClientOptions {
    connect_timeout: Duration,
    uses_proxy: bool,
    /// Used if a thread cannot build its own.
    fallback_client: Client,
}

fn new_client(connect: Duration, proxied: bool) -> Result<Client, reqwest::Error> {
    http::build_client(connect, |builder| {
        if proxied {
            builder
        } else {
            ClientBuilder::no_proxy(builder)
        }
    })
}

impl ThreadLocalClients {
    /// `proxied` enables the environment's proxy settings.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(connect: Duration, proxied: bool) -> Result<Self, reqwest::Error> {
        let first = new_client(connect, proxied)?;
        let pools = Self(Arc::new(ClientOptions {
            connect_timeout: connect,
            uses_proxy: proxied,
            fallback_client: first.clone(),
        }));
        pools.register(first);
        Ok(pools)
    }

    pub fn for_current_thread(&self) -> Client {
        let is_own = |(options, _): &&(Weak<ClientOptions>, Client)| {
            std::ptr::eq(options.as_ptr(), Arc::as_ptr(&self.0))
        };
        let known = THREAD_CLIENTS.with_borrow(|clients| {
            clients
                .iter()
                .find(is_own)
                .map(|(_, client)| client.clone())
        });
        known.unwrap_or_else(|| {
            let client = new_client(self.0.connect_timeout, self.0.uses_proxy)
                .unwrap_or_else(|_| self.0.fallback_client.clone());
            self.register(client.clone());
            client
        })
    }

    fn register(&self, client: Client) {
        THREAD_CLIENTS.with_borrow_mut(|clients| {
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
        THREAD_CLIENTS.with_borrow(Vec::len)
    }

    #[test]
    fn each_thread_has_its_own_client_while_it_is_used() {
        let seconds = Duration::from_secs;
        let first = ThreadLocalClients::new(seconds(1), false).unwrap();
        let second = ThreadLocalClients::new(seconds(2), true).unwrap();
        drop((
            first.for_current_thread(),
            first.clone().for_current_thread(),
            second.for_current_thread(),
        ));
        assert_eq!(client_count(), 2);
        let shared = first.clone();
        let on_new_thread = std::thread::spawn(client_count);
        assert_eq!(on_new_thread.join().unwrap(), 0);
        let after_use = std::thread::spawn(move || {
            drop((shared.for_current_thread(), shared.for_current_thread()));
            client_count()
        });
        assert_eq!(after_use.join().unwrap(), 1);
        drop(first);
        let _third = ThreadLocalClients::new(seconds(3), false).unwrap();
        assert_eq!(client_count(), 2, "the first client is no longer in use");
    }
}
