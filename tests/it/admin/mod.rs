//! The admin API: reloads, admin requests, and the audit log.

mod cache;
mod conversations;
mod gate;
mod keys;
mod provider_reload;
mod reload;
mod service;
