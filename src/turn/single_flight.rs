//! Request coalescing: while one turn asks a question, identical questions wait for its answer.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::log::TurnLog;
use crate::store::CacheKey;

/// The turns that are currently asking a provider, by cache key.
#[derive(Default)]
pub struct SingleFlight(Mutex<HashMap<CacheKey, Arc<TurnLog>>>);

pub enum FlightRole {
    /// The caller asks the provider. Others wait until the guard is dropped.
    Leader(FlightGuard),
    /// Another turn already asks; its log has the answer.
    Follower(Arc<TurnLog>),
}

/// The leader's entry. Dropping it removes the entry.
pub struct FlightGuard {
    single_flight: Arc<SingleFlight>,
    key: CacheKey,
}

impl SingleFlight {
    /// Joins the flight of `key`. If there is none, the turn of `log` becomes its leader.
    pub fn join(self: &Arc<Self>, key: CacheKey, log: &Arc<TurnLog>) -> FlightRole {
        match self.0.lock().entry(key) {
            Entry::Occupied(leader) => FlightRole::Follower(Arc::clone(leader.get())),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(log));
                FlightRole::Leader(FlightGuard {
                    single_flight: Arc::clone(self),
                    key,
                })
            }
        }
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        self.single_flight.0.lock().remove(&self.key);
    }
}
