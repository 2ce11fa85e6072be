//! The actor with a scripted backend, on a paused clock.

use tokio::time::Instant;

use super::super::paused::{Paused, pass, settled};
use super::super::permit::Permit;
use super::super::scripted::{Act, fails, limited, says, silent};
use super::super::stand::{Plan, Stand};
use super::*;
use crate::chat::{At, Finish};
use crate::store::{BreakerRecord, MemoryStore};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn failed(fault: Fault) -> Verdict {
    Verdict::Failed { fault, started: false, retry_after: None }
}

async fn call(stand: &Stand, verdict: Verdict) {
    stand.admit().await.unwrap().settle(verdict);
    settled().await;
}

/// Opened by five failures, for ten seconds.
async fn opened(plan: Plan) -> Stand {
    let stand = Stand::alone(plan);
    for _ in 0..5 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    assert_eq!(stand.vitals().await.state, ProviderState::Open);
    stand
}

fn probed(stand: &Stand) -> usize {
    stand.upstream.probes().len()
}

fn refusal(admitted: Result<Permit, Refusal>) -> Refusal {
    admitted.unwrap_err()
}

mod admitting {
    use super::*;

    #[actix_rt::test(system = "Paused")]
    async fn a_full_provider_is_busy_and_not_ill() {
        let stand = Stand::alone(Plan { max_concurrent: 2, ..Plan::new("a") });
        let (one, two) = (stand.admit().await.unwrap(), stand.admit().await.unwrap());
        assert_eq!(refusal(stand.admit().await), Refusal { busy: true, retry_at: None });
        assert_eq!(stand.vitals().await.in_flight, 2);
        drop(one);
        assert!(stand.admit().await.is_ok());
        two.settle(Verdict::Whole);
        let vitals = stand.vitals().await;
        assert_eq!((vitals.state, vitals.in_flight, stand.free()), (ProviderState::Closed, 0, 2));
    }

    #[actix_rt::test(system = "Paused")]
    async fn what_an_attempt_came_to_is_counted_once() {
        let stand = Stand::alone(Plan::new("a"));
        let permit = stand.admit().await.unwrap();
        permit.first_token(ms(300));
        pass(s(2)).await;
        permit.settle(Verdict::Whole);
        call(&stand, failed(Fault::Timeout)).await;
        call(&stand, Verdict::Failed { fault: Fault::Reset, started: true, retry_after: None }).await;
        drop(stand.admit().await.unwrap());
        let vitals = stand.vitals().await;
        assert_eq!((vitals.successes, vitals.failures, vitals.restarts, vitals.in_flight), (1, 2, 1, 0));
        assert_eq!(vitals.reason, Some(Fault::Reset));
        let [first, total] = [vitals.first_token, vitals.total].map(|latency| latency.unwrap().p50);
        assert!(first.abs_diff(300) <= 6 && total.abs_diff(2_000) <= 40, "{first} {total}");
    }

    #[actix_rt::test(system = "Paused")]
    async fn abandoned_calls_move_nothing() {
        let stand = Stand::alone(Plan::new("a"));
        for _ in 0..50 {
            drop(stand.admit().await.unwrap());
        }
        let vitals = stand.vitals().await;
        assert_eq!((vitals.state, vitals.successes, vitals.failures), (ProviderState::Closed, 0, 0));
        assert_eq!(stand.free(), stand.places());
    }

    #[actix_rt::test(system = "Paused")]
    async fn an_open_breaker_says_when_to_ask_again() {
        let stand = opened(Plan::new("a")).await;
        let refused = refusal(stand.admit().await);
        assert_eq!((refused.busy, refused.retry_at), (false, Some(s(10))));
        assert_eq!(stand.free(), stand.places(), "the refused took no place");
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_rate_limit_is_waited_out_closed() {
        let stand = Stand::alone(Plan::new("a"));
        let limit = Verdict::Failed { fault: Fault::RateLimited, started: false, retry_after: Some(s(3)) };
        call(&stand, limit).await;
        let vitals = stand.vitals().await;
        assert_eq!((vitals.state, vitals.retry_at.is_some()), (ProviderState::Closed, true));
        pass(ms(2_999)).await;
        assert!(stand.admit().await.is_err());
        pass(ms(1)).await;
        assert!(stand.admit().await.is_ok());
        assert_eq!(stand.vitals().await.retry_at, None);
        assert_eq!(probed(&stand), 0);
    }

    #[actix_rt::test(system = "Paused")]
    async fn reset_closes_and_forgets() {
        let stand = opened(Plan::new("a")).await;
        stand.actor().send(Reset).await.unwrap();
        let vitals = stand.vitals().await;
        assert_eq!((vitals.state, vitals.reason, vitals.retry_at), (ProviderState::Closed, None, None));
        for _ in 0..4 {
            call(&stand, failed(Fault::ServerError)).await;
        }
        assert!(stand.admit().await.is_ok(), "the failures before are forgotten");
        pass(s(60)).await;
        assert_eq!(probed(&stand), 0, "and no probe is due");
    }
}

mod recovering {
    use super::*;

    #[actix_rt::test(system = "Paused")]
    async fn recovery_is_found_with_nobody_asking() {
        let stand = opened(Plan::new("a")).await;
        let mut vitals = stand.backend.vitals.clone();
        let begun = Instant::now();
        vitals.wait_for(|vitals| vitals.state == ProviderState::Closed).await.unwrap();
        assert_eq!(begun.elapsed(), s(10));
        let probes = stand.upstream.probes();
        assert_eq!((probes.len(), probes[0].ask.max_tokens, probes[0].ask.messages.len()), (1, 1, 1));
        assert!(stand.admit().await.is_ok());
        assert_eq!(stand.vitals().await.successes, 0, "a probe is no visitor");
    }

    #[actix_rt::test(system = "Paused")]
    async fn the_open_time_doubles_to_its_cap_with_each_failed_probe() {
        let stand = opened(Plan::new("a")).await;
        stand.upstream.follow_when_probed([fails(Fault::Unreachable)]);
        let begun = Instant::now();
        pass(s(119)).await;
        let probes = stand.upstream.probes();
        let at: Vec<_> = probes.iter().map(|probe| (probe.at - begun).as_millis()).collect();
        // 10 s, then 20 s, then the cap: between 20 and 25 s, in the middle as chance says.
        assert_eq!(at, [10_000, 30_000, 52_500, 75_000, 97_500]);
        assert_eq!(stand.vitals().await.reason, Some(Fault::Unreachable));
        stand.upstream.follow_when_probed([says("pong")]);
        pass(s(1)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_probe_has_a_limit_of_time() {
        let stand = opened(Plan { probe_limit: s(5), ..Plan::new("a") }).await;
        stand.upstream.follow_when_probed([silent()]);
        pass(s(12)).await;
        let during = stand.vitals().await;
        assert_eq!((during.state, during.retry_at), (ProviderState::HalfOpen, None));
        assert!(stand.admit().await.is_err(), "a visitor is no guinea pig");
        pass(s(3)).await;
        let after = stand.vitals().await;
        assert_eq!((after.state, after.reason), (ProviderState::Open, Some(Fault::Timeout)));
        pass(s(300)).await;
        assert_eq!(stand.upstream.most_probes(), 1);
    }

    #[actix_rt::test(system = "Paused")]
    async fn thinking_proves_life_and_usage_alone_does_not() {
        let stand = opened(Plan::new("a")).await;
        let used = vec![Act::Used(1, 1), Act::Used(1, 1)];
        let thinks = vec![Act::Used(1, 0), Act::Think, Act::Hang];
        stand.upstream.follow_when_probed([used, thinks]);
        pass(s(10)).await;
        assert_eq!(stand.vitals().await.reason, Some(Fault::Truncated));
        pass(s(20)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_blocked_one_is_probed_rarely_and_comes_back() {
        let stand = Stand::alone(Plan::new("a"));
        stand.upstream.follow_when_probed([fails(Fault::Unauthorized), fails(Fault::Timeout), says("pong")]);
        call(&stand, failed(Fault::Unauthorized)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Blocked);
        let begun = Instant::now();
        pass(s(179)).await;
        let vitals = stand.vitals().await;
        assert_eq!((vitals.state, vitals.reason), (ProviderState::Blocked, Some(Fault::Unauthorized)));
        let at: Vec<_> = stand.upstream.probes().iter().map(|probe| (probe.at - begun).as_secs()).collect();
        assert_eq!(at, [60, 120]);
        pass(s(1)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_probe_waits_out_a_retry_after() {
        let stand = Stand::alone(Plan::new("a"));
        stand.upstream.follow_when_probed([limited(s(100)), says("pong")]);
        for _ in 0..10 {
            call(&stand, failed(Fault::RateLimited)).await;
        }
        assert_eq!(stand.vitals().await.state, ProviderState::Open);
        let begun = Instant::now();
        pass(s(200)).await;
        let at: Vec<_> = stand.upstream.probes().iter().map(|probe| (probe.at - begun).as_secs()).collect();
        // The tenth part of open_for more, as chance says, because everyone who was told comes back then.
        assert_eq!(at, [10, 111]);
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_refused_probe_lets_visitors_try() {
        let stand = opened(Plan::new("a")).await;
        stand.upstream.follow_when_probed([fails(Fault::BadRequest)]);
        pass(s(10)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::HalfOpen);
        pass(s(10)).await;
        call(&stand, Verdict::Whole).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    }

    #[actix_rt::test(system = "Paused")]
    async fn where_visitors_probe_one_is_let_in_and_an_abandoned_one_gives_its_place_back() {
        let rules = Rules { recovery_probe: false, ..Rules::default() };
        let stand = opened(Plan { rules, ..Plan::new("a") }).await;
        pass(s(10)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::HalfOpen, "also without a probe it says so");
        let probe = stand.admit().await.unwrap();
        assert!(stand.admit().await.is_err());
        drop(probe);
        let probe = stand.admit().await.unwrap();
        probe.settle(Verdict::Whole);
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
        assert_eq!(probed(&stand), 0);
    }

    #[actix_rt::test(system = "Paused")]
    async fn no_stampede_meets_a_provider_that_comes_back() {
        let stand = opened(Plan::new("a")).await;
        stand.upstream.follow_when_probed([vec![Act::Wait(s(2)), Act::End(Finish::Stop)]]);
        for _ in 0..120 {
            pass(ms(100)).await;
            let admitted = stand.admit().await.is_ok();
            assert_eq!(admitted, stand.vitals().await.state == ProviderState::Closed);
        }
        assert_eq!((probed(&stand), stand.upstream.most_probes()), (1, 1));
        assert!(stand.admit().await.is_ok());
    }
}

mod coming_back {
    use super::*;

    #[actix_rt::test(system = "Paused")]
    async fn a_rebuilt_actor_goes_on_where_the_old_one_was() {
        for fault in [Fault::ServerError, Fault::Unauthorized] {
            let mut stand = Stand::alone(Plan::new("a"));
            stand.upstream.follow_when_probed([fails(fault)]);
            for _ in 0..5 {
                if let Ok(permit) = stand.admit().await {
                    permit.settle(failed(fault));
                }
            }
            pass(s(65)).await;
            let before = stand.vitals().await;
            stand.crash().await;
            assert!(stand.actor().send(Admit).await.is_err());
            stand.rebuild();
            let after = stand.vitals().await;
            assert_eq!(
                (after.state, after.strikes, after.reason),
                (before.state, before.strikes, before.reason)
            );
            assert_eq!((after.successes, after.failures), (before.successes, before.failures));
            assert!(stand.admit().await.is_err());
            stand.upstream.follow_when_probed([says("pong")]);
            pass(s(90)).await;
            assert_eq!(stand.vitals().await.state, ProviderState::Closed);
        }
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_panic_loses_no_place_and_no_rate_limit() {
        let mut stand = Stand::alone(Plan { max_concurrent: 2, ..Plan::new("a") });
        let under_way = stand.admit().await.unwrap();
        let limit = Verdict::Failed { fault: Fault::RateLimited, started: false, retry_after: Some(s(20)) };
        call(&stand, limit).await;
        stand.crash().await;
        stand.rebuild();
        assert_eq!((stand.vitals().await.in_flight, stand.free()), (1, 1));
        assert!(stand.admit().await.is_err(), "it asked to be left alone");
        pass(s(20)).await;
        let other = stand.admit().await.unwrap();
        assert_eq!(refusal(stand.admit().await), Refusal { busy: true, retry_at: None });
        drop(other);
        under_way.settle(Verdict::Whole);
        assert_eq!((stand.vitals().await.in_flight, stand.free()), (0, 2));
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_permit_dropped_while_nobody_is_there_gives_its_place_back() {
        let mut stand = Stand::alone(Plan::new("a"));
        let permit = stand.admit().await.unwrap();
        stand.crash().await;
        drop(permit);
        stand.rebuild();
        assert_eq!((stand.vitals().await.in_flight, stand.free()), (0, stand.places()));
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_verdict_of_the_time_before_changes_no_state() {
        let mut stand = opened(Plan { max_concurrent: 9, ..Plan::new("a") }).await;
        stand.actor().send(Reset).await.unwrap();
        let old: Vec<_> = [stand.admit().await.unwrap(), stand.admit().await.unwrap()].into();
        for _ in 0..5 {
            call(&stand, failed(Fault::ServerError)).await;
        }
        pass(s(1)).await;
        stand.crash().await;
        stand.rebuild();
        settled().await;
        for permit in old {
            permit.settle(Verdict::Whole);
        }
        let vitals = stand.vitals().await;
        assert_eq!((vitals.state, vitals.in_flight), (ProviderState::Open, 0));
    }

    #[actix_rt::test(system = "Paused")]
    async fn a_probe_that_panics_does_not_end_recovery() {
        let stand = opened(Plan::new("a")).await;
        stand.upstream.follow_when_probed([vec![Act::Panic], says("pong")]);
        pass(s(10)).await;
        if stand.is_down() {
            stand.rebuild();
        }
        pass(s(30)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    }

    async fn kept(store: &MemoryStore) -> Option<BreakerRecord> {
        settled().await;
        store.breakers().await.unwrap().pop()
    }

    #[actix_rt::test(system = "Paused")]
    async fn the_breaker_is_kept_over_a_restart_of_the_service() {
        let store = Arc::new(MemoryStore::default());
        let stand = Stand::start(Plan::new("a"), Clock::start(), store.clone());
        assert_eq!(kept(&store).await, None);
        for _ in 0..5 {
            call(&stand, failed(Fault::ServerError)).await;
        }
        let open = kept(&store).await.unwrap();
        assert_eq!(
            (&*open.provider, open.blocked, open.strikes, &*open.reason),
            ("a", false, 0, "server_error")
        );
        let wait = open.until.since(stand.clock().wall());
        assert!(wait <= s(10) && wait > s(8), "{wait:?}");
        stand.upstream.follow_when_probed([fails(Fault::Timeout), says("pong")]);
        pass(s(10)).await;
        assert_eq!(kept(&store).await.unwrap().strikes, 1);
        pass(s(20)).await;
        assert_eq!(kept(&store).await, None, "closed");
        call(&stand, failed(Fault::QuotaSpent)).await;
        let blocked = kept(&store).await.unwrap();
        assert_eq!((blocked.blocked, &*blocked.reason), (true, "refused"));
    }

    #[actix_rt::test(system = "Paused")]
    async fn what_was_open_comes_back_open_or_half_open() {
        let wall = Clock::start().wall();
        let begins =
            |state, until: At| Vitals { state, retry_at: Some(until), strikes: 1, ..Vitals::default() };
        let plan = |vitals| Plan { vitals, ..Plan::new("a") };

        let later = Stand::alone(plan(begins(ProviderState::Open, wall.plus(s(7)))));
        assert_eq!(later.vitals().await.state, ProviderState::Open);
        assert!(later.admit().await.is_err());
        pass(s(8)).await;
        assert_eq!((later.vitals().await.state, probed(&later)), (ProviderState::Closed, 1));

        let past = Stand::alone(plan(begins(ProviderState::Open, At(5))));
        past.upstream.follow_when_probed([fails(Fault::Reset)]);
        settled().await;
        assert_eq!((past.vitals().await.state, probed(&past)), (ProviderState::Open, 1), "probed at once");
        assert_eq!(past.vitals().await.strikes, 2);

        let blocked = Stand::alone(plan(begins(ProviderState::Blocked, wall.plus(s(30)))));
        assert_eq!(blocked.vitals().await.state, ProviderState::Blocked);
        pass(s(31)).await;
        assert_eq!(blocked.vitals().await.state, ProviderState::Closed);
    }
}
