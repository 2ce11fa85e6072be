//! The store breaks under the running service: what is saved cannot be told in an outage, and the self-check says so before anybody asks for it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{ScriptedProvider, TestApp, WsClient, fresh_id, settings, soon};

const BROKEN: &str =
    "Self-check: saved answers cannot be read; an outage is answered without them.";

async fn problems(app: &TestApp) -> Vec<String> {
    let status = app.status().await;
    let all = status["problems"].as_array().unwrap().clone();
    all.iter()
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

/// Waits until the status tells, or no longer tells, this.
async fn told(app: &TestApp, problem: &str, so: bool) {
    let told = async { while problems(app).await.iter().any(|one| one == problem) != so {} };
    soon(problem, told).await;
}

/// Asks until the answer is of this source: on a busy machine a saved one may not be read in the time that a turn gives it.
async fn is_told(client: &mut WsClient, source: &str) -> String {
    let told = async {
        loop {
            let shown = client.answered("Is all well?").await;
            if shown.done.as_ref().unwrap()["source"] == source {
                return shown.text.clone();
            }
        }
    };
    soon(source, told).await
}

#[tokio::test]
async fn saved_answers_that_a_broken_store_does_not_give_are_said_until_it_gives_them_again() {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    // Told in an outage only.
    (settings.cache.enabled, settings.cache.ttl) = (true, Duration::ZERO);
    settings.degradation.fallback = "Later, please.".into();
    settings.chat.max_message_chars = 3_000_000;
    settings.limits.frame_bytes = 4_000_000;
    let app = TestApp::checking(settings, Duration::from_millis(100)).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.answered("Is all well?").await.text, "All is well.");
    let store = &app.lobby.turns.store;
    soon("the answer to be saved", async {
        while store.answer_keys().await.unwrap().is_empty() {}
    })
    .await;
    alpha.refuse().await;
    assert_eq!(is_told(&mut client, "stale_cache").await, "All is well.");
    assert_eq!(problems(&app).await, [""; 0]);

    // A file stands where the store's folder should be: a record so long that the database keeps it in a file of its own finds no place. Beside
    // it lies what there was; a copy, as the database does not let go of its own files.
    let (folder, aside) = (
        app.data().join("data").join("store"),
        app.data().join("data").join("aside"),
    );
    assert!(
        Command::new("cp")
            .arg("-r")
            .args([&folder, &aside])
            .status()
            .unwrap()
            .success()
    );
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let mut other = WsClient::open(&app).await;
    let accepted = other.ask_as(&fresh_id(), &"x".repeat(2_000_000)).await;
    other.done(accepted["turn"].as_str().unwrap()).await;
    told(&app, BROKEN, true).await;
    // Nobody waits for what cannot be read: the next rung answers.
    let asked = Instant::now();
    assert_eq!(client.answered("Is all well?").await.text, "Later, please.");
    println!("an answer without the saved ones: {:?}", asked.elapsed());
    assert_eq!(app.request("GET", "/readyz").send().await.status, 200);

    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    told(&app, BROKEN, false).await;
    assert_eq!(is_told(&mut client, "stale_cache").await, "All is well.");
    soon("nothing wrong any more", async {
        while !problems(&app).await.is_empty() {}
    })
    .await;
}
