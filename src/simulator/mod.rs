//! The demo's providers: real HTTP servers on loopback that speak a provider's wire format.
//!
//! They replace paid backends, so that the whole path of a turn (sockets, streams, timeouts,
//! breakers) works without an API key. Answers say that they are simulated and are the same for the
//! same question. Keys and model names are not checked. A simulator itself never fails: the demo's
//! panel breaks a provider where outage drills do, in `provider::fault_injection`.
//!
//! In reading order: `wire` and its three formats (bytes of an answer), `answers` and `themes` (the
//! text), `handler` (one request), `server` (sockets).

mod answers;
mod chat_request;
mod handler;
mod server;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod tests;
mod themes;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::task::JoinHandle;

pub use wire::WireFormat;

use handler::ServerState;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypingSpeed {
    /// From the end of the request to the first word.
    pub first_token: Duration,
    /// From one word to the next.
    pub word_interval: Duration,
}

impl Default for TypingSpeed {
    /// Slow enough to break an answer by hand while it streams.
    fn default() -> Self {
        Self {
            first_token: Duration::from_millis(250),
            word_interval: Duration::from_millis(35),
        }
    }
}

/// A running simulated provider. Dropping it closes its port and connections and ends its tasks.
#[derive(Debug)]
pub struct Simulator {
    state: Arc<ServerState>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Binds a free port on 127.0.0.1 and serves `dialect` there. Answers call the provider `name`.
    ///
    /// Needs a Tokio runtime with I/O and time; its tasks run on the runtime of the caller.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start(name: &str, dialect: WireFormat, typing_speed: TypingSpeed) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let state = Arc::new(ServerState {
            name: name.to_owned(),
            model: format!("{name}-sim"),
            dialect,
            typing_speed,
            call_count: AtomicU64::new(0),
        });
        let server = tokio::spawn(server::serve(listener, Arc::clone(&state)));
        Ok(Self {
            state,
            address,
            server,
        })
    }

    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.address, self.state.dialect.base_path())
    }

    /// The one model that it lists and names in its answers: `NAME-sim`. Requests may name any.
    pub fn model(&self) -> &str {
        &self.state.model
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
