//! Visitors never see another visitor's word, in ten thousand random turns over the running
//! service: with every setting of `cache.share`, while providers fail and recover, with fresh,
//! revalidated and stale cached answers, and with follow-ups.
//!
//! The provider echoes every word of its prompt, so a word that leaks into another visitor's
//! history, cached answer or follow-up is seen.

use std::time::{Duration, Instant};

use failsoft::config::CacheSharing;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::interval;

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, test_settings,
    unique_message_id,
};

/// Words that do not look like personal data, so that its detector does not keep them apart.
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

/// Turns per setting of `cache.share`; the three tests together make ten thousand.
const TURNS: usize = 3_336;

/// A linear congruential generator, reproducible by its seed.
struct Rng(u64);

impl Rng {
    /// A number below `count`.
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

#[derive(Default)]
struct Counts {
    turns: usize,
    cached: usize,
    stale: usize,
    degraded: usize,
    followups: usize,
}

/// A visitor with a word of their own.
struct Visitor<'t> {
    app: &'t TestApp,
    canary: &'static str,
    client: WsClient,
    rng: Rng,
    counts: Counts,
}

impl Visitor<'_> {
    fn assert_no_leak(&self, frame: &Value) {
        let text = frame.to_string();
        let leaked = CANARIES
            .iter()
            .find(|word| **word != self.canary && text.contains(*word));
        assert!(
            leaked.is_none(),
            "{} was shown {}: {text}",
            self.canary,
            leaked.unwrap()
        );
    }

    /// Rejoins the conversation or starts another.
    async fn reconnect(&mut self) {
        self.client = if self.rng.below(2) == 0 {
            WsClient::open(self.app).await
        } else {
            WsClient::join(self.app, &self.client.conversation).await
        };
        self.assert_no_leak(&self.client.welcome);
    }

    fn question(&mut self) -> String {
        let number = self.rng.below(6);
        let (phrase, end) = [
            ("What is number", "?"),
            ("WHAT  is number", " ?"),
            ("what is NUMBER", ""),
        ][self.rng.below(3) as usize];
        match self.rng.below(4) {
            0 => format!("{phrase} {number} of {}{end}", self.canary),
            _ => format!("{phrase} {number}{end}"),
        }
    }

    async fn turn(&mut self) {
        if self.rng.below(3) == 0 {
            self.reconnect().await;
        }
        let id = unique_message_id();
        let text = self.question();
        let cache = ["use", "use", "use", "use", "use", "use", "refresh", "off"]
            [self.rng.below(8) as usize];
        let send = json!({ "type": "send", "client_msg_id": id, "text": text, "options": { "cache": cache } });
        self.client.send_frame(&send).await;
        loop {
            let frame = self.client.next_frame().await;
            self.assert_no_leak(&frame);
            assert_ne!(frame["type"], "error", "{frame}");
            self.counts.followups += usize::from(frame["type"] == "followup");
            if frame["type"] == "done" {
                self.counts.turns += 1;
                self.counts.cached += usize::from(frame["source"] == "cache");
                self.counts.stale += usize::from(frame["source"] == "stale_cache");
                self.counts.degraded += usize::from(frame["degraded"] == true);
                // Some visitors rate the answer down, which removes it from the cache.
                if self.rng.below(50) == 0 {
                    let thumb =
                        json!({ "type": "feedback", "turn": frame["turn"], "value": "down" });
                    self.client.send_frame(&thumb).await;
                }
                return;
            }
        }
    }
}

async fn service(share: CacheSharing) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::start(vec![ScriptStep::Echo]).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
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

async fn run_random_turns(share: CacheSharing, seed: u64) {
    let (alpha, app) = service(share).await;
    let started = Instant::now();
    let mut visitors = Vec::new();
    for (number, canary) in (0..).zip(CANARIES) {
        let client = WsClient::open(&app).await;
        let rng = Rng(seed + number * 7_919);
        visitors.push(Visitor {
            app: &app,
            canary,
            client,
            rng,
            counts: Counts::default(),
        });
    }
    // The provider fails every now and then; it works most of the time, so that answers are cached.
    let outages = async {
        let busy = error_response(
            503,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"busy"}}"#,
        );
        let mut ticks = interval(Duration::from_millis(100));
        for tick in 0_u32.. {
            ticks.tick().await;
            alpha.script_default(vec![if tick % 6 == 5 {
                busy.clone()
            } else {
                ScriptStep::Echo
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
        () = outages => {}
    }
    let sum = |count: fn(&Counts) -> usize| {
        visitors
            .iter()
            .map(|visitor| count(&visitor.counts))
            .sum::<usize>()
    };
    let turns = sum(|counts| counts.turns);
    let cached = sum(|counts| counts.cached);
    let stale = sum(|counts| counts.stale);
    let degraded = sum(|counts| counts.degraded);
    println!(
        "{share:?}, seed {seed}: {turns} turns in {:?}, {cached} cached answers, {stale} stale ones, \
         {degraded} degraded, {} follow-ups",
        started.elapsed(),
        sum(|counts| counts.followups)
    );
    assert_eq!(turns, TURNS);
    // The test is meaningful only if many answers came from the cache, and many from no provider.
    assert!(
        share == CacheSharing::Never || cached > turns / 20,
        "only {cached} cached answers"
    );
    assert!(
        stale > 0 && degraded > stale,
        "{stale} stale answers, {degraded} degraded ones"
    );
}

#[tokio::test]
async fn nothing_leaks_with_share_never() {
    run_random_turns(CacheSharing::Never, 1).await;
}

#[tokio::test]
async fn nothing_leaks_with_share_repeated() {
    run_random_turns(CacheSharing::Repeated, 2).await;
}

#[tokio::test]
async fn nothing_leaks_with_share_always() {
    run_random_turns(CacheSharing::Always, 3).await;
}
