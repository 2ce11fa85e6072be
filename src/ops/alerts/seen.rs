//! Derives alert conditions from the observed state. Pure: the current time is passed in.

use super::cause::{Cause, Finding};
use crate::chat::{At, Mode, ProviderState};
use crate::provider::backend::Vitals;

/// The conditions of a provider and of its budget.
///
/// `staged` is set while an outage drill runs at the provider or its effects are not cleared yet.
/// A half-open or disabled provider has no condition of its own: it is neither down nor back.
pub fn provider(
    name: &std::sync::Arc<str>,
    vitals: &Vitals,
    staged: bool,
    now: At,
) -> impl Iterator<Item = Finding> + use<> {
    let level = match vitals.state {
        ProviderState::Closed => Some(0),
        ProviderState::Open => Some(1),
        ProviderState::Blocked => Some(2),
        ProviderState::HalfOpen | ProviderState::Disabled => None,
    };
    let is_spent = vitals.is_over_budget(now);
    // The breaker's own fault, also if the budget is spent as well.
    let unspent = Vitals {
        budget_until: None,
        ..vitals.clone()
    };
    let finding = level.map(|level| Finding {
        cause: Cause::Provider(name.clone()),
        level,
        reason: unspent.why(now).filter(|_| level > 0).map(str::to_owned),
        words: unspent.words(now).unwrap_or("not known").to_owned(),
        staged,
    });
    let budget = Finding {
        cause: Cause::Budget(name.clone()),
        level: u8::from(is_spent),
        reason: is_spent.then(|| "budget_spent".to_owned()),
        words: String::new(),
        staged: false,
    };
    finding.into_iter().chain([budget])
}

/// The condition of the mode. `cause` is that of the open incident.
///
/// `staged` is set if all providers that were unavailable last time any was had an outage drill.
pub fn mode(mode: Mode, cause: Option<&str>, staged: bool) -> Finding {
    Finding {
        cause: Cause::Mode,
        level: match mode {
            Mode::Normal => 0,
            Mode::Degraded => 1,
            Mode::Outage => 2,
        },
        reason: cause.filter(|_| mode != Mode::Normal).map(str::to_owned),
        words: cause.unwrap_or_default().to_owned(),
        staged,
    }
}

/// The condition of the store. `problem` is `None` if it works.
pub fn store(problem: Option<&str>) -> Finding {
    Finding {
        cause: Cause::Store,
        level: u8::from(problem.is_some()),
        reason: problem.map(str::to_owned),
        words: problem.unwrap_or_default().to_owned(),
        staged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Fault;

    fn conditions(vitals: &Vitals) -> Vec<(Cause, u8, Option<String>)> {
        let found = provider(&"a".into(), vitals, true, At(1_000));
        found
            .map(|condition| (condition.cause, condition.level, condition.reason))
            .collect()
    }

    #[test]
    fn the_breaker_and_the_budget_have_separate_conditions() {
        let own = Cause::Provider("a".into());
        let budget = Cause::Budget("a".into());
        let reason = |text: &str| Some(text.to_owned());
        let vitals = |state, fault| Vitals {
            state,
            reason: fault,
            ..Vitals::default()
        };
        for (state, level) in [(ProviderState::Open, 1), (ProviderState::Blocked, 2)] {
            let found = conditions(&vitals(state, Some(Fault::Timeout)));
            assert_eq!(
                found,
                [
                    (own.clone(), level, reason("timeout")),
                    (budget.clone(), 0, None)
                ]
            );
        }
        // A healthy provider has no reason, even if its last call failed.
        let well = conditions(&vitals(ProviderState::Closed, Some(Fault::Timeout)));
        assert_eq!(well, [(own.clone(), 0, None), (budget.clone(), 0, None)]);
        for state in [ProviderState::HalfOpen, ProviderState::Disabled] {
            assert_eq!(
                conditions(&vitals(state, None)),
                [(budget.clone(), 0, None)],
                "{state:?}"
            );
        }
        let spent = Vitals {
            budget_until: Some(At(2_000)),
            ..vitals(ProviderState::Open, Some(Fault::Reset))
        };
        let expected = [
            (own, 1, reason("reset")),
            (budget, 1, reason("budget_spent")),
        ];
        assert_eq!(conditions(&spent), expected);
    }
}
