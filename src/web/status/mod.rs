//! The status: as JSON, as a page, with its history and its drills.

pub(crate) mod drills;
pub(crate) mod json;
pub(crate) mod page;
pub(crate) mod timeline;
