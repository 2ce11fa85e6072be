//! Merging of two instances' views of a record. Pure.

use crate::chat::{Life, TurnRecord, TurnState};

/// The progress of a turn, for ordering: a complete turn is never replaced by a part of it.
fn reached(turn: &TurnRecord) -> (u8, usize) {
    let state = match turn.state {
        TurnState::Running => 0,
        TurnState::Interrupted => 1,
        TurnState::Done => 2,
    };
    (
        state,
        turn.text.len()
            + turn
                .drafts
                .iter()
                .map(|draft| draft.text.len())
                .sum::<usize>(),
    )
}

/// Merges two views of a turn: the one with more progress, with the earlier follow-up.
///
/// Local feedback wins, because the visitor gave it on this instance.
pub(super) fn turns(local: TurnRecord, shared: TurnRecord) -> TurnRecord {
    let feedback = local.feedback.or(shared.feedback);
    let followup = match (&local.followup, &shared.followup) {
        (Some(first), Some(second)) if first.at < second.at => local.followup.clone(),
        (_, Some(_)) => shared.followup.clone(),
        (_, None) => local.followup.clone(),
    };
    let further = if reached(&local) > reached(&shared) {
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
pub(super) fn lives(local: Life, shared: Life) -> Life {
    Life {
        first: local.first.min(shared.first),
        last: local.last.max(shared.last),
    }
}

pub(super) fn views(local: Option<TurnRecord>, shared: Option<TurnRecord>) -> Option<TurnRecord> {
    match (local, shared) {
        (Some(local), Some(shared)) => Some(turns(local, shared)),
        (local, shared) => local.or(shared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{At, Feedback, Followup};
    use crate::store::contract::{done, saying, turn};

    #[test]
    fn view_with_more_progress_wins_in_either_order() {
        let running = saying(turn(5, "m", "?"), "a long text so far");
        let cut = saying(turn(5, "m", "?"), "a long").interrupted();
        let longer = saying(turn(5, "m", "?"), "a long text").interrupted();
        let whole = done(turn(5, "m", "?"), "a");
        for (less, more) in [
            (&running, &cut),
            (&cut, &longer),
            (&longer, &whole),
            (&running, &whole),
        ] {
            assert_eq!(&turns(less.clone(), more.clone()), more);
            assert_eq!(&turns(more.clone(), less.clone()), more);
            assert_eq!(&turns(more.clone(), more.clone()), more);
        }
    }

    #[test]
    fn merge_keeps_the_first_followup_and_any_feedback() {
        let followup = |at: u64, text: &str| {
            Some(Followup {
                text: text.into(),
                provider: "p".into(),
                model: "m".into(),
                at: At(at),
            })
        };
        let base = saying(turn(5, "m", "?"), "a").interrupted();
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
            turns(first.clone(), second.clone()),
            turns(second.clone(), first.clone()),
        ] {
            assert_eq!(
                (merged.followup, merged.feedback),
                (first.followup.clone(), Some(Feedback::Up))
            );
        }
        assert_eq!(turns(base.clone(), second.clone()), second);
        assert_eq!(turns(second.clone(), base), second);
    }

    #[test]
    fn merged_lifetime_spans_both() {
        let later = Life {
            first: At(5),
            last: At(7),
        };
        let earlier = Life {
            first: At(3),
            last: At(6),
        };
        assert_eq!(
            lives(later, earlier),
            Life {
                first: At(3),
                last: At(7)
            }
        );
    }
}
