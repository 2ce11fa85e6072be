//! The demo's providers: real HTTP servers on loopback that speak a provider's wire format and
//! break on command.
//!
//! They replace paid backends, so that the whole path of a turn (sockets, streams, timeouts,
//! breakers) works without an API key. Answers say that they are simulated and are the same for the
//! same question. Faults are real for the client: a refused connection is a closed listener, a
//! reset is a TCP reset. Keys and model names are not checked.
//!
//! In reading order: [`fault`] (the faults and their effects), `speak` and its three wire formats
//! (bytes of an answer), `answers` and `themes` (the text), `tell` (streaming an answer), `call`
//! (one request), `server` (sockets).

mod answers;
mod chat_request;
pub mod fault;
mod handler;
mod server;
mod wire;

mod reply_stream;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod tests;
mod themes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use fault::{InjectedFault, UnknownFault};
pub use wire::WireFormat;

use fault::FaultState;
use handler::ServerState;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypingSpeed {
    /// From the end of the request to the first word.
    pub first_token: Duration,
    /// From one word to the next.
    pub word_interval: Duration,
}

impl TypingSpeed {
    pub const INSTANT: Self = Self {
        first_token: Duration::ZERO,
        word_interval: Duration::ZERO,
    };
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

/// A running simulated provider. Dropping it closes its port, resets its connections and ends its
/// tasks.
#[derive(Debug)]
pub struct Simulator {
    server_state: Arc<ServerState>,
    address: SocketAddr,
    fault_state: Arc<watch::Sender<FaultState>>,
    /// The revision of the last fault state that the server has applied.
    applied_revision: watch::Receiver<u64>,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Binds a free port on 127.0.0.1 and serves `dialect` there. Answers call the provider `name`.
    ///
    /// Needs a Tokio runtime with I/O and time; its tasks run on the runtime of the caller.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start(name: &str, dialect: WireFormat, pace: TypingSpeed) -> io::Result<Self> {
        let port = server::ReservedPort::reserve()?;
        let listener = port.listen()?;
        let address = port.address();
        let conditions = Arc::new(watch::Sender::new(FaultState::default()));
        let desk = Arc::new(ServerState {
            name: name.to_owned(),
            model: format!("{name}-sim"),
            dialect,
            typing_speed: pace,
            call_count: AtomicU64::new(0),
        });
        let (applied_sender, applied) = watch::channel(0);
        let server = tokio::spawn(server::serve(
            port,
            listener,
            Arc::clone(&conditions),
            applied_sender,
            Arc::clone(&desk),
        ));
        Ok(Self {
            server_state: desk,
            address,
            fault_state: conditions,
            applied_revision: applied,
            server,
        })
    }

    pub fn base_url(&self) -> String {
        format!(
            "http://{}{}",
            self.address,
            self.server_state.dialect.base_path()
        )
    }

    /// The one model that it lists and names in its answers: `NAME-sim`. Requests may name any.
    pub fn model(&self) -> &str {
        &self.server_state.model
    }

    pub fn name(&self) -> &str {
        &self.server_state.name
    }

    pub fn dialect(&self) -> WireFormat {
        self.server_state.dialect
    }

    /// Injects a fault for `duration`, or until `clear_fault`. Replaces the current fault.
    ///
    /// Returns once it is in force: after `InjectedFault::Down`, connections are refused; running
    /// answers are notified.
    pub async fn inject_fault(&self, fault: InjectedFault, duration: Option<Duration>) {
        // A duration that overflows means no end.
        let until = duration.and_then(|duration| Instant::now().checked_add(duration));
        self.set_fault(Some(fault), until).await;
    }

    /// Ends the fault. Returns once connections are accepted again, on the same port.
    ///
    /// Stalled answers are reset, not resumed: no real provider resumes after such a gap.
    pub async fn clear_fault(&self) {
        self.set_fault(None, None).await;
    }

    /// The current fault. `None` once its duration is over.
    pub fn current_fault(&self) -> Option<InjectedFault> {
        self.fault_state.borrow().fault
    }

    async fn set_fault(&self, fault: Option<InjectedFault>, until: Option<Instant>) {
        let mut wanted = 0;
        self.fault_state.send_modify(|condition| {
            *condition = condition.next(fault, until);
            wanted = condition.revision;
        });
        // An error means that the server task has ended, at shutdown: there is nothing to wait for.
        let _ = self
            .applied_revision
            .clone()
            .wait_for(|since| *since >= wanted)
            .await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
