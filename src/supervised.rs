//! The guard that reports the end of a supervised actor to `ops::supervisor`, which rebuilds it.

use std::sync::Arc;

use tokio::sync::mpsc;

/// An actor has ended. Supervised actors never stop by themselves, so it panicked.
#[derive(Clone, Debug)]
pub struct ChildDown {
    pub name: Arc<str>,
}

/// Held by an actor. Dropping it, also while a panic unwinds, sends [`ActorExited`].
#[derive(Debug)]
pub struct Guard {
    name: Arc<str>,
    tell: mpsc::Sender<ChildDown>,
}

impl Guard {
    pub fn new(name: Arc<str>, tell: mpsc::Sender<ChildDown>) -> Self {
        Self { name, tell }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A full or closed channel: the supervisor is busy with other exits, or the service stops.
        let _ = self.tell.try_send(ChildDown {
            name: Arc::clone(&self.name),
        });
    }
}

/// Makes an actor panic. Only sent by tests, to prove that the actor is rebuilt.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct Crash;
