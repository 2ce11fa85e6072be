//! What every supervised actor carries: a guard that tells of its end. Who listens, and rebuilds it, is `ops::supervisor`.

use std::sync::Arc;

use tokio::sync::mpsc;

/// An actor ended: by a panic, as no supervised actor stops by itself.
#[derive(Clone, Debug)]
pub struct ChildDown {
    /// Which one.
    pub name: Arc<str>,
}

/// Dropped with its actor, also while a panic unwinds, it tells [`ChildDown`].
#[derive(Debug)]
pub struct Guard {
    name: Arc<str>,
    tell: mpsc::Sender<ChildDown>,
}

impl Guard {
    /// A guard for the actor of this name.
    pub fn new(name: Arc<str>, tell: mpsc::Sender<ChildDown>) -> Self {
        Self { name, tell }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A full or closed channel means that the supervisor has many ends to look at, or that the service stops.
        let _ = self.tell.try_send(ChildDown {
            name: Arc::clone(&self.name),
        });
    }
}

/// Makes an actor panic. Sent by tests alone, to prove that it comes back; no route leads here.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct Crash;
