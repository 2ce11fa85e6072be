//! Drills over scripted providers, on a paused clock. The scripts fail by themselves, so the effect
//! of a fault on a call is not tested here.

use std::time::Duration;

use super::*;
use crate::config::{Cron, InjectedFault};
use crate::domain::FaultKind as Failed;
use crate::provider::paused_system::{Paused, advance, run_until_idle};
use crate::provider::scripted_client::{fail_with, reply};
use crate::store::DocumentStore as _;
use crate::turn::test_service::{TestService, TestServiceBuilder};

const MINUTE: Duration = Duration::from_secs(60);

/// Shorter than the breaker's open duration.
const LASTS: Duration = Duration::from_secs(5);

fn view(mode: ServiceMode) -> Arc<StatusView> {
    Arc::new(StatusView {
        mode,
        since: Timestamp(0),
        incident: None,
        message: String::new(),
        active: None,
        providers: Vec::new(),
        drill: None,
    })
}

struct DrillBench {
    stage: TestService,
    drills: Arc<DrillService>,
    status: watch::Sender<Arc<StatusView>>,
}

impl DrillBench {
    fn new(stage: TestService) -> Self {
        let (status, watched) = watch::channel(view(ServiceMode::Normal));
        let means = DrillDeps {
            service: Arc::clone(&stage.turns),
            status: watched,
            runtime: Handle::current(),
        };
        Self {
            stage,
            drills: DrillService::new(means),
            status,
        }
    }

    fn start(&self, provider: &str, lasts: Duration) -> Result<DrillView, StartDrillError> {
        self.drills.start(
            provider,
            DrillSpec {
                fault: InjectedFault::Down,
                share: 1.0,
                duration: lasts,
            },
            false,
        )
    }

    async fn ask(&self, name: &str) {
        let log = self.stage.ask(name);
        self.stage.wait_until_done(&log).await;
    }
}

/// Fails five times in a row, which opens the breaker, then answers.
fn failing_first() -> TestService {
    let mut scripts: Vec<_> = (0..5).map(|_| fail_with(Failed::Unreachable)).collect();
    scripts.push(reply("Hello from a."));
    TestServiceBuilder::with_scripts([scripts, vec![reply("Hello from b.")]]).start()
}

#[actix_rt::test(system = "Paused")]
async fn a_drill_ends_by_itself_and_is_cleaned_up() {
    let bench = DrillBench::new(failing_first());
    let started = bench.start("a", LASTS).unwrap();
    assert_eq!(
        (&*started.provider, started.fault.as_str(), started.until),
        ("a", "down", started.from.saturating_add(LASTS))
    );
    assert_eq!(
        bench.drills.running().as_slice(),
        std::slice::from_ref(&started)
    );
    for turn in 0..5 {
        bench.ask(&format!("m{turn}")).await;
    }
    assert_eq!(
        bench.stage.providers[0].status().await.state,
        ProviderState::Open
    );
    // A restart now would restore no open breaker.
    assert_eq!(bench.stage.store.breakers().await.unwrap(), []);
    advance(LASTS).await;
    assert_eq!(bench.drills.running(), []);
    let provider_status = bench.stage.providers[0].status().await;
    assert_eq!(
        (
            provider_status.state,
            provider_status.retry_at,
            provider_status.last_fault
        ),
        (ProviderState::Closed, None, None)
    );
    assert_eq!(
        (
            provider_status.first_token_latency,
            provider_status.total_latency
        ),
        (None, None),
        "latencies under the drill are dropped"
    );
    let [report] = &bench.drills.reports()[..] else {
        panic!("{:?}", bench.drills.reports())
    };
    assert_eq!(
        (report.ended_by, report.scheduled, &report.drill),
        (Some(EndedBy::Time), false, &started)
    );
    assert_eq!(report.turns.turns, 5);
    assert_eq!(
        (
            report.turns.sources["ai"],
            report.turns.attempts,
            report.turns.failed
        ),
        (5, 10, 5)
    );
    assert_eq!(
        (
            report.breaker.opened_after_ms,
            report.breaker.closed_after_ms.is_some()
        ),
        (Some(0), true)
    );
    // Later failures are real and are saved.
    assert!(
        !bench.stage.turns.config().providers[0]
            .fault_switch
            .affects_breaker()
    );
}

#[actix_rt::test(system = "Paused")]
async fn an_operator_stops_one_drill_or_all() {
    let bench = DrillBench::new(failing_first());
    let first = bench.start("a", MINUTE).unwrap();
    let second = bench.start("b", MINUTE).unwrap();
    assert_eq!(
        bench.start("a", MINUTE),
        Err(StartDrillError::AlreadyRunning(first.clone()))
    );
    let unknown = bench.start("c", MINUTE).unwrap_err().to_string();
    assert_eq!(unknown, "no provider has that name; there are: a, b");
    advance(MINUTE / 2).await;
    assert_eq!(bench.drills.stop(Some("a")).await, Ok(vec![first]));
    assert_eq!(
        bench.drills.running().as_slice(),
        std::slice::from_ref(&second)
    );
    assert_eq!(
        bench.drills.stop(Some("a")).await,
        Ok(vec![]),
        "it has stopped"
    );
    assert!(bench.drills.stop(Some("c")).await.is_err());
    assert_eq!(bench.drills.stop(None).await, Ok(vec![second]));
    run_until_idle().await;
    let reports = bench.drills.reports();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        assert_eq!(report.ended_by, Some(EndedBy::Operator));
        assert_eq!(
            report.ended.unwrap().since(report.drill.from).as_secs(),
            0,
            "the wall clock is paused"
        );
    }
    // A new drill can start.
    bench.start("a", MINUTE).unwrap();
}

#[actix_rt::test(system = "Paused")]
async fn a_disabled_provider_is_not_drilled() {
    let bench = DrillBench::new(failing_first());
    bench.stage.providers[0]
        .actor()
        .send(crate::provider::actor::SetEnabled(false))
        .await
        .unwrap();
    assert_eq!(
        bench.start("a", MINUTE),
        Err(StartDrillError::ProviderDisabled)
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_drill_is_cleared_even_if_the_provider_actor_dies() {
    let mut bench = DrillBench::new(failing_first());
    bench.start("a", MINUTE).unwrap();
    for turn in 0..5 {
        bench.ask(&format!("m{turn}")).await;
    }
    bench.stage.providers[0].crash_actor().await;
    bench.stage.providers[0].restart_actor();
    assert_eq!(
        bench.stage.providers[0].status().await.state,
        ProviderState::Open,
        "the state survives the restart"
    );
    // The actor dies again right before the end.
    advance(MINUTE - Duration::from_millis(1)).await;
    bench.stage.providers[0].crash_actor().await;
    advance(Duration::from_secs(1)).await;
    bench.stage.providers[0].restart_actor();
    advance(Duration::from_secs(1)).await;
    assert_eq!(
        bench.stage.providers[0].status().await.state,
        ProviderState::Closed
    );
    assert_eq!(bench.drills.running(), []);
    assert_eq!(bench.stage.store.breakers().await.unwrap(), []);
}

#[actix_rt::test(system = "Paused")]
async fn a_breaker_opened_before_the_drill_stays_saved_until_the_end() {
    let bench = DrillBench::new(failing_first());
    for turn in 0..5 {
        bench.ask(&format!("m{turn}")).await;
    }
    run_until_idle().await;
    assert_eq!(bench.stage.store.breakers().await.unwrap().len(), 1);
    bench.start("a", Duration::from_secs(1)).unwrap();
    run_until_idle().await;
    assert_eq!(
        bench.stage.store.breakers().await.unwrap().len(),
        1,
        "a restart restores the real state"
    );
    advance(Duration::from_secs(2)).await;
    assert_eq!(
        bench.stage.store.breakers().await.unwrap(),
        [],
        "reset at the end"
    );
}

#[actix_rt::test(system = "Paused")]
async fn scheduled_drills_start_at_their_minute_if_all_is_well() {
    let bench = DrillBench::new(failing_first());
    let plan = |provider: &str, at: &str| DrillSettings {
        at: Cron::parse(at).unwrap(),
        provider: provider.into(),
        fault: InjectedFault::Cut,
        duration: MINUTE * 3,
    };
    bench.stage.reload(|settings| {
        settings.drills = vec![
            plan("a", "10 12 * * *"),
            plan("b", "11 12 * * *"),
            plan("b", "20 12 * * *"),
            plan("x", "30 12 * * *"),
        ];
    });
    // Twenty seconds before noon in UTC; from then on as the paused clock goes.
    let noon: Timestamp = serde_json::from_str("\"2026-11-18T11:59:40Z\"").unwrap();
    let clock = bench.stage.turns.clock;
    let start = clock.now();
    actix::spawn(run_schedule(Arc::clone(&bench.drills), move || {
        noon.saturating_add(clock.now() - start)
    }));
    advance(MINUTE * 10).await;
    assert_eq!(bench.drills.running(), [], "not before its minute");
    advance(MINUTE).await;
    let running = bench.drills.running();
    assert_eq!(
        (
            running.len(),
            &*running[0].provider,
            running[0].fault.as_str()
        ),
        (1, "a", "cut")
    );
    // The second one is due while the first runs.
    advance(MINUTE * 4).await;
    assert_eq!(bench.drills.running(), []);
    // The third one is due while the service is degraded.
    bench.status.send_replace(view(ServiceMode::Degraded));
    advance(MINUTE * 10).await;
    bench.status.send_replace(view(ServiceMode::Normal));
    advance(MINUTE * 10).await;
    let summary: Vec<_> = bench.drills.reports().into_iter().rev().collect();
    let summary: Vec<_> = summary
        .iter()
        .map(|report| {
            (
                &*report.drill.provider,
                report.scheduled,
                report.skipped.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("b", true, Some("another drill runs, at a")),
            ("a", true, None),
            (
                "b",
                true,
                Some("the service was not in its normal mode: degraded")
            ),
            (
                "x",
                true,
                Some("no provider has that name; there are: a, b")
            ),
        ]
    );
}

#[actix_rt::test(system = "Paused")]
async fn undecodable_reports_are_counted_until_their_slots_are_reused() {
    let bench = DrillBench::new(failing_first());
    bench.drills.load().await;
    for _ in 0..3 {
        bench.start("a", LASTS).unwrap();
        advance(LASTS).await;
    }
    let all = bench.drills.reports();
    assert_eq!(all.len(), 3);
    // One document is damaged, another was written by a later version.
    let store = &bench.stage.store;
    let document = store.note("drill/1".into()).await.unwrap().unwrap();
    store
        .write_note("drill/1".into(), document.replace("\"v\":1", "\"v\":99"))
        .await
        .unwrap();
    store.damage_note("drill/0");
    let again = DrillBench::new(bench.stage);
    again.drills.load().await;
    let problem =
        "2 reports of drills cannot be read (damaged, or of another version) and are passed over.";
    assert_eq!(again.drills.problems().as_deref(), Some(problem));
    assert_eq!(again.drills.reports(), [all[0].clone()]);
    // New reports are saved behind the last one; the slots wrap around to the unreadable ones.
    let run = async |times: usize| {
        for _ in 0..times {
            again.start("a", LASTS).unwrap();
            advance(LASTS).await;
        }
        again.drills.problems()
    };
    assert_eq!(run(47).await.as_deref(), Some(problem));
    assert!(
        again
            .stage
            .store
            .note("drill/49".into())
            .await
            .unwrap()
            .is_some()
    );
    let one =
        "1 report of drills cannot be read (damaged, or of another version) and is passed over.";
    assert_eq!(run(1).await.as_deref(), Some(one));
    assert_eq!(run(1).await, None);
    let last = DrillBench::new(again.stage);
    last.drills.load().await;
    assert_eq!(
        (last.drills.problems(), last.drills.reports().len()),
        (None, 50)
    );
}

#[test]
fn each_minute_is_checked_once() {
    let minutes = |last, now| missed_minutes(last, now).collect::<Vec<_>>();
    assert_eq!(minutes(5, 5), [0_u64; 0], "woken early");
    assert_eq!(minutes(5, 6), [6]);
    assert_eq!(minutes(5, 7), [6, 7]);
    assert_eq!(minutes(5, 500), [498, 499, 500], "a machine that slept");
    assert_eq!(minutes(500, 5), [5], "a clock that was set back");
}
