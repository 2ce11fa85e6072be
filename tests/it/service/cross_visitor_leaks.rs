//! Visitors with a word of their own never see another's, in ten thousand random turns over the running service: under every way of sharing
//! saved answers, in old and new conversations, while providers come and go, with saved answers fresh, being renewed and old, and with late
//! answers between.
//!
//! The provider says every word that it is shown. So a word that gets into another's history, saved answer or follow-up is seen.

use std::time::{Duration, Instant};

use failsoft::config::CacheSharing;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::interval;

use crate::harness::{Act, ScriptedProvider, TestApp, WsClient, fresh_id, refusal, settings};

/// Words that look like nobody's name or number: the detector of personal data must not be what keeps them apart.
const CANARIES: [&str; 12] = [
    "aardvark",
    "bergamot",
    "clavichord",
    "dulcimer",
    "eiderdown",
    "fandango",
    "gossamer",
    "halyard",
    "isinglass",
    "jacaranda",
    "kestrel",
    "lapislazuli",
];

/// Turns under each way of sharing; three times that is ten thousand.
const TURNS: usize = 3_336;

/// What is different in each run, and the same in each run of the same number.
struct Chance(u64);

impl Chance {
    /// One of so many.
    fn of(&mut self, count: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

#[derive(Default)]
struct Told {
    turns: usize,
    saved: usize,
    stale: usize,
    degraded: usize,
    late: usize,
}

/// One visitor with a word, who comes and goes.
struct Visitor<'t> {
    app: &'t TestApp,
    canary: &'static str,
    client: WsClient,
    chance: Chance,
    told: Told,
}

impl Visitor<'_> {
    fn check(&self, what: &Value) {
        let text = what.to_string();
        let other = CANARIES
            .iter()
            .find(|word| **word != self.canary && text.contains(*word));
        assert!(
            other.is_none(),
            "{} was shown {}: {text}",
            self.canary,
            other.unwrap()
        );
    }

    /// Comes back to the conversation, or begins another.
    async fn come(&mut self) {
        self.client = if self.chance.of(2) == 0 {
            WsClient::open(self.app).await
        } else {
            WsClient::join(self.app, &self.client.conversation).await
        };
        self.check(&self.client.welcome);
    }

    fn question(&mut self) -> String {
        let number = self.chance.of(6);
        let (what, end) = [
            ("What is number", "?"),
            ("WHAT  is number", " ?"),
            ("what is NUMBER", ""),
        ][self.chance.of(3) as usize];
        match self.chance.of(4) {
            0 => format!("{what} {number} of {}{end}", self.canary),
            _ => format!("{what} {number}{end}"),
        }
    }

    async fn turn(&mut self) {
        if self.chance.of(3) == 0 {
            self.come().await;
        }
        let (id, text) = (fresh_id(), self.question());
        let cache = ["use", "use", "use", "use", "use", "use", "refresh", "off"]
            [self.chance.of(8) as usize];
        let send = json!({ "type": "send", "client_msg_id": id, "text": text, "options": { "cache": cache } });
        self.client.say(&send).await;
        loop {
            let frame = self.client.next().await;
            self.check(&frame);
            assert_ne!(frame["type"], "error", "{frame}");
            self.told.late += usize::from(frame["type"] == "followup");
            if frame["type"] == "done" {
                self.told.turns += 1;
                self.told.saved += usize::from(frame["source"] == "cache");
                self.told.stale += usize::from(frame["source"] == "stale_cache");
                self.told.degraded += usize::from(frame["degraded"] == true);
                // Some say what they think of it, which takes saved answers away.
                if self.chance.of(50) == 0 {
                    let thumb =
                        json!({ "type": "feedback", "turn": frame["turn"], "value": "down" });
                    self.client.say(&thumb).await;
                }
                return;
            }
        }
    }
}

async fn service(share: CacheSharing) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::start(vec![Act::Echo]).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.cache.enabled = true;
    settings.cache.share = share;
    settings.cache.ttl = Duration::from_millis(2_000);
    settings.cache.revalidate = Duration::from_millis(500);
    settings.cache.max_entries = 60;
    settings.chat.visitor_options = true;
    settings.degradation.outbox = true;
    settings.retry.budget = 10.0;
    settings.limits.messages_per_minute = 1_000_000;
    settings.limits.messages_per_minute_per_ip = 1_000_000;
    settings.limits.connections_per_ip = 1_000;
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
        provider.breaker.open_for = Duration::from_millis(30);
        provider.breaker.open_max = Duration::from_millis(60);
    }
    let app = TestApp::start(settings).await;
    (alpha, app)
}

async fn ten_thousand(share: CacheSharing, seed: u64) {
    let (alpha, app) = service(share).await;
    let begun = Instant::now();
    let mut visitors = Vec::new();
    for (number, canary) in (0..).zip(CANARIES) {
        let client = WsClient::open(&app).await;
        let chance = Chance(seed + number * 7_919);
        visitors.push(Visitor {
            app: &app,
            canary,
            client,
            chance,
            told: Told::default(),
        });
    }
    // The provider comes and goes: well for most of the time, so that there is something to save.
    let weather = async {
        let busy = refusal(
            503,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"busy"}}"#,
        );
        let mut every = interval(Duration::from_millis(100));
        for moment in 0_u32.. {
            every.tick().await;
            alpha.usually(vec![if moment % 6 == 5 {
                busy.clone()
            } else {
                Act::Echo
            }]);
        }
    };
    let asking = join_all(visitors.iter_mut().map(|visitor| async {
        for _ in 0..TURNS / CANARIES.len() {
            visitor.turn().await;
        }
    }));
    tokio::select! {
        _ = asking => {}
        () = weather => {}
    }
    let sum = |of: fn(&Told) -> usize| {
        visitors
            .iter()
            .map(|visitor| of(&visitor.told))
            .sum::<usize>()
    };
    let (turns, saved, stale) = (
        sum(|told| told.turns),
        sum(|told| told.saved),
        sum(|told| told.stale),
    );
    println!(
        "{share:?}, seed {seed}: {turns} turns in {:?}, {saved} saved answers, {stale} old ones, {} degraded, {} late",
        begun.elapsed(),
        sum(|told| told.degraded),
        sum(|told| told.late)
    );
    assert_eq!(turns, TURNS);
    // It could have gone wrong: much was told from what is saved, and much not by a provider.
    assert!(
        share == CacheSharing::Never || saved > turns / 20,
        "{saved} saved answers"
    );
    assert!(
        stale > 0 && sum(|told| told.degraded) > stale,
        "{stale} old ones"
    );
}

#[tokio::test]
async fn nobody_sees_anothers_word_where_nothing_is_shared() {
    ten_thousand(CacheSharing::Never, 1).await;
}

#[tokio::test]
async fn nobody_sees_anothers_word_where_common_questions_are_shared() {
    ten_thousand(CacheSharing::Repeated, 2).await;
}

#[tokio::test]
async fn nobody_sees_anothers_word_where_first_questions_are_shared() {
    ten_thousand(CacheSharing::Always, 3).await;
}
