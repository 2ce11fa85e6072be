//! What is told of a drill, while it runs and afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use failsoft::config::Secret;
use serde_json::{Value, json};

use super::{Ground, counts};
use crate::harness::{Act, TestApp, WsClient, settings, soon};

#[tokio::test]
async fn its_report_says_what_clients_saw() {
    const CLIENTS: usize = 4;
    const TURNS: usize = 15;
    let ground = Ground::of(counts(), |settings| {
        // Much fails, but nobody is left out for long.
        settings.providers[0].breaker.consecutive_failures = 4;
        settings.degradation.fallback = "Later, please.".into();
    })
    .await;
    // Some of beta's answers break too, so that a few visitors get no AI's at all.
    for _ in 0..6 {
        ground.beta.once(vec![Act::Reset]);
        ground.beta.once(vec![Act::Reset]);
    }
    WsClient::open(&ground.app)
        .await
        .answered("Before it.")
        .await;
    ground
        .begin_with(&json!({ "provider": "alpha", "fault": "cut", "for": "10m", "share": 0.5 }))
        .await;
    let asked = (0..CLIENTS).map(|_| async {
        let mut client = WsClient::open(&ground.app).await;
        let mut seen = Vec::new();
        for turn in 0..TURNS {
            let shown = client.answered(&format!("Question {turn}?")).await;
            seen.push((shown.done.clone().unwrap(), shown.restarts.len()));
        }
        seen
    });
    let seen: Vec<_> = futures_util::future::join_all(asked).await.concat();
    assert_eq!(ground.end().await.as_array().unwrap().len(), 1);
    WsClient::open(&ground.app)
        .await
        .answered("After it.")
        .await;

    let report = ground.report().await;
    let turns = &report["turns"];
    let mut sources = BTreeMap::<String, u64>::new();
    for (done, _) in &seen {
        *sources
            .entry(done["source"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(turns["turns"], CLIENTS * TURNS);
    assert_eq!(turns["sources"], json!(sources));
    let sum = |of: &dyn Fn(&Value) -> u64| seen.iter().map(|(done, _)| of(done)).sum::<u64>();
    assert_eq!(
        turns["degraded"],
        sum(&|done| u64::from(done["degraded"] == true))
    );
    assert_eq!(
        turns["attempts"],
        sum(&|done| done["attempts"].as_u64().unwrap())
    );
    let restarts = seen
        .iter()
        .map(|(_, restarts)| *restarts as u64)
        .sum::<u64>();
    assert_eq!(turns["restarts"], restarts);
    assert!(restarts > 0, "half of the answers were cut");
    let failed = |done: &Value| {
        let tried = done["tried"].as_array().unwrap();
        tried
            .iter()
            .filter(|one| one["provider"] == "alpha" && one["outcome"] != "ok")
            .count() as u64
    };
    assert_eq!(turns["failed"], sum(&failed));
    let longest = seen
        .iter()
        .filter_map(|(done, _)| done["first_token_ms"].as_u64())
        .max();
    assert_eq!(turns["longest_first_token_ms"].as_u64(), longest);
    assert_eq!(
        (&turns["interrupted"], &turns["stopped"]),
        (&json!(0), &json!(0))
    );
    // Each call that was cut failed; the provider's own probes among the calls too.
    let befallen = report["calls"]["befallen"].as_u64().unwrap();
    assert!(
        befallen >= sum(&failed) && befallen < report["calls"]["total"].as_u64().unwrap(),
        "{report}"
    );
    assert_eq!(
        report["breaker"]["opened_after_ms"].is_u64(),
        report["breaker"]["opened"].as_u64() > Some(0)
    );
}

#[tokio::test]
async fn an_incident_under_it_is_told_as_staged() {
    let ground = Ground::of(counts(), |settings| {
        settings.providers[0].breaker.consecutive_failures = 1;
        settings.providers[0].breaker.open_for = Duration::from_secs(60);
        settings.providers[0].breaker.open_max = Duration::from_secs(60);
    })
    .await;
    let mut client = WsClient::open(&ground.app).await;
    ground.begin("down").await;
    let told = client
        .until(|frame| frame["type"] == "status" && !frame["drill"].is_null())
        .await;
    assert_eq!(
        (&told["drill"]["provider"], &told["mode"]),
        (&json!("alpha"), &json!("normal"))
    );
    client.answered("Who?").await;
    let told = client
        .until(|frame| frame["type"] == "status" && frame["mode"] == "degraded")
        .await;
    assert_eq!(
        told["message"],
        "Answers come from a backup model. This is an outage drill."
    );
    let incident = ground.app.status().await["incidents"][0].clone();
    assert_eq!(
        incident["cause"],
        "alpha: it cannot be reached (an outage drill)"
    );
    let page = ground.app.request("GET", "/status").send().await;
    assert!(
        page.body
            .contains("Outage drill: <bdi>alpha</bdi> (down) until <time "),
        "{}",
        page.body
    );
    assert!(
        !page.body.contains("begin-drill"),
        "orders are for the operator"
    );
    ground.end().await;
    let told = client
        .until(|frame| frame["type"] == "status" && frame["drill"].is_null())
        .await;
    assert_ne!(
        told["message"],
        "Answers come from a backup model. This is an outage drill."
    );
}

#[tokio::test]
async fn reports_outlive_a_restart_and_one_that_does_not_read_is_passed_over_and_said() {
    let Ground { alpha, beta, app } = ground_with_reports().await;
    let data = app.stopped().await;
    let mut with_token = settings(&[("alpha", &alpha), ("beta", &beta)]);
    with_token.server.admin_token = Some(Secret::new(super::TOKEN));
    let again = async |data| {
        let app = TestApp::in_folder(with_token.clone(), data).await;
        let recalled = async {
            loop {
                let list = super::order(&app, "GET", "/admin/drills", None)
                    .await
                    .json();
                if list["reports"] != json!([]) {
                    return list["reports"].clone();
                }
            }
        };
        let reports = soon("the reports", recalled).await;
        (app, reports)
    };
    let (app, reports) = again(data).await;
    let of = |key: &str| {
        reports
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("fault"), ["cut", "down"], "the newest first");
    assert_eq!(of("turns")[1]["turns"], 1);
    assert_eq!(app.status().await["problems"], json!([]));
    // As a later version would write it.
    let store = &app.lobby.turns.store;
    let note = store.get_document("drill/0".into()).await.unwrap().unwrap();
    store
        .put_document("drill/0".into(), note.replace("\"v\":1", "\"v\":99"))
        .await
        .unwrap();
    let (app, reports) = again(app.stopped().await).await;
    assert_eq!(
        (reports.as_array().unwrap().len(), &reports[0]["fault"]),
        (1, &json!("cut"))
    );
    let told =
        "1 report of drills cannot be read (damaged, or of another version) and is passed over.";
    assert_eq!(app.status().await["problems"], json!([told]));
}

/// A service with the reports of two drills, of which one visitor saw the first.
async fn ground_with_reports() -> Ground {
    let ground = Ground::of(counts(), |_| {}).await;
    ground.begin("down").await;
    WsClient::open(&ground.app)
        .await
        .answered("Under it?")
        .await;
    ground.end().await;
    ground.report().await;
    ground.begin("cut").await;
    ground.end().await;
    let both = async {
        loop {
            let reports = ground.list().await["reports"].clone();
            let ended = |one: &Value| one["turns"]["under_way"] == 0;
            if reports.as_array().unwrap().len() == 2
                && reports.as_array().unwrap().iter().all(ended)
            {
                return;
            }
        }
    };
    soon("both reports", both).await;
    ground
}
