//! What follows a failed attempt: the same provider once more, another, or the ladder. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::{Class, Failure, Fault};

/// One attempt of a turn that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Who was asked.
    pub provider: Arc<str>,
    /// How it failed.
    pub failure: Failure,
    /// Whether it had said any text.
    pub started: bool,
    /// How long it took.
    pub took: Duration,
}

/// The measures of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Attempts a turn, retries included.
    pub max_attempts: u32,
    /// Retries on the same provider a turn.
    pub same_provider: u32,
    /// The longest `Retry-After` that is waited for.
    pub max_retry_after: Duration,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The same provider once more, if the retry budget agrees: after this long, or after a back-off where none is given.
    Again(Option<Duration>),
    /// A provider not yet tried.
    Other,
    /// No provider.
    Nobody,
}

/// A retry is for what fails quickly: who took longer than this to fail is not asked again in the same turn.
const QUICK: Duration = Duration::from_secs(2);

/// What follows the attempts of a turn that failed so far; `untried` enabled providers were not asked yet.
pub fn next(failed: &[Failed], untried: usize, rules: Rules) -> Next {
    let Some(last) = failed.last() else {
        return Next::Other;
    };
    let left = (rules.max_attempts as usize).saturating_sub(failed.len());
    if left == 0 {
        return Next::Nobody;
    }
    match last.failure.fault.class() {
        Class::Policy => Next::Nobody,
        Class::Caller
            if failed
                .iter()
                .filter(|one| one.failure.fault.class() == Class::Caller)
                .count()
                > 1 =>
        {
            Next::Nobody
        }
        // A retry must leave an attempt for each provider not yet tried.
        Class::RetryHere if left > untried => again(failed, last, rules),
        _ => Next::Other,
    }
}

/// Those of a turn's providers that have not room enough for what they were asked.
pub fn outgrown(failed: &[Failed]) -> Vec<Arc<str>> {
    let too_long = failed
        .iter()
        .filter(|one| one.failure.fault.class() == Class::MoreRoom);
    too_long.map(|one| Arc::clone(&one.provider)).collect()
}

fn again(failed: &[Failed], last: &Failed, rules: Rules) -> Next {
    let here = failed
        .iter()
        .filter(|one| one.provider == last.provider)
        .count();
    // A continuation that did not fit is our own doing: the same provider may answer anew, however long it took.
    let ours = last.failure.fault == Fault::Diverged;
    let quick = ours || last.took <= QUICK;
    if last.started || !quick || here > rules.same_provider.max(u32::from(ours)) as usize {
        return Next::Other;
    }
    match last.failure.retry_after {
        Some(wait) if wait > rules.max_retry_after => Next::Other,
        Some(wait) => Next::Again(Some(wait)),
        // A rate limit that does not say for how long is not waited out.
        None if last.failure.fault == Fault::RateLimited => Next::Other,
        None if ours => Next::Again(Some(Duration::ZERO)),
        None => Next::Again(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        max_attempts: 4,
        same_provider: 1,
        max_retry_after: Duration::from_secs(2),
    };

    fn failed(provider: &str, fault: Fault) -> Failed {
        let took = Duration::from_millis(5);
        Failed {
            provider: provider.into(),
            failure: Failure::of(fault),
            started: false,
            took,
        }
    }

    fn after(mut one: Failed, change: impl FnOnce(&mut Failed)) -> Next {
        change(&mut one);
        next(&[one], 2, RULES)
    }

    #[test]
    fn every_fault_has_its_consequence() {
        for fault in Fault::ALL {
            let expected = match fault.class() {
                Class::RetryHere if fault == Fault::RateLimited => Next::Other,
                Class::RetryHere if fault == Fault::Diverged => Next::Again(Some(Duration::ZERO)),
                Class::RetryHere => Next::Again(None),
                Class::NextNow | Class::Block | Class::Caller | Class::MoreRoom => Next::Other,
                Class::Policy => Next::Nobody,
            };
            assert_eq!(after(failed("a", fault), |_| ()), expected, "{fault:?}");
        }
    }

    #[test]
    fn only_quick_faults_before_any_text_are_retried_and_only_once() {
        let reset = || failed("a", Fault::Reset);
        assert_eq!(after(reset(), |one| one.started = true), Next::Other);
        assert_eq!(after(reset(), |one| one.took = QUICK * 2), Next::Other);
        assert_eq!(next(&[reset(), reset()], 1, RULES), Next::Other);
    }

    #[test]
    fn a_short_retry_after_is_waited_for_and_a_long_one_is_not() {
        let limited = || failed("a", Fault::RateLimited);
        let wait = |seconds| {
            after(limited(), |one| {
                one.failure.retry_after = Some(Duration::from_secs(seconds))
            })
        };
        assert_eq!(wait(1), Next::Again(Some(Duration::from_secs(1))));
        assert_eq!(wait(3), Next::Other);
    }

    #[test]
    fn a_retry_leaves_an_attempt_for_each_provider_not_yet_tried() {
        assert_eq!(next(&[failed("a", Fault::Reset)], 3, RULES), Next::Other);
        assert_eq!(
            next(&[failed("a", Fault::Reset)], 2, RULES),
            Next::Again(None)
        );
    }

    #[test]
    fn who_was_asked_too_much_is_known() {
        let turn = [
            failed("a", Fault::TooLong),
            failed("b", Fault::Reset),
            failed("c", Fault::TooLong),
        ];
        assert_eq!(outgrown(&turn), ["a", "c"].map(Arc::<str>::from));
    }

    #[test]
    fn attempts_end() {
        let many = ["a", "b", "c", "d"].map(|name| failed(name, Fault::Timeout));
        assert_eq!(next(&many, 9, RULES), Next::Nobody);
        assert_eq!(next(&many[..3], 9, RULES), Next::Other);
    }

    #[test]
    fn a_bad_request_goes_to_one_more_provider() {
        let bad = |name| failed(name, Fault::BadRequest);
        assert_eq!(next(&[bad("a")], 2, RULES), Next::Other);
        assert_eq!(next(&[bad("a"), bad("b")], 1, RULES), Next::Nobody);
    }
}
