//! The retry policy: after a failed attempt, retry the same provider, try another, or give up.
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::{Class, Failure, Fault};

#[derive(Clone, Debug)]
pub struct Failed {
    pub provider: Arc<str>,
    pub failure: Failure,
    pub started: bool,
    pub took: Duration,
}

/// The limits of the retry policy for one turn.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Attempts per turn, retries included.
    pub max_attempts: u32,
    pub same_provider: u32,
    /// A longer `Retry-After` is not waited for.
    pub max_retry_after: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Retry the same provider if the retry budget allows it, after this delay. `None` means after
    /// a backoff.
    Again(Option<Duration>),
    Other,
    Nobody,
}

/// A provider that took longer than this to fail is not retried in the same turn.
const QUICK: Duration = Duration::from_secs(2);

/// Decides what follows the failed attempts of a turn.
///
/// `untried` is the number of enabled providers that the turn has not tried.
pub fn next(failed: &[Failed], untried: usize, rules: Rules) -> Next {
    let Some(last) = failed.last() else {
        return Next::Other;
    };
    let attempts_left = (rules.max_attempts as usize).saturating_sub(failed.len());
    if attempts_left == 0 {
        return Next::Nobody;
    }
    match last.failure.fault.class() {
        Class::Policy => Next::Nobody,
        // A second provider that rejects the request confirms that the request is at fault.
        Class::Caller if count_class(failed, Class::Caller) > 1 => Next::Nobody,
        // Leave one attempt for each untried provider.
        Class::RetryHere if attempts_left > untried => again(failed, last, rules),
        _ => Next::Other,
    }
}

/// Returns the providers of a turn whose context was too small for the request.
pub fn outgrown(failed: &[Failed]) -> Vec<Arc<str>> {
    failed
        .iter()
        .filter(|attempt| attempt.failure.fault.class() == Class::MoreRoom)
        .map(|attempt| Arc::clone(&attempt.provider))
        .collect()
}

fn count_class(failed: &[Failed], class: Class) -> usize {
    failed
        .iter()
        .filter(|attempt| attempt.failure.fault.class() == class)
        .count()
}

fn again(failed: &[Failed], last: &Failed, rules: Rules) -> Next {
    let attempts_here = failed
        .iter()
        .filter(|attempt| attempt.provider == last.provider)
        .count();
    // A continuation that did not fit is our own fault, so the same provider may answer from the
    // start, however long it took.
    let is_misfit = last.failure.fault == Fault::Diverged;
    let is_quick = is_misfit || last.took <= QUICK;
    let max_retries = rules.same_provider.max(u32::from(is_misfit)) as usize;
    if last.started || !is_quick || attempts_here > max_retries {
        return Next::Other;
    }
    match last.failure.retry_after {
        Some(delay) if delay > rules.max_retry_after => Next::Other,
        Some(delay) => Next::Again(Some(delay)),
        // Do not wait out a rate limit of unknown duration.
        None if last.failure.fault == Fault::RateLimited => Next::Other,
        None if is_misfit => Next::Again(Some(Duration::ZERO)),
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
        Failed {
            provider: provider.into(),
            failure: Failure::of(fault),
            started: false,
            took: Duration::from_millis(5),
        }
    }

    fn step_after(mut attempt: Failed, change: impl FnOnce(&mut Failed)) -> Next {
        change(&mut attempt);
        next(&[attempt], 2, RULES)
    }

    #[test]
    fn every_fault_class_has_its_next_step() {
        for fault in Fault::ALL {
            let expected = match fault.class() {
                Class::RetryHere if fault == Fault::RateLimited => Next::Other,
                Class::RetryHere if fault == Fault::Diverged => Next::Again(Some(Duration::ZERO)),
                Class::RetryHere => Next::Again(None),
                Class::NextNow | Class::Block | Class::Caller | Class::MoreRoom => Next::Other,
                Class::Policy => Next::Nobody,
            };
            assert_eq!(
                step_after(failed("a", fault), |_| ()),
                expected,
                "{fault:?}"
            );
        }
    }

    #[test]
    fn only_quick_failures_before_any_text_are_retried_and_only_once() {
        let reset = || failed("a", Fault::Reset);
        assert_eq!(
            step_after(reset(), |attempt| attempt.started = true),
            Next::Other
        );
        assert_eq!(
            step_after(reset(), |attempt| attempt.took = QUICK * 2),
            Next::Other
        );
        assert_eq!(next(&[reset(), reset()], 1, RULES), Next::Other);
    }

    #[test]
    fn a_short_retry_after_is_waited_for_and_a_long_one_tries_the_next_provider() {
        let limited = || failed("a", Fault::RateLimited);
        let wait = |seconds| {
            step_after(limited(), |attempt| {
                attempt.failure.retry_after = Some(Duration::from_secs(seconds))
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
    fn outgrown_returns_the_providers_with_too_small_a_context() {
        let attempts = [
            failed("a", Fault::TooLong),
            failed("b", Fault::Reset),
            failed("c", Fault::TooLong),
        ];
        assert_eq!(outgrown(&attempts), ["a", "c"].map(Arc::<str>::from));
    }

    #[test]
    fn max_attempts_ends_the_turn() {
        let attempts = ["a", "b", "c", "d"].map(|name| failed(name, Fault::Timeout));
        assert_eq!(next(&attempts, 9, RULES), Next::Nobody);
        assert_eq!(next(&attempts[..3], 9, RULES), Next::Other);
    }

    #[test]
    fn a_bad_request_is_tried_at_one_more_provider() {
        let bad = |name| failed(name, Fault::BadRequest);
        assert_eq!(next(&[bad("a")], 2, RULES), Next::Other);
        assert_eq!(next(&[bad("a"), bad("b")], 1, RULES), Next::Nobody);
    }
}
