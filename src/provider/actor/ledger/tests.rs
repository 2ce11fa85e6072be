//! Cost, the daily budget, and quality.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::{Fault, ProviderState, Usage};
use crate::provider::actor::Refusal;
use crate::provider::backend::{Clock, Vitals};
use crate::provider::breaker::{Rules, Verdict};
use crate::provider::paused::{Paused, pass};
use crate::provider::spending::{Spent, Terms};
use crate::provider::stand::{Plan, Stand};
use crate::store::{MemoryStore, SpentRecord, Store};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 1 USD per million input tokens, 2 per million output tokens, and a budget of 0.001 USD a day.
fn plan() -> Plan {
    Plan {
        terms: Terms {
            prices: Some((1.0, 2.0)),
            daily_budget_usd: Some(0.001),
        },
        ..Plan::new("a")
    }
}

fn tokens(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage {
        input_tokens,
        output_tokens,
        estimated: false,
    }
}

/// Makes one call with this usage.
async fn call(stand: &Stand, usage: Usage) -> Result<(), Refusal> {
    let mut permit = stand.admit().await?;
    permit.used(usage);
    permit.settle(Verdict::Whole);
    Ok(())
}

#[actix_rt::test(system = "Paused")]
async fn spent_budget_rejects_calls_until_midnight() {
    let stand = Stand::alone(plan());
    assert_eq!(call(&stand, tokens(100, 400)).await, Ok(()), "0.0009");
    assert_eq!(stand.vitals().await.budget_until, None);
    assert_eq!(
        call(&stand, tokens(0, 50)).await,
        Ok(()),
        "reaches the budget"
    );
    let status = stand.vitals().await;
    let rejection = stand.admit().await.unwrap_err();
    let until = status.budget_until.unwrap();
    assert_eq!(until.0 % (24 * 60 * 60 * 1_000), 0, "midnight");
    assert!(!rejection.busy && rejection.retry_at.is_some_and(|at| at <= s(24 * 60 * 60)));
    // It stays healthy, but is not available.
    let now = Clock::start().wall();
    assert_eq!(
        (status.state, status.healthy(now), status.can_be_asked(now)),
        (ProviderState::Closed, true, false)
    );
    assert_eq!(
        (status.why(now), status.waits_until()),
        (Some("budget_spent"), Some(until))
    );
    assert!(status.can_be_asked(until), "the next day");
    assert_eq!(stand.free(), stand.places(), "no slot is lost");
}

#[actix_rt::test(system = "Paused")]
async fn without_budget_or_prices_all_calls_are_admitted() {
    for terms in [
        Terms {
            prices: Some((1.0, 2.0)),
            daily_budget_usd: None,
        },
        Terms {
            prices: None,
            daily_budget_usd: Some(0.001),
        },
    ] {
        let stand = Stand::alone(Plan { terms, ..plan() });
        for _ in 0..3 {
            assert_eq!(
                call(&stand, tokens(1_000_000, 1_000_000)).await,
                Ok(()),
                "{terms:?}"
            );
        }
        let used = stand.vitals().await.used;
        assert_eq!(
            (used.input_tokens, used.output_tokens),
            (3_000_000, 3_000_000)
        );
        assert_eq!(
            used.cost_usd,
            if terms.prices.is_some() { 9.0 } else { 0.0 }
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn abandoned_calls_are_paid() {
    let stand = Stand::alone(plan());
    let mut permit = stand.admit().await.unwrap();
    permit.used(Usage {
        estimated: true,
        ..tokens(1_000, 0)
    });
    drop(permit);
    let status = stand.vitals().await;
    assert!(
        status.spent.estimated && status.used.estimated,
        "marked as an estimate"
    );
    assert_eq!(
        (status.successes, status.failures, status.checked_at),
        (0, 0, None)
    );
    assert!(stand.admit().await.is_err());
}

#[actix_rt::test(system = "Paused")]
async fn daily_spend_survives_a_panic_and_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let mut stand = Stand::start(plan(), Clock::start(), Arc::clone(&store) as _);
    call(&stand, tokens(1_000, 0)).await.unwrap();
    let before = stand.vitals().await.spent;
    stand.crash().await;
    stand.rebuild();
    assert_eq!(stand.vitals().await.spent, before);
    assert!(stand.admit().await.is_err(), "after a panic");
    let SpentRecord {
        provider,
        day,
        usd,
        estimated,
    } = store.spent().await.unwrap().remove(0);
    assert_eq!(
        (provider.as_str(), day, usd, estimated),
        ("a", before.day, 0.001, false)
    );
    let spent = Spent {
        day,
        usd,
        estimated,
    };
    let again = Stand::alone(Plan {
        vitals: Vitals {
            spent,
            ..Vitals::default()
        },
        ..plan()
    });
    assert!(again.admit().await.is_err(), "after a restart");
    let yesterday = Spent {
        day: day - 1,
        ..spent
    };
    let next = Stand::alone(Plan {
        vitals: Vitals {
            spent: yesterday,
            ..Vitals::default()
        },
        ..plan()
    });
    assert!(next.admit().await.is_ok(), "not on the next day");
}

#[actix_rt::test(system = "Paused")]
async fn provider_with_a_spent_budget_is_not_probed() {
    let rules = Rules {
        consecutive_failures: 1,
        ..Rules::default()
    };
    for budget in [None, Some(0.001)] {
        let terms = Terms {
            daily_budget_usd: budget,
            ..plan().terms
        };
        let stand = Stand::alone(Plan {
            rules: rules.clone(),
            terms,
            ..plan()
        });
        let mut permit = stand.admit().await.unwrap();
        permit.used(tokens(1_000, 0));
        permit.settle(Verdict::Failed {
            fault: Fault::Reset,
            started: false,
            retry_after: None,
        });
        assert_eq!(stand.vitals().await.state, ProviderState::Open);
        pass(s(60)).await;
        let probes = stand.upstream.probes().len();
        assert_eq!(probes, usize::from(budget.is_none()), "{budget:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn probe_costs_count() {
    let stand = Stand::alone(Plan {
        rules: Rules {
            consecutive_failures: 1,
            ..Rules::default()
        },
        ..plan()
    });
    let permit = stand.admit().await.unwrap();
    permit.settle(Verdict::Failed {
        fault: Fault::Reset,
        started: false,
        retry_after: None,
    });
    pass(s(15)).await;
    let status = stand.vitals().await;
    assert_eq!(
        (status.state, status.spent.usd, status.spent.estimated),
        (ProviderState::Closed, 0.000_003, true)
    );
}

#[actix_rt::test(system = "Paused")]
async fn quality_is_a_moving_average() {
    let stand = Stand::alone(plan());
    for (score, quality) in [(1.0, 1.0), (0.0, 0.95), (0.0, 0.9025)] {
        let mut permit = stand.admit().await.unwrap();
        permit.scored(score);
        permit.settle(Verdict::Whole);
        let found = stand.vitals().await.quality.unwrap();
        assert!((found - quality).abs() < 1e-9, "{found}");
    }
}
