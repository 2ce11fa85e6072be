//! Drills over scripted providers, on a paused clock. The scripts fail by themselves, so the effect
//! of a fault on a call is not tested here.

use std::time::Duration;

use super::*;
use crate::chat::{At, Fault as Failed};
use crate::provider::paused::{Paused, pass, settled};
use crate::provider::scripted::{fails, says};
use crate::settings::{Cron, Fault};
use crate::store::Store as _;
use crate::turn::stage::{House, Stage};

const MINUTE: Duration = Duration::from_secs(60);

/// Shorter than the breaker's open duration.
const LASTS: Duration = Duration::from_secs(5);

fn view(mode: Mode) -> Arc<StatusView> {
    Arc::new(StatusView {
        mode,
        since: At(0),
        incident: None,
        message: String::new(),
        active: None,
        providers: Vec::new(),
        drill: None,
    })
}

struct DrillBench {
    stage: Stage,
    drills: Arc<Drills>,
    status: watch::Sender<Arc<StatusView>>,
}

impl DrillBench {
    fn new(stage: Stage) -> Self {
        let (status, watched) = watch::channel(view(Mode::Normal));
        let means = Means {
            desk: Arc::clone(&stage.desk),
            status: watched,
            runtime: Handle::current(),
        };
        Self {
            stage,
            drills: Drills::new(means),
            status,
        }
    }

    fn start(&self, provider: &str, lasts: Duration) -> Result<DrillView, NotBegun> {
        self.drills.begin(
            provider,
            Terms {
                fault: Fault::Down,
                share: 1.0,
                lasts,
            },
            false,
        )
    }

    async fn ask(&self, name: &str) {
        let log = self.stage.ask(name);
        self.stage.ended(&log).await;
    }
}

/// Fails five times in a row, which opens the breaker, then answers.
fn failing_first() -> Stage {
    let mut scripts: Vec<_> = (0..5).map(|_| fails(Failed::Unreachable)).collect();
    scripts.push(says("Hello from a."));
    House::following([scripts, vec![says("Hello from b.")]]).open()
}

#[actix_rt::test(system = "Paused")]
async fn a_drill_ends_by_itself_and_is_cleaned_up() {
    let bench = DrillBench::new(failing_first());
    let started = bench.start("a", LASTS).unwrap();
    assert_eq!(
        (&*started.provider, started.fault.as_str(), started.until),
        ("a", "down", started.from.plus(LASTS))
    );
    assert_eq!(
        bench.drills.running().as_slice(),
        std::slice::from_ref(&started)
    );
    for turn in 0..5 {
        bench.ask(&format!("m{turn}")).await;
    }
    assert_eq!(
        bench.stage.stands[0].vitals().await.state,
        ProviderState::Open
    );
    // A restart now would restore no open breaker.
    assert_eq!(bench.stage.store.breakers().await.unwrap(), []);
    pass(LASTS).await;
    assert_eq!(bench.drills.running(), []);
    let vitals = bench.stage.stands[0].vitals().await;
    assert_eq!(
        (vitals.state, vitals.retry_at, vitals.reason),
        (ProviderState::Closed, None, None)
    );
    assert_eq!(
        (vitals.first_token, vitals.total),
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
    assert!(!bench.stage.desk.table().backends[0].drills.shadows());
}

#[actix_rt::test(system = "Paused")]
async fn an_operator_stops_one_drill_or_all() {
    let bench = DrillBench::new(failing_first());
    let first = bench.start("a", MINUTE).unwrap();
    let second = bench.start("b", MINUTE).unwrap();
    assert_eq!(bench.start("a", MINUTE), Err(NotBegun::Runs(first.clone())));
    let unknown = bench.start("c", MINUTE).unwrap_err().to_string();
    assert_eq!(unknown, "no provider has that name; there are: a, b");
    pass(MINUTE / 2).await;
    assert_eq!(bench.drills.end(Some("a")).await, Ok(vec![first]));
    assert_eq!(
        bench.drills.running().as_slice(),
        std::slice::from_ref(&second)
    );
    assert_eq!(
        bench.drills.end(Some("a")).await,
        Ok(vec![]),
        "it has stopped"
    );
    assert!(bench.drills.end(Some("c")).await.is_err());
    assert_eq!(bench.drills.end(None).await, Ok(vec![second]));
    settled().await;
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
    bench.stage.stands[0]
        .actor()
        .send(crate::provider::actor::Enable(false))
        .await
        .unwrap();
    assert_eq!(bench.start("a", MINUTE), Err(NotBegun::Disabled));
}

#[actix_rt::test(system = "Paused")]
async fn a_drill_is_cleared_even_if_the_provider_actor_dies() {
    let mut bench = DrillBench::new(failing_first());
    bench.start("a", MINUTE).unwrap();
    for turn in 0..5 {
        bench.ask(&format!("m{turn}")).await;
    }
    bench.stage.stands[0].crash().await;
    bench.stage.stands[0].rebuild();
    assert_eq!(
        bench.stage.stands[0].vitals().await.state,
        ProviderState::Open,
        "the state survives the restart"
    );
    // The actor dies again right before the end.
    pass(MINUTE - Duration::from_millis(1)).await;
    bench.stage.stands[0].crash().await;
    pass(Duration::from_secs(1)).await;
    bench.stage.stands[0].rebuild();
    pass(Duration::from_secs(1)).await;
    assert_eq!(
        bench.stage.stands[0].vitals().await.state,
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
    settled().await;
    assert_eq!(bench.stage.store.breakers().await.unwrap().len(), 1);
    bench.start("a", Duration::from_secs(1)).unwrap();
    settled().await;
    assert_eq!(
        bench.stage.store.breakers().await.unwrap().len(),
        1,
        "a restart restores the real state"
    );
    pass(Duration::from_secs(2)).await;
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
        fault: Fault::Cut,
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
    let noon: At = serde_json::from_str("\"2026-11-18T11:59:40Z\"").unwrap();
    let clock = bench.stage.desk.clock;
    let start = clock.now();
    actix::spawn(keep_schedule(Arc::clone(&bench.drills), move || {
        noon.plus(clock.now() - start)
    }));
    pass(MINUTE * 10).await;
    assert_eq!(bench.drills.running(), [], "not before its minute");
    pass(MINUTE).await;
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
    pass(MINUTE * 4).await;
    assert_eq!(bench.drills.running(), []);
    // The third one is due while the service is degraded.
    bench.status.send_replace(view(Mode::Degraded));
    pass(MINUTE * 10).await;
    bench.status.send_replace(view(Mode::Normal));
    pass(MINUTE * 10).await;
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
    bench.drills.recall().await;
    for _ in 0..3 {
        bench.start("a", LASTS).unwrap();
        pass(LASTS).await;
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
    store.damage("drill/0");
    let again = DrillBench::new(bench.stage);
    again.drills.recall().await;
    let problem =
        "2 reports of drills cannot be read (damaged, or of another version) and are passed over.";
    assert_eq!(again.drills.problems().as_deref(), Some(problem));
    assert_eq!(again.drills.reports(), [all[0].clone()]);
    // New reports are saved behind the last one; the slots wrap around to the unreadable ones.
    let run = async |times: usize| {
        for _ in 0..times {
            again.start("a", LASTS).unwrap();
            pass(LASTS).await;
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
    last.drills.recall().await;
    assert_eq!(
        (last.drills.problems(), last.drills.reports().len()),
        (None, 50)
    );
}
