//! The guard that reports the end of a supervised actor to `ops::supervisor`, which rebuilds it.

use std::sync::Arc;

use actix::Addr;
use tokio::sync::{mpsc, watch};

/// The current address of an actor; `None` while it is being rebuilt after a panic.
pub type AddrWatch<A> = watch::Receiver<Option<Addr<A>>>;

/// An actor has ended. Supervised actors never stop by themselves, so it panicked.
#[derive(Clone, Debug)]
pub struct ActorExited {
    pub name: Arc<str>,
}

/// Held by an actor. Dropping it, also while a panic unwinds, sends [`ActorExited`].
#[derive(Debug)]
pub struct ExitGuard {
    name: Arc<str>,
    exits: mpsc::Sender<ActorExited>,
}

impl ExitGuard {
    pub fn new(name: Arc<str>, tell: mpsc::Sender<ActorExited>) -> Self {
        Self { name, exits: tell }
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        // A full or closed channel: the supervisor is busy with other exits, or the service stops.
        let _ = self.exits.try_send(ActorExited {
            name: Arc::clone(&self.name),
        });
    }
}

/// Makes an actor panic. Exists in tests only, which prove that the actor is rebuilt.
#[cfg(any(test, feature = "test-hooks"))]
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct CrashForTest;
