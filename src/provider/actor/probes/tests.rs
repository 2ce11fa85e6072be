//! Health checks of a provider without calls.

use std::time::Duration;

use crate::config::{HealthSettings, ProbeKind};
use crate::domain::{FaultKind, ProviderState, Timestamp};
use crate::provider::actor::ResetBreaker;
use crate::provider::breaker::{BreakerConfig, CallOutcome};
use crate::provider::clock::Clock;
use crate::provider::paused_system::{Paused, advance};
use crate::provider::scripted_client::{ScriptStep, fail_with, hang, reply};
use crate::provider::test_bench::{BenchOptions, ProviderBench};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn checked_by(probe: ProbeKind) -> BenchOptions {
    BenchOptions {
        health: HealthSettings {
            probe,
            ..HealthSettings::default()
        },
        ..BenchOptions::new("a")
    }
}

fn now() -> Timestamp {
    Clock::start().wall()
}

#[actix_rt::test(system = "Paused")]
async fn models_are_listed_every_interval() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Models));
    assert_eq!(bench.status().await.last_heard_at, None);
    for minutes in 1..=5 {
        advance(s(60)).await;
        assert_eq!(
            (bench.client.listing_count(), bench.status().await.checks),
            (minutes, minutes as u64)
        );
    }
    let status = bench.status().await;
    assert!(status.last_heard_at.is_some() && status.is_healthy(now()));
    assert_eq!(
        (status.failed_checks, status.usage_totals.cost_usd),
        (0, 0.0)
    );
    assert_eq!(
        (bench.client.probes().len(), bench.client.calls().len()),
        (0, 0)
    );
}

#[actix_rt::test(system = "Paused")]
async fn probe_off_sends_nothing() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Off));
    advance(s(3_600)).await;
    assert_eq!(
        (bench.client.listing_count(), bench.client.probes().len()),
        (0, 0)
    );
    assert_eq!(
        (
            bench.status().await.last_heard_at,
            bench.status().await.is_healthy(now())
        ),
        (None, true)
    );
}

#[actix_rt::test(system = "Paused")]
async fn failed_listing_is_shown_and_does_not_move_the_breaker() {
    for (fault, reason) in [
        (FaultKind::Unauthorized, "refused"),
        (FaultKind::QuotaSpent, "refused"),
        (FaultKind::Misconfigured, "refused"),
        (FaultKind::ServerError, "server_error"),
    ] {
        let bench = ProviderBench::standalone(checked_by(ProbeKind::Models));
        bench.client.set_listing_scripts([fail_with(fault)]);
        advance(s(30 * 60)).await;
        let status = bench.status().await;
        assert_eq!(
            (status.state, status.failed_checks),
            (ProviderState::Closed, status.checks),
            "{fault:?}"
        );
        assert_eq!(
            (status.is_healthy(now()), status.is_available(now())),
            (false, true),
            "{fault:?}"
        );
        assert_eq!(status.reason(now()), Some(reason));
        assert!(bench.try_acquire().await.is_ok(), "visitors are admitted");
    }
}

#[actix_rt::test(system = "Paused")]
async fn hanging_check_times_out_and_the_next_one_follows() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Models));
    bench.client.set_listing_scripts([hang(), reply("")]);
    advance(s(61)).await;
    assert_eq!(
        (bench.client.listing_count(), bench.status().await.checks),
        (1, 0)
    );
    advance(s(1)).await;
    let status = bench.status().await;
    assert_eq!(
        (status.failed_checks, status.reason(now())),
        (1, Some("timeout"))
    );
    advance(s(60)).await;
    assert!(
        bench.status().await.is_healthy(now()),
        "the next check succeeded"
    );
}

#[actix_rt::test(system = "Paused")]
async fn failed_check_counts_until_it_expires() {
    let mut plan = checked_by(ProbeKind::Models);
    plan.health.expire = s(300);
    let bench = ProviderBench::standalone(plan);
    bench
        .client
        .set_listing_scripts([fail_with(FaultKind::Reset)]);
    advance(s(60)).await;
    let status = bench.status().await;
    let now = now();
    assert!(
        !status.is_healthy(now)
            && !status.is_healthy(now.saturating_add(s(290)))
            && status.is_healthy(now.saturating_add(s(301)))
    );
}

#[actix_rt::test(system = "Paused")]
async fn complete_answer_or_reset_clears_a_failed_check() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Models));
    bench
        .client
        .set_listing_scripts([fail_with(FaultKind::Reset)]);
    for reset in [false, true] {
        advance(s(60)).await;
        assert!(!bench.status().await.is_healthy(now()));
        if reset {
            bench.actor().send(ResetBreaker).await.unwrap();
        } else {
            bench
                .try_acquire()
                .await
                .unwrap()
                .complete(CallOutcome::Success);
        }
        assert!(bench.status().await.is_healthy(now()), "{reset}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn recovery_probe_is_the_check_while_open() {
    let rules = BreakerConfig {
        consecutive_failures: 1,
        ..BreakerConfig::default()
    };
    let bench = ProviderBench::standalone(BenchOptions {
        breaker: rules,
        ..checked_by(ProbeKind::Models)
    });
    bench
        .client
        .set_probe_scripts([fail_with(FaultKind::Reset)]);
    let permit = bench.try_acquire().await.unwrap();
    permit.complete(CallOutcome::Failed {
        fault: FaultKind::Reset,
        had_text: false,
        retry_after: None,
    });
    advance(s(600)).await;
    assert_eq!(bench.client.listing_count(), 0);
    let status = bench.status().await;
    assert_eq!(
        (status.checks, status.failed_checks),
        (bench.client.probes().len() as u64, status.checks)
    );
    bench.client.set_probe_scripts([reply("x")]);
    advance(s(30)).await;
    assert!(bench.status().await.is_healthy(now()));
    advance(s(120)).await;
    assert!(
        bench.client.listing_count() > 0,
        "listings resume once closed"
    );
}

#[actix_rt::test(system = "Paused")]
async fn no_check_is_sent_during_a_rate_limit() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Models));
    let permit = bench.try_acquire().await.unwrap();
    // By the wall clock, which is not paused, so that it does not end within the test.
    let retry_after = Some(s(20 * 60 * 60));
    permit.complete(CallOutcome::Failed {
        fault: FaultKind::RateLimited,
        had_text: false,
        retry_after,
    });
    advance(s(600)).await;
    assert_eq!(
        (bench.status().await.state, bench.client.listing_count()),
        (ProviderState::Closed, 0)
    );
}

#[actix_rt::test(system = "Paused")]
async fn completion_check_counts_as_health_and_costs() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Completion));
    bench.client.set_probe_scripts([
        reply("x"),
        fail_with(FaultKind::Reset),
        vec![ScriptStep::Think],
    ]);
    for (healthy, spent) in [(true, 3e-6), (false, 3e-6), (true, 6e-6)] {
        advance(s(60)).await;
        let status = bench.status().await;
        assert_eq!(
            (status.is_healthy(now()), status.state),
            (healthy, ProviderState::Closed)
        );
        assert!(
            (status.spend_today.usd - spent).abs() < 1e-12,
            "{}",
            status.spend_today.usd
        );
    }
    assert_eq!(
        (bench.client.probes().len(), bench.client.listing_count()),
        (3, 0)
    );
    let status = bench.status().await;
    assert_eq!(
        (
            status.successes,
            status.failures,
            status.first_token_latency
        ),
        (0, 0, None),
        "no visitor's call"
    );
}

#[actix_rt::test(system = "Paused")]
async fn latencies_expire_without_calls() {
    let bench = ProviderBench::standalone(checked_by(ProbeKind::Off));
    let permit = bench.try_acquire().await.unwrap();
    permit.record_first_token(s(2));
    assert_eq!(
        bench
            .status()
            .await
            .first_token_latency
            .map(|recent| recent.p50 / 100),
        Some(20),
        "published at once"
    );
    permit.complete(CallOutcome::Success);
    advance(s(5 * 60)).await;
    assert!(bench.status().await.first_token_latency.is_some());
    advance(s(6 * 60)).await;
    assert_eq!(
        (
            bench.status().await.first_token_latency,
            bench.status().await.total_latency
        ),
        (None, None)
    );
}

#[actix_rt::test(system = "Paused")]
async fn checks_continue_after_a_panic() {
    let mut bench = ProviderBench::standalone(checked_by(ProbeKind::Models));
    advance(s(60)).await;
    bench.crash_actor().await;
    bench.restart_actor();
    advance(s(60)).await;
    assert_eq!(
        (bench.client.listing_count(), bench.status().await.checks),
        (2, 2)
    );
}
