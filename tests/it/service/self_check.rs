//! A store that breaks under the running service: the self-check reports unreadable cached answers
//! before an outage needs them.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{
    ScriptedProvider, TestApp, WsClient, eventually, test_settings, unique_message_id,
};

const BROKEN: &str =
    "Self-check: saved answers cannot be read; an outage is answered without them.";

async fn problems(app: &TestApp) -> Vec<String> {
    let status = app.status().await;
    let problems = status["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem.as_str().unwrap().to_owned())
        .collect()
}

/// Waits until the status contains `problem`, or no longer contains it.
async fn wait_for_problem(app: &TestApp, problem: &str, is_present: bool) {
    let reported = async {
        while problems(app).await.iter().any(|present| present == problem) != is_present {}
    };
    eventually(problem, reported).await;
}

/// Asks until the answer has this source. On a busy machine a cached answer may not be read within
/// the time limit of a turn.
async fn answer_from(client: &mut WsClient, source: &str) -> String {
    let answered = async {
        loop {
            let shown = client.ask_and_wait("Is all well?").await;
            if shown.done.as_ref().unwrap()["source"] == source {
                return shown.text.clone();
            }
        }
    };
    eventually(source, answered).await
}

#[tokio::test]
async fn unreadable_cached_answers_are_reported_until_they_can_be_read_again() {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    // With a TTL of zero, cached answers are used in an outage only.
    settings.cache.enabled = true;
    settings.cache.ttl = Duration::ZERO;
    settings.degradation.fallback = "Later, please.".into();
    settings.chat.max_message_chars = 3_000_000;
    settings.limits.frame_bytes = 4_000_000;
    let app = TestApp::start_with_self_check_interval(settings, Duration::from_millis(100)).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(
        client.ask_and_wait("Is all well?").await.text,
        "All is well."
    );
    let store = &app.chat_service.turns.store;
    eventually("the answer to be saved", async {
        while store.answer_keys().await.unwrap().is_empty() {}
    })
    .await;
    alpha.stop_listening().await;
    assert_eq!(
        answer_from(&mut client, "stale_cache").await,
        "All is well."
    );
    assert_eq!(problems(&app).await, [""; 0]);

    // A file replaces the store's folder, so the database cannot store a record that needs a file
    // of its own. The store is copied, not moved, because the database keeps its own files open.
    let folder = app.root_dir().join("data").join("store");
    let copy = app.root_dir().join("data").join("aside");
    assert!(
        Command::new("cp")
            .arg("-r")
            .args([&folder, &copy])
            .status()
            .unwrap()
            .success()
    );
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let mut other = WsClient::open(&app).await;
    let accepted = other
        .ask_as(&unique_message_id(), &"x".repeat(2_000_000))
        .await;
    other
        .wait_for_done(accepted["turn"].as_str().unwrap())
        .await;
    wait_for_problem(&app, BROKEN, true).await;
    // Turns do not wait for the unreadable cache.
    let asked = Instant::now();
    assert_eq!(
        client.ask_and_wait("Is all well?").await.text,
        "Later, please."
    );
    println!("an answer without the cache: {:?}", asked.elapsed());
    assert_eq!(app.request("GET", "/readyz").send().await.status, 200);

    fs::remove_file(&folder).unwrap();
    fs::rename(&copy, &folder).unwrap();
    wait_for_problem(&app, BROKEN, false).await;
    assert_eq!(
        answer_from(&mut client, "stale_cache").await,
        "All is well."
    );
    eventually("all problems to be over", async {
        while !problems(&app).await.is_empty() {}
    })
    .await;
}
