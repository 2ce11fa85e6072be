//! What answers cost, and the day's budget.

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

/// A dollar for a million tokens in, two for a million out; a thousandth of a dollar a day.
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

/// One call that used so much.
async fn call(stand: &Stand, usage: Usage) -> Result<(), Refusal> {
    let mut permit = stand.admit().await?;
    permit.used(usage);
    permit.settle(Verdict::Whole);
    Ok(())
}

#[actix_rt::test(system = "Paused")]
async fn a_spent_budget_refuses_before_the_call_until_midnight() {
    let stand = Stand::alone(plan());
    assert_eq!(call(&stand, tokens(100, 400)).await, Ok(()), "0.0009");
    assert_eq!(stand.vitals().await.budget_until, None);
    assert_eq!(
        call(&stand, tokens(0, 50)).await,
        Ok(()),
        "that makes it whole"
    );
    let vitals = stand.vitals().await;
    let refusal = stand.admit().await.unwrap_err();
    let until = vitals.budget_until.unwrap();
    assert_eq!(until.0 % (24 * 60 * 60 * 1_000), 0, "midnight");
    assert!(!refusal.busy && refusal.retry_at.is_some_and(|at| at <= s(24 * 60 * 60)));
    // It is well all the same; it is not asked.
    let now = Clock::start().wall();
    assert_eq!(
        (vitals.state, vitals.healthy(now), vitals.can_be_asked(now)),
        (ProviderState::Closed, true, false)
    );
    assert_eq!(
        (vitals.why(now), vitals.waits_until()),
        (Some("budget_spent"), Some(until))
    );
    assert!(vitals.can_be_asked(until), "the next day");
    assert_eq!(stand.free(), stand.places(), "no place is lost");
}

#[actix_rt::test(system = "Paused")]
async fn without_a_budget_or_prices_everything_is_let_through() {
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
async fn what_is_given_up_is_paid() {
    let stand = Stand::alone(plan());
    let mut permit = stand.admit().await.unwrap();
    permit.used(Usage {
        estimated: true,
        ..tokens(1_000, 0)
    });
    drop(permit);
    let vitals = stand.vitals().await;
    assert!(
        vitals.spent.estimated && vitals.used.estimated,
        "and it says that it is an estimate"
    );
    assert_eq!(
        (vitals.successes, vitals.failures, vitals.checked_at),
        (0, 0, None)
    );
    assert!(stand.admit().await.is_err());
}

#[actix_rt::test(system = "Paused")]
async fn a_day_survives_the_actor_and_the_process() {
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
    assert!(next.admit().await.is_ok(), "but not on the next day");
}

#[actix_rt::test(system = "Paused")]
async fn whose_budget_is_spent_is_not_probed_either() {
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
async fn a_probe_costs_too() {
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
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.state, vitals.spent.usd, vitals.spent.estimated),
        (ProviderState::Closed, 0.000_003, true)
    );
}

#[actix_rt::test(system = "Paused")]
async fn quality_is_a_running_mean() {
    let stand = Stand::alone(plan());
    for (score, quality) in [(1.0, 1.0), (0.0, 0.95), (0.0, 0.9025)] {
        let mut permit = stand.admit().await.unwrap();
        permit.scored(score);
        permit.settle(Verdict::Whole);
        let found = stand.vitals().await.quality.unwrap();
        assert!((found - quality).abs() < 1e-9, "{found}");
    }
}
