//! Cost, the daily budget, and quality.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{FaultKind, ProviderState, TokenUsage};
use crate::provider::actor::AcquireRejection;
use crate::provider::breaker::{BreakerConfig, CallOutcome};
use crate::provider::clock::Clock;
use crate::provider::cost::{DailySpend, ProviderPricing};
use crate::provider::paused_system::{Paused, advance};
use crate::provider::status::ProviderStatus;
use crate::provider::test_bench::{BenchOptions, ProviderBench};
use crate::store::{DailySpendRecord, DocumentStore as _, MemoryStore};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 1 USD per million input tokens, 2 per million output tokens, and a budget of 0.001 USD a day.
fn plan() -> BenchOptions {
    BenchOptions {
        pricing: ProviderPricing {
            prices: Some((1.0, 2.0)),
            daily_budget_usd: Some(0.001),
        },
        ..BenchOptions::new("a")
    }
}

fn tokens(input_tokens: u64, output_tokens: u64) -> TokenUsage {
    TokenUsage {
        input_tokens,
        output_tokens,
        estimated: false,
    }
}

/// Makes one call with this usage.
async fn call(bench: &ProviderBench, usage: TokenUsage) -> Result<(), AcquireRejection> {
    let mut permit = bench.try_acquire().await?;
    permit.record_usage(usage);
    permit.complete(CallOutcome::Success);
    Ok(())
}

#[actix_rt::test(system = "Paused")]
async fn spent_budget_rejects_calls_until_midnight() {
    let bench = ProviderBench::standalone(plan());
    assert_eq!(call(&bench, tokens(100, 400)).await, Ok(()), "0.0009");
    assert_eq!(bench.status().await.budget_resets_at, None);
    assert_eq!(
        call(&bench, tokens(0, 50)).await,
        Ok(()),
        "reaches the budget"
    );
    let status = bench.status().await;
    let rejection = bench.try_acquire().await.unwrap_err();
    let until = status.budget_resets_at.unwrap();
    assert_eq!(until.0 % (24 * 60 * 60 * 1_000), 0, "midnight");
    assert!(!rejection.is_busy && rejection.retry_at.is_some_and(|at| at <= s(24 * 60 * 60)));
    // It stays healthy, but is not available.
    let now = Clock::start().wall();
    assert_eq!(
        (
            status.state,
            status.is_healthy(now),
            status.is_available(now)
        ),
        (ProviderState::Closed, true, false)
    );
    assert_eq!(
        (status.reason(now), status.unavailable_until()),
        (Some("budget_spent"), Some(until))
    );
    assert!(status.is_available(until), "the next day");
    assert_eq!(bench.free_slots(), bench.total_slots(), "no slot is lost");
}

#[actix_rt::test(system = "Paused")]
async fn without_budget_or_prices_all_calls_are_admitted() {
    for terms in [
        ProviderPricing {
            prices: Some((1.0, 2.0)),
            daily_budget_usd: None,
        },
        ProviderPricing {
            prices: None,
            daily_budget_usd: Some(0.001),
        },
    ] {
        let bench = ProviderBench::standalone(BenchOptions {
            pricing: terms,
            ..plan()
        });
        for _ in 0..3 {
            assert_eq!(
                call(&bench, tokens(1_000_000, 1_000_000)).await,
                Ok(()),
                "{terms:?}"
            );
        }
        let used = bench.status().await.usage_totals;
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
    let bench = ProviderBench::standalone(plan());
    let mut permit = bench.try_acquire().await.unwrap();
    permit.record_usage(TokenUsage {
        estimated: true,
        ..tokens(1_000, 0)
    });
    drop(permit);
    let status = bench.status().await;
    assert!(
        status.spend_today.estimated && status.usage_totals.estimated,
        "marked as an estimate"
    );
    assert_eq!(
        (status.successes, status.failures, status.last_heard_at),
        (0, 0, None)
    );
    assert!(bench.try_acquire().await.is_err());
}

#[actix_rt::test(system = "Paused")]
async fn daily_spend_survives_a_panic_and_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let mut bench = ProviderBench::start(plan(), Clock::start(), Arc::clone(&store) as _);
    call(&bench, tokens(1_000, 0)).await.unwrap();
    let before = bench.status().await.spend_today;
    bench.crash_actor().await;
    bench.restart_actor();
    assert_eq!(bench.status().await.spend_today, before);
    assert!(bench.try_acquire().await.is_err(), "after a panic");
    let DailySpendRecord {
        provider,
        utc_day: day,
        usd,
        is_estimated: estimated,
    } = store.daily_spend().await.unwrap().remove(0);
    assert_eq!(
        (provider.as_str(), day, usd, estimated),
        ("a", before.day, 0.001, false)
    );
    let spent = DailySpend {
        day,
        usd,
        estimated,
    };
    let again = ProviderBench::standalone(BenchOptions {
        initial_status: ProviderStatus {
            spend_today: spent,
            ..ProviderStatus::default()
        },
        ..plan()
    });
    assert!(again.try_acquire().await.is_err(), "after a restart");
    let yesterday = DailySpend {
        day: day - 1,
        ..spent
    };
    let next = ProviderBench::standalone(BenchOptions {
        initial_status: ProviderStatus {
            spend_today: yesterday,
            ..ProviderStatus::default()
        },
        ..plan()
    });
    assert!(next.try_acquire().await.is_ok(), "not on the next day");
}

#[actix_rt::test(system = "Paused")]
async fn provider_with_a_spent_budget_is_not_probed() {
    let rules = BreakerConfig {
        consecutive_failures: 1,
        ..BreakerConfig::default()
    };
    for budget in [None, Some(0.001)] {
        let terms = ProviderPricing {
            daily_budget_usd: budget,
            ..plan().pricing
        };
        let bench = ProviderBench::standalone(BenchOptions {
            breaker: rules.clone(),
            pricing: terms,
            ..plan()
        });
        let mut permit = bench.try_acquire().await.unwrap();
        permit.record_usage(tokens(1_000, 0));
        permit.complete(CallOutcome::Failed {
            fault: FaultKind::Reset,
            had_text: false,
            retry_after: None,
        });
        assert_eq!(bench.status().await.state, ProviderState::Open);
        advance(s(60)).await;
        let probes = bench.client.probes().len();
        assert_eq!(probes, usize::from(budget.is_none()), "{budget:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn probe_costs_count() {
    let bench = ProviderBench::standalone(BenchOptions {
        breaker: BreakerConfig {
            consecutive_failures: 1,
            ..BreakerConfig::default()
        },
        ..plan()
    });
    let permit = bench.try_acquire().await.unwrap();
    permit.complete(CallOutcome::Failed {
        fault: FaultKind::Reset,
        had_text: false,
        retry_after: None,
    });
    advance(s(15)).await;
    let status = bench.status().await;
    assert_eq!(
        (
            status.state,
            status.spend_today.usd,
            status.spend_today.estimated
        ),
        (ProviderState::Closed, 0.000_003, true)
    );
}

#[actix_rt::test(system = "Paused")]
async fn quality_is_a_moving_average() {
    let bench = ProviderBench::standalone(plan());
    for (score, quality) in [(1.0, 1.0), (0.0, 0.95), (0.0, 0.9025)] {
        let mut permit = bench.try_acquire().await.unwrap();
        permit.record_quality(score);
        permit.complete(CallOutcome::Success);
        let found = bench.status().await.quality_avg.unwrap();
        assert!((found - quality).abs() < 1e-9, "{found}");
    }
}
