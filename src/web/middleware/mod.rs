//! Middleware around every handler: panics, header size, request ids.

pub(crate) mod catch_panic;
pub(crate) mod header_limit;
pub(crate) mod request_id;
