//! Drills over scripted providers, on a paused clock. What a fault does to a call is not seen here: the scripts fail by themselves.

use std::time::Duration;

use super::*;
use crate::chat::{At, Fault as Failed};
use crate::provider::paused::{Paused, pass, settled};
use crate::provider::scripted::{fails, says};
use crate::settings::{Cron, Fault};
use crate::store::Store as _;
use crate::turn::stage::{House, Stage};

const MINUTE: Duration = Duration::from_secs(60);

/// Shorter than the breaker stays open.
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

struct Ground {
    stage: Stage,
    drills: Arc<Drills>,
    status: watch::Sender<Arc<StatusView>>,
}

impl Ground {
    fn of(stage: Stage) -> Self {
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

    fn begin(&self, provider: &str, lasts: Duration) -> Result<DrillView, NotBegun> {
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

    async fn asked(&self, name: &str) {
        let log = self.stage.ask(name);
        self.stage.ended(&log).await;
    }
}

/// Fails five times in a row, which opens the breaker, then answers.
fn unwell() -> Stage {
    let mut scripts: Vec<_> = (0..5).map(|_| fails(Failed::Unreachable)).collect();
    scripts.push(says("Hello from a."));
    House::following([scripts, vec![says("Hello from b.")]]).open()
}

#[actix_rt::test(system = "Paused")]
async fn a_drill_ends_by_itself_and_leaves_nothing_behind() {
    let ground = Ground::of(unwell());
    let begun = ground.begin("a", LASTS).unwrap();
    assert_eq!(
        (&*begun.provider, begun.fault.as_str(), begun.until),
        ("a", "down", begun.from.plus(LASTS))
    );
    assert_eq!(
        ground.drills.running().as_slice(),
        std::slice::from_ref(&begun)
    );
    for turn in 0..5 {
        ground.asked(&format!("m{turn}")).await;
    }
    assert_eq!(
        ground.stage.stands[0].vitals().await.state,
        ProviderState::Open
    );
    // A restart now would find nothing open.
    assert_eq!(ground.stage.store.breakers().await.unwrap(), []);
    pass(LASTS).await;
    assert_eq!(ground.drills.running(), []);
    let vitals = ground.stage.stands[0].vitals().await;
    assert_eq!(
        (vitals.state, vitals.retry_at, vitals.reason),
        (ProviderState::Closed, None, None)
    );
    assert_eq!(
        (vitals.first_token, vitals.total),
        (None, None),
        "how long calls took is forgotten"
    );
    let [report] = &ground.drills.reports()[..] else {
        panic!("{:?}", ground.drills.reports())
    };
    assert_eq!(
        (report.ended_by, report.scheduled, &report.drill),
        (Some(EndedBy::Time), false, &begun)
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
    // What fails afterwards is the provider's own, and is kept.
    assert!(!ground.stage.desk.table().backends[0].drills.shadows());
}

#[actix_rt::test(system = "Paused")]
async fn an_operator_ends_one_or_all() {
    let ground = Ground::of(unwell());
    let first = ground.begin("a", MINUTE).unwrap();
    let second = ground.begin("b", MINUTE).unwrap();
    assert_eq!(
        ground.begin("a", MINUTE),
        Err(NotBegun::Runs(first.clone()))
    );
    let unknown = ground.begin("c", MINUTE).unwrap_err().to_string();
    assert_eq!(unknown, "no provider has that name; there are: a, b");
    pass(MINUTE / 2).await;
    assert_eq!(ground.drills.end(Some("a")).await, Ok(vec![first]));
    assert_eq!(
        ground.drills.running().as_slice(),
        std::slice::from_ref(&second)
    );
    assert_eq!(
        ground.drills.end(Some("a")).await,
        Ok(vec![]),
        "there is none any more"
    );
    assert!(ground.drills.end(Some("c")).await.is_err());
    assert_eq!(ground.drills.end(None).await, Ok(vec![second]));
    settled().await;
    let reports = ground.drills.reports();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        assert_eq!(report.ended_by, Some(EndedBy::Operator));
        assert_eq!(
            report.ended.unwrap().since(report.drill.from).as_secs(),
            0,
            "the wall clock stands still here"
        );
    }
    // Another may begin there.
    ground.begin("a", MINUTE).unwrap();
}

#[actix_rt::test(system = "Paused")]
async fn one_that_is_switched_off_is_not_drilled() {
    let ground = Ground::of(unwell());
    ground.stage.stands[0]
        .actor()
        .send(crate::provider::actor::Enable(false))
        .await
        .unwrap();
    assert_eq!(ground.begin("a", MINUTE), Err(NotBegun::Disabled));
}

#[actix_rt::test(system = "Paused")]
async fn it_ends_and_is_lifted_though_the_providers_actor_died_under_it() {
    let mut ground = Ground::of(unwell());
    ground.begin("a", MINUTE).unwrap();
    for turn in 0..5 {
        ground.asked(&format!("m{turn}")).await;
    }
    ground.stage.stands[0].crash().await;
    ground.stage.stands[0].rebuild();
    assert_eq!(
        ground.stage.stands[0].vitals().await.state,
        ProviderState::Open,
        "never fresh"
    );
    // Now at the very end.
    pass(MINUTE - Duration::from_millis(1)).await;
    ground.stage.stands[0].crash().await;
    pass(Duration::from_secs(1)).await;
    ground.stage.stands[0].rebuild();
    pass(Duration::from_secs(1)).await;
    assert_eq!(
        ground.stage.stands[0].vitals().await.state,
        ProviderState::Closed
    );
    assert_eq!(ground.drills.running(), []);
    assert_eq!(ground.stage.store.breakers().await.unwrap(), []);
}

#[actix_rt::test(system = "Paused")]
async fn what_was_open_before_is_kept_until_it_is_closed() {
    let ground = Ground::of(unwell());
    for turn in 0..5 {
        ground.asked(&format!("m{turn}")).await;
    }
    settled().await;
    assert_eq!(ground.stage.store.breakers().await.unwrap().len(), 1);
    ground.begin("a", Duration::from_secs(1)).unwrap();
    settled().await;
    assert_eq!(
        ground.stage.store.breakers().await.unwrap().len(),
        1,
        "a restart now finds what was real"
    );
    pass(Duration::from_secs(2)).await;
    assert_eq!(
        ground.stage.store.breakers().await.unwrap(),
        [],
        "reset at the end"
    );
}

#[actix_rt::test(system = "Paused")]
async fn planned_drills_come_at_their_minute_where_all_is_well() {
    let ground = Ground::of(unwell());
    let plan = |provider: &str, at: &str| DrillSettings {
        at: Cron::parse(at).unwrap(),
        provider: provider.into(),
        fault: Fault::Cut,
        duration: MINUTE * 3,
    };
    ground.stage.reload(|settings| {
        settings.drills = vec![
            plan("a", "10 12 * * *"),
            plan("b", "11 12 * * *"),
            plan("b", "20 12 * * *"),
            plan("x", "30 12 * * *"),
        ];
    });
    // Twenty seconds before noon in UTC; from then on as the paused clock goes.
    let noon: At = serde_json::from_str("\"2026-11-18T11:59:40Z\"").unwrap();
    let clock = ground.stage.desk.clock;
    let start = clock.now();
    actix::spawn(keep_schedule(Arc::clone(&ground.drills), move || {
        noon.plus(clock.now() - start)
    }));
    pass(MINUTE * 10).await;
    assert_eq!(ground.drills.running(), [], "not before its minute");
    pass(MINUTE).await;
    let running = ground.drills.running();
    assert_eq!(
        (
            running.len(),
            &*running[0].provider,
            running[0].fault.as_str()
        ),
        (1, "a", "cut")
    );
    // The second comes while the first runs.
    pass(MINUTE * 4).await;
    assert_eq!(ground.drills.running(), []);
    // The third while there is trouble.
    ground.status.send_replace(view(Mode::Degraded));
    pass(MINUTE * 10).await;
    ground.status.send_replace(view(Mode::Normal));
    pass(MINUTE * 10).await;
    let told: Vec<_> = ground.drills.reports().into_iter().rev().collect();
    let told: Vec<_> = told
        .iter()
        .map(|one| (&*one.drill.provider, one.scheduled, one.skipped.as_deref()))
        .collect();
    assert_eq!(
        told,
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
async fn reports_that_do_not_read_are_counted_until_others_take_their_place() {
    let ground = Ground::of(unwell());
    ground.drills.recall().await;
    for _ in 0..3 {
        ground.begin("a", LASTS).unwrap();
        pass(LASTS).await;
    }
    let all = ground.drills.reports();
    assert_eq!(all.len(), 3);
    // The place of one is damaged, another is as a later version wrote it.
    let store = &ground.stage.store;
    let note = store.note("drill/1".into()).await.unwrap().unwrap();
    store
        .write_note("drill/1".into(), note.replace("\"v\":1", "\"v\":99"))
        .await
        .unwrap();
    store.damage("drill/0");
    let again = Ground::of(ground.stage);
    again.drills.recall().await;
    let told =
        "2 reports of drills cannot be read (damaged, or of another version) and are passed over.";
    assert_eq!(again.drills.problems().as_deref(), Some(told));
    assert_eq!(again.drills.reports(), [all[0].clone()]);
    // New ones are kept, behind the last one; the places go round until they come to those.
    let run = async |times: usize| {
        for _ in 0..times {
            again.begin("a", LASTS).unwrap();
            pass(LASTS).await;
        }
        again.drills.problems()
    };
    assert_eq!(run(47).await.as_deref(), Some(told));
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
    let last = Ground::of(again.stage);
    last.drills.recall().await;
    assert_eq!(
        (last.drills.problems(), last.drills.reports().len()),
        (None, 50)
    );
}
