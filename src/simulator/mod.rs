//! The demo's providers: real HTTP servers on loopback that speak a provider's dialect and break on command.
//!
//! They stand in for paid backends, so that the whole path of a turn (sockets, streams, timeouts, breakers) can be
//! seen at work without a key. They promise the wire format of their dialect, answers that are the same for the same
//! question and that say they are simulated, and faults as a client really meets them: a refused connection is a
//! closed listener, a reset is a TCP reset. They do not check keys or model names, and they do no thinking.
//!
//! Reading order: [`fault`] (what breaks, and when), `speak` and its three dialects (bytes of an answer), `answers` and
//! `themes` (the text), `tell` (an answer over time), `call` (one request), `server` (sockets).

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

/// How fast a healthy simulator talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the end of the request to the first word.
    pub first_token: Duration,
    /// From one word to the next.
    pub between_words: Duration,
}

impl Pace {
    /// As fast as the sockets go; for tests.
    pub const INSTANT: Self = Self {
        first_token: Duration::ZERO,
        between_words: Duration::ZERO,
    };
}

impl Default for Pace {
    /// The demo's pace: slow enough to break an answer by hand in its middle, fast enough not to bore.
    fn default() -> Self {
        Self {
            first_token: Duration::from_millis(250),
            between_words: Duration::from_millis(35),
        }
    }
}

/// One running simulated provider. Dropping it closes its port, cuts its answers and ends its tasks.
#[derive(Debug)]
pub struct Simulator {
    desk: Arc<Desk>,
    address: SocketAddr,
    conditions: Arc<watch::Sender<Condition>>,
    /// The last condition that the server has carried out.
    applied: watch::Receiver<u64>,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Binds a free port on 127.0.0.1 and serves `dialect` there, in the voice of `name`. Needs a tokio runtime with
    /// I/O and time; its tasks live on the runtime of this call.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(name: &str, dialect: Speaks, pace: Pace) -> io::Result<Self> {
        let port = server::Port::reserve()?;
        let listener = port.listen()?;
        let address = port.address();
        let conditions = Arc::new(watch::Sender::new(Condition::default()));
        let desk = Arc::new(Desk {
            name: name.to_owned(),
            model: format!("{name}-sim"),
            dialect,
            pace,
            calls: AtomicU64::new(0),
        });
        let (done, applied) = watch::channel(0);
        let server = tokio::spawn(server::serve(
            port,
            listener,
            Arc::clone(&conditions),
            done,
            Arc::clone(&desk),
        ));
        Ok(Self {
            desk,
            address,
            conditions,
            applied,
            server,
        })
    }

    /// What a provider's `base_url` has to be to reach this simulator.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.address, self.desk.dialect.base_path())
    }

    /// The one model it lists and names in its answers: `NAME-sim`. Requests may ask for any.
    pub fn model(&self) -> &str {
        &self.desk.model
    }

    /// The name it was started with, which is also how its answers call it.
    pub fn name(&self) -> &str {
        &self.desk.name
    }

    /// The dialect it speaks.
    pub fn dialect(&self) -> Speaks {
        self.desk.dialect
    }

    /// Breaks it, for `for_` or until [`Self::mend`]; a fault that is on already is replaced. Back when it is in
    /// force: after [`Fault::Down`] a connection is refused, answers under way are told within the same instant.
    pub async fn break_with(&self, fault: Fault, for_: Option<Duration>) {
        // A time too long to add is as good as no end.
        let until = for_.and_then(|time| Instant::now().checked_add(time));
        self.change(Some(fault), until).await;
    }

    /// Ends the fault. Back when connections are accepted again, on the same port. Answers that had fallen silent
    /// are cut, not resumed: they would come out of a hole no real provider comes out of.
    pub async fn mend(&self) {
        self.change(None, None).await;
    }

    /// The fault in force, if any; `None` again by itself when its time is over.
    pub fn fault(&self) -> Option<Fault> {
        self.conditions.borrow().fault
    }

    async fn change(&self, fault: Option<Fault>, until: Option<Instant>) {
        let mut wanted = 0;
        self.conditions.send_modify(|condition| {
            *condition = condition.next(fault, until);
            wanted = condition.since;
        });
        // An error means that the server is gone, which only happens at shutdown: nothing is left to wait for.
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
