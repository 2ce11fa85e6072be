//! The router with real provider actors, on a paused clock.

use actix::Addr;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::*;
use crate::chat::{Failure, Fault};
use crate::provider::breaker::Verdict;
use crate::provider::paused::{Paused, pass, settled};
use crate::provider::places::Places;
use crate::provider::stand::{Plan, Stand};
use crate::settings::{CallRetry, Settings};
use crate::store::MemoryStore;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

struct Bench {
    stands: Vec<Stand>,
    router: Addr<RouterActor>,
    published: watch::Sender<Arc<Table>>,
}

impl Bench {
    fn new(plans: impl IntoIterator<Item = Plan>, budget: f64) -> Self {
        let clock = Clock::start();
        let start = |plan| Stand::start(plan, clock, Arc::new(MemoryStore::default()));
        let stands: Vec<_> = plans.into_iter().map(start).collect();
        let backends = stands
            .iter()
            .map(|stand| Arc::clone(&stand.backend))
            .collect();
        let mut settings = Settings::default();
        settings.retry.budget = budget;
        let (published, table) = watch::channel(Arc::new(Table::first(settings.into(), backends)));
        let seed = Seed {
            table,
            clock,
            chance: || 0.5,
        };
        let (exits, _) = mpsc::channel(1);
        let router = RouterActor::new(seed, Guard::new("router".into(), exits)).start();
        Self {
            stands,
            router,
            published,
        }
    }

    fn abc() -> Self {
        Self::new(["a", "b", "c"].map(Plan::new), 0.2)
    }

    async fn route(&self, pick: Pick) -> Route {
        self.router.send(pick).await.unwrap()
    }

    /// Selects after these failed attempts: the attempt's number and provider, a delay, or none.
    async fn select_after(&self, failed: &[Failed]) -> String {
        describe(self.route(pick(failed)).await)
    }

    /// Opens the breaker of the provider at `index`.
    async fn open(&self, index: usize) {
        for _ in 0..5 {
            let verdict = Verdict::Failed {
                fault: Fault::Timeout,
                started: false,
                retry_after: None,
            };
            self.stands[index].admit().await.unwrap().settle(verdict);
            settled().await;
        }
    }
}

fn describe(route: Route) -> String {
    match route {
        Route::Go(lease) => format!("{} {}", lease.attempt, lease.backend.name),
        Route::Wait(wait) => format!("wait {}", wait.as_millis()),
        Route::Nobody { retry_after } => {
            format!("nobody {:?}", retry_after.map(|after| after.as_millis()))
        }
    }
}

fn pick(failed: &[Failed]) -> Pick {
    Pick {
        failed: failed.into(),
        ..Pick::default()
    }
}

fn failed(provider: &str, fault: Fault) -> Failed {
    Failed {
        provider: provider.into(),
        failure: Failure::of(fault),
        started: false,
        took: ms(5),
    }
}

#[actix_rt::test(system = "Paused")]
async fn providers_are_tried_in_order_without_the_tried() {
    let bench = Bench::abc();
    let a = failed("a", Fault::Timeout);
    let b = failed("b", Fault::Timeout);
    let c = failed("c", Fault::Timeout);
    assert_eq!(bench.select_after(&[]).await, "1 a");
    assert_eq!(bench.select_after(std::slice::from_ref(&a)).await, "2 b");
    assert_eq!(bench.select_after(&[c.clone(), a.clone()]).await, "3 b");
    assert_eq!(bench.select_after(&[a, b, c]).await, "nobody None");
}

#[actix_rt::test(system = "Paused")]
async fn background_attempts_use_at_most_half_the_budget() {
    let bench = Bench::abc();
    let background = |failed: &[Failed]| Pick {
        late: true,
        ..pick(failed)
    };
    let reset = [failed("a", Fault::Reset)];
    assert_eq!(
        describe(bench.route(background(&reset)).await),
        "2 b",
        "no retry at the same provider"
    );
    assert_eq!(
        describe(
            bench
                .route(Pick {
                    hedge: Some("a".into()),
                    ..background(&[])
                })
                .await
        ),
        "nobody None"
    );
    // Background turns deposit nothing.
    for _ in 0..4 {
        assert_eq!(describe(bench.route(background(&[])).await), "1 a");
    }
    assert_eq!(describe(bench.route(background(&[])).await), "nobody None");
    for _ in 0..10 {
        assert_eq!(bench.select_after(&[]).await, "1 a");
    }
    assert_eq!(describe(bench.route(background(&[])).await), "1 a");
    assert_eq!(describe(bench.route(background(&[])).await), "nobody None");
}

#[actix_rt::test(system = "Paused")]
async fn unavailable_providers_are_skipped_and_the_earliest_retry_is_returned() {
    let bench = Bench::new(
        ["a", "b", "c"].map(|name| Plan {
            max_concurrent: 1,
            ..Plan::new(name)
        }),
        0.2,
    );
    bench.open(0).await;
    assert_eq!(bench.select_after(&[]).await, "1 b");
    pass(Duration::from_secs(4)).await;
    bench.open(1).await;
    let held = bench.route(pick(&[])).await;
    assert!(matches!(&held, Route::Go(lease) if &*lease.backend.name == "c"));
    assert_eq!(
        bench.select_after(&[]).await,
        "nobody Some(6000)",
        "a full provider does not say when it is free"
    );
    drop(held);
    assert_eq!(bench.select_after(&[]).await, "1 c");
}

#[actix_rt::test(system = "Paused")]
async fn a_dropped_lease_releases_its_permit() {
    let bench = Bench::new(
        [Plan {
            max_concurrent: 1,
            ..Plan::new("a")
        }],
        0.2,
    );
    for _ in 0..3 {
        assert_eq!(bench.select_after(&[]).await, "1 a");
    }
    drop(bench.router.send(pick(&[])));
    settled().await;
    assert_eq!(bench.stands[0].free(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn a_delay_leads_back_to_the_same_provider_or_on_to_others() {
    let bench = Bench::abc();
    let reset = [failed("a", Fault::Reset)];
    assert_eq!(bench.select_after(&reset).await, "wait 100");
    let waited = || Pick {
        waited: true,
        ..pick(&[failed("a", Fault::Reset)])
    };
    assert_eq!(describe(bench.route(waited()).await), "2 a");
    bench.open(0).await;
    assert_eq!(
        describe(bench.route(waited()).await),
        "2 b",
        "its breaker opened during the delay"
    );
    let mut twice = reset.to_vec();
    twice.push(failed("a", Fault::Reset));
    assert_eq!(bench.select_after(&twice).await, "3 b");
}

/// A provider with this many retries per turn.
fn with_retries(same_provider: u32) -> Plan {
    let plan = Plan::new("a");
    Plan {
        retry: CallRetry {
            same_provider,
            ..plan.retry
        },
        ..plan
    }
}

#[actix_rt::test(system = "Paused")]
async fn each_retry_delay_is_longer_than_the_one_before() {
    let bench = Bench::new([with_retries(9)], 0.2);
    let reset = |times| vec![failed("a", Fault::Reset); times];
    assert_eq!(bench.select_after(&reset(1)).await, "wait 100");
    assert_eq!(bench.select_after(&reset(2)).await, "wait 200");
    assert_eq!(bench.select_after(&reset(3)).await, "wait 400");
    assert_eq!(bench.select_after(&reset(4)).await, "nobody None");
    // Failures elsewhere do not lengthen the delay.
    let bench = Bench::abc();
    let elsewhere = [
        failed("b", Fault::Timeout),
        failed("c", Fault::Timeout),
        failed("a", Fault::Reset),
    ];
    assert_eq!(bench.select_after(&elsewhere).await, "wait 100");
}

#[actix_rt::test(system = "Paused")]
async fn each_provider_has_its_own_retry_settings() {
    let with_backoff = |name, base, max, max_retry_after| {
        let plan = Plan::new(name);
        Plan {
            retry: CallRetry {
                same_provider: 3,
                base: ms(base),
                max: ms(max),
                max_retry_after: ms(max_retry_after),
            },
            ..plan
        }
    };
    let bench = Bench::new(
        [
            with_backoff("a", 1_000, 1_500, 9_000),
            with_backoff("b", 10, 15, 0),
        ],
        0.2,
    );
    let failed = |name, times, fault| vec![failed(name, fault); times];
    assert_eq!(
        bench.select_after(&failed("a", 1, Fault::Reset)).await,
        "wait 500"
    );
    assert_eq!(
        bench.select_after(&failed("a", 2, Fault::Reset)).await,
        "wait 750"
    );
    assert_eq!(
        bench.select_after(&failed("b", 1, Fault::Reset)).await,
        "wait 5"
    );
    let limited = |name| {
        let mut limited = failed(name, 1, Fault::RateLimited);
        limited[0].failure.retry_after = Some(ms(8_000));
        limited
    };
    assert_eq!(bench.select_after(&limited("a")).await, "wait 8000");
    assert_eq!(bench.select_after(&limited("b")).await, "2 a");
}

#[actix_rt::test(system = "Paused")]
async fn retries_need_budget_and_other_providers_do_not() {
    let bench = Bench::new(["a", "b"].map(Plan::new), 0.2);
    let reset = [failed("a", Fault::Reset)];
    for _ in 0..10 {
        assert_eq!(bench.select_after(&reset).await, "wait 100");
    }
    assert_eq!(bench.select_after(&reset).await, "2 b", "spent");
    for _ in 0..5 {
        assert_eq!(bench.select_after(&[]).await, "1 a");
    }
    assert_eq!(
        bench.select_after(&reset).await,
        "wait 100",
        "five turns pay for one retry"
    );
    assert_eq!(bench.select_after(&reset).await, "2 b");
    pass(Duration::from_secs(66)).await;
    assert_eq!(
        bench.select_after(&reset).await,
        "wait 100",
        "a minute later"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_whose_actor_is_down_counts_as_busy() {
    let mut bench = Bench::abc();
    bench.stands[0].crash().await;
    assert_eq!(bench.select_after(&[]).await, "1 b");
    bench.stands[1].leave();
    assert_eq!(bench.select_after(&[]).await, "1 c");
    bench.stands[0].rebuild();
    assert_eq!(bench.select_after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_whose_actor_is_behind_is_skipped_after_the_timeout() {
    let bench = Bench::new(
        ["a", "b"].map(|name| Plan {
            max_concurrent: 1,
            ..Plan::new(name)
        }),
        0.2,
    );
    bench.stands[0].rebuild_behind(Duration::from_secs(1));
    let started = Instant::now();
    assert_eq!(bench.select_after(&[]).await, "1 b");
    assert_eq!(started.elapsed(), ACTOR_LIMIT);
    pass(Duration::from_secs(1)).await;
    assert_eq!(
        bench.stands[0].free(),
        1,
        "the permit granted too late was returned"
    );
    assert_eq!(bench.select_after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn concurrent_selections_wait_for_a_slow_actor_in_parallel() {
    let bench = Bench::new(["a", "b"].map(Plan::new), 0.2);
    bench.stands[0].rebuild_behind(Duration::from_secs(1));
    let started = Instant::now();
    let turns = (0..50).map(|_| bench.select_after(&[]));
    let selections = futures_util::future::join_all(turns).await;
    assert!(selections.iter().all(|selection| selection == "1 b"));
    assert_eq!(started.elapsed(), ACTOR_LIMIT, "they wait in parallel");
}

#[actix_rt::test(system = "Paused")]
async fn a_selection_holds_its_queue_permit_until_it_is_handled() {
    let bench = Bench::abc();
    let limit = Arc::<Places>::default();
    let mut asked = Vec::new();
    while let Some(permit) = limit.take(MAILBOX) {
        let pick = Pick {
            waits: Some(Arc::new(permit)),
            ..pick(&[])
        };
        // Each through its own clone of the address, as turns do: the mailbox alone has no bound.
        asked.push(tokio::spawn(bench.router.clone().send(pick)));
    }
    assert_eq!((asked.len(), limit.taken()), (MAILBOX, MAILBOX));
    futures_util::future::join_all(asked).await;
    settled().await;
    assert_eq!(limit.taken(), 0);
    assert_eq!(bench.select_after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn preferred_provider_is_kept_after_failures() {
    let bench = Bench::abc();
    let wish = |failed: &[Failed], only_first| Pick {
        first: Some("c".into()),
        only_first,
        ..pick(failed)
    };
    assert_eq!(describe(bench.route(wish(&[], false)).await), "1 c");
    let tried = [failed("c", Fault::Timeout)];
    assert_eq!(describe(bench.route(wish(&tried, false)).await), "2 a");
    assert_eq!(
        describe(bench.route(wish(&tried, true)).await),
        "nobody None"
    );
    let again = Pick {
        waited: true,
        ..wish(&[failed("c", Fault::Reset)], true)
    };
    assert_eq!(describe(bench.route(again).await), "2 c");
}

#[actix_rt::test(system = "Paused")]
async fn a_truncated_history_is_tried_at_providers_it_was_too_long_for() {
    let rooms = [("a", 100), ("b", 200), ("c", 50)];
    let plan = |(name, context_tokens)| Plan {
        context_tokens,
        ..Plan::new(name)
    };
    let bench = Bench::new(rooms.map(plan), 0.2);
    let long = |name| failed(name, Fault::TooLong);
    assert_eq!(bench.select_after(&[long("a")]).await, "2 b");
    assert_eq!(
        bench.select_after(&[long("a"), long("b")]).await,
        "nobody None"
    );
    let truncated = |failed: &[Failed], before_halving| Pick {
        before_halving,
        ..pick(failed)
    };
    assert_eq!(
        describe(bench.route(truncated(&[long("a"), long("b")], 2)).await),
        "3 a"
    );
    let turn = [long("a"), failed("b", Fault::Timeout)];
    assert_eq!(describe(bench.route(truncated(&turn, 2)).await), "3 a");
    let turn = [long("a"), failed("b", Fault::Timeout), long("a")];
    assert_eq!(
        describe(bench.route(truncated(&turn, 2)).await),
        "nobody None",
        "c has a smaller context than a"
    );
    let too_many = truncated(&[long("a")], 9);
    assert_eq!(describe(bench.route(too_many).await), "2 a");
}

#[actix_rt::test(system = "Paused")]
async fn each_selection_uses_the_configuration_published_last() {
    let bench = Bench::abc();
    assert_eq!(bench.select_after(&[]).await, "1 a");
    // Provider `a` is removed, another is first, and one attempt less is allowed.
    let new = Stand::alone(Plan::new("new"));
    let mut table = Table::clone(&bench.published.borrow());
    let mut settings = Settings::clone(&table.settings);
    settings.routing.max_attempts = 2;
    table.settings = settings.into();
    table.backends = [
        Arc::clone(&new.backend),
        Arc::clone(&bench.stands[1].backend),
    ]
    .into();
    bench.published.send_replace(Arc::new(table));
    let down = failed("a", Fault::Unreachable);
    assert_eq!(bench.select_after(&[]).await, "1 new");
    let selection = bench.select_after(std::slice::from_ref(&down)).await;
    assert_eq!(
        selection, "2 new",
        "a turn that began before the reload uses the new providers"
    );
    assert_eq!(
        bench.select_after(&[down.clone(), down]).await,
        "nobody None"
    );
}
