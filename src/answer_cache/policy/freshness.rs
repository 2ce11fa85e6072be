//! The freshness of cached answers, by their age.

use std::time::Duration;

use crate::config::CacheSettings;

/// The states of a cached answer, in the words of RFC 5861.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Served without a call to a provider.
    Fresh,
    /// Served, and refreshed in the background.
    StaleWhileRevalidate,
    /// Served only if no provider can answer.
    StaleIfError,
    Expired,
}

/// Returns the freshness of an answer of this age.
///
/// All limits count from when the answer was given. At a limit it counts as exceeded, so a limit of
/// zero disables its state.
pub fn freshness(age: Duration, settings: &CacheSettings) -> Freshness {
    if age < settings.ttl {
        Freshness::Fresh
    } else if age < settings.ttl.saturating_add(settings.revalidate) {
        Freshness::StaleWhileRevalidate
    } else if age < settings.stale_for {
        Freshness::StaleIfError
    } else {
        Freshness::Expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(ttl: u64, revalidate: u64, stale_for: u64) -> CacheSettings {
        let [ttl, revalidate, stale_for] = [ttl, revalidate, stale_for].map(Duration::from_secs);
        CacheSettings {
            ttl,
            revalidate,
            stale_for,
            ..CacheSettings::default()
        }
    }

    #[test]
    fn freshness_decreases_at_each_limit() {
        let settings = settings(10, 5, 100);
        for (seconds, expected) in [
            (0, Freshness::Fresh),
            (9, Freshness::Fresh),
            (10, Freshness::StaleWhileRevalidate),
            (14, Freshness::StaleWhileRevalidate),
            (15, Freshness::StaleIfError),
            (99, Freshness::StaleIfError),
            (100, Freshness::Expired),
        ] {
            assert_eq!(
                freshness(Duration::from_secs(seconds), &settings),
                expected,
                "{seconds}"
            );
        }
    }

    #[test]
    fn limit_of_zero_disables_its_state() {
        assert_eq!(
            freshness(Duration::from_secs(10), &settings(10, 0, 0)),
            Freshness::Expired
        );
        assert_eq!(
            freshness(Duration::ZERO, &settings(0, 0, 9)),
            Freshness::StaleIfError
        );
        assert_eq!(
            freshness(Duration::MAX, &settings(10, 0, 100)),
            Freshness::Expired
        );
    }
}
