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
    fn of(plans: impl IntoIterator<Item = Plan>, budget: f64) -> Self {
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
        let (tell, _) = mpsc::channel(1);
        let router = RouterActor::new(seed, Guard::new("router".into(), tell)).start();
        Self {
            stands,
            router,
            published,
        }
    }

    fn abc() -> Self {
        Self::of(["a", "b", "c"].map(Plan::new), 0.2)
    }

    async fn route(&self, pick: Pick) -> Route {
        self.router.send(pick).await.unwrap()
    }

    /// Where a turn goes whose attempts failed so: a provider and the attempt's number, a wait, or nowhere.
    async fn after(&self, failed: &[Failed]) -> String {
        told(self.route(pick(failed)).await)
    }

    /// Opens the breaker of one.
    async fn open(&self, place: usize) {
        for _ in 0..5 {
            let verdict = Verdict::Failed {
                fault: Fault::Timeout,
                started: false,
                retry_after: None,
            };
            self.stands[place].admit().await.unwrap().settle(verdict);
            settled().await;
        }
    }
}

fn told(route: Route) -> String {
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
async fn providers_are_asked_in_order_without_the_tried() {
    let bench = Bench::abc();
    let (a, b, c) = (
        failed("a", Fault::Timeout),
        failed("b", Fault::Timeout),
        failed("c", Fault::Timeout),
    );
    assert_eq!(bench.after(&[]).await, "1 a");
    assert_eq!(bench.after(std::slice::from_ref(&a)).await, "2 b");
    assert_eq!(bench.after(&[c.clone(), a.clone()]).await, "3 b");
    assert_eq!(bench.after(&[a, b, c]).await, "nobody None");
}

#[actix_rt::test(system = "Paused")]
async fn each_attempt_of_a_late_answer_is_within_half_the_budget() {
    let bench = Bench::abc();
    let late = |failed: &[Failed]| Pick {
        late: true,
        ..pick(failed)
    };
    let reset = [failed("a", Fault::Reset)];
    assert_eq!(
        told(bench.route(late(&reset)).await),
        "2 b",
        "who failed is not asked again"
    );
    assert_eq!(
        told(
            bench
                .route(Pick {
                    hedge: Some("a".into()),
                    ..late(&[])
                })
                .await
        ),
        "nobody None"
    );
    // They deposit nothing themselves.
    for _ in 0..4 {
        assert_eq!(told(bench.route(late(&[])).await), "1 a");
    }
    assert_eq!(told(bench.route(late(&[])).await), "nobody None");
    for _ in 0..10 {
        assert_eq!(bench.after(&[]).await, "1 a");
    }
    assert_eq!(told(bench.route(late(&[])).await), "1 a");
    assert_eq!(told(bench.route(late(&[])).await), "nobody None");
}

#[actix_rt::test(system = "Paused")]
async fn who_cannot_be_asked_is_passed_over_and_the_earliest_return_is_told() {
    let bench = Bench::of(
        ["a", "b", "c"].map(|name| Plan {
            max_concurrent: 1,
            ..Plan::new(name)
        }),
        0.2,
    );
    bench.open(0).await;
    assert_eq!(bench.after(&[]).await, "1 b");
    pass(Duration::from_secs(4)).await;
    bench.open(1).await;
    let held = bench.route(pick(&[])).await;
    assert!(matches!(&held, Route::Go(lease) if &*lease.backend.name == "c"));
    assert_eq!(
        bench.after(&[]).await,
        "nobody Some(6000)",
        "a full one does not say when"
    );
    drop(held);
    assert_eq!(bench.after(&[]).await, "1 c");
}

#[actix_rt::test(system = "Paused")]
async fn a_lease_that_nobody_takes_gives_its_place_back() {
    let bench = Bench::of(
        [Plan {
            max_concurrent: 1,
            ..Plan::new("a")
        }],
        0.2,
    );
    for _ in 0..3 {
        assert_eq!(bench.after(&[]).await, "1 a");
    }
    drop(bench.router.send(pick(&[])));
    settled().await;
    assert_eq!(bench.stands[0].free(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn a_wait_leads_back_to_the_same_provider_or_on_to_others() {
    let bench = Bench::abc();
    let reset = [failed("a", Fault::Reset)];
    assert_eq!(bench.after(&reset).await, "wait 100");
    let waited = || Pick {
        waited: true,
        ..pick(&[failed("a", Fault::Reset)])
    };
    assert_eq!(told(bench.route(waited()).await), "2 a");
    bench.open(0).await;
    assert_eq!(
        told(bench.route(waited()).await),
        "2 b",
        "it opened meanwhile"
    );
    let mut twice = reset.to_vec();
    twice.push(failed("a", Fault::Reset));
    assert_eq!(bench.after(&twice).await, "3 b");
}

/// One that is tried again so often.
fn trying(same_provider: u32) -> Plan {
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
async fn each_wait_is_longer_than_the_one_before() {
    let bench = Bench::of([trying(9)], 0.2);
    let reset = |times| vec![failed("a", Fault::Reset); times];
    assert_eq!(bench.after(&reset(1)).await, "wait 100");
    assert_eq!(bench.after(&reset(2)).await, "wait 200");
    assert_eq!(bench.after(&reset(3)).await, "wait 400");
    assert_eq!(bench.after(&reset(4)).await, "nobody None");
    // What failed elsewhere does not lengthen it.
    let bench = Bench::abc();
    let elsewhere = [
        failed("b", Fault::Timeout),
        failed("c", Fault::Timeout),
        failed("a", Fault::Reset),
    ];
    assert_eq!(bench.after(&elsewhere).await, "wait 100");
}

#[actix_rt::test(system = "Paused")]
async fn each_provider_has_its_own_measures() {
    let own = |name, base, max, max_retry_after| {
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
    let bench = Bench::of([own("a", 1_000, 1_500, 9_000), own("b", 10, 15, 0)], 0.2);
    let failed = |name, times, fault| vec![failed(name, fault); times];
    assert_eq!(bench.after(&failed("a", 1, Fault::Reset)).await, "wait 500");
    assert_eq!(bench.after(&failed("a", 2, Fault::Reset)).await, "wait 750");
    assert_eq!(bench.after(&failed("b", 1, Fault::Reset)).await, "wait 5");
    let limited = |name| {
        let mut limited = failed(name, 1, Fault::RateLimited);
        limited[0].failure.retry_after = Some(ms(8_000));
        limited
    };
    assert_eq!(bench.after(&limited("a")).await, "wait 8000");
    assert_eq!(bench.after(&limited("b")).await, "2 a");
}

#[actix_rt::test(system = "Paused")]
async fn retries_have_a_budget_and_other_providers_need_none() {
    let bench = Bench::of(["a", "b"].map(Plan::new), 0.2);
    let reset = [failed("a", Fault::Reset)];
    for _ in 0..10 {
        assert_eq!(bench.after(&reset).await, "wait 100");
    }
    assert_eq!(bench.after(&reset).await, "2 b", "spent");
    for _ in 0..5 {
        assert_eq!(bench.after(&[]).await, "1 a");
    }
    assert_eq!(
        bench.after(&reset).await,
        "wait 100",
        "five turns pay for one"
    );
    assert_eq!(bench.after(&reset).await, "2 b");
    pass(Duration::from_secs(66)).await;
    assert_eq!(bench.after(&reset).await, "wait 100", "a minute later");
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_whose_actor_is_gone_counts_as_busy() {
    let mut bench = Bench::abc();
    bench.stands[0].crash().await;
    assert_eq!(bench.after(&[]).await, "1 b");
    bench.stands[1].leave();
    assert_eq!(bench.after(&[]).await, "1 c");
    bench.stands[0].rebuild();
    assert_eq!(bench.after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_whose_actor_is_behind_is_not_waited_for() {
    let bench = Bench::of(
        ["a", "b"].map(|name| Plan {
            max_concurrent: 1,
            ..Plan::new(name)
        }),
        0.2,
    );
    bench.stands[0].rebuild_behind(Duration::from_secs(1));
    let begun = Instant::now();
    assert_eq!(bench.after(&[]).await, "1 b");
    assert_eq!(begun.elapsed(), ACTOR_LIMIT);
    pass(Duration::from_secs(1)).await;
    assert_eq!(
        bench.stands[0].free(),
        1,
        "what it granted too late came back"
    );
    assert_eq!(bench.after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn many_turns_pick_while_one_provider_is_behind() {
    let bench = Bench::of(["a", "b"].map(Plan::new), 0.2);
    bench.stands[0].rebuild_behind(Duration::from_secs(1));
    let begun = Instant::now();
    let turns = (0..50).map(|_| bench.after(&[]));
    let routes = futures_util::future::join_all(turns).await;
    assert!(routes.iter().all(|route| route == "1 b"));
    assert_eq!(
        begun.elapsed(),
        ACTOR_LIMIT,
        "they wait beside each other, not in a row"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_question_has_its_place_until_it_is_heard() {
    let bench = Bench::abc();
    let places = Arc::<Places>::default();
    let mut asked = Vec::new();
    while let Some(place) = places.take(MAILBOX) {
        let pick = Pick {
            waits: Some(Arc::new(place)),
            ..pick(&[])
        };
        // Each by a clone of its own, as turns do: the mailbox would take them without an end.
        asked.push(tokio::spawn(bench.router.clone().send(pick)));
    }
    assert_eq!((asked.len(), places.taken()), (MAILBOX, MAILBOX));
    futures_util::future::join_all(asked).await;
    settled().await;
    assert_eq!(
        (places.taken(), bench.after(&[]).await.as_str()),
        (0, "1 a")
    );
}

#[actix_rt::test(system = "Paused")]
async fn wishes_are_kept_over_failures() {
    let bench = Bench::abc();
    let wish = |failed: &[Failed], only_first| Pick {
        first: Some("c".into()),
        only_first,
        ..pick(failed)
    };
    assert_eq!(told(bench.route(wish(&[], false)).await), "1 c");
    let tried = [failed("c", Fault::Timeout)];
    assert_eq!(told(bench.route(wish(&tried, false)).await), "2 a");
    assert_eq!(told(bench.route(wish(&tried, true)).await), "nobody None");
    let again = Pick {
        waited: true,
        ..wish(&[failed("c", Fault::Reset)], true)
    };
    assert_eq!(told(bench.route(again).await), "2 c");
}

#[actix_rt::test(system = "Paused")]
async fn half_the_history_goes_to_those_it_was_too_long_for() {
    let rooms = [("a", 100), ("b", 200), ("c", 50)];
    let plan = |(name, context_tokens)| Plan {
        context_tokens,
        ..Plan::new(name)
    };
    let bench = Bench::of(rooms.map(plan), 0.2);
    let long = |name| failed(name, Fault::TooLong);
    assert_eq!(bench.after(&[long("a")]).await, "2 b");
    assert_eq!(bench.after(&[long("a"), long("b")]).await, "nobody None");
    let halved = |failed: &[Failed], before_halving| Pick {
        before_halving,
        ..pick(failed)
    };
    assert_eq!(
        told(bench.route(halved(&[long("a"), long("b")], 2)).await),
        "3 a"
    );
    let turn = [long("a"), failed("b", Fault::Timeout)];
    assert_eq!(told(bench.route(halved(&turn, 2)).await), "3 a");
    let turn = [long("a"), failed("b", Fault::Timeout), long("a")];
    assert_eq!(
        told(bench.route(halved(&turn, 2)).await),
        "nobody None",
        "c has less room than a"
    );
    let too_many = halved(&[long("a")], 9);
    assert_eq!(told(bench.route(too_many).await), "2 a");
}

#[actix_rt::test(system = "Paused")]
async fn each_question_is_decided_by_what_is_published_then() {
    let bench = Bench::abc();
    assert_eq!(bench.after(&[]).await, "1 a");
    // The first is taken out, another comes before the rest, and there may be one attempt less.
    let new = Stand::alone(Plan::new("new"));
    let mut table = Table::clone(&bench.published.borrow());
    let mut settings = Settings::clone(&table.settings);
    settings.routing.max_attempts = 2;
    (table.settings, table.backends) = (
        settings.into(),
        [
            Arc::clone(&new.backend),
            Arc::clone(&bench.stands[1].backend),
        ]
        .into(),
    );
    bench.published.send_replace(Arc::new(table));
    let down = failed("a", Fault::Unreachable);
    assert_eq!(bench.after(&[]).await, "1 new");
    let after = bench.after(std::slice::from_ref(&down)).await;
    assert_eq!(
        after, "2 new",
        "a turn that began before finds who there is now"
    );
    assert_eq!(bench.after(&[down.clone(), down]).await, "nobody None");
}
