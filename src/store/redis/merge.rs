//! Merging of two instances' views of a record. Pure.

use crate::domain::{ServiceLifetime, TurnRecord, TurnState};

/// The progress of a turn, for ordering: a complete turn is never replaced by a part of it.
fn completeness(turn: &TurnRecord) -> (u8, usize) {
    let state = match turn.state {
        TurnState::Running => 0,
        TurnState::Interrupted => 1,
        TurnState::Done => 2,
    };
    let drafts = turn.drafts.iter().map(|draft| draft.text.len());
    (state, turn.text.len() + drafts.sum::<usize>())
}

/// Merges two views of a turn: the one with more progress, with the earlier follow-up.
///
/// Local feedback wins, because the visitor gave it on this instance.
pub(super) fn merge_turns(local: TurnRecord, shared: TurnRecord) -> TurnRecord {
    let feedback = local.feedback.or(shared.feedback);
    let followup = match (&local.followup, &shared.followup) {
        (Some(first), Some(second)) if first.at < second.at => local.followup.clone(),
        (_, Some(_)) => shared.followup.clone(),
        (_, None) => local.followup.clone(),
    };
    let further = if completeness(&local) > completeness(&shared) {
        local
    } else {
        shared
    };
    TurnRecord {
        feedback,
        followup,
        ..further
    }
}

/// Returns the time span in which any instance ran.
pub(super) fn merge_lifetimes(local: ServiceLifetime, shared: ServiceLifetime) -> ServiceLifetime {
    ServiceLifetime {
        first_start: local.first_start.min(shared.first_start),
        last_seen: local.last_seen.max(shared.last_seen),
    }
}

pub(super) fn merge_views(
    local: Option<TurnRecord>,
    shared: Option<TurnRecord>,
) -> Option<TurnRecord> {
    match (local, shared) {
        (Some(local), Some(shared)) => Some(merge_turns(local, shared)),
        (local, shared) => local.or(shared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Feedback, Followup, Timestamp};
    use crate::store::contract::{completed, turn, with_text};

    #[test]
    fn view_with_more_progress_wins_in_either_order() {
        let running = with_text(turn(5, "m", "?"), "a long text so far");
        let cut = with_text(turn(5, "m", "?"), "a long").into_interrupted();
        let longer = with_text(turn(5, "m", "?"), "a long text").into_interrupted();
        let whole = completed(turn(5, "m", "?"), "a");
        for (less, more) in [
            (&running, &cut),
            (&cut, &longer),
            (&longer, &whole),
            (&running, &whole),
        ] {
            assert_eq!(&merge_turns(less.clone(), more.clone()), more);
            assert_eq!(&merge_turns(more.clone(), less.clone()), more);
            assert_eq!(&merge_turns(more.clone(), more.clone()), more);
        }
    }

    #[test]
    fn merge_keeps_the_first_followup_and_any_feedback() {
        let followup = |at: u64, text: &str| {
            Some(Followup {
                text: text.into(),
                provider: "p".into(),
                model: "m".into(),
                at: Timestamp(at),
            })
        };
        let base = with_text(turn(5, "m", "?"), "a").into_interrupted();
        let first = TurnRecord {
            followup: followup(1, "first"),
            ..base.clone()
        };
        let second = TurnRecord {
            followup: followup(2, "second"),
            feedback: Some(Feedback::Up),
            ..base.clone()
        };
        for merged in [
            merge_turns(first.clone(), second.clone()),
            merge_turns(second.clone(), first.clone()),
        ] {
            assert_eq!(
                (merged.followup, merged.feedback),
                (first.followup.clone(), Some(Feedback::Up))
            );
        }
        assert_eq!(merge_turns(base.clone(), second.clone()), second);
        assert_eq!(merge_turns(second.clone(), base), second);
    }

    #[test]
    fn merged_lifetime_spans_both() {
        let later = ServiceLifetime {
            first_start: Timestamp(5),
            last_seen: Timestamp(7),
        };
        let earlier = ServiceLifetime {
            first_start: Timestamp(3),
            last_seen: Timestamp(6),
        };
        assert_eq!(
            merge_lifetimes(later, earlier),
            ServiceLifetime {
                first_start: Timestamp(3),
                last_seen: Timestamp(7)
            }
        );
    }
}
