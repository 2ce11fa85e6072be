//! The router with real provider actors, on a paused clock.

mod admission;

use actix::Addr;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::*;
use crate::config::{CallRetry, Settings};
use crate::domain::{Failure, FaultKind};
use crate::provider::breaker::CallOutcome;
use crate::provider::concurrency_limit::ConcurrencyLimit;
use crate::provider::paused_system::{Paused, advance, run_until_idle};
use crate::provider::test_bench::{BenchOptions, ProviderBench};
use crate::store::MemoryStore;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

struct Bench {
    benches: Vec<ProviderBench>,
    router: Addr<RouterActor>,
    published: watch::Sender<Arc<RuntimeConfig>>,
}

impl Bench {
    fn new(plans: impl IntoIterator<Item = BenchOptions>, budget: f64) -> Self {
        let clock = Clock::start();
        let start = |plan| ProviderBench::start(plan, clock, Arc::new(MemoryStore::default()));
        let benches: Vec<_> = plans.into_iter().map(start).collect();
        let providers = benches
            .iter()
            .map(|bench| Arc::clone(&bench.provider))
            .collect();
        let mut settings = Settings::default();
        settings.retry.budget = budget;
        let (published, table) =
            watch::channel(Arc::new(RuntimeConfig::new(settings.into(), providers)));
        let seed = RouterParts {
            config: table,
            clock,
            random_unit: || 0.5,
        };
        let (exits, _) = mpsc::channel(1);
        let router = RouterActor::new(seed, ExitGuard::new("router".into(), exits)).start();
        Self {
            benches,
            router,
            published,
        }
    }

    fn abc() -> Self {
        Self::new(["a", "b", "c"].map(BenchOptions::new), 0.2)
    }

    async fn route(&self, pick: SelectProvider) -> Selection {
        self.router.send(pick).await.unwrap()
    }

    /// Selects after these failed attempts: the attempt's number and provider, a delay, or none.
    async fn select_after(&self, failed: &[FailedAttempt]) -> String {
        describe(self.route(pick(failed)).await)
    }

    /// Opens the breaker of the provider at `index`.
    async fn open(&self, index: usize) {
        for _ in 0..5 {
            let verdict = CallOutcome::Failed {
                fault: FaultKind::Timeout,
                had_text: false,
                retry_after: None,
            };
            self.benches[index]
                .try_acquire()
                .await
                .unwrap()
                .complete(verdict);
            run_until_idle().await;
        }
    }
}

fn describe(route: Selection) -> String {
    match route {
        Selection::Provider(lease) => format!("{} {}", lease.attempt_number, lease.provider.name),
        Selection::RetryAfter(wait) => format!("wait {}", wait.as_millis()),
        Selection::Unavailable { retry_after } => {
            format!("nobody {:?}", retry_after.map(|after| after.as_millis()))
        }
    }
}

fn pick(failed: &[FailedAttempt]) -> SelectProvider {
    SelectProvider {
        failed_attempts: failed.into(),
        ..SelectProvider::default()
    }
}

fn failed(provider: &str, fault: FaultKind) -> FailedAttempt {
    FailedAttempt {
        provider: provider.into(),
        failure: Failure::new(fault),
        had_text: false,
        elapsed: ms(5),
    }
}

#[actix_rt::test(system = "Paused")]
async fn providers_are_tried_in_order_without_the_tried() {
    let bench = Bench::abc();
    let a = failed("a", FaultKind::Timeout);
    let b = failed("b", FaultKind::Timeout);
    let c = failed("c", FaultKind::Timeout);
    assert_eq!(bench.select_after(&[]).await, "1 a");
    assert_eq!(bench.select_after(std::slice::from_ref(&a)).await, "2 b");
    assert_eq!(bench.select_after(&[c.clone(), a.clone()]).await, "3 b");
    assert_eq!(bench.select_after(&[a, b, c]).await, "nobody None");
}

#[actix_rt::test(system = "Paused")]
async fn background_attempts_use_at_most_half_the_budget() {
    let bench = Bench::abc();
    let background = |failed: &[FailedAttempt]| SelectProvider {
        is_background: true,
        ..pick(failed)
    };
    let reset = [failed("a", FaultKind::Reset)];
    assert_eq!(
        describe(bench.route(background(&reset)).await),
        "2 b",
        "no retry at the same provider"
    );
    assert_eq!(
        describe(
            bench
                .route(SelectProvider {
                    hedging_against: Some("a".into()),
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
async fn a_delay_leads_back_to_the_same_provider_or_on_to_others() {
    let bench = Bench::abc();
    let reset = [failed("a", FaultKind::Reset)];
    assert_eq!(bench.select_after(&reset).await, "wait 100");
    let waited = || SelectProvider {
        backoff_elapsed: true,
        ..pick(&[failed("a", FaultKind::Reset)])
    };
    assert_eq!(describe(bench.route(waited()).await), "2 a");
    bench.open(0).await;
    assert_eq!(
        describe(bench.route(waited()).await),
        "2 b",
        "its breaker opened during the delay"
    );
    let mut twice = reset.to_vec();
    twice.push(failed("a", FaultKind::Reset));
    assert_eq!(bench.select_after(&twice).await, "3 b");
}

/// A provider with this many retries per turn.
fn with_retries(same_provider: u32) -> BenchOptions {
    let plan = BenchOptions::new("a");
    BenchOptions {
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
    let reset = |times| vec![failed("a", FaultKind::Reset); times];
    assert_eq!(bench.select_after(&reset(1)).await, "wait 100");
    assert_eq!(bench.select_after(&reset(2)).await, "wait 200");
    assert_eq!(bench.select_after(&reset(3)).await, "wait 400");
    assert_eq!(bench.select_after(&reset(4)).await, "nobody None");
    // Failures elsewhere do not lengthen the delay.
    let bench = Bench::abc();
    let elsewhere = [
        failed("b", FaultKind::Timeout),
        failed("c", FaultKind::Timeout),
        failed("a", FaultKind::Reset),
    ];
    assert_eq!(bench.select_after(&elsewhere).await, "wait 100");
}

#[actix_rt::test(system = "Paused")]
async fn each_provider_has_its_own_retry_settings() {
    let with_backoff = |name, base, max, max_retry_after| {
        let plan = BenchOptions::new(name);
        BenchOptions {
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
        bench.select_after(&failed("a", 1, FaultKind::Reset)).await,
        "wait 500"
    );
    assert_eq!(
        bench.select_after(&failed("a", 2, FaultKind::Reset)).await,
        "wait 750"
    );
    assert_eq!(
        bench.select_after(&failed("b", 1, FaultKind::Reset)).await,
        "wait 5"
    );
    let limited = |name| {
        let mut limited = failed(name, 1, FaultKind::RateLimited);
        limited[0].failure.retry_after = Some(ms(8_000));
        limited
    };
    assert_eq!(bench.select_after(&limited("a")).await, "wait 8000");
    assert_eq!(bench.select_after(&limited("b")).await, "2 a");
}

#[actix_rt::test(system = "Paused")]
async fn retries_need_budget_and_other_providers_do_not() {
    let bench = Bench::new(["a", "b"].map(BenchOptions::new), 0.2);
    let reset = [failed("a", FaultKind::Reset)];
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
    advance(Duration::from_secs(66)).await;
    assert_eq!(
        bench.select_after(&reset).await,
        "wait 100",
        "a minute later"
    );
}

#[actix_rt::test(system = "Paused")]
async fn preferred_provider_is_kept_after_failures() {
    let bench = Bench::abc();
    let wish = |failed: &[FailedAttempt], only_first| SelectProvider {
        preferred: Some("c".into()),
        no_failover: only_first,
        ..pick(failed)
    };
    assert_eq!(describe(bench.route(wish(&[], false)).await), "1 c");
    let tried = [failed("c", FaultKind::Timeout)];
    assert_eq!(describe(bench.route(wish(&tried, false)).await), "2 a");
    assert_eq!(
        describe(bench.route(wish(&tried, true)).await),
        "nobody None"
    );
    let again = SelectProvider {
        backoff_elapsed: true,
        ..wish(&[failed("c", FaultKind::Reset)], true)
    };
    assert_eq!(describe(bench.route(again).await), "2 c");
}

#[actix_rt::test(system = "Paused")]
async fn a_truncated_history_is_tried_at_providers_it_was_too_long_for() {
    let rooms = [("a", 100), ("b", 200), ("c", 50)];
    let plan = |(name, context_tokens)| BenchOptions {
        context_tokens,
        ..BenchOptions::new(name)
    };
    let bench = Bench::new(rooms.map(plan), 0.2);
    let long = |name| failed(name, FaultKind::TooLong);
    assert_eq!(bench.select_after(&[long("a")]).await, "2 b");
    assert_eq!(
        bench.select_after(&[long("a"), long("b")]).await,
        "nobody None"
    );
    let truncated = |failed: &[FailedAttempt], before_halving| SelectProvider {
        attempts_before_truncation: before_halving,
        ..pick(failed)
    };
    assert_eq!(
        describe(bench.route(truncated(&[long("a"), long("b")], 2)).await),
        "3 a"
    );
    let turn = [long("a"), failed("b", FaultKind::Timeout)];
    assert_eq!(describe(bench.route(truncated(&turn, 2)).await), "3 a");
    let turn = [long("a"), failed("b", FaultKind::Timeout), long("a")];
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
    let new = ProviderBench::standalone(BenchOptions::new("new"));
    let mut table = RuntimeConfig::clone(&bench.published.borrow());
    let mut settings = Settings::clone(&table.settings);
    settings.routing.max_attempts = 2;
    table.settings = settings.into();
    table.providers = [
        Arc::clone(&new.provider),
        Arc::clone(&bench.benches[1].provider),
    ]
    .into();
    bench.published.send_replace(Arc::new(table));
    let down = failed("a", FaultKind::Unreachable);
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
