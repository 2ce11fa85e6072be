//! Rules for sharing answers: an answer served to another visitor must contain nothing personal.

use super::pii;
use crate::config::{CacheSettings, CacheSharing};
use crate::domain::{AnswerSource, FinishReason, TurnRecord, TurnState};
use crate::store::CachedAnswer;

/// The longest answer that is cached, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Returns `true` if a question may share its answer with other conversations.
///
/// It must be the first message of an anonymous conversation, since later ones have a history, and
/// must contain no personal data.
pub fn is_shareable_question(question: &str, first: bool, anonymous: bool) -> bool {
    first && anonymous && pii::detect(question).is_none()
}

/// Returns `true` if a turn's answer may be cached: complete, from a provider, not too long.
pub fn is_cacheable(record: &TurnRecord) -> bool {
    let is_complete = record.state == TurnState::Done && record.finish == Some(FinishReason::Stop);
    let text = record.text.trim();
    is_complete
        && record.source == Some(AnswerSource::Ai)
        && !text.is_empty()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{ConversationId, Draft, Timestamp, TurnId};

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
}
