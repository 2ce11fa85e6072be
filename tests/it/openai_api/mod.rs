//! `/v1`, the OpenAI-compatible API, over real sockets, between scripted providers and a strict
//! client.

mod auth;
mod client_disconnect;
mod context_limits;
mod degraded;
mod fault_matrix;
mod happy_path;
mod invalid_requests;
mod message_order;
mod mid_stream_continue;
mod openai_sdks;
mod prefill;
mod provider_400;
mod rejected_requests;
mod routing;
mod smuggling;
mod storage;
mod unrecoverable_stream;
