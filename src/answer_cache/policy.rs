//! The rules of the answer cache: how long an answer is fresh, who may receive it, and when it is
//! asked for ahead of time. Pure.
//!
//! An answer served to another visitor must contain nothing personal.

use std::time::Duration;

use serde::Deserialize;

use super::pii;
use crate::config::{CacheSettings, CacheSharing};
use crate::domain::{AnswerSource, FinishReason, Timestamp, TurnRecord, TurnState};
use crate::store::CachedAnswer;

/// The longest answer that is cached, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The use of the answer cache for a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    #[default]
    Use,
    /// Do not read the cache, but save the new answer.
    Refresh,
    Off,
}

/// The states of a cached answer as it ages, in the words of RFC 5861.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// Returns `true` if a question may share its answer with other conversations.
///
/// It must be the first message of an anonymous conversation, since later ones have a history, and
/// must contain no personal data.
pub fn is_shareable_question(question: &str, first: bool, anonymous: bool) -> bool {
    first && anonymous && pii::detect(question).is_none()
}

/// Returns `true` if a turn's answer may be cached: complete, from a provider, not too long.
pub fn is_cacheable(record: &TurnRecord) -> bool {
    record.state == TurnState::Done
        && record.finish == Some(FinishReason::Stop)
        && record.source == Some(AnswerSource::Ai)
        && !record.text.trim().is_empty()
        && record.text.len() <= MAX_ANSWER_BYTES
}

/// Returns `true` if a turn's answer may be shared: given by one attempt, without personal data.
pub fn is_shareable_answer(record: &TurnRecord) -> bool {
    is_cacheable(record)
        && record.attempts == 1
        && record.drafts.is_empty()
        && pii::detect(&record.text).is_none()
}

/// Returns `true` if a cached answer may be served to a different conversation.
///
/// `asker_count` is the number of distinct conversations that asked the question, including the
/// current one.
pub fn may_share(answer: &CachedAnswer, asker_count: u32, settings: &CacheSettings) -> bool {
    // Warmed answers belong to no conversation, so anybody may have them.
    answer.conversation.is_none() || is_popular(asker_count.max(answer.asker_count), settings)
}

pub fn is_popular(asker_count: u32, settings: &CacheSettings) -> bool {
    match settings.share {
        CacheSharing::Never => false,
        CacheSharing::Repeated => asker_count >= settings.repeated_min,
        CacheSharing::Always => true,
    }
}

/// Returns `true` if a warm question should be asked again. `age` is that of its saved answer,
/// `None` if there is none.
///
/// That is after `warm_interval`, or earlier if the answer would expire: it is refreshed with a
/// tenth of its lifetime to spare.
pub fn is_refresh_due(age: Option<Duration>, settings: &CacheSettings) -> bool {
    let served_for = settings.ttl.saturating_add(settings.revalidate);
    let lifetime = served_for.max(settings.stale_for);
    let latest = lifetime.saturating_sub(lifetime / 10);
    age.is_none_or(|age| age >= settings.warm_interval.min(latest))
}

/// Returns `true` within `cache.warm_hours`, which are in UTC.
pub fn is_in_warm_window(now: Timestamp, settings: &CacheSettings) -> bool {
    const MINUTES_PER_DAY: u64 = 24 * 60;
    let minute = u16::try_from(now.0 / 60_000 % MINUTES_PER_DAY).unwrap_or_default();
    let hours = settings.warm_hours;
    hours.is_none_or(|hours| hours.contains(minute))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::DailyWindow;
    use crate::domain::{ConversationId, Draft, TurnId};

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

    fn answered() -> TurnRecord {
        let turn = TurnId::next_after(None, 1, 1);
        let mut record = TurnRecord::new(
            turn,
            "m".parse().unwrap(),
            Timestamp(1),
            "Hours?".into(),
            None,
        );
        record.text = "From 9 to 5.".into();
        record.state = TurnState::Done;
        record.source = Some(AnswerSource::Ai);
        record.finish = Some(FinishReason::Stop);
        record.attempts = 1;
        record
    }

    #[test]
    fn only_anonymous_first_messages_without_personal_data_are_shareable() {
        assert!(is_shareable_question("What are your hours?", true, true));
        assert!(
            !is_shareable_question("What are your hours?", false, true),
            "it has a history"
        );
        assert!(
            !is_shareable_question("What are your hours?", true, false),
            "from a signed-in visitor"
        );
        assert!(!is_shareable_question(
            "Write to ann@example.com",
            true,
            true
        ));
    }

    #[test]
    fn incomplete_answers_are_not_cached_and_multi_attempt_answers_are_not_shared() {
        assert!(is_cacheable(&answered()) && is_shareable_answer(&answered()));
        type Spoil = fn(&mut TurnRecord);
        let not_cacheable: [Spoil; 9] = [
            |record| record.finish = Some(FinishReason::Length),
            |record| record.finish = Some(FinishReason::ContentFilter),
            |record| record.finish = Some(FinishReason::Stopped),
            |record| record.state = TurnState::Interrupted,
            |record| record.source = Some(AnswerSource::Template),
            |record| record.source = Some(AnswerSource::Cache),
            |record| record.source = Some(AnswerSource::StaleCache),
            |record| record.text = " \n".into(),
            |record| record.text = "x".repeat(MAX_ANSWER_BYTES + 1),
        ];
        for spoil in not_cacheable {
            let mut record = answered();
            spoil(&mut record);
            assert!(
                !is_cacheable(&record) && !is_shareable_answer(&record),
                "{record:?}"
            );
        }
        let cached_but_not_shared: [Spoil; 3] = [
            |record| record.attempts = 2,
            |record| {
                record.drafts = vec![Draft {
                    attempt: 1,
                    provider: "a".into(),
                    text: "x".into(),
                }]
            },
            |record| record.text = "Ask Ann, +49 30 1234567.".into(),
        ];
        for spoil in cached_but_not_shared {
            let mut record = answered();
            spoil(&mut record);
            assert!(
                is_cacheable(&record) && !is_shareable_answer(&record),
                "{record:?}"
            );
        }
    }

    #[test]
    fn share_setting_decides_how_many_askers_are_needed() {
        let settings = |share| CacheSettings {
            share,
            repeated_min: 3,
            ..CacheSettings::default()
        };
        let saved = |asked| CachedAnswer {
            text: "From 9 to 5.".into(),
            saved_at: Timestamp(1),
            conversation: Some(ConversationId::from_random([1; 16])),
            turn: None,
            is_context_free: true,
            asker_count: asked,
        };
        for (share, asked, saved_count, expected) in [
            (CacheSharing::Never, 9, 9, false),
            (CacheSharing::Repeated, 2, 2, false),
            (CacheSharing::Repeated, 3, 1, true),
            (CacheSharing::Repeated, 1, 3, true),
            (CacheSharing::Always, 1, 1, true),
        ] {
            assert_eq!(
                may_share(&saved(saved_count), asked, &settings(share)),
                expected,
                "{share:?} {asked} {saved_count}"
            );
        }
        let warmed = CachedAnswer {
            conversation: None,
            ..saved(0)
        };
        assert!(may_share(&warmed, 1, &settings(CacheSharing::Never)));
    }

    #[test]
    fn question_is_due_before_its_answer_expires() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let default = CacheSettings::default();
        let short_lived = CacheSettings {
            stale_for: Duration::ZERO,
            ..CacheSettings::default()
        };
        for (settings, age, due) in [
            (&default, None, true),
            (&default, Some(minutes(359)), false),
            (&default, Some(minutes(360)), true),
            (&short_lived, Some(minutes(53)), false),
            (&short_lived, Some(minutes(54)), true),
        ] {
            assert_eq!(is_refresh_due(age, settings), due, "{age:?}");
        }
    }

    #[test]
    fn warm_hours_are_in_utc() {
        let night = CacheSettings {
            warm_hours: Some(DailyWindow {
                start_minute: 120,
                end_minute: 300,
            }),
            ..CacheSettings::default()
        };
        // 2026-11-18 00:00 UTC.
        let at = |minute: u64| Timestamp(1_794_960_000_000 + minute * 60_000);
        for (minute, within) in [(119, false), (120, true), (299, true), (300, false)] {
            assert_eq!(is_in_warm_window(at(minute), &night), within, "{minute}");
            assert!(is_in_warm_window(at(minute), &CacheSettings::default()));
        }
    }
}
