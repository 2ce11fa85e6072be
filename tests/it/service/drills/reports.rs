//! Reports and notices of drills, while they run and afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use failsoft::config::Secret;
use serde_json::{Value, json};

use super::{Drills, alpha_script};
use crate::harness::{ScriptStep, TestApp, WsClient, eventually, test_settings};

#[tokio::test]
async fn the_report_matches_what_clients_saw() {
    const CLIENTS: usize = 4;
    const TURNS: usize = 15;
    let drills = Drills::with_alpha(alpha_script(), |settings| {
        // Many calls fail, but the breaker should not stay open for long.
        settings.providers[0].breaker.consecutive_failures = 4;
        settings.degradation.fallback = "Later, please.".into();
    })
    .await;
    // Some of beta's answers fail too, so that some turns end without a provider's answer.
    for _ in 0..6 {
        drills.beta.script_next(vec![ScriptStep::Reset]);
        drills.beta.script_next(vec![ScriptStep::Reset]);
    }
    WsClient::open(&drills.app)
        .await
        .ask_and_wait("Before it.")
        .await;
    drills
        .start_with(&json!({ "provider": "alpha", "fault": "cut", "for": "10m", "share": 0.5 }))
        .await;
    let asked = (0..CLIENTS).map(|_| async {
        let mut client = WsClient::open(&drills.app).await;
        let mut seen = Vec::new();
        for turn in 0..TURNS {
            let shown = client.ask_and_wait(&format!("Question {turn}?")).await;
            seen.push((shown.done.clone().unwrap(), shown.restarts.len()));
        }
        seen
    });
    let seen: Vec<_> = futures_util::future::join_all(asked).await.concat();
    assert_eq!(drills.end().await.as_array().unwrap().len(), 1);
    WsClient::open(&drills.app)
        .await
        .ask_and_wait("After it.")
        .await;

    let report = drills.report().await;
    let turns = &report["turns"];
    let mut sources = BTreeMap::<String, u64>::new();
    for (done, _) in &seen {
        *sources
            .entry(done["source"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(turns["turns"], CLIENTS * TURNS);
    assert_eq!(turns["sources"], json!(sources));
    let sum = |value: &dyn Fn(&Value) -> u64| seen.iter().map(|(done, _)| value(done)).sum::<u64>();
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
    let failed_attempts = |done: &Value| {
        let tried = done["tried"].as_array().unwrap();
        tried
            .iter()
            .filter(|attempt| attempt["provider"] == "alpha" && attempt["outcome"] != "ok")
            .count() as u64
    };
    assert_eq!(turns["failed"], sum(&failed_attempts));
    let longest = seen
        .iter()
        .filter_map(|(done, _)| done["first_token_ms"].as_u64())
        .max();
    assert_eq!(turns["longest_first_token_ms"].as_u64(), longest);
    assert_eq!(
        (&turns["interrupted"], &turns["stopped"]),
        (&json!(0), &json!(0))
    );
    // Every affected call failed. Calls include the service's own probes.
    let affected = report["calls"]["befallen"].as_u64().unwrap();
    assert!(
        affected >= sum(&failed_attempts) && affected < report["calls"]["total"].as_u64().unwrap(),
        "{report}"
    );
    assert_eq!(
        report["breaker"]["opened_after_ms"].is_u64(),
        report["breaker"]["opened"].as_u64() > Some(0)
    );
}

#[tokio::test]
async fn incidents_during_a_drill_are_marked() {
    let drills = Drills::with_alpha(alpha_script(), |settings| {
        settings.providers[0].breaker.consecutive_failures = 1;
        settings.providers[0].breaker.open_for = Duration::from_secs(60);
        settings.providers[0].breaker.open_max = Duration::from_secs(60);
    })
    .await;
    let mut client = WsClient::open(&drills.app).await;
    drills.start("down").await;
    let status = client
        .wait_for_frame(|frame| frame["type"] == "status" && !frame["drill"].is_null())
        .await;
    assert_eq!(
        (&status["drill"]["provider"], &status["mode"]),
        (&json!("alpha"), &json!("normal"))
    );
    client.ask_and_wait("Who?").await;
    let status = client
        .wait_for_frame(|frame| frame["type"] == "status" && frame["mode"] == "degraded")
        .await;
    assert_eq!(
        status["message"],
        "Answers come from a backup model. This is an outage drill."
    );
    let incident = drills.app.status().await["incidents"][0].clone();
    assert_eq!(
        incident["cause"],
        "alpha: it cannot be reached (an outage drill)"
    );
    let page = drills.app.request("GET", "/status").send().await;
    assert!(
        page.body
            .contains("Outage drill: <bdi>alpha</bdi> (down) until <time "),
        "{}",
        page.body
    );
    assert!(
        !page.body.contains("begin-drill"),
        "the page offers orders to the public"
    );
    drills.end().await;
    let status = client
        .wait_for_frame(|frame| frame["type"] == "status" && frame["drill"].is_null())
        .await;
    assert_ne!(
        status["message"],
        "Answers come from a backup model. This is an outage drill."
    );
}

#[tokio::test]
async fn reports_survive_a_restart_and_unreadable_ones_are_reported() {
    let Drills { alpha, beta, app } = drills_with_reports().await;
    let data = app.shut_down().await;
    let mut with_token = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    with_token.server.admin_token = Some(Secret::new(super::TOKEN));
    let restart = async |data| {
        let app = TestApp::start_in(with_token.clone(), data).await;
        let loaded = async {
            loop {
                let list = super::send_order(&app, "GET", "/admin/drills", None)
                    .await
                    .json();
                if list["reports"] != json!([]) {
                    return list["reports"].clone();
                }
            }
        };
        let reports = eventually("the reports", loaded).await;
        (app, reports)
    };
    let (app, reports) = restart(data).await;
    let values = |key: &str| {
        reports
            .as_array()
            .unwrap()
            .iter()
            .map(|report| report[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(values("fault"), ["cut", "down"], "the newest first");
    assert_eq!(values("turns")[1]["turns"], 1);
    assert_eq!(app.status().await["problems"], json!([]));
    // The note gets the version of a later release.
    let store = &app.chat_service.turns.store;
    let note = store.note("drill/0".into()).await.unwrap().unwrap();
    store
        .write_note("drill/0".into(), note.replace("\"v\":1", "\"v\":99"))
        .await
        .unwrap();
    let (app, reports) = restart(app.shut_down().await).await;
    assert_eq!(
        (reports.as_array().unwrap().len(), &reports[0]["fault"]),
        (1, &json!("cut"))
    );
    let problem =
        "1 report of drills cannot be read (damaged, or of another version) and is passed over.";
    assert_eq!(app.status().await["problems"], json!([problem]));
}

/// A service with the reports of two drills. One turn ran during the first.
async fn drills_with_reports() -> Drills {
    let drills = Drills::with_alpha(alpha_script(), |_| {}).await;
    drills.start("down").await;
    WsClient::open(&drills.app)
        .await
        .ask_and_wait("Under it?")
        .await;
    drills.end().await;
    drills.report().await;
    drills.start("cut").await;
    drills.end().await;
    let both_ended = async {
        loop {
            let reports = drills.list().await["reports"].clone();
            let ended = |report: &Value| report["turns"]["under_way"] == 0;
            if reports.as_array().unwrap().len() == 2
                && reports.as_array().unwrap().iter().all(ended)
            {
                return;
            }
        }
    };
    eventually("both reports", both_ended).await;
    drills
}
