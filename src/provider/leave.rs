//! Leave to probe a provider that is in trouble: where several instances share it, one of them probes at a time.

use std::time::Duration;

use futures_util::future::BoxFuture;

/// Who gives leave. A fleet that cannot be asked gives it at once: then each instance probes alone.
pub trait Probing: Send + Sync {
    /// Asks for leave to make one probe that takes `limit` at most. Answered within 50 ms.
    fn ask(&self, limit: Duration) -> BoxFuture<'static, Leave>;
}

/// What came of it.
pub enum Leave {
    /// Probe, then say how long others need not ([`Held::give_back`]).
    Go(Box<dyn Held>),
    /// Another instance is probing, or did: ask again after this.
    Wait(Duration),
}

/// The leave while it is held. Dropped without a word it ends by itself, a little after the limit that was asked for.
pub trait Held: Send {
    /// The probe is over: nobody else need try for this long. Zero: at once.
    fn give_back(self: Box<Self>, rest: Duration);
}
