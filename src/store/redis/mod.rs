//! The store of several instances: each has its own tree on disk and shares records over Redis.
//!
//! A change is first written to the instance's own tree, with a journal entry, and acknowledged. A
//! task then replicates the journaled records to Redis. Reads ask both and merge the results. So
//! acknowledged changes never depend on Redis, and an instance works on without it. Breakers, daily
//! spends and documents are not shared.

pub mod client;
mod keys;
mod merge;
mod reader;
mod replicate_record;
mod replicated_conversations;
mod replicated_store;
mod replicator;
mod scripts;
pub mod turn_streams;

#[cfg(test)]
#[path = "../../../tests/it/harness/redis.rs"]
pub(crate) mod server;
#[cfg(test)]
pub(super) mod test_server;
#[cfg(test)]
mod tests;

pub use self::reader::RetentionTerms;
pub use self::replicated_store::ReplicatedStore;
