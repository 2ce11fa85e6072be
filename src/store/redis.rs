//! What several instances share: one link to Redis, and what is kept there.

pub mod link;

#[cfg(test)]
#[path = "../../tests/it/harness/redis.rs"]
pub(crate) mod server;
