//! Rate limits on the messages of a conversation and of an address.
//!
//! Each instance decides at once from its own buckets. In a cluster, `cluster` reports what this
//! instance let through and applies what the others did, many times a second
//! (`RateLimiter::set_sync`). While Redis is down each instance counts on its own.

mod bucket;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::chat::ConversationId;
use bucket::Bucket;
pub use bucket::Pace;

/// The frames per minute and conversation that use the store without starting a turn: `history` and
/// `feedback`.
const OTHERS: u32 = 120;

/// The maximum number of buckets of one kind, about 20 MB. When all are in use, a new key has to
/// wait for [`OVERLOAD_WAIT`](FULL).
const MOST: usize = 200_000;

const FULL: Duration = Duration::from_secs(5);

/// The maximum number of keys with unsynced usage. The usage of further keys is not reported.
const UNTOLD: usize = 10_000;

/// Limits messages per conversation and per address.
///
/// The maps are bounded, and `sweep` removes full buckets.
pub struct Rates {
    origin: Instant,
    paces: Mutex<Paces>,
    conversations: Buckets<ConversationId>,
    addresses: Buckets<IpAddr>,
    secondary: Buckets<ConversationId>,
    /// Usage to report to other instances. `None` while nothing is synchronised.
    unsynced: Mutex<Option<HashMap<Shared, u32>>>,
    sync_needed: Notify,
}

#[derive(Clone, Copy)]
struct Paces {
    conversation: Pace,
    address: Pace,
}

/// The key of a bucket that instances share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shared {
    Conversation(ConversationId),
    Address(IpAddr),
}

/// Messages that this instance let through and has not yet reported to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold {
    pub of: Shared,
    pub pace: Pace,
    pub count: u32,
}

impl Shared {
    /// Returns a hash of 33 characters that reveals neither the conversation nor the address.
    pub fn name(&self) -> String {
        let (kind, hash) = match self {
            Self::Conversation(id) => ('c', Sha256::digest(id.to_string())),
            Self::Address(IpAddr::V4(address)) => ('a', Sha256::digest(address.octets())),
            Self::Address(IpAddr::V6(address)) => ('a', Sha256::digest(address.octets())),
        };
        hash.iter()
            .take(16)
            .fold(String::from(kind), |name, byte| format!("{name}{byte:02x}"))
    }
}

impl Rates {
    /// Creates a limiter for messages per minute. As many may come at once after a pause.
    pub fn per_minute(conversation: NonZeroU32, address: NonZeroU32) -> Self {
        let quota = |count: NonZeroU32| Pace::per_minute(count.get());
        Self {
            origin: Instant::now(),
            paces: Mutex::new(Paces {
                conversation: quota(conversation),
                address: quota(address),
            }),
            conversations: Buckets::default(),
            addresses: Buckets::default(),
            secondary: Buckets::default(),
            unsynced: Mutex::new(None),
            sync_needed: Notify::new(),
        }
    }

    /// Changes the limits. Earlier messages keep their weight.
    pub fn set_per_minute(&self, conversation: NonZeroU32, address: NonZeroU32) {
        let quota = |count: NonZeroU32| Pace::per_minute(count.get());
        *lock(&self.paces) = Paces {
            conversation: quota(conversation),
            address: quota(address),
        };
    }

    /// Counts a message, or returns the time to wait.
    pub fn take(&self, conversation: ConversationId, address: IpAddr) -> Result<(), Duration> {
        let now = self.now();
        let quotas = *lock(&self.paces);
        let address = subnet(address);
        // The conversation first: one that floods must not use up the share of others behind the
        // same address.
        self.conversations
            .take(conversation, quotas.conversation, now)?;
        self.count(Shared::Conversation(conversation));
        self.addresses.take(address, quotas.address, now)?;
        self.count(Shared::Address(address));
        Ok(())
    }

    /// Counts a call that belongs to no conversation, or returns the time to wait.
    pub fn take_alone(&self, address: IpAddr) -> Result<(), Duration> {
        let quota = lock(&self.paces).address;
        let address = subnet(address);
        self.addresses.take(address, quota, self.now())?;
        self.count(Shared::Address(address));
        Ok(())
    }

    /// Counts a frame that uses the store without starting a turn, or returns the time to wait.
    pub fn spare(&self, conversation: ConversationId) -> Result<(), Duration> {
        self.secondary
            .take(conversation, Pace::per_minute(OTHERS), self.now())
    }

    /// Removes full buckets. Call it periodically.
    pub fn sweep(&self) {
        let now = self.now();
        self.conversations.sweep(now);
        self.addresses.sweep(now);
        self.secondary.sweep(now);
    }

    /// Starts or stops recording usage for other instances.
    pub fn share(&self, on: bool) {
        let mut unsynced = lock(&self.unsynced);
        if unsynced.is_some() != on {
            *unsynced = on.then(HashMap::new);
        }
    }

    pub async fn touched(&self) {
        self.sync_needed.notified().await;
    }

    /// Removes and returns the usage of up to `max` keys.
    pub fn untold(&self, max: usize) -> Vec<Untold> {
        let quotas = *lock(&self.paces);
        let mut unsynced = lock(&self.unsynced);
        let Some(map) = unsynced.as_mut() else {
            return Vec::new();
        };
        let keys: Vec<_> = map.keys().take(max).copied().collect();
        let usage = keys.into_iter().filter_map(|of| {
            let pace = match of {
                Shared::Conversation(_) => quotas.conversation,
                Shared::Address(_) => quotas.address,
            };
            map.remove(&of).map(|count| Untold { of, pace, count })
        });
        usage.collect()
    }

    /// Applies the debt of a bucket that results from the usage of all instances.
    pub fn learn(&self, usage: &Untold, debt: Duration) {
        let now = self.now();
        match usage.of {
            Shared::Conversation(id) => self.conversations.learn(id, usage.pace, debt, now),
            Shared::Address(address) => self.addresses.learn(address, usage.pace, debt, now),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn count(&self, key: Shared) {
        if let Some(unsynced) = lock(&self.unsynced).as_mut()
            && (unsynced.len() < UNTOLD || unsynced.contains_key(&key))
        {
            let count = unsynced.entry(key).or_default();
            *count = count.saturating_add(1);
            self.sync_needed.notify_one();
        }
    }
}

struct Buckets<K>(Mutex<HashMap<K, Bucket>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn take(&self, key: K, quota: Pace, now: Duration) -> Result<(), Duration> {
        let mut buckets = lock(&self.0);
        let has_space = buckets.len() < MOST;
        match buckets.entry(key) {
            Entry::Occupied(mut bucket) => bucket.get_mut().take(quota, now),
            Entry::Vacant(entry) if has_space => entry.insert(Bucket::default()).take(quota, now),
            Entry::Vacant(_) => Err(FULL),
        }
    }

    /// Raises the debt of a bucket. A missing bucket was full when it was swept, and is left alone:
    /// it learns of the debt with its next message.
    fn learn(&self, key: K, quota: Pace, debt: Duration, now: Duration) {
        if let Some(bucket) = lock(&self.0).get_mut(&key) {
            bucket.lacks_at_least(debt, quota, now);
        }
    }

    fn sweep(&self, now: Duration) {
        let mut buckets = lock(&self.0);
        buckets.retain(|_, bucket| !bucket.is_whole(now));
        // Release the memory that a flood has taken.
        if buckets.capacity() > 4 * buckets.len().max(1_024) {
            buckets.shrink_to_fit();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the address that limits count by: the /64 network of an IPv6 address, since a site has
/// at least that much, and IPv4 addresses as they are.
pub fn subnet(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => std::net::Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(conversation: u32, address: u32) -> Rates {
        Rates::per_minute(
            NonZeroU32::new(conversation).unwrap(),
            NonZeroU32::new(address).unwrap(),
        )
    }

    #[test]
    fn conversations_and_addresses_have_separate_buckets() {
        let limiter = limiter(2, 3);
        let [a, b] = [[1; 16], [2; 16]].map(ConversationId::from_random);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.take(a, here), Ok(()));
        assert_eq!(limiter.take(a, here), Ok(()));
        assert!(
            limiter
                .take(a, here)
                .is_err_and(|wait| wait <= Duration::from_secs(30))
        );
        assert_eq!(
            limiter.take(b, here),
            Ok(()),
            "the flood took nothing more from the address"
        );
        assert!(limiter.take(b, here).is_err(), "three from this address");
        let c = ConversationId::from_random([3; 16]);
        assert_eq!(limiter.take(c, "192.0.2.2".parse().unwrap()), Ok(()));
    }

    #[test]
    fn changed_limits_apply_at_once() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let limiter = limiter(1, 9);
        let a = ConversationId::from_random([1; 16]);
        let here = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.take(a, here), Ok(()));
        limiter.set_per_minute(number(1), number(9));
        assert!(limiter.take(a, here).is_err());
        let b = ConversationId::from_random([2; 16]);
        limiter.set_per_minute(number(2), number(9));
        assert_eq!(limiter.take(b, here), Ok(()));
        assert_eq!(limiter.take(b, here), Ok(()));
        assert!(limiter.take(b, here).is_err());
    }

    #[test]
    fn usage_is_reported_once_and_remote_usage_counts() {
        let limiter = limiter(4, 100);
        let a = ConversationId::from_random([1; 16]);
        let here = "192.0.2.1".parse().unwrap();
        limiter.take(a, here).unwrap();
        assert_eq!(limiter.untold(10), [], "sync is off");
        limiter.share(true);
        limiter.share(true);
        limiter.take(a, here).unwrap();
        limiter.take(a, here).unwrap();
        let mut usage = limiter.untold(10);
        usage.sort_by_key(|usage| usage.of.name());
        let counts: Vec<_> = usage.iter().map(|usage| (usage.of, usage.count)).collect();
        assert_eq!(
            counts,
            [(Shared::Address(here), 2), (Shared::Conversation(a), 2)]
        );
        assert_eq!(limiter.untold(10), []);
        // Four were sent in all, one of them elsewhere.
        limiter.learn(&usage[1], Duration::from_secs(60));
        assert!(limiter.take(a, here).is_err());
        limiter.share(false);
        assert!(
            limiter.take(a, here).is_err(),
            "the debt stays when Redis is gone"
        );
    }

    #[test]
    fn unsynced_usage_is_bounded() {
        let limiter = limiter(1, 1_000_000);
        limiter.share(true);
        let here = "192.0.2.1".parse().unwrap();
        for n in 0..UNTOLD as u128 + 10 {
            limiter
                .take(ConversationId::from_random(n.to_be_bytes()), here)
                .unwrap();
        }
        assert_eq!(limiter.untold(3).len(), 3);
        assert_eq!(limiter.untold(usize::MAX).len(), UNTOLD - 3);
    }

    #[test]
    fn hashed_names_reveal_nothing_and_have_one_length() {
        let id = ConversationId::from_random([7; 16]);
        let v6 = Shared::Address("2001:db8::1".parse().unwrap()).name();
        let v4 = Shared::Address("192.0.2.1".parse().unwrap()).name();
        let names = [Shared::Conversation(id).name(), v4.clone(), v6.clone()];
        assert!(
            names
                .iter()
                .all(|name| name.len() == 33 && !name.contains("192.")),
            "{names:?}"
        );
        assert_ne!(v4, v6);
    }

    #[test]
    fn full_buckets_are_swept_and_the_map_is_bounded() {
        let buckets = Buckets::default();
        let quota = Pace::per_minute(60);
        let now = Duration::from_secs(9);
        (0..MOST).for_each(|key| buckets.take(key, quota, now).unwrap());
        assert_eq!(buckets.take(MOST, quota, now), Err(FULL));
        assert_eq!(
            buckets.take(0, quota, now),
            Ok(()),
            "known keys are still served"
        );
        buckets.sweep(now + Duration::from_secs(1));
        assert_eq!(lock(&buckets.0).len(), 1);
        assert_eq!(buckets.take(MOST, quota, now), Ok(()));
    }

    #[test]
    fn ipv6_addresses_of_one_64_network_are_one() {
        let parsed = |text: &str| subnet(text.parse().unwrap());
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::ffff"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
        assert_eq!(parsed("::ffff:192.0.2.1"), parsed("192.0.2.1"));
    }
}
