//! Two instances of the binary over one real Redis: what one learns the other knows, and without Redis each goes on alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::service::Service;
use super::{alone, within};
use crate::harness::{Gate, Redis, ScriptedProvider, answer, refusal};

const BETA: &str = "The second provider's answer.";

/// As soon as the other one must know what one learnt, and the longest that going on without Redis may take.
const SOON: Duration = Duration::from_millis(100);
const ALONE: Duration = Duration::from_millis(50);

/// Two instances that share a Redis and two providers.
struct Pair {
    redis: Redis,
    alpha: ScriptedProvider,
    _beta: ScriptedProvider,
    both: [Service; 2],
    _folders: [TempDir; 2],
}

/// What the configuration says besides the providers and the store, and of the first provider.
#[derive(Clone, Copy, Default)]
struct With {
    more: &'static str,
    of_alpha: &'static str,
}

impl Pair {
    async fn start(With { more, of_alpha }: With) -> Self {
        let redis = Redis::start(&[]);
        let alpha = ScriptedProvider::answering("The first provider's answer.").await;
        let beta = ScriptedProvider::answering(BETA).await;
        let config = format!(
            r#"
[[providers]]
name = "alpha"
dialect = "openai"
base_url = "{}"
model = "alpha-1"
api_key = "sk-canary-key"
retry = {{ same_provider = 0 }}
{of_alpha}

[[providers]]
name = "beta"
dialect = "openai"
base_url = "{}"
model = "beta-1"

[degradation]
outbox = false

[store]
backend = "redis"
redis_url = "{}"
{more}"#,
            alpha.base_url(),
            beta.base_url(),
            redis.url(),
        );
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let one = Service::start(folders[0].path(), &config).await;
        let other = Service::start(folders[1].path(), &config).await;
        let pair = Self {
            redis,
            alpha,
            _beta: beta,
            both: [one, other],
            _folders: folders,
        };
        pair.joined().await;
        pair
    }

    /// Waits until both hear what the other says.
    async fn joined(&self) {
        let both = async {
            let heard = |text: String| text.lines().last().is_some_and(|count| count == "2");
            while !heard(
                self.redis
                    .tell(&["PUBSUB", "NUMSUB", "failsoft:fleet:news"]),
            ) {
                tokio::task::yield_now().await;
            }
        };
        within("both instances to join Redis", both).await;
    }

    /// Asks one instance; gives what it says.
    async fn ask(&self, which: usize) -> Value {
        let answer = self.both[which]
            .post("/api/chat", json!({ "message": "What?" }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Waits until one instance's first provider is so; gives when that was.
    async fn alpha_is(&self, which: usize, so: impl Fn(&Value) -> bool) -> Instant {
        self.both[which]
            .status_when("the provider's state", |status| so(&status["providers"][0]))
            .await;
        Instant::now()
    }

    async fn state_is(&self, which: usize, state: &str) -> Instant {
        self.alpha_is(which, |alpha| alpha["state"] == state).await
    }

    async fn stop(self) {
        for service in self.both {
            let ended = service.stop().await;
            assert_eq!(ended.code, Some(0), "{}", ended.err);
            assert!(!ended.err.contains("canary"), "a key in the log");
        }
    }
}

fn refuses(status: u16) -> Vec<crate::harness::Act> {
    vec![refusal(
        status,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"no"}}"#,
    )]
}

#[tokio::test]
async fn what_one_is_refused_the_other_does_not_ask_for_and_hears_when_it_is_over() {
    let _alone = alone().await;
    let of_alpha = r#"breaker = { blocked_for = "1s" }"#;
    let pair = Pair::start(With {
        of_alpha,
        ..With::default()
    })
    .await;
    let mut took = Vec::new();
    for (one, other) in [(0, 1), (1, 0), (0, 1)] {
        pair.alpha.usually(refuses(401));
        let asked = pair.alpha.asked();
        let said = pair.ask(one);
        let seen = async {
            (
                pair.state_is(one, "blocked").await,
                pair.state_is(other, "blocked").await,
            )
        };
        let (said, (first, second)) = tokio::join!(said, seen);
        assert_eq!(said["message"], BETA);
        took.push(second.saturating_duration_since(first));
        assert_eq!(pair.ask(other).await["message"], BETA);
        assert_eq!(
            pair.alpha.asked(),
            asked + 1,
            "the other did not find out for itself"
        );
        pair.alpha.usually(answer("Well again."));
        pair.state_is(one, "closed").await;
        pair.state_is(other, "closed").await;
        assert_eq!(pair.ask(other).await["message"], "Well again.");
        assert_eq!(pair.ask(one).await["message"], "Well again.");
    }
    took.sort();
    println!("seen by the other after {took:?}");
    assert!(took[1] < SOON, "{took:?}");
    pair.stop().await;
}

#[tokio::test]
async fn a_rate_limit_of_one_is_waited_out_by_both() {
    let pair = Pair::start(With::default()).await;
    let limit = "content-type: application/json\r\nretry-after: 600\r\n";
    pair.alpha.usually(vec![refusal(
        429,
        limit,
        r#"{"error":{"message":"slow down"}}"#,
    )]);
    assert_eq!(pair.ask(0).await["message"], BETA);
    pair.alpha_is(1, |alpha| {
        alpha["retry_at"].is_string() && alpha["state"] == "closed"
    })
    .await;
    assert_eq!(
        (pair.ask(1).await["message"].clone(), pair.alpha.asked()),
        (json!(BETA), 1)
    );
    // What is told stands for those who come later, on any machine.
    let folder = TempDir::new().unwrap();
    let config = std::fs::read_to_string(pair._folders[0].path().join("failsoft.toml")).unwrap();
    let third = Service::start(folder.path(), &config).await;
    let told = |status: &Value| status["providers"][0]["retry_at"].is_string();
    third.status_when("what the others know", told).await;
    assert_eq!(pair.alpha.asked(), 1);
    pair.stop().await;
}

#[tokio::test]
async fn a_provider_that_one_cannot_reach_is_no_more_than_a_hint() {
    let pair = Pair::start(With::default()).await;
    pair.alpha.refuse().await;
    for _ in 0..5 {
        assert_eq!(pair.ask(0).await["message"], BETA);
    }
    pair.state_is(0, "open").await;
    // The hint comes before this question, which is what it is for: one failure is enough now.
    let hint = async {
        while !pair
            .redis
            .tell(&["KEYS", "failsoft:fleet:hint:*"])
            .contains("hint")
        {}
    };
    within("the hint", hint).await;
    assert_eq!(
        pair.both[1].get("/status.json").await.json()["providers"][0]["state"],
        "closed"
    );
    let asking = async {
        for _ in 0..4 {
            assert_eq!(pair.ask(1).await["message"], BETA);
        }
    };
    within("answers of the other provider", asking).await;
    pair.state_is(1, "open").await;
    pair.stop().await;
}

#[tokio::test]
async fn both_together_make_one_probe_at_a_time_and_both_come_back_by_it() {
    let of_alpha = r#"breaker = { open_for = "500ms", open_max = "1s", consecutive_failures = 1 }"#;
    let pair = Pair::start(With {
        of_alpha,
        ..With::default()
    })
    .await;
    pair.alpha.usually(refuses(500));
    assert_eq!(pair.ask(0).await["message"], BETA);
    pair.state_is(1, "open").await;
    // The probe that comes next is not answered until the other instance has been told to wait for it.
    let gate = Gate::default();
    let mut script = vec![gate.hold()];
    script.extend(answer("pong"));
    pair.alpha.usually(script);
    let before = pair.alpha.counts().probes;
    let held = pair
        .alpha
        .until(|counts| counts.probes > before && counts.open == 1)
        .await;
    let waits = |alpha: &Value| alpha["state"] == "half_open" && alpha["retry_at"].is_string();
    let waiting = async {
        loop {
            for which in 0..2 {
                if waits(&pair.both[which].get("/status.json").await.json()["providers"][0]) {
                    return;
                }
            }
        }
    };
    within("the other to wait", waiting).await;
    assert_eq!(pair.alpha.counts().probes, held.probes);
    gate.open();
    for which in 0..2 {
        pair.state_is(which, "closed").await;
    }
    assert_eq!(
        (pair.alpha.counts().probes, pair.alpha.counts().most),
        (held.probes, 1)
    );
    pair.stop().await;
}

#[tokio::test]
async fn a_budget_is_one_for_all() {
    // A question costs seven and five tokens at these prices: about half of it.
    let of_alpha = "prices = { input = 50000.0, output = 50000.0 }\ndaily_budget_usd = 1.0";
    let pair = Pair::start(With {
        of_alpha,
        ..With::default()
    })
    .await;
    assert_eq!(pair.ask(0).await["provider"], "alpha");
    assert_eq!(pair.ask(1).await["provider"], "alpha");
    let begun = Instant::now();
    for which in 0..2 {
        pair.alpha_is(which, |alpha| alpha["reason"] == "budget_spent")
            .await;
    }
    println!("halted by both after {:?}", begun.elapsed());
    for which in 0..2 {
        assert_eq!(pair.ask(which).await["message"], BETA);
    }
    assert_eq!(pair.alpha.asked(), 2);
    pair.stop().await;
}

#[tokio::test]
async fn a_rate_limit_of_visitors_is_one_for_all() {
    const LIMIT: usize = 10;
    let more = "[limits]\nmessages_per_minute_per_ip = 10";
    let pair = Pair::start(With {
        more,
        ..With::default()
    })
    .await;
    let counted = |pair: &Pair| {
        let key = pair.redis.tell(&["KEYS", "failsoft:fleet:rate:a*"]);
        if key.is_empty() {
            String::new()
        } else {
            pair.redis.tell(&["GET", &key])
        }
    };
    let mut through = [0, 0];
    for round in 0..2 * LIMIT {
        let before = counted(&pair);
        let which = round % 2;
        let answer = pair.both[which]
            .post("/api/chat", json!({ "message": "What?" }))
            .await;
        if answer.status == 429 {
            assert!(
                answer.head.to_ascii_lowercase().contains("retry-after"),
                "{}",
                answer.head
            );
            continue;
        }
        through[which] += 1;
        // Until this instance has told it, and so has heard what the other let through.
        within("the common count", async {
            while counted(&pair) == before {}
        })
        .await;
    }
    // The other's last one may not have been heard of when the last of all was let through.
    let all = through[0] + through[1];
    assert!(
        (LIMIT..=LIMIT + 1).contains(&all) && through[0] >= 4 && through[1] >= 4,
        "{through:?}"
    );
    pair.stop().await;
}

#[tokio::test]
async fn without_redis_each_goes_on_alone_at_once_and_they_join_again_without_a_storm() {
    let _alone = alone().await;
    let more = "[limits]\nmessages_per_minute_per_ip = 1000\nmessages_per_minute = 1000";
    let of_alpha = r#"breaker = { blocked_for = "1s" }"#;
    let mut pair = Pair::start(With { more, of_alpha }).await;
    for stands_still in [true, false] {
        let usual = median(&pair).await;
        if stands_still {
            pair.redis.pause()
        } else {
            pair.redis.kill()
        }
        let without = median(&pair).await;
        println!("an answer takes {usual:?}, without Redis {without:?}");
        assert!(without < usual + ALONE, "{without:?} after {usual:?}");
        // Each finds out for itself, and each probes by itself.
        pair.alpha.usually(refuses(401));
        let asked = pair.alpha.asked();
        for which in 0..2 {
            assert_eq!(pair.ask(which).await["message"], BETA);
            pair.state_is(which, "blocked").await;
        }
        assert_eq!(pair.alpha.asked(), asked + 2);
        let probes = pair.alpha.counts().probes;
        pair.alpha.until(|counts| counts.probes >= probes + 2).await;
        pair.alpha.usually(answer("Well again."));
        for which in 0..2 {
            pair.state_is(which, "closed").await;
        }
        if stands_still {
            pair.redis.go_on()
        } else {
            pair.redis.restart()
        }
        pair.joined().await;
        told_again(&pair).await;
    }
    let tries = pair.redis.connections();
    println!("{tries} connections of two instances since Redis came back");
    assert!(tries < 20, "{tries}");
    pair.stop().await;
}

/// How long an answer of one instance takes, of nine.
async fn median(pair: &Pair) -> Duration {
    let mut took = Vec::new();
    for round in 0..9 {
        let begun = Instant::now();
        pair.ask(round % 2).await;
        took.push(begun.elapsed());
    }
    took.sort();
    took[4]
}

/// The other hears of a refused key again, which it did not find out itself.
async fn told_again(pair: &Pair) {
    // A link that was lost a moment ago may lose a message; then each finds out by itself, and that is tried again.
    let heard = async {
        loop {
            pair.alpha.usually(refuses(401));
            let asked = pair.alpha.asked();
            pair.ask(0).await;
            pair.state_is(0, "blocked").await;
            pair.state_is(1, "blocked").await;
            let by_word = pair.alpha.asked() == asked + 1;
            pair.alpha.usually(answer("Well again."));
            for which in 0..2 {
                pair.state_is(which, "closed").await;
            }
            if by_word {
                return;
            }
        }
    };
    within("the other to be told", heard).await;
}
