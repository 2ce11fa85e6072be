//! A map with a maximum number of entries, which evicts the least recently used one.

use std::collections::{BTreeMap, HashMap};

use crate::store::CacheKey;

/// A map from cache keys with least-recently-used eviction.
#[derive(Debug)]
pub struct Bounded<V> {
    most: usize,
    held: HashMap<CacheKey, (u64, V)>,
    /// The keys by the number of their last use.
    order: BTreeMap<u64, CacheKey>,
    uses: u64,
}

impl<V: Default> Bounded<V> {
    /// Creates a map for at most `capacity` keys, but at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            most: capacity.max(1),
            held: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Returns the value of a key, inserting the default if there is none, and the key evicted for
    /// it.
    pub fn used(&mut self, key: CacheKey) -> (&mut V, Option<CacheKey>) {
        let is_full = self.held.len() >= self.most && !self.held.contains_key(&key);
        let evicted = if is_full {
            self.order.pop_first().map(|(_, key)| key)
        } else {
            None
        };
        if let Some(evicted) = &evicted {
            self.held.remove(evicted);
        }
        self.uses += 1;
        let (last_use, value) = self.held.entry(key).or_default();
        self.order.remove(last_use);
        self.order.insert(self.uses, key);
        *last_use = self.uses;
        (value, evicted)
    }

    /// Returns the key used next after use number `last`, and the number of that use.
    ///
    /// After the most recently used key it starts over, so repeated calls visit every key.
    pub fn used_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        let next = self
            .order
            .range(last.saturating_add(1)..)
            .next()
            .or_else(|| self.order.iter().next());
        next.map(|(last_use, key)| (*last_use, *key))
    }

    /// Sets the capacity, at least one. Returns the evicted keys.
    pub fn set_most(&mut self, capacity: usize) -> Vec<CacheKey> {
        self.most = capacity.max(1);
        let mut evicted = Vec::new();
        while self.held.len() > self.most
            && let Some((_, key)) = self.order.pop_first()
        {
            self.held.remove(&key);
            evicted.push(key);
        }
        evicted
    }

    /// Returns the value of a key. This does not count as a use.
    pub fn get(&self, key: &CacheKey) -> Option<&V> {
        self.held.get(key).map(|(_, value)| value)
    }

    pub fn clear(&mut self) {
        self.held.clear();
        self.order.clear();
    }

    pub fn remove(&mut self, key: &CacheKey) {
        if let Some((last_use, _)) = self.held.remove(key) {
            self.order.remove(&last_use);
        }
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> CacheKey {
        CacheKey([n; 32])
    }

    #[test]
    fn full_map_evicts_the_least_recently_used_key() {
        let mut map = Bounded::<u32>::new(3);
        for n in [1, 2, 3] {
            assert_eq!(map.used(key(n)).1, None);
        }
        *map.used(key(1)).0 += 7;
        assert_eq!(map.used(key(4)).1, Some(key(2)));
        assert_eq!(map.used(key(5)).1, Some(key(3)));
        assert_eq!(map.used(key(1)), (&mut 7, None));
        assert_eq!((map.len(), map.order.len()), (3, 3));
    }

    #[test]
    fn removed_key_frees_its_slot_and_its_order_entry() {
        let mut map = Bounded::<()>::new(2);
        for n in [1, 2] {
            map.used(key(n));
        }
        map.remove(&key(1));
        map.remove(&key(9));
        assert_eq!(map.used(key(3)).1, None);
        assert_eq!((map.len(), map.order.len()), (2, 2));
        assert_eq!(map.used(key(4)).1, Some(key(2)));
        assert!(!map.is_empty());
    }

    #[test]
    fn smaller_capacity_evicts_the_oldest_keys() {
        let mut map = Bounded::<()>::new(3);
        for n in [1, 2, 3] {
            map.used(key(n));
        }
        map.used(key(1));
        assert_eq!(map.set_most(1), [key(2), key(3)]);
        assert_eq!(
            (map.len(), map.order.len(), map.set_most(5)),
            (1, 1, vec![])
        );
        map.clear();
        assert_eq!((map.len(), map.order.len()), (0, 0));
    }

    #[test]
    fn capacity_of_zero_holds_one_key() {
        let mut map = Bounded::<()>::new(0);
        assert_eq!(map.used(key(1)).1, None);
        assert_eq!(map.used(key(2)).1, Some(key(1)));
    }

    #[test]
    fn next_after_cycles_through_the_keys_in_order_of_use() {
        let mut map = Bounded::<()>::new(9);
        assert_eq!(map.used_after(0), None);
        for n in [1, 2, 3, 1] {
            map.used(key(n));
        }
        let mut last = 0;
        let mut next = || {
            let (last_use, key) = map.used_after(last).unwrap();
            last = last_use;
            key
        };
        assert_eq!(
            [next(), next(), next(), next()],
            [key(2), key(3), key(1), key(2)]
        );
    }
}
