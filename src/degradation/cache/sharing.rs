//! Rules for sharing answers: an answer served to another visitor must contain nothing personal.

use super::personal;
use crate::chat::{Finish, Source, TurnRecord, TurnState};
use crate::settings::{CacheSettings, Share};
use crate::store::CachedAnswer;

/// The longest answer that is cached, in bytes.
pub const ANSWER_BYTES: usize = 64 * 1024;

/// Returns `true` if a question may share its answer with other conversations.
///
/// It must be the first message of an anonymous conversation, since later ones have a history, and
/// must contain no personal data.
pub fn is_open(question: &str, first: bool, anonymous: bool) -> bool {
    first && anonymous && personal::find(question).is_none()
}

/// Returns `true` if a turn's answer may be cached: complete, from a provider, not too long.
pub fn is_whole(record: &TurnRecord) -> bool {
    let is_complete = record.state == TurnState::Done && record.finish == Some(Finish::Stop);
    let text = record.text.trim();
    is_complete
        && record.source == Some(Source::Ai)
        && !text.is_empty()
        && record.text.len() <= ANSWER_BYTES
}

/// Returns `true` if a turn's answer may be shared: given by one attempt, without personal data.
pub fn is_tellable(record: &TurnRecord) -> bool {
    is_whole(record)
        && record.attempts == 1
        && record.drafts.is_empty()
        && personal::find(&record.text).is_none()
}

/// Returns `true` if a cached answer may be served to a different conversation.
///
/// `asker_count` is the number of distinct conversations that asked the question, including the
/// current one.
pub fn may_tell(answer: &CachedAnswer, asker_count: u32, settings: &CacheSettings) -> bool {
    // Warmed answers belong to no conversation, so anybody may have them.
    answer.conversation.is_none() || is_common(asker_count.max(answer.asked), settings)
}

pub fn is_common(asker_count: u32, settings: &CacheSettings) -> bool {
    match settings.share {
        Share::Never => false,
        Share::Repeated => asker_count >= settings.repeated_min,
        Share::Always => true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::chat::{At, ConversationId, Draft, TurnId};

    fn answered() -> TurnRecord {
        let turn = TurnId::after(None, 1, 1);
        let mut record =
            TurnRecord::asked(turn, "m".parse().unwrap(), At(1), "Hours?".into(), None);
        record.text = "From 9 to 5.".into();
        record.state = TurnState::Done;
        record.source = Some(Source::Ai);
        record.finish = Some(Finish::Stop);
        record.attempts = 1;
        record
    }

    #[test]
    fn only_anonymous_first_messages_without_personal_data_are_shareable() {
        assert!(is_open("What are your hours?", true, true));
        assert!(
            !is_open("What are your hours?", false, true),
            "it has a history"
        );
        assert!(
            !is_open("What are your hours?", true, false),
            "from a signed-in visitor"
        );
        assert!(!is_open("Write to ann@example.com", true, true));
    }

    #[test]
    fn incomplete_answers_are_not_cached_and_multi_attempt_answers_are_not_shared() {
        assert!(is_whole(&answered()) && is_tellable(&answered()));
        type Spoil = fn(&mut TurnRecord);
        let not_cacheable: [Spoil; 9] = [
            |record| record.finish = Some(Finish::Length),
            |record| record.finish = Some(Finish::ContentFilter),
            |record| record.finish = Some(Finish::Stopped),
            |record| record.state = TurnState::Interrupted,
            |record| record.source = Some(Source::Template),
            |record| record.source = Some(Source::Cache),
            |record| record.source = Some(Source::StaleCache),
            |record| record.text = " \n".into(),
            |record| record.text = "x".repeat(ANSWER_BYTES + 1),
        ];
        for spoil in not_cacheable {
            let mut record = answered();
            spoil(&mut record);
            assert!(!is_whole(&record) && !is_tellable(&record), "{record:?}");
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
            assert!(is_whole(&record) && !is_tellable(&record), "{record:?}");
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
            saved: At(1),
            conversation: Some(ConversationId::from_random([1; 16])),
            turn: None,
            first: true,
            asked,
        };
        for (share, asked, saved_count, may_share) in [
            (Share::Never, 9, 9, false),
            (Share::Repeated, 2, 2, false),
            (Share::Repeated, 3, 1, true),
            (Share::Repeated, 1, 3, true),
            (Share::Always, 1, 1, true),
        ] {
            assert_eq!(
                may_tell(&saved(saved_count), asked, &settings(share)),
                may_share,
                "{share:?} {asked} {saved_count}"
            );
        }
        let warmed = CachedAnswer {
            conversation: None,
            ..saved(0)
        };
        assert!(may_tell(&warmed, 1, &settings(Share::Never)));
    }
}
