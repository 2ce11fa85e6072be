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
mod call;
pub mod fault;
mod heard;
mod server;
mod speak;
mod speak_anthropic;
mod speak_ollama;
mod speak_openai;
mod tell;
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

pub use fault::{Fault, UnknownFault};
pub use speak::Speaks;

use call::Desk;
use fault::Condition;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the end of the request to the first word.
    pub first_token: Duration,
    /// From one word to the next.
    pub between_words: Duration,
}

impl Pace {
    pub const INSTANT: Self = Self {
        first_token: Duration::ZERO,
        between_words: Duration::ZERO,
    };
}

impl Default for Pace {
    /// Slow enough to break an answer by hand while it streams.
    fn default() -> Self {
        Self {
            first_token: Duration::from_millis(250),
            between_words: Duration::from_millis(35),
        }
    }
}

/// A running simulated provider. Dropping it closes its port, resets its connections and ends its
/// tasks.
#[derive(Debug)]
pub struct Simulator {
    desk: Arc<Desk>,
    address: SocketAddr,
    conditions: Arc<watch::Sender<Condition>>,
    /// The revision of the last fault state that the server has applied.
    applied: watch::Receiver<u64>,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Binds a free port on 127.0.0.1 and serves `dialect` there. Answers call the provider `name`.
    ///
    /// Needs a Tokio runtime with I/O and time; its tasks run on the runtime of the caller.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start(name: &str, dialect: Speaks, typing_speed: Pace) -> io::Result<Self> {
        let port = server::Port::reserve()?;
        let listener = port.listen()?;
        let address = port.address();
        let fault_state = Arc::new(watch::Sender::new(Condition::default()));
        let server_state = Arc::new(Desk {
            name: name.to_owned(),
            model: format!("{name}-sim"),
            dialect,
            pace: typing_speed,
            calls: AtomicU64::new(0),
        });
        let (applied_sender, applied) = watch::channel(0);
        let server = tokio::spawn(server::serve(
            port,
            listener,
            Arc::clone(&fault_state),
            applied_sender,
            Arc::clone(&server_state),
        ));
        Ok(Self {
            desk: server_state,
            address,
            conditions: fault_state,
            applied,
            server,
        })
    }

    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.address, self.desk.dialect.base_path())
    }

    /// The one model that it lists and names in its answers: `NAME-sim`. Requests may name any.
    pub fn model(&self) -> &str {
        &self.desk.model
    }

    pub fn name(&self) -> &str {
        &self.desk.name
    }

    pub fn dialect(&self) -> Speaks {
        self.desk.dialect
    }

    /// Injects a fault for `duration`, or until `clear_fault`. Replaces the current fault.
    ///
    /// Returns once it is in force: after `InjectedFault::Down`, connections are refused; running
    /// answers are notified.
    pub async fn break_with(&self, fault: Fault, duration: Option<Duration>) {
        // A duration that overflows means no end.
        let until = duration.and_then(|duration| Instant::now().checked_add(duration));
        self.change(Some(fault), until).await;
    }

    /// Ends the fault. Returns once connections are accepted again, on the same port.
    ///
    /// Stalled answers are reset, not resumed: no real provider resumes after such a gap.
    pub async fn mend(&self) {
        self.change(None, None).await;
    }

    /// The current fault. `None` once its duration is over.
    pub fn fault(&self) -> Option<Fault> {
        self.conditions.borrow().fault
    }

    async fn change(&self, fault: Option<Fault>, until: Option<Instant>) {
        let mut wanted = 0;
        self.conditions.send_modify(|state| {
            *state = state.next(fault, until);
            wanted = state.since;
        });
        // An error means that the server task has ended, at shutdown: there is nothing to wait for.
        let _ = self
            .applied
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
