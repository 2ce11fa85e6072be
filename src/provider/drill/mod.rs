//! Outage drills: a fault that is put between a provider's dialect and its socket for a while, so that the real breaker, plan and pages are seen at
//! work. Who begins and ends one is above; here is the switch of each provider, and what it does to calls.
//!
//! A drill ends by itself, whoever began it, also where nobody is left to end it: every call looks at the time. It is armed by nothing that comes
//! over the wire of a call. The calls that it befalls are visitors', the service's own probes and its health checks alike.

mod effect;
mod events;
mod switch;
mod transport;

pub use effect::{SLOW, TOKENS};
pub use switch::{Drill, Switch, Terms};
pub use transport::Drilled;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
