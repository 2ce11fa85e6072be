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
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::ConversationId;
use bucket::GcraBucket;
pub use bucket::Quota;

/// The frames per minute and conversation that use the store without starting a turn: `history` and
/// `feedback`.
const SECONDARY_PER_MINUTE: u32 = 120;

/// The maximum number of buckets of one kind, about 20 MB. When all are in use, a new key has to
/// wait for [`OVERLOAD_WAIT`].
const MAX_BUCKETS: usize = 200_000;

const OVERLOAD_WAIT: Duration = Duration::from_secs(5);

/// The maximum number of keys with unsynced usage. The usage of further keys is not reported.
const MAX_UNSYNCED: usize = 10_000;

/// Limits messages per conversation and per address.
///
/// The maps are bounded, and `sweep` removes full buckets.
pub struct RateLimiter {
    origin: Instant,
    quotas: Mutex<Quotas>,
    conversations: KeyedBuckets<ConversationId>,
    addresses: KeyedBuckets<IpAddr>,
    secondary: KeyedBuckets<ConversationId>,
    /// Usage to report to other instances. `None` while nothing is synchronised.
    unsynced: Mutex<Option<HashMap<SharedKey, u32>>>,
    sync_needed: Notify,
}

#[derive(Clone, Copy)]
struct Quotas {
    conversation: Quota,
    address: Quota,
}

impl Quotas {
    fn per_minute(conversation: NonZeroU32, address: NonZeroU32) -> Self {
        Self {
            conversation: Quota::per_minute(conversation.get()),
            address: Quota::per_minute(address.get()),
        }
    }
}

/// The key of a bucket that instances share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SharedKey {
    Conversation(ConversationId),
    Address(IpAddr),
}

/// Messages that this instance let through and has not yet reported to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsyncedUsage {
    pub key: SharedKey,
    pub quota: Quota,
    pub count: u32,
}

impl SharedKey {
    /// Returns a hash of 33 characters that reveals neither the conversation nor the address.
    pub fn hashed_name(&self) -> String {
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

impl RateLimiter {
    /// Creates a limiter for messages per minute. As many may come at once after a pause.
    pub fn per_minute(conversation: NonZeroU32, address: NonZeroU32) -> Self {
        Self {
            origin: Instant::now(),
            quotas: Mutex::new(Quotas::per_minute(conversation, address)),
            conversations: KeyedBuckets::new(),
            addresses: KeyedBuckets::new(),
            secondary: KeyedBuckets::new(),
            unsynced: Mutex::new(None),
            sync_needed: Notify::new(),
        }
    }

    /// Changes the limits. Earlier messages keep their weight.
    pub fn set_per_minute(&self, conversation: NonZeroU32, address: NonZeroU32) {
        *self.quotas.lock() = Quotas::per_minute(conversation, address);
    }

    /// Counts a message, or returns the time to wait.
    pub fn check_message(
        &self,
        conversation: ConversationId,
        address: IpAddr,
    ) -> Result<(), Duration> {
        let quota = self.quotas.lock().conversation;
        // The conversation first: one that floods must not use up the share of others behind the
        // same address.
        self.conversations.check(conversation, quota, self.now())?;
        self.record_unsynced(SharedKey::Conversation(conversation));
        self.check_address(address)
    }

    /// Counts a call that belongs to no conversation, or returns the time to wait.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Duration> {
        let quota = self.quotas.lock().address;
        let address = subnet(address);
        self.addresses.check(address, quota, self.now())?;
        self.record_unsynced(SharedKey::Address(address));
        Ok(())
    }

    /// Counts a frame that uses the store without starting a turn, or returns the time to wait.
    pub fn check_secondary(&self, conversation: ConversationId) -> Result<(), Duration> {
        let quota = Quota::per_minute(SECONDARY_PER_MINUTE);
        self.secondary.check(conversation, quota, self.now())
    }

    /// Removes full buckets. Call it periodically.
    pub fn sweep(&self) {
        let now = self.now();
        self.conversations.sweep(now);
        self.addresses.sweep(now);
        self.secondary.sweep(now);
    }

    /// Starts or stops recording usage for other instances.
    pub fn set_sync(&self, on: bool) {
        let mut unsynced = self.unsynced.lock();
        if unsynced.is_some() != on {
            *unsynced = on.then(HashMap::new);
        }
    }

    pub async fn sync_needed(&self) {
        self.sync_needed.notified().await;
    }

    /// Removes and returns the usage of up to `max` keys.
    pub fn drain_unsynced(&self, max: usize) -> Vec<UnsyncedUsage> {
        let quotas = *self.quotas.lock();
        let mut unsynced = self.unsynced.lock();
        let Some(map) = unsynced.as_mut() else {
            return Vec::new();
        };
        let keys: Vec<_> = map.keys().take(max).copied().collect();
        let usage = keys.into_iter().filter_map(|key| {
            let quota = match key {
                SharedKey::Conversation(_) => quotas.conversation,
                SharedKey::Address(_) => quotas.address,
            };
            let count = map.remove(&key)?;
            Some(UnsyncedUsage { key, quota, count })
        });
        usage.collect()
    }

    /// Applies the debt of a bucket that results from the usage of all instances.
    pub fn apply_shared_debt(&self, usage: &UnsyncedUsage, debt: Duration) {
        let now = self.now();
        match usage.key {
            SharedKey::Conversation(id) => {
                self.conversations.raise_debt(id, usage.quota, debt, now)
            }
            SharedKey::Address(address) => {
                self.addresses.raise_debt(address, usage.quota, debt, now)
            }
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn record_unsynced(&self, key: SharedKey) {
        if let Some(unsynced) = self.unsynced.lock().as_mut()
            && (unsynced.len() < MAX_UNSYNCED || unsynced.contains_key(&key))
        {
            let count = unsynced.entry(key).or_default();
            *count = count.saturating_add(1);
            self.sync_needed.notify_one();
        }
    }
}

struct KeyedBuckets<K>(Mutex<HashMap<K, GcraBucket>>);

impl<K: Eq + Hash> KeyedBuckets<K> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn check(&self, key: K, quota: Quota, now: Duration) -> Result<(), Duration> {
        let mut buckets = self.0.lock();
        let has_space = buckets.len() < MAX_BUCKETS;
        match buckets.entry(key) {
            Entry::Occupied(mut bucket) => bucket.get_mut().check(quota, now),
            Entry::Vacant(entry) if has_space => {
                entry.insert(GcraBucket::default()).check(quota, now)
            }
            Entry::Vacant(_) => Err(OVERLOAD_WAIT),
        }
    }

    /// Raises the debt of a bucket. A missing bucket was full when it was swept, and is left alone:
    /// it learns of the debt with its next message.
    fn raise_debt(&self, key: K, quota: Quota, debt: Duration, now: Duration) {
        if let Some(bucket) = self.0.lock().get_mut(&key) {
            bucket.raise_debt(debt, quota, now);
        }
    }

    fn sweep(&self, now: Duration) {
        let mut buckets = self.0.lock();
        buckets.retain(|_, bucket| !bucket.is_full(now));
        // Release the memory that a flood has taken.
        if buckets.capacity() > 4 * buckets.len().max(1_024) {
            buckets.shrink_to_fit();
        }
    }
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

    fn limiter(conversation: u32, address: u32) -> RateLimiter {
        RateLimiter::per_minute(
            NonZeroU32::new(conversation).unwrap(),
            NonZeroU32::new(address).unwrap(),
        )
    }

    #[test]
    fn conversations_and_addresses_have_separate_buckets() {
        let limiter = limiter(2, 3);
        let [a, b] = [[1; 16], [2; 16]].map(ConversationId::from_random);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.check_message(a, here), Ok(()));
        assert_eq!(limiter.check_message(a, here), Ok(()));
        let wait = limiter.check_message(a, here).unwrap_err();
        assert!(wait <= Duration::from_secs(30));
        let sent = limiter.check_message(b, here);
        assert_eq!(sent, Ok(()), "the flood took nothing more from the address");
        let sent = limiter.check_message(b, here);
        assert!(sent.is_err(), "three from this address");
        let c = ConversationId::from_random([3; 16]);
        let elsewhere = "192.0.2.2".parse().unwrap();
        assert_eq!(limiter.check_message(c, elsewhere), Ok(()));
    }

    #[test]
    fn changed_limits_apply_at_once() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let limiter = limiter(1, 9);
        let a = ConversationId::from_random([1; 16]);
        let here = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.check_message(a, here), Ok(()));
        limiter.set_per_minute(number(1), number(9));
        assert!(limiter.check_message(a, here).is_err());
        let b = ConversationId::from_random([2; 16]);
        limiter.set_per_minute(number(2), number(9));
        assert_eq!(limiter.check_message(b, here), Ok(()));
        assert_eq!(limiter.check_message(b, here), Ok(()));
        assert!(limiter.check_message(b, here).is_err());
    }

    #[test]
    fn usage_is_reported_once_and_remote_usage_counts() {
        let limiter = limiter(4, 100);
        let a = ConversationId::from_random([1; 16]);
        let here = "192.0.2.1".parse().unwrap();
        limiter.check_message(a, here).unwrap();
        assert_eq!(limiter.drain_unsynced(10), [], "sync is off");
        limiter.set_sync(true);
        limiter.set_sync(true);
        limiter.check_message(a, here).unwrap();
        limiter.check_message(a, here).unwrap();
        let mut usage = limiter.drain_unsynced(10);
        usage.sort_by_key(|usage| usage.key.hashed_name());
        let counts: Vec<_> = usage.iter().map(|usage| (usage.key, usage.count)).collect();
        assert_eq!(
            counts,
            [
                (SharedKey::Address(here), 2),
                (SharedKey::Conversation(a), 2)
            ]
        );
        assert_eq!(limiter.drain_unsynced(10), []);
        // Four were sent in all, one of them elsewhere.
        limiter.apply_shared_debt(&usage[1], Duration::from_secs(60));
        assert!(limiter.check_message(a, here).is_err());
        limiter.set_sync(false);
        assert!(
            limiter.check_message(a, here).is_err(),
            "the debt stays when Redis is gone"
        );
    }

    #[test]
    fn unsynced_usage_is_bounded() {
        let limiter = limiter(1, 1_000_000);
        limiter.set_sync(true);
        let here = "192.0.2.1".parse().unwrap();
        for n in 0..MAX_UNSYNCED as u128 + 10 {
            limiter
                .check_message(ConversationId::from_random(n.to_be_bytes()), here)
                .unwrap();
        }
        assert_eq!(limiter.drain_unsynced(3).len(), 3);
        assert_eq!(limiter.drain_unsynced(usize::MAX).len(), MAX_UNSYNCED - 3);
    }

    #[test]
    fn hashed_names_reveal_nothing_and_have_one_length() {
        let id = ConversationId::from_random([7; 16]);
        let v6 = SharedKey::Address("2001:db8::1".parse().unwrap()).hashed_name();
        let v4 = SharedKey::Address("192.0.2.1".parse().unwrap()).hashed_name();
        assert_ne!(v4, v6);
        for name in [SharedKey::Conversation(id).hashed_name(), v4, v6] {
            assert!(name.len() == 33 && !name.contains("192."), "{name}");
        }
    }

    #[test]
    fn full_buckets_are_swept_and_the_map_is_bounded() {
        let buckets = KeyedBuckets::new();
        let quota = Quota::per_minute(60);
        let now = Duration::from_secs(9);
        (0..MAX_BUCKETS).for_each(|key| buckets.check(key, quota, now).unwrap());
        assert_eq!(buckets.check(MAX_BUCKETS, quota, now), Err(OVERLOAD_WAIT));
        assert_eq!(
            buckets.check(0, quota, now),
            Ok(()),
            "known keys are still served"
        );
        buckets.sweep(now + Duration::from_secs(1));
        assert_eq!(buckets.0.lock().len(), 1);
        assert_eq!(buckets.check(MAX_BUCKETS, quota, now), Ok(()));
    }

    #[test]
    fn ipv6_addresses_of_one_64_network_are_one() {
        let parsed = |text: &str| subnet(text.parse().unwrap());
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::ffff"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
        assert_eq!(parsed("::ffff:192.0.2.1"), parsed("192.0.2.1"));
    }
}
