//! Looking into a provider that nobody asks.

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
async fn a_listing_is_made_every_interval_and_nothing_else() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    assert_eq!(stand.vitals().await.checked_at, None);
    for minutes in 1..=5 {
        pass(s(60)).await;
        assert_eq!(
            (stand.upstream.listings(), stand.vitals().await.checks),
            (minutes, minutes as u64)
        );
    }
    let vitals = stand.vitals().await;
    assert!(vitals.checked_at.is_some() && vitals.healthy(now()));
    assert_eq!((vitals.checks_failed, vitals.used.cost_usd), (0, 0.0));
    assert_eq!(
        (stand.upstream.probes().len(), stand.upstream.calls().len()),
        (0, 0)
    );
}

#[actix_rt::test(system = "Paused")]
async fn nothing_is_asked_where_it_is_off() {
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
async fn a_listing_that_fails_is_shown_and_moves_no_breaker() {
    for (fault, why) in [
        (Fault::Unauthorized, "refused"),
        (Fault::QuotaSpent, "refused"),
        (Fault::Misconfigured, "refused"),
        (Fault::ServerError, "server_error"),
    ] {
        let stand = Stand::alone(checked_by(ProbeKind::Models));
        stand.upstream.follow_when_listed([fails(fault)]);
        pass(s(30 * 60)).await;
        let vitals = stand.vitals().await;
        assert_eq!(
            (vitals.state, vitals.checks_failed),
            (ProviderState::Closed, vitals.checks),
            "{fault:?}"
        );
        assert_eq!(
            (vitals.healthy(now()), vitals.can_be_asked(now())),
            (false, true),
            "{fault:?}"
        );
        assert_eq!(vitals.why(now()), Some(why));
        assert!(stand.admit().await.is_ok(), "visitors are let through");
    }
}

#[actix_rt::test(system = "Paused")]
async fn a_check_that_hangs_ends_in_time_and_the_next_one_comes() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    stand.upstream.follow_when_listed([silent(), says("")]);
    pass(s(61)).await;
    assert_eq!(
        (stand.upstream.listings(), stand.vitals().await.checks),
        (1, 0)
    );
    pass(s(1)).await;
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.checks_failed, vitals.why(now())),
        (1, Some("timeout"))
    );
    pass(s(60)).await;
    assert!(
        stand.vitals().await.healthy(now()),
        "the next one went well"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_result_is_believed_until_it_expires() {
    let mut plan = checked_by(ProbeKind::Models);
    plan.health.expire = s(300);
    let stand = Stand::alone(plan);
    stand.upstream.follow_when_listed([fails(Fault::Reset)]);
    pass(s(60)).await;
    let (vitals, now) = (stand.vitals().await, now());
    assert!(
        !vitals.healthy(now)
            && !vitals.healthy(now.plus(s(290)))
            && vitals.healthy(now.plus(s(301)))
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_whole_answer_lifts_what_a_check_found_and_so_does_a_reset() {
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
async fn while_the_breaker_is_open_the_recovery_probe_is_the_check() {
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
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.checks, vitals.checks_failed),
        (stand.upstream.probes().len() as u64, vitals.checks)
    );
    stand.upstream.follow_when_probed([says("x")]);
    pass(s(30)).await;
    assert!(stand.vitals().await.healthy(now()));
    pass(s(120)).await;
    assert!(
        stand.upstream.listings() > 0,
        "closed again, it is listed again"
    );
}

#[actix_rt::test(system = "Paused")]
async fn nothing_is_sent_while_a_rate_limit_is_waited_out() {
    let stand = Stand::alone(checked_by(ProbeKind::Models));
    let permit = stand.admit().await.unwrap();
    // On the wall clock, which is not paused: it does not end within the test.
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
async fn a_completion_proves_the_model_and_is_paid() {
    let stand = Stand::alone(checked_by(ProbeKind::Completion));
    stand
        .upstream
        .follow_when_probed([says("x"), fails(Fault::Reset), vec![Act::Think]]);
    for (healthy, spent) in [(true, 3e-6), (false, 3e-6), (true, 6e-6)] {
        pass(s(60)).await;
        let vitals = stand.vitals().await;
        assert_eq!(
            (vitals.healthy(now()), vitals.state),
            (healthy, ProviderState::Closed)
        );
        assert!(
            (vitals.spent.usd - spent).abs() < 1e-12,
            "{}",
            vitals.spent.usd
        );
    }
    assert_eq!(
        (stand.upstream.probes().len(), stand.upstream.listings()),
        (3, 0)
    );
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.successes, vitals.failures, vitals.first_token),
        (0, 0, None),
        "no visitor's turn"
    );
}

#[actix_rt::test(system = "Paused")]
async fn latencies_are_forgotten_with_nobody_asking() {
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
        "known at once"
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
async fn checks_go_on_after_a_panic() {
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
