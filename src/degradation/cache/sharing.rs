//! Who may be told what: an answer that was given to one visitor and is told to another must be nobody's own.

use super::personal;
use crate::chat::{Finish, Source, TurnRecord, TurnState};
use crate::settings::{CacheSettings, Share};
use crate::store::CachedAnswer;

/// The longest answer that is kept, in bytes.
pub const ANSWER_BYTES: usize = 64 * 1024;

/// Whether a question may be answered with what another visitor was told, and its answer told to another: only the first message of an anonymous
/// conversation, since all later ones have a history, and only one that says nothing of who asks.
pub fn is_open(question: &str, first: bool, anonymous: bool) -> bool {
    first && anonymous && personal::find(question).is_none()
}

/// Whether a turn's answer may be kept at all: whole, given by a provider, not too long.
pub fn is_whole(record: &TurnRecord) -> bool {
    let whole = record.state == TurnState::Done && record.finish == Some(Finish::Stop);
    let text = record.text.trim();
    whole
        && record.source == Some(Source::Ai)
        && !text.is_empty()
        && record.text.len() <= ANSWER_BYTES
}

/// Whether the answer to an open question may be told to others: given in one go by one provider, and nothing personal in it.
pub fn is_tellable(record: &TurnRecord) -> bool {
    is_whole(record)
        && record.attempts == 1
        && record.drafts.is_empty()
        && personal::find(&record.text).is_none()
}

/// Whether a saved answer may be told to who asks alike, that one included among the `asked` conversations counted so far.
pub fn may_tell(answer: &CachedAnswer, asked: u32, settings: &CacheSettings) -> bool {
    // What was asked for ahead of time is nobody's.
    answer.conversation.is_none() || is_common(asked.max(answer.asked), settings)
}

/// Whether a question that came from so many conversations is one that many ask.
pub fn is_common(asked: u32, settings: &CacheSettings) -> bool {
    match settings.share {
        Share::Never => false,
        Share::Repeated => asked >= settings.repeated_min,
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
    fn only_what_is_nobodys_own_is_open() {
        assert!(is_open("What are your hours?", true, true));
        assert!(
            !is_open("What are your hours?", false, true),
            "it has a history"
        );
        assert!(
            !is_open("What are your hours?", true, false),
            "a signed-in visitor's"
        );
        assert!(!is_open("Write to ann@example.com", true, true));
    }

    #[test]
    fn only_a_whole_answer_is_kept_and_only_one_in_one_go_is_told() {
        assert!(is_whole(&answered()) && is_tellable(&answered()));
        type Spoil = fn(&mut TurnRecord);
        let not_kept: [Spoil; 9] = [
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
        for spoil in not_kept {
            let mut record = answered();
            spoil(&mut record);
            assert!(!is_whole(&record) && !is_tellable(&record), "{record:?}");
        }
        let kept_not_told: [Spoil; 3] = [
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
        for spoil in kept_not_told {
            let mut record = answered();
            spoil(&mut record);
            assert!(is_whole(&record) && !is_tellable(&record), "{record:?}");
        }
    }

    #[test]
    fn how_often_it_must_be_asked_is_for_the_operator_to_say() {
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
        for (share, asked, noted, told) in [
            (Share::Never, 9, 9, false),
            (Share::Repeated, 2, 2, false),
            (Share::Repeated, 3, 1, true),
            (Share::Repeated, 1, 3, true),
            (Share::Always, 1, 1, true),
        ] {
            assert_eq!(
                may_tell(&saved(noted), asked, &settings(share)),
                told,
                "{share:?} {asked} {noted}"
            );
        }
        let ahead = CachedAnswer {
            conversation: None,
            ..saved(0)
        };
        assert!(may_tell(&ahead, 1, &settings(Share::Never)));
    }
}
