//! How many messages a conversation and an address may send.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::chat::ConversationId;

/// Frames of a conversation a minute that read or write the store without opening a turn: `history` and `feedback`.
const OTHERS: NonZeroU32 = NonZeroU32::new(120).unwrap();

/// The rate limits of messages: a bucket for each conversation and each address (GCRA, by the governor library).
///
/// The maps are bounded by [`Rates::sweep`]: a key that has its whole bucket again is forgotten.
pub struct Rates {
    buckets: RwLock<Buckets>,
}

struct Buckets {
    /// For a conversation and for an address.
    quotas: (NonZeroU32, NonZeroU32),
    conversations: DefaultKeyedRateLimiter<ConversationId>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    others: DefaultKeyedRateLimiter<ConversationId>,
}

impl Rates {
    /// So many messages a minute; as many may come at once after a pause.
    pub fn per_minute(conversation: NonZeroU32, address: NonZeroU32) -> Self {
        Self { buckets: RwLock::new(Buckets::new((conversation, address))) }
    }

    /// From now on so many messages a minute. Where that is another number, everyone begins with a whole bucket.
    pub fn set_per_minute(&self, conversation: NonZeroU32, address: NonZeroU32) {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if buckets.quotas != (conversation, address) {
            *buckets = Buckets::new((conversation, address));
        }
    }

    fn buckets(&self) -> RwLockReadGuard<'_, Buckets> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one message's place.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, conversation: ConversationId, address: IpAddr) -> Result<(), Duration> {
        let (now, buckets) = (DefaultClock::default().now(), self.buckets());
        // The conversation first, so that one that floods does not use up what its neighbours behind the same address have.
        buckets.conversations.check_key(&conversation).map_err(|not_until| not_until.wait_time_from(now))?;
        buckets.addresses.check_key(&subnet(address)).map_err(|not_until| not_until.wait_time_from(now))
    }

    /// Takes the place of a frame that reads or writes the store without opening a turn.
    ///
    /// # Errors
    /// How long to wait.
    pub fn spare(&self, conversation: ConversationId) -> Result<(), Duration> {
        let now = DefaultClock::default().now();
        self.buckets().others.check_key(&conversation).map_err(|not_until| not_until.wait_time_from(now))
    }

    /// Forgets the keys that have their whole bucket again. To be called now and then.
    pub fn sweep(&self) {
        let buckets = self.buckets();
        buckets.conversations.retain_recent();
        buckets.addresses.retain_recent();
        buckets.others.retain_recent();
    }
}

impl Buckets {
    fn new(quotas: (NonZeroU32, NonZeroU32)) -> Self {
        Self {
            quotas,
            conversations: RateLimiter::keyed(Quota::per_minute(quotas.0)),
            addresses: RateLimiter::keyed(Quota::per_minute(quotas.1)),
            others: RateLimiter::keyed(Quota::per_minute(OTHERS)),
        }
    }
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

    #[test]
    fn conversations_and_addresses_have_buckets_of_their_own() {
        let two = NonZeroU32::new(2).unwrap();
        let rates = Rates::per_minute(two, NonZeroU32::new(3).unwrap());
        let [a, b] = [[1; 16], [2; 16]].map(ConversationId::from_random);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!((rates.take(a, here), rates.take(a, here)), (Ok(()), Ok(())));
        assert!(rates.take(a, here).is_err_and(|wait| wait <= Duration::from_secs(30)));
        assert_eq!(rates.take(b, here), Ok(()), "the flood took nothing more from the address");
        assert!(rates.take(b, here).is_err(), "three from this address");
        let c = ConversationId::from_random([3; 16]);
        assert_eq!(rates.take(c, "192.0.2.2".parse().unwrap()), Ok(()));
    }

    #[test]
    fn other_numbers_are_whole_buckets_and_the_same_ones_change_nothing() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rates = Rates::per_minute(number(1), number(9));
        let (a, here) = (ConversationId::from_random([1; 16]), "192.0.2.1".parse().unwrap());
        assert_eq!(rates.take(a, here), Ok(()));
        rates.set_per_minute(number(1), number(9));
        assert!(rates.take(a, here).is_err());
        rates.set_per_minute(number(2), number(9));
        assert_eq!((rates.take(a, here), rates.take(a, here)), (Ok(()), Ok(())));
        assert!(rates.take(a, here).is_err());
    }

    #[test]
    fn a_v6_site_is_one_address() {
        let of = |text: &str| subnet(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
