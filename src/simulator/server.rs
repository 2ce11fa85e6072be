//! The sockets of a simulator: a port that can really be closed, connections that can really be reset.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::call::Desk;
use super::fault::{Condition, Fault};

/// The most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// The longest wait for a request's headers, which includes the idle time before it: longer than clients commonly keep
/// a connection for reuse, so that none is closed under a request.
const HEADER_TIME: Duration = Duration::from_secs(120);

/// The wait after a failed accept or bind.
const RETRY: Duration = Duration::from_millis(100);

/// A loopback port that stays ours while nothing listens on it.
pub(super) struct Port {
    address: SocketAddr,
    /// Bound, never listening: connections are refused, and nobody else is given the port. Linux alone lets a
    /// listener be bound beside it; elsewhere the port is merely likely to be free still.
    _held: Option<Socket>,
}

impl Port {
    /// Takes a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn reserve() -> io::Result<Self> {
        let held = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = held
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            address,
            _held: cfg!(target_os = "linux").then_some(held),
        })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on it. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = bind(self.address)?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    }
}

/// A bound socket; with SO_REUSEADDR, so that connections in TIME_WAIT do not keep the port from being opened again.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts and serves connections until it is dropped, opens and closes the port as the condition wants it, and lifts
/// a fault whose time is over. `applied` gets the number of each condition once the port is as it says.
pub(super) async fn serve(
    port: Port,
    listener: TcpListener,
    conditions: Arc<watch::Sender<Condition>>,
    applied: watch::Sender<u64>,
    desk: Arc<Desk>,
) {
    let mut listener = Some(listener);
    let mut changes = conditions.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let now = *changes.borrow_and_update();
        let down = now.fault == Some(Fault::Down);
        if down {
            listener = None;
        } else if listener.is_none() {
            listener = port
                .listen()
                .inspect_err(
                    |error| tracing::warn!(simulator = %desk.name, %error, "simulator cannot listen yet"),
                )
                .ok();
        }
        applied.send_replace(now.since);
        tokio::select! {
            accepted = accept(listener.as_ref()), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) => {
                    connections.spawn(connection(stream, Arc::clone(&desk), conditions.subscribe()));
                }
                Err(error) => {
                    tracing::warn!(simulator = %desk.name, %error, "simulator cannot accept");
                    sleep(RETRY).await;
                }
            },
            _ = changes.changed() => {}
            () = expiry(now.until) => {
                // Unless somebody was quicker and changed it.
                conditions.send_if_modified(|condition| {
                    let over = condition.since == now.since;
                    if over {
                        *condition = condition.next(None, None);
                    }
                    over
                });
            }
            () = sleep(RETRY), if listener.is_none() && !down => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn expiry(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Serves one connection to its end, which is a reset where an answer broke or the simulator went down.
async fn connection(stream: TcpStream, desk: Arc<Desk>, mut now: watch::Receiver<Condition>) {
    // Words are small writes; without this they would wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    let conditions = now.clone();
    let service = service_fn(move |request| {
        let (desk, now) = (Arc::clone(&desk), conditions.clone());
        async move { desk.serve(request, now).await }
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let broken = tokio::select! {
        ended = &mut http => ended.is_err_and(|error| error.is_user()),
        () = down(&mut now) => true,
    };
    if broken {
        // A socket that lingers for no time is closed by a reset.
        let _ = http.into_parts().io.into_inner().set_zero_linger();
    }
}

async fn down(now: &mut watch::Receiver<Condition>) {
    if now
        .wait_for(|condition| condition.fault == Some(Fault::Down))
        .await
        .is_err()
    {
        std::future::pending().await
    }
}
