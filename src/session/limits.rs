//! How many messages a conversation and an address may send.
//!
//! The decision is made here, at once, by what this instance knows. Where several share a Redis, `fleet` tells the others what was let
//! through and this one what they did, many times a second ([`Rates::share`]); while Redis is away each instance keeps its own count.

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

/// Frames of a conversation a minute that read or write the store without opening a turn: `history` and `feedback`.
const OTHERS: u32 = 120;

/// Buckets of one kind that are kept: about 20 MB. Who comes when all are in use is asked to wait, until some are whole again.
const MOST: usize = 200_000;

/// What those wait.
const FULL: Duration = Duration::from_secs(5);

/// What is let through and not yet told to other instances: this many keys at most. What is more stays this instance's own.
const UNTOLD: usize = 10_000;

/// The rate limits of messages: a bucket for each conversation and each address.
///
/// The maps are bounded: [`Rates::sweep`] forgets the buckets that are whole again.
pub struct Rates {
    origin: Instant,
    paces: Mutex<Paces>,
    conversations: Buckets<ConversationId>,
    addresses: Buckets<IpAddr>,
    others: Buckets<ConversationId>,
    untold: Mutex<Option<HashMap<Shared, u32>>>,
    touched: Notify,
}

#[derive(Clone, Copy)]
struct Paces {
    conversation: Pace,
    address: Pace,
}

/// Whose bucket is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shared {
    /// A conversation's.
    Conversation(ConversationId),
    /// An address's.
    Address(IpAddr),
}

/// What this instance let through, to be told to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Whose it is.
    pub of: Shared,
    /// How much is allowed.
    pub pace: Pace,
    /// How many were let through since the last time.
    pub count: u32,
}

impl Shared {
    /// A name for it that tells neither the conversation nor the address: 33 characters.
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
    /// So many messages a minute; as many may come at once after a pause.
    pub fn per_minute(conversation: NonZeroU32, address: NonZeroU32) -> Self {
        let pace = |count: NonZeroU32| Pace::per_minute(count.get());
        Self {
            origin: Instant::now(),
            paces: Mutex::new(Paces {
                conversation: pace(conversation),
                address: pace(address),
            }),
            conversations: Buckets::default(),
            addresses: Buckets::default(),
            others: Buckets::default(),
            untold: Mutex::new(None),
            touched: Notify::new(),
        }
    }

    /// From now on so many messages a minute. What was sent before counts as it did.
    pub fn set_per_minute(&self, conversation: NonZeroU32, address: NonZeroU32) {
        let pace = |count: NonZeroU32| Pace::per_minute(count.get());
        *lock(&self.paces) = Paces {
            conversation: pace(conversation),
            address: pace(address),
        };
    }

    /// Takes one message's place.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, conversation: ConversationId, address: IpAddr) -> Result<(), Duration> {
        let (now, paces, address) = (self.now(), *lock(&self.paces), subnet(address));
        // The conversation first, so that one that floods does not use up what its neighbours behind the same address have.
        self.conversations
            .take(conversation, paces.conversation, now)?;
        self.count(Shared::Conversation(conversation));
        self.addresses.take(address, paces.address, now)?;
        self.count(Shared::Address(address));
        Ok(())
    }

    /// Takes the place of a call that belongs to no conversation.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take_alone(&self, address: IpAddr) -> Result<(), Duration> {
        let (now, pace, address) = (self.now(), lock(&self.paces).address, subnet(address));
        self.addresses.take(address, pace, now)?;
        self.count(Shared::Address(address));
        Ok(())
    }

    /// Takes the place of a frame that reads or writes the store without opening a turn.
    ///
    /// # Errors
    /// How long to wait.
    pub fn spare(&self, conversation: ConversationId) -> Result<(), Duration> {
        self.others
            .take(conversation, Pace::per_minute(OTHERS), self.now())
    }

    /// Forgets the buckets that are whole. To be called now and then.
    pub fn sweep(&self) {
        let now = self.now();
        self.conversations.sweep(now);
        self.addresses.sweep(now);
        self.others.sweep(now);
    }

    /// Begins, or ends, to keep what is to be told to other instances.
    pub fn share(&self, on: bool) {
        let mut untold = lock(&self.untold);
        if untold.is_some() != on {
            *untold = on.then(HashMap::new);
        }
    }

    /// Ends when there is something to tell.
    pub async fn touched(&self) {
        self.touched.notified().await;
    }

    /// What is to be told, at most so many; it counts as told.
    pub fn untold(&self, most: usize) -> Vec<Untold> {
        let paces = *lock(&self.paces);
        let mut untold = lock(&self.untold);
        let Some(map) = untold.as_mut() else {
            return Vec::new();
        };
        let keys: Vec<_> = map.keys().take(most).copied().collect();
        let told = keys.into_iter().filter_map(|of| {
            let pace = match of {
                Shared::Conversation(_) => paces.conversation,
                Shared::Address(_) => paces.address,
            };
            map.remove(&of).map(|count| Untold { of, pace, count })
        });
        told.collect()
    }

    /// Hears how much a bucket lacks by what all instances let through.
    pub fn learn(&self, told: &Untold, lacks: Duration) {
        let now = self.now();
        match told.of {
            Shared::Conversation(id) => self.conversations.learn(id, told.pace, lacks, now),
            Shared::Address(address) => self.addresses.learn(address, told.pace, lacks, now),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn count(&self, of: Shared) {
        if let Some(untold) = lock(&self.untold).as_mut()
            && (untold.len() < UNTOLD || untold.contains_key(&of))
        {
            let count = untold.entry(of).or_default();
            *count = count.saturating_add(1);
            self.touched.notify_one();
        }
    }
}

/// The buckets of one kind.
struct Buckets<K>(Mutex<HashMap<K, Bucket>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn take(&self, key: K, pace: Pace, now: Duration) -> Result<(), Duration> {
        let mut buckets = lock(&self.0);
        let room = buckets.len() < MOST;
        match buckets.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().take(pace, now),
            Entry::Vacant(new) if room => new.insert(Bucket::default()).take(pace, now),
            Entry::Vacant(_) => Err(FULL),
        }
    }

    /// What is not here any more was whole, and is asked of again when it is needed.
    fn learn(&self, key: K, pace: Pace, lacks: Duration, now: Duration) {
        if let Some(bucket) = lock(&self.0).get_mut(&key) {
            bucket.lacks_at_least(lacks, pace, now);
        }
    }

    fn sweep(&self, now: Duration) {
        let mut buckets = lock(&self.0);
        buckets.retain(|_, bucket| !bucket.is_whole(now));
        // What a flood took is given back once it is over.
        if buckets.capacity() > 4 * buckets.len().max(1_024) {
            buckets.shrink_to_fit();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An IPv6 site has at least a /64 to itself, so that is one address here.
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

    fn rates(conversation: u32, address: u32) -> Rates {
        Rates::per_minute(
            NonZeroU32::new(conversation).unwrap(),
            NonZeroU32::new(address).unwrap(),
        )
    }

    #[test]
    fn conversations_and_addresses_have_buckets_of_their_own() {
        let rates = rates(2, 3);
        let [a, b] = [[1; 16], [2; 16]].map(ConversationId::from_random);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!((rates.take(a, here), rates.take(a, here)), (Ok(()), Ok(())));
        assert!(
            rates
                .take(a, here)
                .is_err_and(|wait| wait <= Duration::from_secs(30))
        );
        assert_eq!(
            rates.take(b, here),
            Ok(()),
            "the flood took nothing more from the address"
        );
        assert!(rates.take(b, here).is_err(), "three from this address");
        let c = ConversationId::from_random([3; 16]);
        assert_eq!(rates.take(c, "192.0.2.2".parse().unwrap()), Ok(()));
    }

    #[test]
    fn other_numbers_hold_from_now_on() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rates = rates(1, 9);
        let (a, here) = (
            ConversationId::from_random([1; 16]),
            "192.0.2.1".parse().unwrap(),
        );
        assert_eq!(rates.take(a, here), Ok(()));
        rates.set_per_minute(number(1), number(9));
        assert!(rates.take(a, here).is_err());
        let b = ConversationId::from_random([2; 16]);
        rates.set_per_minute(number(2), number(9));
        assert_eq!((rates.take(b, here), rates.take(b, here)), (Ok(()), Ok(())));
        assert!(rates.take(b, here).is_err());
    }

    #[test]
    fn what_is_let_through_is_told_once_and_what_others_took_counts() {
        let rates = rates(4, 100);
        let (a, here) = (
            ConversationId::from_random([1; 16]),
            "192.0.2.1".parse().unwrap(),
        );
        rates.take(a, here).unwrap();
        assert_eq!(rates.untold(10), [], "nobody shares");
        rates.share(true);
        rates.share(true);
        rates.take(a, here).unwrap();
        rates.take(a, here).unwrap();
        let mut told = rates.untold(10);
        told.sort_by_key(|told| told.of.name());
        let of: Vec<_> = told.iter().map(|told| (told.of, told.count)).collect();
        assert_eq!(
            of,
            [(Shared::Address(here), 2), (Shared::Conversation(a), 2)]
        );
        assert_eq!(rates.untold(10), []);
        // Four were sent in all, one of them elsewhere.
        rates.learn(&told[1], Duration::from_secs(60));
        assert!(rates.take(a, here).is_err());
        rates.share(false);
        assert!(
            rates.take(a, here).is_err(),
            "what is known stays known when Redis is gone"
        );
    }

    #[test]
    fn what_is_not_told_is_bounded() {
        let rates = rates(1, 1_000_000);
        rates.share(true);
        let here = "192.0.2.1".parse().unwrap();
        for n in 0..UNTOLD as u128 + 10 {
            rates
                .take(ConversationId::from_random(n.to_be_bytes()), here)
                .unwrap();
        }
        assert_eq!(
            (rates.untold(3).len(), rates.untold(usize::MAX).len()),
            (3, UNTOLD - 3)
        );
    }

    #[test]
    fn names_tell_nothing_and_are_of_one_length() {
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
    fn whole_buckets_are_forgotten_and_the_map_is_bounded() {
        let buckets = Buckets::default();
        let (pace, now) = (Pace::per_minute(60), Duration::from_secs(9));
        (0..MOST).for_each(|key| buckets.take(key, pace, now).unwrap());
        assert_eq!(buckets.take(MOST, pace, now), Err(FULL));
        assert_eq!(buckets.take(0, pace, now), Ok(()), "who is known goes on");
        buckets.sweep(now + Duration::from_secs(1));
        assert_eq!(lock(&buckets.0).len(), 1);
        assert_eq!(buckets.take(MOST, pace, now), Ok(()));
    }

    #[test]
    fn a_v6_site_is_one_address() {
        let of = |text: &str| subnet(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
