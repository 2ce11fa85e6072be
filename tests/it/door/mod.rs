//! `/v1`, the OpenAI-compatible API, over real sockets: providers that break by a script behind it, a strict client before it.

mod callers_fault;
mod catalogue;
mod continuing;
mod degraded;
mod keys;
mod leaving;
mod orders;
mod plain;
mod prefill;
mod room;
mod routing;
mod sdk;
mod smuggling;
mod torn;
mod wrong_requests;
