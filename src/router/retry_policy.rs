//! The retry policy: after a failed attempt, retry the same provider, try another, or give up.
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Failure, FaultKind, Recovery};

#[derive(Clone, Debug)]
pub struct FailedAttempt {
    pub provider: Arc<str>,
    pub failure: Failure,
    pub had_text: bool,
    pub elapsed: Duration,
}

/// The limits of the retry policy for one turn.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts per turn, retries included.
    pub max_attempts: u32,
    pub same_provider_retries: u32,
    /// A longer `Retry-After` is not waited for.
    pub max_retry_after: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NextStep {
    /// Retry the same provider if the retry budget allows it, after this delay. `None` means after
    /// a backoff.
    RetrySame(Option<Duration>),
    NextProvider,
    GiveUp,
}

/// A provider that took longer than this to fail is not retried in the same turn.
const MAX_RETRYABLE_DURATION: Duration = Duration::from_secs(2);

/// Decides what follows the failed attempts of a turn.
///
/// `untried` is the number of enabled providers that the turn has not tried.
pub fn next_step(failed: &[FailedAttempt], untried: usize, rules: RetryPolicy) -> NextStep {
    let Some(last) = failed.last() else {
        return NextStep::NextProvider;
    };
    let attempts_left = (rules.max_attempts as usize).saturating_sub(failed.len());
    if attempts_left == 0 {
        return NextStep::GiveUp;
    }
    match last.failure.fault.recovery() {
        Recovery::ContentFilter => NextStep::GiveUp,
        // A second provider that rejects the request confirms that the request is at fault.
        Recovery::CallerError if count_class(failed, Recovery::CallerError) > 1 => NextStep::GiveUp,
        // Leave one attempt for each untried provider.
        Recovery::RetrySame if attempts_left > untried => retry_same(failed, last, rules),
        _ => NextStep::NextProvider,
    }
}

/// Returns the providers of a turn whose context was too small for the request.
pub fn providers_too_small(failed: &[FailedAttempt]) -> Vec<Arc<str>> {
    failed
        .iter()
        .filter(|attempt| attempt.failure.fault.recovery() == Recovery::LargerContext)
        .map(|attempt| Arc::clone(&attempt.provider))
        .collect()
}

fn count_class(failed: &[FailedAttempt], class: Recovery) -> usize {
    failed
        .iter()
        .filter(|attempt| attempt.failure.fault.recovery() == class)
        .count()
}

fn retry_same(failed: &[FailedAttempt], last: &FailedAttempt, rules: RetryPolicy) -> NextStep {
    let attempts_here = failed
        .iter()
        .filter(|attempt| attempt.provider == last.provider)
        .count();
    // A continuation that did not fit is our own fault, so the same provider may answer from the
    // start, however long it took.
    let is_misfit = last.failure.fault == FaultKind::Diverged;
    let is_quick = is_misfit || last.elapsed <= MAX_RETRYABLE_DURATION;
    let max_retries = rules.same_provider_retries.max(u32::from(is_misfit)) as usize;
    if last.had_text || !is_quick || attempts_here > max_retries {
        return NextStep::NextProvider;
    }
    match last.failure.retry_after {
        Some(delay) if delay > rules.max_retry_after => NextStep::NextProvider,
        Some(delay) => NextStep::RetrySame(Some(delay)),
        // Do not wait out a rate limit of unknown duration.
        None if last.failure.fault == FaultKind::RateLimited => NextStep::NextProvider,
        None if is_misfit => NextStep::RetrySame(Some(Duration::ZERO)),
        None => NextStep::RetrySame(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RetryPolicy = RetryPolicy {
        max_attempts: 4,
        same_provider_retries: 1,
        max_retry_after: Duration::from_secs(2),
    };

    fn failed(provider: &str, fault: FaultKind) -> FailedAttempt {
        FailedAttempt {
            provider: provider.into(),
            failure: Failure::new(fault),
            had_text: false,
            elapsed: Duration::from_millis(5),
        }
    }

    fn step_after(mut attempt: FailedAttempt, change: impl FnOnce(&mut FailedAttempt)) -> NextStep {
        change(&mut attempt);
        next_step(&[attempt], 2, RULES)
    }

    #[test]
    fn every_fault_class_has_its_next_step() {
        for fault in FaultKind::ALL {
            let expected = match fault.recovery() {
                Recovery::RetrySame if fault == FaultKind::RateLimited => NextStep::NextProvider,
                Recovery::RetrySame if fault == FaultKind::Diverged => {
                    NextStep::RetrySame(Some(Duration::ZERO))
                }
                Recovery::RetrySame => NextStep::RetrySame(None),
                Recovery::NextProvider
                | Recovery::Block
                | Recovery::CallerError
                | Recovery::LargerContext => NextStep::NextProvider,
                Recovery::ContentFilter => NextStep::GiveUp,
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
        let reset = || failed("a", FaultKind::Reset);
        assert_eq!(
            step_after(reset(), |attempt| attempt.had_text = true),
            NextStep::NextProvider
        );
        assert_eq!(
            step_after(reset(), |attempt| attempt.elapsed =
                MAX_RETRYABLE_DURATION * 2),
            NextStep::NextProvider
        );
        assert_eq!(
            next_step(&[reset(), reset()], 1, RULES),
            NextStep::NextProvider
        );
    }

    #[test]
    fn a_short_retry_after_is_waited_for_and_a_long_one_tries_the_next_provider() {
        let limited = || failed("a", FaultKind::RateLimited);
        let wait = |seconds| {
            step_after(limited(), |attempt| {
                attempt.failure.retry_after = Some(Duration::from_secs(seconds))
            })
        };
        assert_eq!(wait(1), NextStep::RetrySame(Some(Duration::from_secs(1))));
        assert_eq!(wait(3), NextStep::NextProvider);
    }

    #[test]
    fn a_retry_leaves_an_attempt_for_each_provider_not_yet_tried() {
        assert_eq!(
            next_step(&[failed("a", FaultKind::Reset)], 3, RULES),
            NextStep::NextProvider
        );
        assert_eq!(
            next_step(&[failed("a", FaultKind::Reset)], 2, RULES),
            NextStep::RetrySame(None)
        );
    }

    #[test]
    fn outgrown_returns_the_providers_with_too_small_a_context() {
        let attempts = [
            failed("a", FaultKind::TooLong),
            failed("b", FaultKind::Reset),
            failed("c", FaultKind::TooLong),
        ];
        assert_eq!(
            providers_too_small(&attempts),
            ["a", "c"].map(Arc::<str>::from)
        );
    }

    #[test]
    fn max_attempts_ends_the_turn() {
        let attempts = ["a", "b", "c", "d"].map(|name| failed(name, FaultKind::Timeout));
        assert_eq!(next_step(&attempts, 9, RULES), NextStep::GiveUp);
        assert_eq!(next_step(&attempts[..3], 9, RULES), NextStep::NextProvider);
    }

    #[test]
    fn a_bad_request_is_tried_at_one_more_provider() {
        let bad = |name| failed(name, FaultKind::BadRequest);
        assert_eq!(next_step(&[bad("a")], 2, RULES), NextStep::NextProvider);
        assert_eq!(next_step(&[bad("a"), bad("b")], 1, RULES), NextStep::GiveUp);
    }
}
