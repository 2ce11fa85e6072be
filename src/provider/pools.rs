//! A pool of connections for each thread that makes calls. A connection is driven by the thread that opened it: if others used it too, they would wait
//! whenever that thread stands still, and be cut off where it ends.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use super::transport;

thread_local! {
    /// Those of this thread. They go with it, and those of nobody any more when another is made.
    static HERE: RefCell<Vec<(Weak<Shape>, Client)>> = const { RefCell::new(Vec::new()) };
}

/// Pools of one shape. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Pools(Arc<Shape>);

/// What its clients are made of.
#[derive(Debug)]
struct Shape {
    connect: Duration,
    proxied: bool,
    /// The one of the thread that made the first.
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
    /// Pools whose connects are given up after `connect`; through the environment's proxy, where one is set and wanted.
    ///
    /// # Errors
    /// When TLS cannot be set up.
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

    /// The client of this thread, made when it is first asked for.
    pub fn here(&self) -> Client {
        let mine =
            |(of, _): &&(Weak<Shape>, Client)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(&self.0));
        let known = HERE.with_borrow(|all| all.iter().find(mine).map(|(_, client)| client.clone()));
        known.unwrap_or_else(|| {
            // What could be set up once can be again; else the first will do.
            let made =
                client(self.0.connect, self.0.proxied).unwrap_or_else(|_| self.0.first.clone());
            self.keep(made.clone());
            made
        })
    }

    fn keep(&self, client: Client) {
        HERE.with_borrow_mut(|all| {
            all.retain(|(of, _)| of.strong_count() > 0);
            all.push((Arc::downgrade(&self.0), client));
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kept() -> usize {
        HERE.with_borrow(Vec::len)
    }

    #[test]
    fn each_thread_has_one_for_as_long_as_there_is_use_for_it() {
        let seconds = Duration::from_secs;
        let (one, other) = (
            Pools::new(seconds(1), false).unwrap(),
            Pools::new(seconds(2), true).unwrap(),
        );
        drop((one.here(), one.clone().here(), other.here()));
        assert_eq!(kept(), 2);
        let (same, elsewhere) = (one.clone(), std::thread::spawn(kept));
        assert_eq!(elsewhere.join().unwrap(), 0);
        let used = std::thread::spawn(move || {
            drop((same.here(), same.here()));
            kept()
        });
        assert_eq!(used.join().unwrap(), 1);
        drop(one);
        let _third = Pools::new(seconds(3), false).unwrap();
        assert_eq!(kept(), 2, "the first is of no use any more");
    }
}
