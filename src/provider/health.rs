//! Health checks of a provider that gets no calls: a free model listing or a one-token completion.
//!
//! The result is shown, and expires, but does not move the breaker. A good listing proves nothing
//! about the model, so it must not close a breaker; a failed listing may fail alone, because some
//! servers have none. Breakers follow visitors' calls and the recovery probe. While a breaker is
//! not closed, the recovery probe is the health check. During a rate limit or with a spent budget
//! no check is sent that would count against it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::breaker::Verdict;
use super::jitter;
use super::standstill;
use super::upstream::{Step, Upstream};
use crate::chat::{Ask, At, Fault, Message, ProviderState, Role, Usage};
use crate::settings::{HealthSettings, ProbeKind};

/// The usage of a one-token completion, which is cut off before the provider reports it: about one
/// token in, one out.
pub const PROBE_USAGE: Usage = Usage {
    input_tokens: 1,
    output_tokens: 1,
    estimated: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// `None` if the check succeeded.
    pub failed: Option<Fault>,
    pub until: At,
}

impl Check {
    /// Returns the fault, or `None` once the result has expired.
    pub fn fault(self, now: At) -> Option<Fault> {
        self.failed.filter(|_| now < self.until)
    }
}

/// Returns the kind of check that a provider in this state gets.
///
/// `is_rate_limited`: a rate limit is being waited out. `is_budget_spent`: the daily budget is
/// spent.
pub fn due(
    probe: ProbeKind,
    state: ProviderState,
    is_rate_limited: bool,
    is_budget_spent: bool,
) -> ProbeKind {
    match probe {
        _ if state != ProviderState::Closed || is_rate_limited => ProbeKind::Off,
        ProbeKind::Completion if is_budget_spent => ProbeKind::Off,
        probe => probe,
    }
}

/// Returns the time to the next check: the interval, plus or minus up to a fifth, so that providers
/// and instances that start together do not check together.
pub fn pause(settings: &HealthSettings, random: f64) -> Duration {
    let fifth = settings.interval / 5;
    jitter::between(
        settings.interval - fifth,
        settings.interval.saturating_add(fifth),
        random,
    )
}

pub async fn listing(upstream: Arc<dyn Upstream>, timeout: Duration) -> Option<Fault> {
    match standstill::timeout(timeout, upstream.list()).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure.fault),
        Err(_) => Some(Fault::Timeout),
    }
}

/// Requests a one-token completion. Besides a visitor's turn, this is the only proof that a
/// provider answers.
pub async fn completion(upstream: Arc<dyn Upstream>, timeout: Duration) -> Verdict {
    let question = Message {
        role: Role::User,
        text: "ping".into(),
    };
    let request = Ask {
        system: "".into(),
        messages: Arc::new([question]),
        max_tokens: 1,
        goes_on: false,
        temperature: None,
        stop: Arc::default(),
    };
    let failed = |fault, retry_after| Verdict::Failed {
        fault,
        started: false,
        retry_after,
    };
    let outcome = async {
        let mut events = upstream.ask(&request);
        while let Some(event) = events.next().await {
            match event {
                Ok(Step::Usage(_)) => {}
                Ok(Step::Text(_) | Step::Thinking | Step::End(_)) => return Verdict::Whole,
                Err(failure) => return failed(failure.fault, failure.retry_after),
            }
        }
        failed(Fault::Truncated, None)
    };
    standstill::timeout(timeout, outcome)
        .await
        .unwrap_or_else(|_| failed(Fault::Timeout, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProbeKind::{Completion, Models, Off};

    #[test]
    fn only_a_callable_provider_is_checked() {
        use ProviderState::{Blocked, Closed, Disabled, HalfOpen, Open};
        for (state, is_rate_limited, is_budget_spent, listing, completion) in [
            (Closed, false, false, Models, Completion),
            (Closed, false, true, Models, Off),
            (Closed, true, false, Off, Off),
            (Open, false, false, Off, Off),
            (HalfOpen, false, false, Off, Off),
            (Blocked, false, false, Off, Off),
            (Disabled, false, false, Off, Off),
        ] {
            assert_eq!(
                due(Models, state, is_rate_limited, is_budget_spent),
                listing,
                "{state:?} {is_rate_limited} {is_budget_spent}"
            );
            assert_eq!(
                due(Completion, state, is_rate_limited, is_budget_spent),
                completion,
                "{state:?} {is_rate_limited} {is_budget_spent}"
            );
            assert_eq!(due(Off, state, is_rate_limited, is_budget_spent), Off);
        }
    }

    #[test]
    fn checks_are_spread_around_the_interval() {
        let settings = HealthSettings {
            interval: Duration::from_secs(60),
            ..HealthSettings::default()
        };
        for (random, seconds) in [(0.0, 48), (0.5, 60), (1.0, 72)] {
            assert_eq!(pause(&settings, random), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn a_result_expires() {
        let check = Check {
            failed: Some(Fault::Timeout),
            until: At(10),
        };
        assert_eq!(check.fault(At(9)), Some(Fault::Timeout));
        assert_eq!(check.fault(At(10)), None);
        assert_eq!(
            Check {
                failed: None,
                ..check
            }
            .fault(At(9)),
            None
        );
    }
}
