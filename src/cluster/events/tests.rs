//! Changes of the Redis client that count as a reconnect.

use super::*;
use crate::domain::Timestamp;
use crate::store::redis::client::OutageReason;

#[test]
fn becoming_slow_or_fast_again_is_no_reconnect() {
    let now = |trouble| RedisHealth {
        outage: trouble,
        since: Timestamp(0),
    };
    let (sender, mut health) = watch::channel(now(Some(OutageReason::Joining)));
    let mut up = is_up(&health);
    let steps = [
        (None, true),
        (Some(OutageReason::Slow), false),
        (None, false),
        (Some(OutageReason::Slow), false),
        (Some(OutageReason::Unreachable), false),
        (Some(OutageReason::Slow), true),
        (None, false),
        (Some(OutageReason::ReadOnly), false),
        (None, true),
    ];
    for (trouble, back) in steps {
        sender.send_replace(now(trouble));
        assert_eq!(reconnected(&mut up, &mut health), back, "{trouble:?}");
    }
}
