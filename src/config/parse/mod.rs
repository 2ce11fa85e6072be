//! Parsers of single values: durations, cron expressions, addresses, webhooks.

pub(crate) mod address;
pub(crate) mod cron;
pub(crate) mod duration;
pub(crate) mod value;
pub(crate) mod webhook;
