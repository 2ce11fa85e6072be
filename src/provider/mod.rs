//! One provider: its wire format, HTTP client, breaker and health, and the actor that owns them.

pub mod actor;
pub mod backend;
pub mod breaker;
pub mod dialect;
pub mod drill;
pub mod guard;
pub mod guarded;
pub mod health;
pub mod http_upstream;
pub mod jitter;
pub mod latency;
pub mod leave;
pub mod lookup;
pub mod news;
pub mod permit;
pub mod places;
pub mod pools;
pub mod spending;
pub mod standstill;
pub mod transport;
pub mod upstream;
pub mod window;

#[cfg(test)]
pub mod paused;
#[cfg(test)]
pub mod scripted;
#[cfg(test)]
pub mod stand;
