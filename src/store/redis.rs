//! The store of several instances: each has its own tree on disk and shares records over Redis.
//!
//! A change is first written to the instance's own tree, with a journal entry, and acknowledged. A
//! task then replicates the journaled records to Redis. Reads ask both and merge the results. So
//! acknowledged changes never depend on Redis, and an instance works on without it. Breakers, daily
//! spends and documents are not shared.

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

pub use self::remote::RetentionTerms;
pub use self::shared::ReplicatedStore;
