//! A map with a maximum number of entries, which evicts the least recently used one. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::store::CacheKey;

/// A map from cache keys with least-recently-used eviction.
#[derive(Debug)]
pub struct LruMap<V> {
    capacity: usize,
    entries: HashMap<CacheKey, (u64, V)>,
    /// The keys by the number of their last use.
    keys_by_last_use: BTreeMap<u64, CacheKey>,
    use_count: u64,
}

impl<V: Default> LruMap<V> {
    /// Creates a map for at most `capacity` keys, but at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: HashMap::new(),
            keys_by_last_use: BTreeMap::new(),
            use_count: 0,
        }
    }

    /// Returns the value of a key, inserting the default if there is none, and the key evicted for
    /// it.
    pub fn touch(&mut self, key: CacheKey) -> (&mut V, Option<CacheKey>) {
        let is_full = self.entries.len() >= self.capacity && !self.entries.contains_key(&key);
        let evicted = if is_full { self.evict_oldest() } else { None };
        self.use_count += 1;
        let (last_use, value) = self.entries.entry(key).or_default();
        self.keys_by_last_use.remove(last_use);
        self.keys_by_last_use.insert(self.use_count, key);
        *last_use = self.use_count;
        (value, evicted)
    }

    fn evict_oldest(&mut self) -> Option<CacheKey> {
        let (_, key) = self.keys_by_last_use.pop_first()?;
        self.entries.remove(&key);
        Some(key)
    }

    /// Returns the key used next after use number `last`, and the number of that use.
    ///
    /// After the most recently used key it starts over, so repeated calls visit every key.
    pub fn next_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        let mut later = self.keys_by_last_use.range(last.saturating_add(1)..);
        let next = later.next().or_else(|| self.keys_by_last_use.iter().next());
        next.map(|(last_use, key)| (*last_use, *key))
    }

    /// Sets the capacity, at least one. Returns the evicted keys.
    pub fn set_capacity(&mut self, capacity: usize) -> Vec<CacheKey> {
        self.capacity = capacity.max(1);
        let excess = self.entries.len().saturating_sub(self.capacity);
        (0..excess).filter_map(|_| self.evict_oldest()).collect()
    }

    /// Returns the value of a key. This does not count as a use.
    pub fn get(&self, key: &CacheKey) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.keys_by_last_use.clear();
    }

    pub fn remove(&mut self, key: &CacheKey) {
        if let Some((last_use, _)) = self.entries.remove(key) {
            self.keys_by_last_use.remove(&last_use);
        }
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
        let mut map = LruMap::<u32>::new(3);
        for n in [1, 2, 3] {
            assert_eq!(map.touch(key(n)).1, None);
        }
        *map.touch(key(1)).0 += 7;
        assert_eq!(map.touch(key(4)).1, Some(key(2)));
        assert_eq!(map.touch(key(5)).1, Some(key(3)));
        assert_eq!(map.touch(key(1)), (&mut 7, None));
        assert_eq!((map.entries.len(), map.keys_by_last_use.len()), (3, 3));
    }

    #[test]
    fn removed_key_frees_its_slot_and_its_order_entry() {
        let mut map = LruMap::<()>::new(2);
        for n in [1, 2] {
            map.touch(key(n));
        }
        map.remove(&key(1));
        map.remove(&key(9));
        assert_eq!(map.touch(key(3)).1, None);
        assert_eq!((map.entries.len(), map.keys_by_last_use.len()), (2, 2));
        assert_eq!(map.touch(key(4)).1, Some(key(2)));
        assert!(!map.entries.is_empty());
    }

    #[test]
    fn smaller_capacity_evicts_the_oldest_keys() {
        let mut map = LruMap::<()>::new(3);
        for n in [1, 2, 3] {
            map.touch(key(n));
        }
        map.touch(key(1));
        assert_eq!(map.set_capacity(1), [key(2), key(3)]);
        assert_eq!(
            (
                map.entries.len(),
                map.keys_by_last_use.len(),
                map.set_capacity(5)
            ),
            (1, 1, vec![])
        );
        map.clear();
        assert_eq!((map.entries.len(), map.keys_by_last_use.len()), (0, 0));
    }

    #[test]
    fn capacity_of_zero_holds_one_key() {
        let mut map = LruMap::<()>::new(0);
        assert_eq!(map.touch(key(1)).1, None);
        assert_eq!(map.touch(key(2)).1, Some(key(1)));
    }

    #[test]
    fn next_after_cycles_through_the_keys_in_order_of_use() {
        let mut map = LruMap::<()>::new(9);
        assert_eq!(map.next_after(0), None);
        for n in [1, 2, 3, 1] {
            map.touch(key(n));
        }
        let mut last = 0;
        let mut next = || {
            let (last_use, key) = map.next_after(last).unwrap();
            last = last_use;
            key
        };
        assert_eq!(
            [next(), next(), next(), next()],
            [key(2), key(3), key(1), key(2)]
        );
    }
}
