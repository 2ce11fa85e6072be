//! Two instances' views of one record become one, whichever is told first. Pure.

use crate::chat::{Life, TurnRecord, TurnState};

/// How far a turn got: a whole one is never replaced by a part of it.
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

/// One turn, of what is known here and what is known there: the one that got further, with the first late answer; the thumb is as it was
/// given here, where it was.
pub(super) fn turns(here: TurnRecord, there: TurnRecord) -> TurnRecord {
    let feedback = here.feedback.or(there.feedback);
    let followup = match (&here.followup, &there.followup) {
        (Some(one), Some(other)) if one.at < other.at => here.followup.clone(),
        (_, Some(_)) => there.followup.clone(),
        (_, None) => here.followup.clone(),
    };
    let further = if reached(&here) > reached(&there) {
        here
    } else {
        there
    };
    TurnRecord {
        feedback,
        followup,
        ..further
    }
}

/// When any instance was seen to run.
pub(super) fn lives(here: Life, there: Life) -> Life {
    Life {
        first: here.first.min(there.first),
        last: here.last.max(there.last),
    }
}

/// One turn of two views of it, of which either may know nothing of it.
pub(super) fn views(here: Option<TurnRecord>, there: Option<TurnRecord>) -> Option<TurnRecord> {
    match (here, there) {
        (Some(here), Some(there)) => Some(turns(here, there)),
        (here, there) => here.or(there),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{At, Feedback, Followup};
    use crate::store::contract::{done, saying, turn};

    #[test]
    fn who_got_further_counts_whoever_tells() {
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
    fn no_late_answer_and_no_thumb_is_lost() {
        let late = |at: u64, text: &str| {
            Some(Followup {
                text: text.into(),
                provider: "p".into(),
                model: "m".into(),
                at: At(at),
            })
        };
        let base = saying(turn(5, "m", "?"), "a").interrupted();
        let first = TurnRecord {
            followup: late(1, "first"),
            ..base.clone()
        };
        let second = TurnRecord {
            followup: late(2, "second"),
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
    fn a_life_is_from_the_first_to_the_last() {
        let (one, other) = (
            Life {
                first: At(5),
                last: At(7),
            },
            Life {
                first: At(3),
                last: At(6),
            },
        );
        assert_eq!(
            lives(one, other),
            Life {
                first: At(3),
                last: At(7)
            }
        );
    }
}
