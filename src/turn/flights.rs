//! Answers under way that will do for others who ask alike: one turn asks, the others wait for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::TurnLog;
use crate::store::CacheKey;

/// Who asks what just now, by the key that the answer will be saved under.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<CacheKey, Arc<TurnLog>>>);

/// What one finds who asks.
pub enum Joined {
    /// Nobody asked: it is for this one to ask. Others wait until the flight is dropped.
    Lead(Flight),
    /// This turn asks already.
    Follow(Arc<TurnLog>),
}

/// One's own place in [`Flights`].
pub struct Flight {
    flights: Arc<Flights>,
    key: CacheKey,
}

impl Flights {
    /// Joins those who ask this, with the turn that will ask if nobody does.
    pub fn join(self: &Arc<Self>, key: CacheKey, log: &Arc<TurnLog>) -> Joined {
        match self.lock().entry(key) {
            Entry::Occupied(taken) => Joined::Follow(Arc::clone(taken.get())),
            Entry::Vacant(free) => {
                free.insert(Arc::clone(log));
                Joined::Lead(Flight {
                    flights: Arc::clone(self),
                    key,
                })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Arc<TurnLog>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}
