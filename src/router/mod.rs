//! Who is asked next: the actor that picks, and the pure pieces that it decides with.

pub mod plan;
pub mod rank;
