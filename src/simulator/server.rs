//! The sockets of a simulator: a port that can be closed, and connections that can be reset.

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

use super::fault::{FaultState, InjectedFault};
use super::handler::ServerState;

/// The maximum number of connections. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// The timeout for a request's headers, including the idle time before it. Longer than clients
/// commonly hold a connection for reuse, so that none is closed while a request arrives.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(120);

const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A loopback port that stays reserved while nothing listens on it.
pub(super) struct ReservedPort {
    address: SocketAddr,
    /// Bound but not listening: connections are refused, and no other process gets the port. Only
    /// Linux allows a listener to bind beside it; elsewhere the port is merely likely to stay free.
    _socket: Option<Socket>,
}

impl ReservedPort {
    /// Reserves a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If there is none.
    pub fn reserve() -> io::Result<Self> {
        let held = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = held
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            address,
            _socket: cfg!(target_os = "linux").then_some(held),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to listen on the port. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = bind(self.address)?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    }
}

/// Binds a socket, with SO_REUSEADDR so that connections in TIME_WAIT do not block the port.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts and serves connections until it is dropped.
///
/// Opens and closes the port as the fault state demands, and clears a fault whose time is over.
/// `applied` gets the revision of each state once the port matches it.
pub(super) async fn serve(
    port: ReservedPort,
    listener: TcpListener,
    conditions: Arc<watch::Sender<FaultState>>,
    applied: watch::Sender<u64>,
    desk: Arc<ServerState>,
) {
    let mut listener = Some(listener);
    let mut changes = conditions.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let current = *changes.borrow_and_update();
        let is_down = current.fault == Some(InjectedFault::Down);
        if is_down {
            listener = None;
        } else if listener.is_none() {
            listener = port
                .listen()
                .inspect_err(
                    |error| tracing::warn!(simulator = %desk.name, %error, "simulator failed to listen, retrying"),
                )
                .ok();
        }
        applied.send_replace(current.revision);
        tokio::select! {
            accepted = accept(listener.as_ref()), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&desk), conditions.subscribe()));
                }
                Err(error) => {
                    tracing::warn!(simulator = %desk.name, %error, "simulator failed to accept a connection");
                    sleep(RETRY_DELAY).await;
                }
            },
            _ = changes.changed() => {}
            () = sleep_until_expiry(current.expires_at) => {
                // Leave a state that was set meanwhile.
                conditions.send_if_modified(|condition| {
                    let is_current = condition.revision == current.revision;
                    if is_current {
                        *condition = condition.next(None, None);
                    }
                    is_current
                });
            }
            () = sleep(RETRY_DELAY), if listener.is_none() && !is_down => {}
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

async fn sleep_until_expiry(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Serves one connection to its end. Resets it if an answer breaks or the simulator goes down.
async fn serve_connection(
    stream: TcpStream,
    desk: Arc<ServerState>,
    mut conditions: watch::Receiver<FaultState>,
) {
    // Words are small writes: with Nagle's algorithm each would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let request_conditions = conditions.clone();
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        let conditions = request_conditions.clone();
        async move { desk.handle_request(request, conditions).await }
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let must_reset = tokio::select! {
        ended = &mut http => ended.is_err_and(|error| error.is_user()),
        () = wait_until_down(&mut conditions) => true,
    };
    if must_reset {
        // A socket with a linger time of zero is closed by a reset.
        let _ = http.into_parts().io.into_inner().set_zero_linger();
    }
}

async fn wait_until_down(conditions: &mut watch::Receiver<FaultState>) {
    if conditions
        .wait_for(|condition| condition.fault == Some(InjectedFault::Down))
        .await
        .is_err()
    {
        std::future::pending().await
    }
}
