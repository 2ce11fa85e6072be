//! What is seen of the service, as findings. Pure: the moment is an argument.

use super::cause::{Cause, Finding};
use crate::chat::{At, Mode, ProviderState};
use crate::provider::backend::Vitals;

/// What a provider's vitals say of it, and of its budget. `staged`: an outage drill runs there, or what it left is not lifted yet.
/// A provider that is being tried, or that an operator switched off, is neither down nor back.
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
    let spent = vitals.is_over_budget(now);
    // What its breaker opened for, also where its budget is spent besides.
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
        level: u8::from(spent),
        reason: spent.then(|| "budget_spent".to_owned()),
        words: String::new(),
        staged: false,
    };
    finding.into_iter().chain([budget])
}

/// The mode that is shown, and the cause of the incident that runs. `staged`: all providers that could not be asked when one last could not were
/// under an outage drill.
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

/// What is wrong with the store, if anything is.
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

    fn seen(vitals: &Vitals) -> Vec<(Cause, u8, Option<String>)> {
        let found = provider(&"a".into(), vitals, true, At(1_000));
        found
            .map(|one| (one.cause, one.level, one.reason))
            .collect()
    }

    #[test]
    fn a_provider_is_down_by_its_breaker_and_its_budget_is_another_matter() {
        let (own, budget) = (Cause::Provider("a".into()), Cause::Budget("a".into()));
        let reason = |text: &str| Some(text.to_owned());
        let vitals = |state, fault| Vitals {
            state,
            reason: fault,
            ..Vitals::default()
        };
        for (state, level) in [(ProviderState::Open, 1), (ProviderState::Blocked, 2)] {
            let found = seen(&vitals(state, Some(Fault::Timeout)));
            assert_eq!(
                found,
                [
                    (own.clone(), level, reason("timeout")),
                    (budget.clone(), 0, None)
                ]
            );
        }
        // What failed last is no reason for one that is well.
        let well = seen(&vitals(ProviderState::Closed, Some(Fault::Timeout)));
        assert_eq!(well, [(own.clone(), 0, None), (budget.clone(), 0, None)]);
        for state in [ProviderState::HalfOpen, ProviderState::Disabled] {
            assert_eq!(
                seen(&vitals(state, None)),
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
        assert_eq!(seen(&spent), expected);
    }
}
