//! The listening socket of the service.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

/// The accept queue. Large, because many clients reconnect at once after a restart. The kernel may
/// limit it further.
const ACCEPT_BACKLOG: i32 = 4096;

/// Listens on the first address of the host name that can be bound.
///
/// # Errors
/// No address can be bound. The message is for the operator.
pub(super) fn bind_listener(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = listen_on_first(listen).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "; is another process there?",
            _ => ":",
        };
        anyhow::Error::new(error).context(format!(
            "cannot listen on {listen}{hint} choose another address with --listen"
        ))
    })?;
    listener
        .set_nonblocking(true)
        .context("cannot switch the socket to non-blocking mode")?;
    Ok(listener)
}

fn listen_on_first(listen: &str) -> io::Result<TcpListener> {
    let mut last_error = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in listen.to_socket_addrs()? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restarted service bind its port immediately.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

pub(super) fn display_host(listen: &str) -> String {
    listen
        .rsplit_once(':')
        .map_or(listen, |(host, _)| host)
        .to_owned()
}
