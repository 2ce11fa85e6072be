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

use super::backoff;
use super::breaker::CallOutcome;
use super::stall_clock;
use super::stream_event::{ProviderClient, StreamEvent};
use crate::config::{HealthSettings, ProbeKind};
use crate::domain::{
    ChatMessage, ChatRequest, FaultKind, MessageRole, ProviderState, Timestamp, TokenUsage,
};

/// The usage of a one-token completion, which is cut off before the provider reports it: about one
/// token in, one out.
pub const PROBE_USAGE: TokenUsage = TokenUsage {
    input_tokens: 1,
    output_tokens: 1,
    estimated: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `None` if the check succeeded.
    pub fault: Option<FaultKind>,
    pub expires_at: Timestamp,
}

impl HealthCheck {
    /// Returns the fault, or `None` once the result has expired.
    pub fn current_fault(self, now: Timestamp) -> Option<FaultKind> {
        self.fault.filter(|_| now < self.expires_at)
    }
}

/// Returns the kind of check that a provider in this state gets.
///
/// `is_rate_limited`: a rate limit is being waited out. `is_budget_spent`: the daily budget is
/// spent.
pub fn check_kind(
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
pub fn next_interval(settings: &HealthSettings, random: f64) -> Duration {
    let interval = settings.interval;
    let fifth = interval / 5;
    backoff::between(interval - fifth, interval.saturating_add(fifth), random)
}

pub async fn check_listing(client: Arc<dyn ProviderClient>, timeout: Duration) -> CallOutcome {
    match stall_clock::timeout(timeout, client.list_models()).await {
        Ok(Ok(())) => CallOutcome::Success,
        Ok(Err(failure)) => failed(failure.fault, failure.retry_after),
        Err(_) => failed(FaultKind::Timeout, None),
    }
}

/// Requests a one-token completion. Besides a visitor's turn, this is the only proof that a
/// provider answers.
pub async fn check_completion(client: Arc<dyn ProviderClient>, timeout: Duration) -> CallOutcome {
    let question = ChatMessage {
        role: MessageRole::User,
        text: "ping".into(),
    };
    let request = ChatRequest {
        system: "".into(),
        messages: Arc::new([question]),
        max_tokens: 1,
        ends_with_prefill: false,
        temperature: None,
        stop: Arc::default(),
    };
    let outcome = async {
        let mut events = client.stream_chat(&request);
        while let Some(event) = events.next().await {
            match event {
                Ok(StreamEvent::Usage(_)) => {}
                Ok(_) => return CallOutcome::Success,
                Err(failure) => return failed(failure.fault, failure.retry_after),
            }
        }
        failed(FaultKind::Truncated, None)
    };
    let outcome = stall_clock::timeout(timeout, outcome).await;
    outcome.unwrap_or_else(|_| failed(FaultKind::Timeout, None))
}

fn failed(fault: FaultKind, retry_after: Option<Duration>) -> CallOutcome {
    CallOutcome::Failed {
        fault,
        had_text: false,
        retry_after,
    }
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
                check_kind(Models, state, is_rate_limited, is_budget_spent),
                listing,
                "{state:?} {is_rate_limited} {is_budget_spent}"
            );
            assert_eq!(
                check_kind(Completion, state, is_rate_limited, is_budget_spent),
                completion,
                "{state:?} {is_rate_limited} {is_budget_spent}"
            );
            assert_eq!(
                check_kind(Off, state, is_rate_limited, is_budget_spent),
                Off
            );
        }
    }

    #[test]
    fn checks_are_spread_around_the_interval() {
        let settings = HealthSettings {
            interval: Duration::from_secs(60),
            ..HealthSettings::default()
        };
        for (random, seconds) in [(0.0, 48), (0.5, 60), (1.0, 72)] {
            assert_eq!(
                next_interval(&settings, random),
                Duration::from_secs(seconds)
            );
        }
    }

    #[test]
    fn a_result_expires() {
        let check = HealthCheck {
            fault: Some(FaultKind::Timeout),
            expires_at: Timestamp(10),
        };
        assert_eq!(check.current_fault(Timestamp(9)), Some(FaultKind::Timeout));
        assert_eq!(check.current_fault(Timestamp(10)), None);
        assert_eq!(
            HealthCheck {
                fault: None,
                ..check
            }
            .current_fault(Timestamp(9)),
            None
        );
    }
}
