//! Wall-clock timestamps.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch, serialised as RFC 3339 with milliseconds.
///
/// Only for display and storage. Intervals and limits use the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub fn from_system_time(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(saturating_millis(since))
    }

    pub fn saturating_add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(saturating_millis(later)))
    }

    pub fn saturating_sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_millis(earlier)))
    }

    /// The time from `earlier` to `self`, or zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The last millisecond of the year 9999, the end of RFC 3339's range.
    const MAX_MS: u64 = 253_402_300_799_999;
}

fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(Self::MAX_MS));
        fmt::Display::fmt(&humantime::format_rfc3339_millis(time), f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        let time = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Self::from_system_time(time))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_rfc_3339() {
        let at = Timestamp(1_795_000_000_123);
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(text, "\"2026-11-18T11:06:40.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), at);
    }

    #[test]
    fn extreme_timestamps_do_not_panic() {
        assert!(Timestamp(u64::MAX).to_string().starts_with("9999-12-31"));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(
            Timestamp(u64::MAX).saturating_add(Duration::MAX),
            Timestamp(u64::MAX)
        );
    }
}
