//! Health checks of a provider without calls.

use std::time::Duration;

use crate::chat::{At, Fault, ProviderState};
use crate::provider::actor::Reset;
use crate::provider::backend::Clock;
use crate::provider::breaker::{Rules, Verdict};
use crate::provider::paused::{Paused, pass};
use crate::provider::scripted::{Act, fails, says, silent};
use crate::provider::stand::{Plan, Stand};
use crate::settings::{HealthSettings, ProbeKind};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn checked_by(probe: ProbeKind) -> Plan {
    Plan {
        health: HealthSettings {
            probe,
            ..HealthSettings::default()
        },
        ..Plan::new("a")
    }
}

fn now() -> At {
    Clock::start().wall()
}

#[actix_rt::test(system = "Paused")]
async fn models_are_listed_every_interval() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    assert_eq!(stand.vitals().await.checked_at, None);
    for minutes in 1..=5 {
        pass(s(60)).await;
        assert_eq!(
            (stand.upstream.listings(), stand.vitals().await.checks),
            (minutes, minutes as u64)
        );
    }
    let status = stand.vitals().await;
    assert!(status.checked_at.is_some() && status.healthy(now()));
    assert_eq!((status.checks_failed, status.used.cost_usd), (0, 0.0));
    assert_eq!(
        (stand.upstream.probes().len(), stand.upstream.calls().len()),
        (0, 0)
    );
}

#[actix_rt::test(system = "Paused")]
async fn probe_off_sends_nothing() {
    let stand = Stand::alone(checked_by(ProbeKind::Off));
    pass(s(3_600)).await;
    assert_eq!(
        (stand.upstream.listings(), stand.upstream.probes().len()),
        (0, 0)
    );
    assert_eq!(
        (
            stand.vitals().await.checked_at,
            stand.vitals().await.healthy(now())
        ),
        (None, true)
    );
}

#[actix_rt::test(system = "Paused")]
async fn failed_listing_is_shown_and_does_not_move_the_breaker() {
    for (fault, reason) in [
        (Fault::Unauthorized, "refused"),
        (Fault::QuotaSpent, "refused"),
        (Fault::Misconfigured, "refused"),
        (Fault::ServerError, "server_error"),
    ] {
        let stand = Stand::alone(checked_by(ProbeKind::Models));
        stand.upstream.follow_when_listed([fails(fault)]);
        pass(s(30 * 60)).await;
        let status = stand.vitals().await;
        assert_eq!(
            (status.state, status.checks_failed),
            (ProviderState::Closed, status.checks),
            "{fault:?}"
        );
        assert_eq!(
            (status.healthy(now()), status.can_be_asked(now())),
            (false, true),
            "{fault:?}"
        );
        assert_eq!(status.why(now()), Some(reason));
        assert!(stand.admit().await.is_ok(), "visitors are admitted");
    }
}

#[actix_rt::test(system = "Paused")]
async fn hanging_check_times_out_and_the_next_one_follows() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    stand.upstream.follow_when_listed([silent(), says("")]);
    pass(s(61)).await;
    assert_eq!(
        (stand.upstream.listings(), stand.vitals().await.checks),
        (1, 0)
    );
    pass(s(1)).await;
    let status = stand.vitals().await;
    assert_eq!(
        (status.checks_failed, status.why(now())),
        (1, Some("timeout"))
    );
    pass(s(60)).await;
    assert!(
        stand.vitals().await.healthy(now()),
        "the next check succeeded"
    );
}

#[actix_rt::test(system = "Paused")]
async fn failed_check_counts_until_it_expires() {
    let mut plan = checked_by(ProbeKind::Models);
    plan.health.expire = s(300);
    let stand = Stand::alone(plan);
    stand.upstream.follow_when_listed([fails(Fault::Reset)]);
    pass(s(60)).await;
    let status = stand.vitals().await;
    let now = now();
    assert!(
        !status.healthy(now)
            && !status.healthy(now.plus(s(290)))
            && status.healthy(now.plus(s(301)))
    );
}

#[actix_rt::test(system = "Paused")]
async fn complete_answer_or_reset_clears_a_failed_check() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    stand.upstream.follow_when_listed([fails(Fault::Reset)]);
    for reset in [false, true] {
        pass(s(60)).await;
        assert!(!stand.vitals().await.healthy(now()));
        if reset {
            stand.actor().send(Reset).await.unwrap();
        } else {
            stand.admit().await.unwrap().settle(Verdict::Whole);
        }
        assert!(stand.vitals().await.healthy(now()), "{reset}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn recovery_probe_is_the_check_while_open() {
    let rules = Rules {
        consecutive_failures: 1,
        ..Rules::default()
    };
    let stand = Stand::alone(Plan {
        rules,
        ..checked_by(ProbeKind::Models)
    });
    stand.upstream.follow_when_probed([fails(Fault::Reset)]);
    let permit = stand.admit().await.unwrap();
    permit.settle(Verdict::Failed {
        fault: Fault::Reset,
        started: false,
        retry_after: None,
    });
    pass(s(600)).await;
    assert_eq!(stand.upstream.listings(), 0);
    let status = stand.vitals().await;
    assert_eq!(
        (status.checks, status.checks_failed),
        (stand.upstream.probes().len() as u64, status.checks)
    );
    stand.upstream.follow_when_probed([says("x")]);
    pass(s(30)).await;
    assert!(stand.vitals().await.healthy(now()));
    pass(s(120)).await;
    assert!(stand.upstream.listings() > 0, "listings resume once closed");
}

#[actix_rt::test(system = "Paused")]
async fn no_check_is_sent_during_a_rate_limit() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    let permit = stand.admit().await.unwrap();
    // By the wall clock, which is not paused, so that it does not end within the test.
    let retry_after = Some(s(20 * 60 * 60));
    permit.settle(Verdict::Failed {
        fault: Fault::RateLimited,
        started: false,
        retry_after,
    });
    pass(s(600)).await;
    assert_eq!(
        (stand.vitals().await.state, stand.upstream.listings()),
        (ProviderState::Closed, 0)
    );
}

#[actix_rt::test(system = "Paused")]
async fn completion_check_counts_as_health_and_costs() {
    let stand = Stand::alone(checked_by(ProbeKind::Completion));
    stand
        .upstream
        .follow_when_probed([says("x"), fails(Fault::Reset), vec![Act::Think]]);
    for (healthy, spent) in [(true, 3e-6), (false, 3e-6), (true, 6e-6)] {
        pass(s(60)).await;
        let status = stand.vitals().await;
        assert_eq!(
            (status.healthy(now()), status.state),
            (healthy, ProviderState::Closed)
        );
        assert!(
            (status.spent.usd - spent).abs() < 1e-12,
            "{}",
            status.spent.usd
        );
    }
    assert_eq!(
        (stand.upstream.probes().len(), stand.upstream.listings()),
        (3, 0)
    );
    let status = stand.vitals().await;
    assert_eq!(
        (status.successes, status.failures, status.first_token),
        (0, 0, None),
        "no visitor's call"
    );
}

#[actix_rt::test(system = "Paused")]
async fn latencies_expire_without_calls() {
    let stand = Stand::alone(checked_by(ProbeKind::Off));
    let permit = stand.admit().await.unwrap();
    permit.first_token(s(2));
    assert_eq!(
        stand
            .vitals()
            .await
            .first_token
            .map(|recent| recent.p50 / 100),
        Some(20),
        "published at once"
    );
    permit.settle(Verdict::Whole);
    pass(s(5 * 60)).await;
    assert!(stand.vitals().await.first_token.is_some());
    pass(s(6 * 60)).await;
    assert_eq!(
        (stand.vitals().await.first_token, stand.vitals().await.total),
        (None, None)
    );
}

#[actix_rt::test(system = "Paused")]
async fn checks_continue_after_a_panic() {
    let mut stand = Stand::alone(checked_by(ProbeKind::Models));
    pass(s(60)).await;
    stand.crash().await;
    stand.rebuild();
    pass(s(60)).await;
    assert_eq!(
        (stand.upstream.listings(), stand.vitals().await.checks),
        (2, 2)
    );
}
