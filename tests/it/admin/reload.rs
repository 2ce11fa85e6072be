//! The configuration is read again while the service runs: all of it, or nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::service::{Configured, TOKEN, configuration, provider};
use crate::harness::{
    Act, Gate, ScriptedProvider, WsClient, finish, say, soon, spoken, upgrade, word,
};

/// Two words, then a third and the end when the gate lets them through.
fn halting(gate: &Gate) -> Vec<Act> {
    vec![
        spoken(["one ", "two "]),
        gate.hold(),
        say(&(word("three.") + &finish())),
    ]
}

async fn halting_provider(gate: &Gate) -> ScriptedProvider {
    ScriptedProvider::start(halting(gate)).await
}

/// Waits until nothing is left of a provider's actor, nor of what could rebuild it.
async fn gone(
    mut vitals: tokio::sync::watch::Receiver<failsoft::provider::handle::ProviderStatus>,
) {
    soon("the end of a provider's actor", async {
        while vitals.changed().await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn under_a_hundred_streams_providers_come_change_and_go_and_no_turn_is_cut() {
    const TURNS: usize = 100;
    let gate = Gate::default();
    let [alpha, beta, gamma] = [&gate; 3].map(halting_provider);
    let (alpha, beta, gamma) = (alpha.await, beta.await, gamma.await);
    let delta = ScriptedProvider::answering("From delta.").await;
    let strategy = "[routing]\nstrategy = \"round_robin\"".to_owned();
    let of = |name: &str, scripted: &ScriptedProvider| provider(name, scripted, "");
    let before = [
        strategy.clone(),
        of("alpha", &alpha),
        of("beta", &beta),
        of("gamma", &gamma),
    ];
    let service = Configured::start(&configuration(&before)).await;
    let app = &service.app;
    let mut clients = Vec::new();
    for _ in 0..TURNS {
        let mut client = WsClient::open(app).await;
        let turn = client.ask("Count.").await;
        clients.push((client, turn));
    }
    for (client, turn) in &mut clients {
        client.shows(turn, |shown| shown.text == "one two ").await;
    }
    let asked = [&alpha, &beta, &gamma].map(|one| one.asked());
    assert!(
        asked.iter().sum::<usize>() == TURNS && asked.iter().all(|asked| *asked > 0),
        "{asked:?}"
    );
    let [old_alpha, old_beta] = ["alpha", "beta"].map(|name| app.backend(name).status.clone());

    // One goes, one gets another key, one comes, one stays.
    let after = [
        strategy,
        provider("beta", &beta, "api_key = \"sk-other\"\nweight = 3"),
        of("gamma", &gamma),
        of("delta", &delta),
    ];
    let told = service.reload(&configuration(&after)).await;
    let changed = json!({ "added": ["delta"], "changed": ["beta"], "removed": ["alpha"] });
    assert_eq!(
        (&told["providers"], &told["needs_restart"]),
        (&changed, &json!([]))
    );
    let names = |status: &Value| {
        let providers = status["providers"].as_array().unwrap().clone();
        providers
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&app.status().await), ["beta", "gamma", "delta"]);
    assert_eq!(
        old_beta.borrow().in_flight,
        asked[1],
        "it goes on with what it is asked"
    );
    // The next ones go to those that there are: in three turns each is asked once.
    let mut later = Vec::new();
    for _ in 0..3 {
        let mut client = WsClient::open(app).await;
        let turn = client.ask("Count on.").await;
        later.push((client, turn));
    }
    delta.until(|seen| seen.asked == 1).await;
    assert_eq!(
        alpha.asked(),
        asked[0],
        "nobody is led to the one that went"
    );
    // And once more, with the one back that went before its last answer has ended.
    let back = [of("gamma", &gamma), of("alpha", &alpha)];
    let told = service.reload(&configuration(&back)).await;
    assert_eq!(
        told["providers"],
        json!({ "added": ["alpha"], "changed": [], "removed": ["beta", "delta"] })
    );

    (0..TURNS + 3).for_each(|_| gate.open());
    for (client, turn) in &mut clients {
        let shown = client.done(turn).await;
        assert_eq!(
            (
                shown.text.as_str(),
                shown.drafts.len(),
                shown.attempts.len()
            ),
            ("one two three.", 0, 1)
        );
        let done = shown.done.as_ref().unwrap();
        assert_eq!(
            (&done["finish"], &done["source"]),
            (&json!("stop"), &json!("ai")),
            "{done}"
        );
    }
    for (client, turn) in &mut later {
        let shown = client.done(turn).await;
        let done = shown.done.as_ref().unwrap();
        assert_eq!(
            (&done["finish"], shown.drafts.len()),
            (&json!("stop"), 0),
            "{done}"
        );
    }
    gone(old_alpha).await;
    gone(old_beta).await;
    app.at_rest().await;
    // The new one of the old name is its own.
    assert_eq!(app.provider("alpha").await["counts"]["success"], 0);
    assert_eq!(app.provider("gamma").await["state"], "closed");
    let mut client = WsClient::open(app).await;
    let turn = client.ask("Again.").await;
    gate.open();
    assert_eq!(
        client.done(&turn).await.done.as_ref().unwrap()["provider"],
        "gamma"
    );
}

#[tokio::test]
async fn a_blocked_provider_is_back_within_a_second_of_a_reload_with_a_good_key() {
    let (alpha, beta) = (
        ScriptedProvider::answering("From alpha.").await,
        ScriptedProvider::answering("From beta.").await,
    );
    alpha.demands("sk-good");
    let service = Configured::start(&configuration(&[])).await;
    let key = service.folder().join("key");
    std::fs::write(&key, "sk-bad").unwrap();
    let secret = format!("api_key = \"file:{}\"", key.display());
    let text = configuration(&[
        provider("alpha", &alpha, &secret),
        provider("beta", &beta, ""),
    ]);
    // It began as a demo: providers of its own take the simulated ones' place.
    let told = service.reload(&text).await;
    assert_eq!(told["providers"]["added"], json!(["alpha", "beta"]));
    let app = &service.app;
    let mut client = WsClient::open(app).await;
    assert_eq!(client.welcome["demo"], false);
    assert_eq!(client.answered("Who?").await.text, "From beta.");
    app.vitals("alpha", |vitals| {
        vitals.state == failsoft::domain::ProviderState::Blocked
    })
    .await;
    // The file is as it was; what it names is not.
    std::fs::write(&key, "sk-good\n").unwrap();
    let begun = Instant::now();
    assert_eq!(
        service.reload(&text).await["providers"]["changed"],
        json!(["alpha"])
    );
    assert_eq!(client.answered("Who now?").await.text, "From alpha.");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(app.provider("alpha").await["state"], "closed");
    // The same once more changes nothing, and forgets nothing.
    let counted = app.provider("alpha").await["counts"].clone();
    assert_eq!(
        service.reload(&text).await["providers"],
        json!({ "added": [], "changed": [], "removed": [] })
    );
    assert_eq!(app.provider("alpha").await["counts"], counted);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_every_problem_is_told_with_its_line() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let good = configuration(&[
        "[chat]\ntitle = \"Good\"".into(),
        provider("alpha", &alpha, ""),
    ]);
    let service = Configured::start(&good).await;
    let app = &service.app;
    let replies = service.folder().join("replies.toml");
    std::fs::write(&replies, "[[reply]]\nmatch = [\"price\"]\ntext = 3\n").unwrap();
    let degradation = format!("replies = \"{}\"", replies.display());
    let bad_rules = good
        .replace("outbox = false", &degradation)
        .replace("Good", "Bad");
    let line_of =
        |text: &str, part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let bad_keys = good
        .replace("Good", "Bad")
        .replace("workers = 2", "workers = \"two\"")
        .replace("model = \"alpha-model\"", "modell = \"alpha-model\"")
        .replace("sk-canary-key", "env:NOT_SET");
    let told = async |text: &str| {
        service.write(text);
        let answer = service.order("POST", "/admin/reload").await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(
            !answer.body.contains(&*service.folder().to_string_lossy()),
            "{}",
            answer.body
        );
        let problems = answer.json()["error"]["problems"].clone();
        let of = |one: &Value| {
            format!(
                "{}:{} {}",
                one["file"].as_str().unwrap(),
                one["line"],
                one["key"].as_str().unwrap()
            )
        };
        problems
            .as_array()
            .unwrap()
            .iter()
            .map(of)
            .collect::<Vec<_>>()
    };
    let table = line_of(&bad_keys, "[[providers]]");
    let mut expected = vec![
        format!(
            "failsoft.toml:{} server.workers",
            line_of(&bad_keys, "workers")
        ),
        format!("failsoft.toml:{table} providers[0].model"),
        format!(
            "failsoft.toml:{} providers[0].modell",
            line_of(&bad_keys, "modell")
        ),
        format!(
            "failsoft.toml:{} providers[0].api_key",
            line_of(&bad_keys, "env:NOT_SET")
        ),
    ];
    let mut found = told(&bad_keys).await;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(told(&bad_rules).await, ["replies.toml:3 reply[0].text"]);
    assert_eq!(told("title = ").await, ["failsoft.toml:1 "]);
    assert_eq!(service.audit().await, ["reload - invalid loopback"; 3]);

    let mut client = WsClient::open(app).await;
    assert_eq!(client.welcome["title"], "Good");
    assert_eq!(client.answered("Who?").await.text, "From alpha.");
    assert_eq!(
        service.reload(&good.replace("Good", "Better")).await["providers"]["changed"],
        json!([])
    );
    assert_eq!(WsClient::open(app).await.welcome["title"], "Better");
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_counts_at_once() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let text = configuration(&[
        "[chat]\ngreeting = \"Hi.\"".into(),
        provider("alpha", &alpha, ""),
    ]);
    let service = Configured::start(&text).await;
    let app = &service.app;
    let mut client = WsClient::open(app).await;
    let other = text
        .replace("workers = 2", "workers = 3")
        .replace("Hi.", "Hello.\"\nmax_message_chars = 5\ntitle = \"New")
        .replace(
            "messages_per_minute = 10000",
            "messages_per_minute = 10000\nturns = 7",
        )
        .replace(TOKEN, "admin-other");
    assert_eq!(
        service.reload(&other).await["needs_restart"],
        json!(["server.workers"])
    );
    // A session that is open goes by it too.
    let refused = client.ask_as("long", "too long").await;
    assert_eq!(refused["code"], "message_too_long");
    let welcome = WsClient::hello(app.port, &json!({})).await.welcome;
    assert_eq!(
        (&welcome["greeting"], &welcome["title"]),
        (&json!("Hello."), &json!("New"))
    );
    assert!(
        app.request("GET", "/")
            .send()
            .await
            .body
            .contains("<title>New</title>")
    );
    // An operator needs the new token, and a program a key once there is one.
    assert_eq!(service.order("POST", "/admin/reload").await.status, 401);
    service.write(&other.replace("workers = 3", "workers = 3\napi_keys = [\"sk-program\"]"));
    let order = app
        .request("POST", "/admin/reload")
        .header("authorization", "Bearer admin-other");
    assert_eq!(order.send().await.status, 200);
    let asked = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "Who?" }));
    assert_eq!(asked.send().await.status, 401);
    // Without any token left there is nothing to be found.
    service.write(&other.replace("admin_token = \"admin-other\"\n", ""));
    let order = app
        .request("POST", "/admin/reload")
        .header("authorization", "Bearer admin-other");
    assert_eq!(order.send().await.status, 200);
    let order = app
        .request("POST", "/admin/reload")
        .header("authorization", "Bearer admin-other");
    assert_eq!(order.send().await.status, 404);
}

#[tokio::test]
async fn a_configuration_without_providers_does_not_turn_a_service_into_a_demo() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let service = Configured::start(&configuration(&[provider("alpha", &alpha, "")])).await;
    let told = service
        .reload(&configuration(&["[chat]\ntitle = \"New\"".into()]))
        .await;
    assert_eq!(
        (&told["needs_restart"], &told["providers"]["removed"]),
        (&json!(["providers"]), &json!([]))
    );
    let mut client = WsClient::open(&service.app).await;
    assert_eq!(
        (&client.welcome["demo"], &client.welcome["title"]),
        (&json!(false), &json!("New"))
    );
    assert_eq!(client.answered("Who?").await.text, "From alpha.");
}

#[tokio::test]
async fn metrics_follow_the_providers_and_lose_nothing_of_one_that_went() {
    let gate = Gate::default();
    let (alpha, beta) = (
        halting_provider(&gate).await,
        ScriptedProvider::answering("From beta.").await,
    );
    let service = Configured::start(&configuration(&[provider("alpha", &alpha, "")])).await;
    let app = &service.app;
    let mut client = WsClient::open(app).await;
    let turn = client.ask("Count.").await;
    client.shows(&turn, |shown| shown.text == "one two ").await;
    let metrics = async || app.request("GET", "/metrics").send().await.body;
    let labels = async || {
        let text = metrics().await;
        ["alpha", "beta"].map(|name| text.contains(&format!("provider=\"{name}\"")))
    };
    assert_eq!(labels().await, [true, false]);
    service
        .reload(&configuration(&[provider("beta", &beta, "")]))
        .await;
    assert_eq!(labels().await, [true, true]);
    WsClient::open(app).await.answered("Who?").await;
    // Its last answer ends after it went.
    gate.open();
    assert_eq!(client.done(&turn).await.text, "one two three.");
    app.at_rest().await;
    let lines = [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"alpha\"} 1",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"beta\"} 1",
        "failsoft_tokens_total{direction=\"output\",provider=\"alpha\"} 5",
    ];
    let counted = async {
        // The tokens are those of its actor, which may be told a moment later.
        loop {
            let text = metrics().await;
            if lines.iter().all(|line| text.contains(line)) {
                return text;
            }
        }
    };
    let text = soon("all of it in the metrics", counted).await;
    // What is only so as long as it is configured is told of no other.
    assert!(
        !text.contains("failsoft_breaker_state{provider=\"alpha\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn fewer_and_more_turns_and_connections_count_at_once() {
    let gate = Gate::default();
    let alpha = halting_provider(&gate).await;
    let with = |limits: &str| {
        configuration(&[provider("alpha", &alpha, "")]).replace(
            "connections_per_ip = 10000",
            &format!("connections_per_ip = 10000\n{limits}"),
        )
    };
    let service = Configured::start(&with("turns = 1\nconnections = 3")).await;
    let app = &service.app;
    let (mut one, mut two) = (WsClient::open(app).await, WsClient::open(app).await);
    let first = one.ask("Count.").await;
    assert_eq!(two.ask_as("full", "Count.").await["code"], "busy");
    assert_eq!(
        service.reload(&with("turns = 2\nconnections = 3")).await["needs_restart"],
        json!([])
    );
    let second = two.ask("Count.").await;
    // Fewer than run: those go on, and the next waits until there are fewer.
    assert_eq!(
        service.reload(&with("turns = 1\nconnections = 2")).await["needs_restart"],
        json!([])
    );
    assert_eq!(upgrade(app, &[]).await, Err(503));
    gate.open();
    one.done(&first).await;
    gate.open();
    two.done(&second).await;
    app.at_rest().await;
    let third = one.ask("Count.").await;
    assert_eq!(two.ask_as("full again", "Count.").await["code"], "busy");
    gate.open();
    one.done(&third).await;
    assert_eq!(
        service.reload(&with("turns = 1\nconnections = 3")).await["needs_restart"],
        json!([])
    );
    assert_eq!(upgrade(app, &[]).await, Ok(()));
    let told = service.reload(&with("turns = 1\nconnections = 4")).await;
    assert_eq!(told["needs_restart"], json!(["limits.connections"]));
}
