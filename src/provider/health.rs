//! Looking into a provider that nobody is asking: a free listing, or a one-token completion, now and then.
//!
//! What a check finds is shown, and believed for a time; it moves no breaker. A listing that goes well says nothing of the model, so it must
//! not close one; and a listing that fails, be it for a refused key, may fail alone: some servers have none. Visitors' calls and the recovery
//! probe are what a breaker goes by. While it is not closed, the recovery probe is the check; while a rate limit is waited out, or the budget
//! is spent, nothing that counts is sent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::breaker::Verdict;
use super::jitter;
use super::standstill;
use super::upstream::{Step, Upstream};
use crate::chat::{Ask, At, Fault, Message, ProviderState, Role, Usage};
use crate::settings::{HealthSettings, ProbeKind};

/// What a one-token completion uses, where it is cut off before the provider says: about a token in, one out.
pub const PROBE_USAGE: Usage = Usage {
    input_tokens: 1,
    output_tokens: 1,
    estimated: true,
};

/// What one check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Why it failed; none where it went well.
    pub failed: Option<Fault>,
    /// Until when it is believed.
    pub until: At,
}

impl Check {
    /// Why it failed, as long as that is believed.
    pub fn fault(self, now: At) -> Option<Fault> {
        self.failed.filter(|_| now < self.until)
    }
}

/// Whether, and with what, a provider in this state is to be checked.
///
/// `held`: a rate limit is waited out. `spent`: its budget is.
pub fn due(probe: ProbeKind, state: ProviderState, held: bool, spent: bool) -> ProbeKind {
    match probe {
        _ if state != ProviderState::Closed || held => ProbeKind::Off,
        ProbeKind::Completion if spent => ProbeKind::Off,
        probe => probe,
    }
}

/// The time to the next check: a fifth more or less than the interval, so that providers and instances that start together do not check
/// together.
pub fn pause(settings: &HealthSettings, chance: f64) -> Duration {
    let fifth = settings.interval / 5;
    jitter::between(
        settings.interval - fifth,
        settings.interval.saturating_add(fifth),
        chance,
    )
}

/// Makes a listing; the fault where it failed.
pub async fn listing(upstream: Arc<dyn Upstream>, limit: Duration) -> Option<Fault> {
    match standstill::timeout(limit, upstream.list()).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure.fault),
        Err(_) => Some(Fault::Timeout),
    }
}

/// A one-token completion: the only thing but a visitor's turn that proves a provider answers.
pub async fn completion(upstream: Arc<dyn Upstream>, limit: Duration) -> Verdict {
    let question = Message {
        role: Role::User,
        text: "ping".into(),
    };
    let ask = Ask {
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
    let answered = async {
        let mut steps = upstream.ask(&ask);
        while let Some(step) = steps.next().await {
            match step {
                Ok(Step::Usage(_)) => {}
                Ok(Step::Text(_) | Step::Thinking | Step::End(_)) => return Verdict::Whole,
                Err(failure) => return failed(failure.fault, failure.retry_after),
            }
        }
        failed(Fault::Truncated, None)
    };
    standstill::timeout(limit, answered)
        .await
        .unwrap_or_else(|_| failed(Fault::Timeout, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProbeKind::{Completion, Models, Off};

    #[test]
    fn only_a_provider_that_may_be_asked_is_checked() {
        use ProviderState::{Blocked, Closed, Disabled, HalfOpen, Open};
        for (state, held, spent, models, tokens) in [
            (Closed, false, false, Models, Completion),
            (Closed, false, true, Models, Off),
            (Closed, true, false, Off, Off),
            (Open, false, false, Off, Off),
            (HalfOpen, false, false, Off, Off),
            (Blocked, false, false, Off, Off),
            (Disabled, false, false, Off, Off),
        ] {
            assert_eq!(
                due(Models, state, held, spent),
                models,
                "{state:?} {held} {spent}"
            );
            assert_eq!(
                due(Completion, state, held, spent),
                tokens,
                "{state:?} {held} {spent}"
            );
            assert_eq!(due(Off, state, held, spent), Off);
        }
    }

    #[test]
    fn checks_are_spread_around_the_interval() {
        let settings = HealthSettings {
            interval: Duration::from_secs(60),
            ..HealthSettings::default()
        };
        for (chance, seconds) in [(0.0, 48), (0.5, 60), (1.0, 72)] {
            assert_eq!(pause(&settings, chance), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn a_result_is_believed_until_it_expires() {
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
