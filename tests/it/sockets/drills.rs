//! Outage drills as real clients see them: every fault for a new call and for an answer under way, over both doors; their end; what is kept of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use failsoft::provider::drill::TOKENS;
use failsoft::settings::{Secret, Settings, Share};
use serde_json::{Value, json};

use crate::harness::{
    Act, Answer, Gate, ScriptedProvider, Shown, TestApp, WsClient, answer, finish, say, settings, soon,
    spoken,
};

const TOKEN: &str = "admin-canary";

const BETA: &str = "The whole answer of beta.";

fn twenty() -> Vec<String> {
    (1..=20).map(|n| format!("{n}, ")).collect()
}

fn told(tokens: usize) -> String {
    twenty().into_iter().take(tokens).collect()
}

struct Ground {
    alpha: ScriptedProvider,
    beta: ScriptedProvider,
    app: TestApp,
}

async fn order(app: &TestApp, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let request = app.request(method, path).header("authorization", &format!("Bearer {TOKEN}"));
    match body {
        Some(body) => request.json(body).send().await,
        None => request.send().await,
    }
}

impl Ground {
    /// Alpha does this, and is given up soon; beta answers.
    async fn of(alpha: Vec<Act>, change: impl FnOnce(&mut Settings)) -> Self {
        let (alpha, beta) = (ScriptedProvider::start(alpha).await, ScriptedProvider::answering(BETA).await);
        let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
        settings.server.admin_token = Some(Secret::new(TOKEN));
        settings.providers[0].timeouts.first_token = vec![Duration::from_millis(500)];
        settings.providers[0].timeouts.stall = Duration::from_millis(500);
        change(&mut settings);
        Self { alpha, beta, app: TestApp::start(settings).await }
    }

    async fn begin(&self, fault: &str) -> Value {
        self.begin_with(&json!({ "provider": "alpha", "fault": fault, "for": "10m" })).await
    }

    async fn begin_with(&self, body: &Value) -> Value {
        let begun = order(&self.app, "POST", "/admin/drills", Some(body)).await;
        assert_eq!(begun.status, 200, "{}", begun.body);
        begun.json()
    }

    async fn end(&self) -> Value {
        order(&self.app, "DELETE", "/admin/drills", None).await.json()["ended"].clone()
    }

    async fn list(&self) -> Value {
        order(&self.app, "GET", "/admin/drills", None).await.json()
    }

    /// The newest report, once all of its turns have ended.
    async fn report(&self) -> Value {
        soon("the report", async {
            loop {
                let report = self.list().await["reports"][0].clone();
                if report["turns"]["under_way"] == 0 {
                    return report;
                }
            }
        })
        .await
    }

    /// Nothing is left of the drill: alpha answers again.
    async fn is_lifted(&self) {
        let state = self.app.provider("alpha").await;
        assert_eq!(
            (&state["state"], &state["retry_at"], &state["drill"]),
            (&json!("closed"), &json!(null), &json!(null))
        );
        self.alpha.usually(answer("alpha is back"));
        assert_eq!(WsClient::open(&self.app).await.answered("Who?").await.text, "alpha is back");
    }
}

/// What a turn must have been: the tokens that alpha told first, the reason that it failed for; none where it did not.
#[track_caller]
fn is(shown: &Shown, tokens: usize, reason: Option<&str>) {
    let Some(reason) = reason else {
        assert_eq!((shown.text.as_str(), shown.outcomes()), (told(20).as_str(), vec!["ok".to_owned()]));
        return;
    };
    assert_eq!(shown.text, BETA);
    assert_eq!(shown.path().last(), Some(&("beta".to_owned(), reason.to_owned())));
    let drafts: Vec<_> = shown.drafts.iter().map(|(_, text)| text.clone()).collect();
    let expected = if tokens == 0 { vec![] } else { vec![told(tokens)] };
    assert_eq!(drafts, expected, "just so much was told before it broke");
}

/// The whole answer of alpha, word by word.
fn counts() -> Vec<Act> {
    answer(&told(20))
}

async fn befalls_a_new_call(fault: &str, tokens: usize, reason: Option<&str>) {
    // A token a second is a long answer; four of them are enough.
    let script = if fault == "slow" { answer("one two three four") } else { counts() };
    let ground = Ground::of(script, |settings| {
        settings.providers[0].timeouts.stall = Duration::from_secs(if fault == "slow" { 5 } else { 1 });
        if fault == "slow" {
            settings.providers[0].timeouts.first_token = vec![Duration::from_secs(10)];
        }
    })
    .await;
    let begun = ground.begin(fault).await;
    assert_eq!(
        (&begun["provider"], &begun["fault"], &begun["share"]),
        (&json!("alpha"), &json!(fault), &json!(1.0))
    );
    let status = ground.app.status().await;
    for key in ["provider", "fault", "from", "until"] {
        assert_eq!(ground.app.provider("alpha").await["drill"][key], begun[key], "{key}");
    }
    // The board looks five times a second.
    soon("the status to say so", async {
        while ground.app.status().await["drill"]["until"] != begun["until"] {}
    })
    .await;
    assert_eq!(status["providers"][1]["drill"], Value::Null);

    let mut client = WsClient::open(&ground.app).await;
    let asked = Instant::now();
    let shown = client.answered("Count!").await;
    if fault == "slow" {
        assert_eq!((shown.text.as_str(), shown.tokens), ("one two three four", 4));
        assert!(asked.elapsed() >= Duration::from_secs(4), "{:?}", asked.elapsed());
    } else {
        is(shown, tokens, reason);
        // The other door, where what was sent cannot be taken back: whole, or torn with an error, never mixed.
        let plain = ground.app.completion(&crate::harness::question("Count!")).send().await;
        assert_eq!((plain.status, plain.header("x-provider")), (200, "beta"), "{}", plain.body);
        let streamed = ground.app.stream("Count!").await.ended().await;
        if streamed.error.is_none() {
            assert!(
                streamed.text() == BETA || streamed.text().starts_with(&told(tokens)),
                "{}",
                streamed.text()
            );
        } else {
            assert_eq!(streamed.text(), told(tokens));
        }
    }
    let refused = ["down", "rate_limit", "unauthorized", "timeout"].contains(&fault);
    assert_eq!(ground.alpha.asked() == 0, refused, "what is refused never leaves the house");
    assert_eq!(ground.end().await.as_array().unwrap().len(), 1);
    soon("the status to say so", async { while !ground.app.status().await["drill"].is_null() {} }).await;
    ground.is_lifted().await;
}

async fn befalls_an_answer_under_way(fault: &str, reason: Option<&str>) {
    for v1 in [false, true] {
        let gate = Gate::default();
        let words = twenty();
        let (first, rest) = words.split_at(3);
        let mut script = vec![spoken(first.iter().map(String::as_str)), gate.hold()];
        script.push(say(&rest.iter().take(3).map(|text| crate::harness::word(text)).collect::<String>()));
        script.push(say(&finish()));
        let ground = Ground::of(script, |settings| {
            settings.providers[0].timeouts.stall = Duration::from_secs(if fault == "slow" { 20 } else { 1 });
        })
        .await;
        if v1 {
            let mut streamed = ground.app.stream("Count!").await;
            streamed.shows(&told(3)).await;
            ground.begin(fault).await;
            gate.open();
            let streamed = streamed.ended().await;
            let whole = streamed.error.is_none();
            assert!(streamed.text().starts_with(&told(3)), "{}", streamed.text());
            assert!(whole || streamed.text() == told(3), "{}", streamed.text());
            if reason.is_none() {
                assert_eq!(streamed.text(), told(6));
            }
        } else {
            let mut client = WsClient::open(&ground.app).await;
            let turn = client.ask("Count!").await;
            client.shows(&turn, |shown| shown.text == told(3)).await;
            ground.begin(fault).await;
            let begun = Instant::now();
            gate.open();
            let shown = client.done(&turn).await;
            if reason.is_none() {
                assert_eq!(shown.text, told(6));
                assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
            } else {
                is(shown, 3, reason);
            }
        }
        assert_eq!(ground.end().await.as_array().unwrap().len(), 1);
        ground.is_lifted().await;
    }
}

macro_rules! faults {
    ($($name:ident: $fault:literal, $new:expr, $late:expr;)+) => {$(
        mod $name {
            #[tokio::test]
            async fn befalls_a_new_call() {
                let (tokens, reason) = $new;
                super::befalls_a_new_call($fault, tokens, reason).await;
            }

            #[tokio::test]
            async fn befalls_an_answer_under_way() {
                super::befalls_an_answer_under_way($fault, $late).await;
            }
        }
    )+};
}

faults! {
    down: "down", (0, Some("refused")), Some("reset");
    rate_limit: "rate_limit", (0, Some("rate_limited")), Some("reset");
    unauthorized: "unauthorized", (0, Some("refused")), Some("reset");
    timeout: "timeout", (0, Some("timeout")), Some("stalled");
    stall: "stall", (10, Some("stalled")), Some("stalled");
    cut: "cut", (10, Some("reset")), Some("reset");
    garbage: "garbage", (10, Some("malformed")), Some("malformed");
    slow: "slow", (20, None), None;
}

#[tokio::test]
async fn it_ends_by_itself_and_the_breaker_is_closed_again() {
    let ground = Ground::of(counts(), |_| {}).await;
    assert_eq!(TOKENS, 10);
    let begun =
        ground.begin_with(&json!({ "provider": "alpha", "fault": "unauthorized", "for": "1500ms" })).await;
    let mut client = WsClient::open(&ground.app).await;
    client.answered("Who?").await;
    assert_eq!(ground.app.provider("alpha").await["state"], "blocked");
    ground.app.vitals("alpha", |vitals| vitals.state == failsoft::chat::ProviderState::Closed).await;
    let report = ground.report().await;
    assert_eq!((&report["from"], &report["ended_by"]), (&begun["from"], &json!("time")));
    assert_eq!(ground.list().await["running"], json!([]));
    assert_eq!(ground.alpha.counts().probes, 0, "no probe closed it");
    ground.is_lifted().await;
}

#[tokio::test]
async fn probes_and_health_checks_feel_it_too() {
    let ground = Ground::of(counts(), |settings| {
        settings.providers[0].health.interval = Duration::from_millis(200);
        settings.providers[0].breaker.consecutive_failures = 1;
    })
    .await;
    ground.alpha.until(|counts| counts.listings > 0).await;
    ground.begin("down").await;
    ground.app.vitals("alpha", |vitals| vitals.checks_failed > 0).await;
    let listings = ground.alpha.counts().listings;
    WsClient::open(&ground.app).await.answered("Who?").await;
    // Its own completions fail as the visitors' calls do: it opens again and again.
    ground.app.vitals("alpha", |vitals| vitals.strikes >= 3).await;
    assert_eq!(
        (ground.alpha.asked(), ground.alpha.counts().probes, ground.alpha.counts().listings),
        (0, 0, listings)
    );
    ground.end().await;
    assert_eq!(ground.app.provider("alpha").await["healthy"], true);
    ground.is_lifted().await;
}

#[tokio::test]
async fn a_restart_ends_it_and_finds_nothing_open() {
    let ground =
        Ground::of(counts(), |settings| settings.providers[0].breaker.consecutive_failures = 1).await;
    ground.begin("down").await;
    WsClient::open(&ground.app).await.answered("Who?").await;
    assert_ne!(ground.app.provider("alpha").await["state"], "closed");
    let Ground { alpha, beta, app } = ground;
    let data = app.stopped().await;
    let app = TestApp::in_folder(settings(&[("alpha", &alpha), ("beta", &beta)]), data).await;
    let state = app.provider("alpha").await;
    assert_eq!((&state["state"], &state["drill"]), (&json!("closed"), &json!(null)));
    assert_eq!(WsClient::open(&app).await.answered("Who?").await.text, told(20));
}

#[tokio::test]
async fn what_is_answered_under_it_is_not_saved() {
    let ground = Ground::of(counts(), |settings| {
        settings.cache.enabled = true;
        settings.cache.share = Share::Always;
    })
    .await;
    ground.begin("down").await;
    let under = WsClient::open(&ground.app).await.answered("What are your opening hours?").await.text.clone();
    assert_eq!(under, BETA);
    ground.end().await;
    let after = WsClient::open(&ground.app)
        .await
        .answered("What are your opening hours?")
        .await
        .done
        .clone()
        .unwrap();
    assert_eq!((&after["source"], &after["provider"]), (&json!("ai"), &json!("alpha")));
    // And what is answered afterwards is.
    soon("it to be saved", async {
        while ground.app.lobby.desk.store.cached_keys().await.unwrap().is_empty() {}
    })
    .await;
    let saved = WsClient::open(&ground.app)
        .await
        .answered("What are your opening hours?")
        .await
        .done
        .clone()
        .unwrap();
    assert_eq!(saved["source"], "cache");
}

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
    WsClient::open(&ground.app).await.answered("Before it.").await;
    ground.begin_with(&json!({ "provider": "alpha", "fault": "cut", "for": "10m", "share": 0.5 })).await;
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
    WsClient::open(&ground.app).await.answered("After it.").await;

    let report = ground.report().await;
    let turns = &report["turns"];
    let mut sources = BTreeMap::<String, u64>::new();
    for (done, _) in &seen {
        *sources.entry(done["source"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(turns["turns"], CLIENTS * TURNS);
    assert_eq!(turns["sources"], json!(sources));
    let sum = |of: &dyn Fn(&Value) -> u64| seen.iter().map(|(done, _)| of(done)).sum::<u64>();
    assert_eq!(turns["degraded"], sum(&|done| u64::from(done["degraded"] == true)));
    assert_eq!(turns["attempts"], sum(&|done| done["attempts"].as_u64().unwrap()));
    let restarts = seen.iter().map(|(_, restarts)| *restarts as u64).sum::<u64>();
    assert_eq!(turns["restarts"], restarts);
    assert!(restarts > 0, "half of the answers were cut");
    let failed = |done: &Value| {
        let tried = done["tried"].as_array().unwrap();
        tried.iter().filter(|one| one["provider"] == "alpha" && one["outcome"] != "ok").count() as u64
    };
    assert_eq!(turns["failed"], sum(&failed));
    let longest = seen.iter().filter_map(|(done, _)| done["first_token_ms"].as_u64()).max();
    assert_eq!(turns["longest_first_token_ms"].as_u64(), longest);
    assert_eq!((&turns["interrupted"], &turns["stopped"]), (&json!(0), &json!(0)));
    // Each call that was cut failed; the provider's own probes among the calls too.
    let befallen = report["calls"]["befallen"].as_u64().unwrap();
    assert!(befallen >= sum(&failed) && befallen < report["calls"]["total"].as_u64().unwrap(), "{report}");
    assert_eq!(report["breaker"]["opened_after_ms"].is_u64(), report["breaker"]["opened"].as_u64() > Some(0));
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
    let told = client.until(|frame| frame["type"] == "status" && !frame["drill"].is_null()).await;
    assert_eq!((&told["drill"]["provider"], &told["mode"]), (&json!("alpha"), &json!("normal")));
    client.answered("Who?").await;
    let told = client.until(|frame| frame["type"] == "status" && frame["mode"] == "degraded").await;
    assert_eq!(told["message"], "Answers come from a backup model. This is an outage drill.");
    let incident = ground.app.status().await["incidents"][0].clone();
    assert_eq!(incident["cause"], "alpha: it cannot be reached (an outage drill)");
    let page = ground.app.request("GET", "/status").send().await;
    assert!(page.body.contains("<strong>Outage drill</strong> alpha is made to fail: Down"), "{}", page.body);
    assert!(!page.body.contains("begin-drill"), "orders are for the operator");
    ground.end().await;
    let told = client.until(|frame| frame["type"] == "status" && frame["drill"].is_null()).await;
    assert_ne!(told["message"], "Answers come from a backup model. This is an outage drill.");
}

#[tokio::test]
async fn bad_orders_are_told_what_would_be_right() {
    let ground = Ground::of(counts(), |_| {}).await;
    let whole = json!({ "provider": "alpha", "fault": "down" });
    for (key, value, status, message) in [
        ("provider", json!("gamma"), 404, "no provider has that name; there are: alpha, beta"),
        ("provider", json!(1), 400, "expected a string"),
        ("fault", json!("fire"), 400, "use down, rate_limit"),
        ("for", json!("16m"), 400, "at most 15m"),
        ("for", json!("0s"), 400, "longer than zero"),
        ("for", json!(30), 400, "expected a string"),
        ("share", json!(0), 400, "above 0 and up to 1"),
        ("share", json!(1.5), 400, "above 0 and up to 1"),
        ("share", json!("half"), 400, "invalid type"),
    ] {
        let mut body = whole.clone();
        body[key] = value;
        let told = order(&ground.app, "POST", "/admin/drills", Some(&body)).await;
        assert_eq!(told.status, status, "{body}: {}", told.body);
        assert!(told.json()["error"]["message"].as_str().unwrap().contains(message), "{body}: {}", told.body);
    }
    for body in [json!({}), json!({ "provider": "alpha" }), json!([])] {
        assert_eq!(order(&ground.app, "POST", "/admin/drills", Some(&body)).await.status, 400, "{body}");
    }
    assert_eq!(order(&ground.app, "DELETE", "/admin/drills?provider=gamma", None).await.status, 404);
    assert_eq!(order(&ground.app, "PUT", "/admin/drills", Some(&whole)).await.status, 405);
    assert_eq!(ground.end().await, json!([]), "none runs");
    for token in ["", "wrong"] {
        for method in ["GET", "POST", "DELETE"] {
            let request = ground
                .app
                .request(method, "/admin/drills")
                .header("authorization", &format!("Bearer {token}"));
            assert_eq!(request.json(&whole).send().await.status, 401, "{method}");
        }
    }
    // No header of a call arms one.
    let call = ground
        .app
        .request("POST", "/api/chat")
        .header("x-failsoft-drill", "down")
        .header("x-drill", "alpha=down");
    assert_eq!(call.json(&json!({ "message": "Who?" })).send().await.header("x-provider"), "alpha");
    assert_eq!(ground.list().await, json!({ "running": [], "reports": [] }));

    ground.begin("slow").await;
    let again = order(&ground.app, "POST", "/admin/drills", Some(&whole)).await;
    assert_eq!(again.status, 409);
    assert!(again.body.contains("a drill (slow) runs at alpha until 20"), "{}", again.body);
    let off = json!({ "action": "disable" });
    assert_eq!(order(&ground.app, "POST", "/admin/providers/beta", Some(&off)).await.status, 200);
    let beta = json!({ "provider": "beta", "fault": "down" });
    let told = order(&ground.app, "POST", "/admin/drills", Some(&beta)).await;
    assert_eq!((told.status, told.body.contains("switched off")), (409, true));
    let ended = order(&ground.app, "DELETE", "/admin/drills?provider=alpha", None).await.json();
    assert_eq!(ended["ended"][0]["fault"], "slow");
}
