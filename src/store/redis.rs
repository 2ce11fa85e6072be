//! What several instances share: one link to Redis, and what is kept there.

pub mod link;
