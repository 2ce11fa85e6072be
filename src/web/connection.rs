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
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    let socket = SockRef::from(stream);
    // A stream of small frames goes out twice as fast.
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNREAD_LIMIT));
}

/// How many WebSockets there are, in all and by address.
pub struct Connections {
    most: usize,
    most_each: AtomicUsize,
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
        Self { most, most_each: most_each.into(), all: watch::Sender::new(0), each: Mutex::default() }
    }

    /// A place for one more of this address; none where there are too many.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subnet(address);
        let mut each = self.lock();
        let of_it = each.get(&address).copied().unwrap_or(0);
        if self.open() >= self.most || of_it >= self.most_each.load(Ordering::Relaxed) {
            return None;
        }
        each.insert(address, of_it + 1);
        self.all.send_modify(|all| *all += 1);
        drop(each);
        Some(Place { connections: Arc::clone(self), address })
    }

    /// So many for an address from now on. Those that are open stay.
    pub fn set_most_each(&self, most_each: usize) {
        self.most_each.store(most_each, Ordering::Relaxed);
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
        self.connections.all.send_modify(|all| *all = all.saturating_sub(1));
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
        let places = (connections.enter(address).unwrap(), connections.enter(address).unwrap());
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
        connections.set_most_each(0);
        assert!(connections.enter(a).is_none());
        drop((second, third));
        assert!(connections.lock().is_empty());
    }
}
