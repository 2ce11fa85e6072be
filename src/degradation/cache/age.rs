//! How old a saved answer may be, and for what.

use std::time::Duration;

use crate::settings::CacheSettings;

/// What an answer of some age is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It answers without a provider.
    Fresh,
    /// It answers, and is renewed behind.
    Renewable,
    /// It answers where no provider can.
    Stale,
    /// Nothing.
    Gone,
}

/// What an answer that is `old` is good for. All bounds are counted from when it was given; at a bound it is past it, so that zero is never.
pub fn age(old: Duration, settings: &CacheSettings) -> Age {
    if old < settings.ttl {
        Age::Fresh
    } else if old < settings.ttl.saturating_add(settings.revalidate) {
        Age::Renewable
    } else if old < settings.stale_for {
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
    fn an_answer_gets_old_step_by_step() {
        let settings = settings(10, 5, 100);
        for (old, expected) in [
            (0, Age::Fresh),
            (9, Age::Fresh),
            (10, Age::Renewable),
            (14, Age::Renewable),
            (15, Age::Stale),
            (99, Age::Stale),
            (100, Age::Gone),
        ] {
            assert_eq!(age(Duration::from_secs(old), &settings), expected, "{old}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        assert_eq!(age(Duration::from_secs(10), &settings(10, 0, 0)), Age::Gone);
        assert_eq!(age(Duration::ZERO, &settings(0, 0, 9)), Age::Stale);
        assert_eq!(age(Duration::MAX, &settings(10, 0, 100)), Age::Gone);
    }
}
