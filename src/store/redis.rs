//! The store of several instances: what each keeps on its own disk, and what they share in Redis.
//!
//! A change is written to the instance's own tree first, with a mark in its journal; that is what is acknowledged. A task hands the marked
//! records over to Redis. A read asks both and merges what they say. So while Redis is away an instance goes on with what it has, and
//! nothing that was acknowledged depends on Redis. Breakers and costs are each instance's own.

mod handover;
mod keys;
pub mod link;
mod merge;
mod offer;
mod remote;
mod scripts;
mod shared;
pub mod turns;

#[cfg(test)]
pub(super) mod instance;
#[cfg(test)]
#[path = "../../tests/it/harness/redis.rs"]
pub(crate) mod server;
#[cfg(test)]
mod tests;

pub use self::remote::Terms;
pub use self::shared::SharedStore;
