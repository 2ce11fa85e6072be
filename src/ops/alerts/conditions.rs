//! Derives alert conditions from the observed state. Pure: the current time is passed in.

use super::rules::{AlertCondition, AlertSubject};
use crate::domain::{ProviderState, ServiceMode, Timestamp};
use crate::provider::status::ProviderStatus;

/// The conditions of a provider and of its budget.
///
/// `staged` is set while an outage drill runs at the provider or its effects are not cleared yet.
/// A half-open or disabled provider has no condition of its own: it is neither down nor back.
pub fn provider_conditions(
    name: &std::sync::Arc<str>,
    provider_status: &ProviderStatus,
    staged: bool,
    now: Timestamp,
) -> impl Iterator<Item = AlertCondition> + use<> {
    let level = match provider_status.state {
        ProviderState::Closed => Some(0),
        ProviderState::Open => Some(1),
        ProviderState::Blocked => Some(2),
        ProviderState::HalfOpen | ProviderState::Disabled => None,
    };
    let is_spent = provider_status.is_over_budget(now);
    // The breaker's own fault, also if the budget is spent as well.
    let unspent = ProviderStatus {
        budget_resets_at: None,
        ..provider_status.clone()
    };
    let finding = level.map(|level| AlertCondition {
        subject: AlertSubject::Provider(name.clone()),
        severity: level,
        reason: unspent.reason(now).filter(|_| level > 0).map(str::to_owned),
        description: unspent.describe(now).unwrap_or("not known").to_owned(),
        is_drill: staged,
    });
    let budget = AlertCondition {
        subject: AlertSubject::Budget(name.clone()),
        severity: u8::from(is_spent),
        reason: is_spent.then(|| "budget_spent".to_owned()),
        description: String::new(),
        is_drill: false,
    };
    finding.into_iter().chain([budget])
}

/// The condition of the mode. `cause` is that of the open incident.
///
/// `staged` is set if all providers that were unavailable last time any was had an outage drill.
pub fn mode_condition(mode: ServiceMode, cause: Option<&str>, staged: bool) -> AlertCondition {
    AlertCondition {
        subject: AlertSubject::Mode,
        severity: match mode {
            ServiceMode::Normal => 0,
            ServiceMode::Degraded => 1,
            ServiceMode::Outage => 2,
        },
        reason: cause
            .filter(|_| mode != ServiceMode::Normal)
            .map(str::to_owned),
        description: cause.unwrap_or_default().to_owned(),
        is_drill: staged,
    }
}

/// The condition of the store. `problem` is `None` if it works.
pub fn store_condition(problem: Option<&str>) -> AlertCondition {
    AlertCondition {
        subject: AlertSubject::Store,
        severity: u8::from(problem.is_some()),
        reason: problem.map(str::to_owned),
        description: problem.unwrap_or_default().to_owned(),
        is_drill: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FaultKind;

    fn conditions(provider_status: &ProviderStatus) -> Vec<(AlertSubject, u8, Option<String>)> {
        let found = provider_conditions(&"a".into(), provider_status, true, Timestamp(1_000));
        found
            .map(|condition| (condition.subject, condition.severity, condition.reason))
            .collect()
    }

    #[test]
    fn the_breaker_and_the_budget_have_separate_conditions() {
        let own = AlertSubject::Provider("a".into());
        let budget = AlertSubject::Budget("a".into());
        let reason = |text: &str| Some(text.to_owned());
        let provider_status = |state, fault| ProviderStatus {
            state,
            last_fault: fault,
            ..ProviderStatus::default()
        };
        for (state, level) in [(ProviderState::Open, 1), (ProviderState::Blocked, 2)] {
            let found = conditions(&provider_status(state, Some(FaultKind::Timeout)));
            assert_eq!(
                found,
                [
                    (own.clone(), level, reason("timeout")),
                    (budget.clone(), 0, None)
                ]
            );
        }
        // A healthy provider has no reason, even if its last call failed.
        let well = conditions(&provider_status(
            ProviderState::Closed,
            Some(FaultKind::Timeout),
        ));
        assert_eq!(well, [(own.clone(), 0, None), (budget.clone(), 0, None)]);
        for state in [ProviderState::HalfOpen, ProviderState::Disabled] {
            assert_eq!(
                conditions(&provider_status(state, None)),
                [(budget.clone(), 0, None)],
                "{state:?}"
            );
        }
        let spent = ProviderStatus {
            budget_resets_at: Some(Timestamp(2_000)),
            ..provider_status(ProviderState::Open, Some(FaultKind::Reset))
        };
        let expected = [
            (own, 1, reason("reset")),
            (budget, 1, reason("budget_spent")),
        ];
        assert_eq!(conditions(&spent), expected);
    }
}
