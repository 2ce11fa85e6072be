//! State that several instances share through one Redis: events of their providers, probe leases,
//! and the counters of rate limits and costs.
//!
//! Nothing here is on the path of an answer. Whether a message or a call is allowed is decided from
//! what this instance knows at that moment; this module updates that some milliseconds later. While
//! Redis is unavailable each instance relies on its own observations. Nothing is buffered for
//! Redis, so nothing has to be replayed when it is back.
//!
//! - `message`, `peer_state` and `spend_share` are pure: the wire format, what the peers know, and
//!   the share of a day's cost.
//! - `events` publishes and receives events and `event_keys` stores them, `probe_lease` grants
//!   probes, `counters` syncs counters.
//! - `simulation` runs a thousand instances with the real rules through an outage.
//!
//! Keys, all with the common prefix: `fleet:trip:`, `fleet:hold:` and `fleet:hint:` with an account
//! (read by joining instances), `fleet:probe:` with an account (the lease), `fleet:rate:` with the
//! hash of a conversation or an address, and `fleet:spent:` with a day and a provider's name. Every
//! key expires. The channel is `fleet:news`.

mod counters;
mod event_keys;
mod events;
mod message;
mod peer_state;
mod probe_lease;
mod spend_share;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod test_cluster;

use std::sync::Arc;

use crate::provider::actor::probes::ProbeCoordinator;
use crate::provider::clock::Clock;
use crate::session::service::ChatService;
use crate::store::redis::client::RedisClient;

use self::counters::SharedCounters;
use self::events::EventBus;
use self::probe_lease::ProbeLeases;

/// Access to the cluster that this instance is part of.
#[derive(Clone)]
pub struct Cluster {
    pub redis: RedisClient,
    /// Unique per start of an instance; letters and digits.
    pub instance_id: Arc<str>,
    pub clock: Clock,
    pub random_u64: fn() -> u64,
    /// Returns a random number in 0..1.
    pub random_unit: fn() -> f64,
}

impl Cluster {
    pub fn probe_coordinator(&self, account: &str) -> Arc<dyn ProbeCoordinator> {
        Arc::new(ProbeLeases::new(
            self.redis.clone(),
            account,
            self.random_u64,
        ))
    }

    /// Starts all tasks. Call once, within the runtime; they run as long as the service.
    pub fn start(&self, lobby: &Arc<ChatService>) {
        EventBus::start(self.clone(), Arc::clone(&lobby.turns));
        actix::spawn(SharedCounters::new(self.clone(), Arc::clone(lobby)).run());
    }
}

fn redis_key(kind: &str, of: &str) -> String {
    format!("{}fleet:{kind}:{of}", crate::store::redis::client::PREFIX)
}
