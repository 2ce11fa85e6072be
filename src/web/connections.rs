//! TCP connections: their socket options, and the limits on open WebSockets.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::sync::watch;

use crate::session::rate_limit::subnet;

/// The time that sent data may stay unacknowledged before the connection is dropped. Nothing else
/// frees the socket of a client that stops reading.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Sets the socket options of an accepted connection. Failures are ignored: the options are
/// improvements only.
pub fn set_socket_options(connection: &dyn Any, _: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else {
        return;
    };
    let socket = SockRef::from(stream);
    // Without Nagle's algorithm, a stream of small frames arrives without delays.
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
}

/// Limits the open WebSockets, in total and per address.
pub struct ConnectionLimiter {
    max_total: AtomicUsize,
    max_per_address: AtomicUsize,
    /// The total that the server was started with. `max_total` never exceeds it.
    hard_limit: usize,
    /// Changed only while `per_address` is locked.
    total: watch::Sender<usize>,
    /// The open connections per address, without entries for zero.
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A counted WebSocket. Dropping the permit releases it.
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

impl ConnectionLimiter {
    pub fn new(max_total: usize, max_per_address: usize) -> Self {
        Self {
            max_total: max_total.into(),
            max_per_address: max_per_address.into(),
            hard_limit: max_total,
            total: watch::Sender::new(0),
            per_address: Mutex::default(),
        }
    }

    /// Returns `None` if either limit is reached.
    pub fn try_acquire(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let address = subnet(address);
        let mut per_address = self.per_address.lock();
        let count = per_address.get(&address).copied().unwrap_or(0);
        if self.open_count() >= self.max_total.load(Ordering::Relaxed)
            || count >= self.max_per_address.load(Ordering::Relaxed)
        {
            return None;
        }
        per_address.insert(address, count + 1);
        self.total.send_modify(|total| *total += 1);
        drop(per_address);
        Some(ConnectionPermit {
            limiter: Arc::clone(self),
            address,
        })
    }

    /// Changes the limits. Open connections stay, and the total cannot exceed the hard limit.
    pub fn set_limits(&self, max_total: usize, max_per_address: usize) {
        let max_total = max_total.min(self.hard_limit);
        self.max_total.store(max_total, Ordering::Relaxed);
        self.max_per_address
            .store(max_per_address, Ordering::Relaxed);
    }

    /// Returns the maximum total. Raising it takes a restart of the server.
    pub fn hard_limit(&self) -> usize {
        self.hard_limit
    }

    pub fn open_count(&self) -> usize {
        *self.total.borrow()
    }

    pub async fn wait_empty(&self) {
        // Cannot fail: `self` owns the sender.
        let _ = self.total.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut per_address = self.limiter.per_address.lock();
        self.limiter
            .total
            .send_modify(|total| *total = total.saturating_sub(1));
        if let Some(count) = per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                per_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn wait_ends_when_the_last_connection_closes() {
        let connections = Arc::new(ConnectionLimiter::new(3, 3));
        connections.wait_empty().await;
        let address = "192.0.2.1".parse().unwrap();
        let first = connections.try_acquire(address).unwrap();
        let second = connections.try_acquire(address).unwrap();
        let mut waiting = std::pin::pin!(connections.wait_empty());
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().is_none());
        drop(second);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn permits_are_limited_and_released() {
        let connections = Arc::new(ConnectionLimiter::new(3, 2));
        let [a, b]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let first = connections.try_acquire(a).unwrap();
        let second = connections.try_acquire(a).unwrap();
        assert!(connections.try_acquire(a).is_none(), "two per address");
        let third = connections.try_acquire(b).unwrap();
        assert!(connections.try_acquire(b).is_none(), "three in total");
        drop(first);
        assert!(connections.try_acquire(a).is_some());
        connections.set_limits(3, 0);
        assert!(connections.try_acquire(a).is_none());
        connections.set_limits(2, 2);
        assert!(
            connections.try_acquire(a).is_none(),
            "two in total after the change"
        );
        connections.set_limits(9, 9);
        let fourth: Vec<_> = (0..9).map_while(|_| connections.try_acquire(a)).collect();
        assert_eq!(
            (fourth.len(), connections.hard_limit()),
            (1, 3),
            "never more than at the start"
        );
        drop(fourth);
        drop((second, third));
        assert!(connections.per_address.lock().is_empty());
    }
}
