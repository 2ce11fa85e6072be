//! The freshness of cached answers, by their age.

use std::time::Duration;

use crate::settings::CacheSettings;

/// The states of a cached answer, in the words of RFC 5861.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Served without a call to a provider.
    Fresh,
    /// Served, and refreshed in the background.
    Renewable,
    /// Served only if no provider can answer.
    Stale,
    Gone,
}

/// Returns the freshness of an answer of this age.
///
/// All limits count from when the answer was given. At a limit it counts as exceeded, so a limit of
/// zero disables its state.
pub fn age(age: Duration, settings: &CacheSettings) -> Age {
    if age < settings.ttl {
        Age::Fresh
    } else if age < settings.ttl.saturating_add(settings.revalidate) {
        Age::Renewable
    } else if age < settings.stale_for {
        Age::Stale
    } else {
        Age::Gone
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
            (0, Age::Fresh),
            (9, Age::Fresh),
            (10, Age::Renewable),
            (14, Age::Renewable),
            (15, Age::Stale),
            (99, Age::Stale),
            (100, Age::Gone),
        ] {
            assert_eq!(
                age(Duration::from_secs(seconds), &settings),
                expected,
                "{seconds}"
            );
        }
    }

    #[test]
    fn limit_of_zero_disables_its_state() {
        assert_eq!(age(Duration::from_secs(10), &settings(10, 0, 0)), Age::Gone);
        assert_eq!(age(Duration::ZERO, &settings(0, 0, 9)), Age::Stale);
        assert_eq!(age(Duration::MAX, &settings(10, 0, 100)), Age::Gone);
    }
}
