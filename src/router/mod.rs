//! Who is asked next, how soon, and whether another try is affordable.

pub mod actor;
pub mod backoff;
pub mod budget;
pub mod departed;
pub mod plan;
pub mod rank;
pub mod table;
