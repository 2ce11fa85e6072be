//! Providers whose actors are down or behind, and the queue of selections.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn unavailable_providers_are_skipped_and_the_earliest_retry_is_returned() {
    let bench = Bench::new(
        ["a", "b", "c"].map(|name| BenchOptions {
            max_concurrent: 1,
            ..BenchOptions::new(name)
        }),
        0.2,
    );
    bench.open(0).await;
    assert_eq!(bench.select_after(&[]).await, "1 b");
    advance(Duration::from_secs(4)).await;
    bench.open(1).await;
    let held = bench.route(pick(&[])).await;
    assert!(matches!(&held, Selection::Provider(lease) if &*lease.provider.name == "c"));
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
        [BenchOptions {
            max_concurrent: 1,
            ..BenchOptions::new("a")
        }],
        0.2,
    );
    for _ in 0..3 {
        assert_eq!(bench.select_after(&[]).await, "1 a");
    }
    drop(bench.router.send(pick(&[])));
    run_until_idle().await;
    assert_eq!(bench.benches[0].free_slots(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_whose_actor_is_down_counts_as_busy() {
    let mut bench = Bench::abc();
    bench.benches[0].crash_actor().await;
    assert_eq!(bench.select_after(&[]).await, "1 b");
    bench.benches[1].remove_actor();
    assert_eq!(bench.select_after(&[]).await, "1 c");
    bench.benches[0].restart_actor();
    assert_eq!(bench.select_after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_whose_actor_is_behind_is_skipped_after_the_timeout() {
    let bench = Bench::new(
        ["a", "b"].map(|name| BenchOptions {
            max_concurrent: 1,
            ..BenchOptions::new(name)
        }),
        0.2,
    );
    bench.benches[0].restart_delayed(Duration::from_secs(1));
    let started = Instant::now();
    assert_eq!(bench.select_after(&[]).await, "1 b");
    assert_eq!(started.elapsed(), ACTOR_TIMEOUT);
    advance(Duration::from_secs(1)).await;
    assert_eq!(
        bench.benches[0].free_slots(),
        1,
        "the permit granted too late was returned"
    );
    assert_eq!(bench.select_after(&[]).await, "1 a");
}

#[actix_rt::test(system = "Paused")]
async fn concurrent_selections_wait_for_a_slow_actor_in_parallel() {
    let bench = Bench::new(["a", "b"].map(BenchOptions::new), 0.2);
    bench.benches[0].restart_delayed(Duration::from_secs(1));
    let started = Instant::now();
    let turns = (0..50).map(|_| bench.select_after(&[]));
    let selections = futures_util::future::join_all(turns).await;
    assert!(selections.iter().all(|selection| selection == "1 b"));
    assert_eq!(started.elapsed(), ACTOR_TIMEOUT, "they wait in parallel");
}

#[actix_rt::test(system = "Paused")]
async fn a_selection_holds_its_queue_permit_until_it_is_handled() {
    let bench = Bench::abc();
    let limit = Arc::<ConcurrencyLimit>::default();
    let mut asked = Vec::new();
    while let Some(permit) = limit.try_acquire(MAILBOX_CAPACITY) {
        let pick = SelectProvider {
            queue_permit: Some(Arc::new(permit)),
            ..pick(&[])
        };
        // Each through its own clone of the address, as turns do: the mailbox alone has no bound.
        asked.push(tokio::spawn(bench.router.clone().send(pick)));
    }
    assert_eq!(
        (asked.len(), limit.in_use()),
        (MAILBOX_CAPACITY, MAILBOX_CAPACITY)
    );
    futures_util::future::join_all(asked).await;
    run_until_idle().await;
    assert_eq!(limit.in_use(), 0);
    assert_eq!(bench.select_after(&[]).await, "1 a");
}
