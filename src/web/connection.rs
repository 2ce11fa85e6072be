//! One TCP connection: its options, and how many of them an address may hold.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::sync::watch;

use crate::session::limits::subnet;

/// A client that does not take in what it was sent for this long is dropped: nothing else frees its socket.
const UNREAD_LIMIT: Duration = Duration::from_secs(30);

/// Sets an accepted connection's options. What cannot be set costs speed or patience, not the connection.
pub fn tune(connection: &dyn Any, _: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else {
        return;
    };
    let socket = SockRef::from(stream);
    // A stream of small frames goes out twice as fast.
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNREAD_LIMIT));
}

/// How many WebSockets there are, in all and by address.
pub struct Connections {
    most: AtomicUsize,
    most_each: AtomicUsize,
    /// As many as the server was started for: there are never more.
    ceiling: usize,
    /// Changed under the lock of `each` alone.
    all: watch::Sender<usize>,
    /// Has an entry only for addresses with an open socket.
    each: Mutex<HashMap<IpAddr, usize>>,
}

/// One open WebSocket's place; free again when it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    /// No connection yet, of so many in all and so many for an address.
    pub fn new(most: usize, most_each: usize) -> Self {
        let (ceiling, most, most_each) = (most, most.into(), most_each.into());
        Self {
            most,
            most_each,
            ceiling,
            all: watch::Sender::new(0),
            each: Mutex::default(),
        }
    }

    /// A place for one more of this address; none where there are too many.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subnet(address);
        let mut each = self.lock();
        let of_it = each.get(&address).copied().unwrap_or(0);
        if self.open() >= self.most.load(Ordering::Relaxed)
            || of_it >= self.most_each.load(Ordering::Relaxed)
        {
            return None;
        }
        each.insert(address, of_it + 1);
        self.all.send_modify(|all| *all += 1);
        drop(each);
        Some(Place {
            connections: Arc::clone(self),
            address,
        })
    }

    /// So many in all and for an address from now on. Those that are open stay.
    pub fn set_most(&self, most: usize, most_each: usize) {
        self.most.store(most.min(self.ceiling), Ordering::Relaxed);
        self.most_each.store(most_each, Ordering::Relaxed);
    }

    /// The most that there can be in all: for more the server has to be started anew.
    pub fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        *self.all.borrow()
    }

    /// Until none is open.
    pub async fn none_left(&self) {
        // The sender is `self`: the watch does not end.
        let _ = self.all.subscribe().wait_for(|open| *open == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut each = self.connections.lock();
        self.connections
            .all
            .send_modify(|all| *all = all.saturating_sub(1));
        if let Some(of_it) = each.get_mut(&self.address) {
            *of_it -= 1;
            if *of_it == 0 {
                each.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_last_one_is_told() {
        let connections = Arc::new(Connections::new(3, 3));
        connections.none_left().await;
        let address = "192.0.2.1".parse().unwrap();
        let places = (
            connections.enter(address).unwrap(),
            connections.enter(address).unwrap(),
        );
        let mut waiting = std::pin::pin!(connections.none_left());
        assert!((&mut waiting).now_or_never().is_none());
        drop(places.0);
        assert!((&mut waiting).now_or_never().is_none());
        drop(places.1);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let connections = Arc::new(Connections::new(3, 2));
        let [a, b]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let first = connections.enter(a).unwrap();
        let second = connections.enter(a).unwrap();
        assert!(connections.enter(a).is_none(), "two for an address");
        let third = connections.enter(b).unwrap();
        assert!(connections.enter(b).is_none(), "three in all");
        drop(first);
        assert!(connections.enter(a).is_some());
        connections.set_most(3, 0);
        assert!(connections.enter(a).is_none());
        connections.set_most(2, 2);
        assert!(connections.enter(a).is_none(), "two in all, by now");
        connections.set_most(9, 9);
        let fourth: Vec<_> = (0..9).map_while(|_| connections.enter(a)).collect();
        assert_eq!(
            (fourth.len(), connections.ceiling()),
            (1, 3),
            "never more than at the start"
        );
        drop(fourth);
        drop((second, third));
        assert!(connections.lock().is_empty());
    }
}
