//! The sockets of a simulator.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::handler::ServerState;

/// The maximum number of connections. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// The timeout for a request's headers, including the idle time before it. Longer than clients
/// commonly hold a connection for reuse, so that none is closed while a request arrives.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(120);

const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accepts and serves connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, state: Arc<ServerState>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&state)));
                }
                Err(error) => {
                    tracing::warn!(simulator = %state.name, %error, "simulator failed to accept a connection");
                    sleep(RETRY_DELAY).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<ServerState>) {
    // Words are small writes: with Nagle's algorithm each would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { state.handle_request(request).await }
    });
    // An error ends the connection, which is all that there is to do.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
