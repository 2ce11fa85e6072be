//! What several instances do together over one Redis: they tell each other of their providers' troubles, probe one at a time, and count
//! messages and costs in common.
//!
//! Nothing here is on the way of an answer. What is decided there (may this message pass, may this provider be asked) is decided by what this
//! instance knows at that moment; here it learns what the others know, some milliseconds later. While Redis is away each instance
//! goes by what it knows itself; nothing is kept for Redis meanwhile, so there is nothing to be poured into it when it is back.
//!
//! - `message`, `known`, `share` are pure: what is told, to whom it is news, what a share of a day's cost is.
//! - `exchange` tells and hears, `lease` gives leave to probe, `counters` counts.
//! - `simulation` lets a thousand instances, of the same rules, go through an outage.
//!
//! Keys, all with the link's prefix: `fleet:trip:`, `fleet:hold:` and `fleet:hint:` with an account (what a joining instance reads),
//! `fleet:probe:` with an account (the lease), `fleet:rate:` with a hash of a conversation or an address, `fleet:spent:` with a day and a
//! provider's name. Each expires by itself. The channel is `fleet:news`.

mod counters;
mod exchange;
mod known;
mod lease;
mod message;
mod share;

#[cfg(test)]
mod joined;
#[cfg(test)]
mod simulation;

use std::sync::Arc;

use crate::provider::backend::Clock;
use crate::provider::leave::Probing;
use crate::session::lobby::Lobby;
use crate::store::link::Link;

use self::counters::Counters;
use self::exchange::Exchange;
use self::lease::Leases;

/// What this instance has to do with the others.
#[derive(Clone)]
pub struct Fleet {
    /// The link to the Redis that they share.
    pub link: Link,
    /// This instance's name among them: letters and digits, another one after each start.
    pub instance: Arc<str>,
    /// The clocks.
    pub clock: Clock,
    /// Random numbers.
    pub random: fn() -> u64,
    /// A random number in 0..1.
    pub chance: fn() -> f64,
}

impl Fleet {
    /// Who gives leave to probe the providers of this account.
    pub fn probing(&self, account: &str) -> Arc<dyn Probing> {
        Arc::new(Leases::new(self.link.clone(), account, self.random))
    }

    /// Begins to tell, to hear and to count; goes on as long as the service does. To be called once, within the runtime.
    pub fn start(&self, lobby: &Arc<Lobby>) {
        Exchange::start(self.clone(), Arc::clone(&lobby.desk));
        actix::spawn(Counters::new(self.clone(), Arc::clone(lobby)).run());
    }
}

/// One of this module's keys.
fn key(kind: &str, of: &str) -> String {
    format!("{}fleet:{kind}:{of}", crate::store::link::PREFIX)
}
