//! Middleware around every handler: panics, header size, request ids.

pub(crate) mod catch_panic;
pub(crate) mod headers;
