//! A map of so many entries at most: the one that was used least recently goes first.

use std::collections::{BTreeMap, HashMap};

use crate::store::CacheKey;

/// Something for each of at most so many keys.
#[derive(Debug)]
pub struct Bounded<V> {
    most: usize,
    held: HashMap<CacheKey, (u64, V)>,
    /// The keys by when they were last used, as a count of uses.
    order: BTreeMap<u64, CacheKey>,
    uses: u64,
}

impl<V: Default> Bounded<V> {
    /// An empty map for `most` keys, at least one.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            held: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    /// What is held for this key, made where there is nothing yet; with the key that had to go for it.
    pub fn used(&mut self, key: CacheKey) -> (&mut V, Option<CacheKey>) {
        let full = self.held.len() >= self.most && !self.held.contains_key(&key);
        let gone = if full {
            self.order.pop_first().map(|(_, key)| key)
        } else {
            None
        };
        if let Some(gone) = &gone {
            self.held.remove(gone);
        }
        self.uses += 1;
        let (when, value) = self.held.entry(key).or_default();
        self.order.remove(when);
        self.order.insert(self.uses, key);
        *when = self.uses;
        (value, gone)
    }

    /// The key that was used next after this use, and that use; after the last the first again. Asked with what it gave before, it goes round.
    pub fn used_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        let next = self
            .order
            .range(last.saturating_add(1)..)
            .next()
            .or_else(|| self.order.iter().next());
        next.map(|(when, key)| (*when, *key))
    }

    /// From now on so many keys at most, at least one; gives those that have to go for that.
    pub fn set_most(&mut self, most: usize) -> Vec<CacheKey> {
        self.most = most.max(1);
        let mut gone = Vec::new();
        while self.held.len() > self.most
            && let Some((_, key)) = self.order.pop_first()
        {
            self.held.remove(&key);
            gone.push(key);
        }
        gone
    }

    /// What is held for this key; that is no use of it.
    pub fn get(&self, key: &CacheKey) -> Option<&V> {
        self.held.get(key).map(|(_, value)| value)
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.held.clear();
        self.order.clear();
    }

    /// Forgets this key.
    pub fn remove(&mut self, key: &CacheKey) {
        if let Some((when, _)) = self.held.remove(key) {
            self.order.remove(&when);
        }
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
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
    fn the_least_recently_used_goes_first() {
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
    fn what_is_removed_leaves_room_and_nothing_behind() {
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
    fn a_smaller_bound_lets_the_oldest_go_at_once() {
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
    fn there_is_room_for_one_at_least() {
        let mut map = Bounded::<()>::new(0);
        assert_eq!(map.used(key(1)).1, None);
        assert_eq!(map.used(key(2)).1, Some(key(1)));
    }

    #[test]
    fn it_is_gone_round_in_the_order_of_use() {
        let mut held = Bounded::<()>::new(9);
        assert_eq!(held.used_after(0), None);
        for n in [1, 2, 3, 1] {
            held.used(key(n));
        }
        let mut last = 0;
        let mut next = || {
            let (when, key) = held.used_after(last).unwrap();
            last = when;
            key
        };
        assert_eq!(
            [next(), next(), next(), next()],
            [key(2), key(3), key(1), key(2)]
        );
    }
}
