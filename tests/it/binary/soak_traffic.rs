//! The traffic of the soak test: visitors, failing providers, reloads and outage drills.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::interval;

use super::http::{Answer, request};
use super::provider::{Behavior, Provider, UNLIMITED, full_answer};
use super::service::Service;
use super::ws_client::{ShownTurn, Visitor};

/// The number of concurrent visitors.
pub const VISITORS: u64 = 24;

/// The pause of a visitor between two turns.
const PAUSE: Duration = Duration::from_millis(40);

const ADMIN_TOKEN: &str = "admin-canary";

/// All faults that a drill can inject.
const FAULTS: [&str; 8] = [
    "down",
    "rate_limit",
    "unauthorized",
    "timeout",
    "stall",
    "cut",
    "garbage",
    "slow",
];

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A linear congruential generator, so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The configuration of the service with these providers.
pub fn config(providers: &[Provider]) -> String {
    let entries = NAMES.iter().zip(providers).map(|(name, provider)| {
        format!(
            r#"
[[providers]]
name = "{name}"
dialect = "openai"
base_url = "{}"
model = "{name}-1"
api_key = "a-key"
timeouts = {{ connect = "1s", first_token = "1s", stall = "1s" }}
breaker = {{ open_for = "500ms", open_max = "1s", blocked_for = "1s" }}
"#,
            provider.base_url()
        )
    });
    // Follow-ups would be turns that the test does not count.
    format!(
        "server.admin_token = \"{ADMIN_TOKEN}\"\ndegradation = {{ outbox = false }}\n{}{UNLIMITED}",
        entries.collect::<String>()
    )
}

/// The turns of a visitor, by their outcome.
#[derive(Default)]
pub struct VisitorTally {
    pub asked: u64,
    pub ai: u64,
    pub degraded: u64,
    pub stopped: u64,
    pub cuts: u64,
    pub left: u64,
    pub drafts: usize,
    /// Each conversation, with the number of its questions.
    pub conversations: Vec<(String, usize)>,
}

/// Runs one visitor until the time is over.
async fn run_visitor(port: u16, mut random: Random, until: Instant) -> VisitorTally {
    let mut tally = VisitorTally::default();
    let mut visitor = Visitor::new(port).await;
    let mut asked = 0;
    let mut ticks = interval(PAUSE);
    while Instant::now() < until {
        ticks.tick().await;
        let question = format!(
            "question {} of {}",
            tally.asked,
            random.below(u64::MAX >> 33)
        );
        visitor.send_message(&question).await;
        tally.asked += 1;
        asked += 1;
        let mut shown = ShownTurn::default();
        match random.below(10) {
            0 => {
                visitor.read_at_least(&mut shown, 1).await;
                let turn = shown.turn_id().to_owned();
                visitor
                    .send_frame(json!({ "type": "stop", "turn": turn }))
                    .await;
            }
            1 | 2 => {
                // The connection is cut mid-answer, and the page resumes the turn.
                visitor.read_at_least(&mut shown, 1).await;
                tally.cuts += 1;
                if shown.done.is_none() {
                    let resume = json!({ "turn": shown.turn_id(), "seq": shown.seq });
                    let hello = json!({ "conversation": visitor.conversation(), "resume": resume });
                    visitor = Visitor::connect(port, hello).await;
                }
            }
            _ => {}
        }
        visitor.read_to_end(&mut shown).await;
        tally.drafts += shown.done_field("drafts").as_array().unwrap().len();
        match (
            shown.done_field("source").as_str(),
            shown.done_field("finish").as_str(),
        ) {
            (Some("ai"), Some("stop")) => {
                assert_eq!(shown.text, full_answer(&question), "an incomplete answer");
                tally.ai += 1;
            }
            (Some("ai"), Some("stopped")) => tally.stopped += 1,
            (Some("template" | "fallback"), Some("stop")) => {
                assert_eq!(shown.done_field("degraded"), true);
                tally.degraded += 1;
            }
            other => panic!("{other:?}"),
        }
        // Leave before the history is full: `send_message` takes new ids from its length.
        if random.below(12) == 0 || asked == 90 {
            tally.left += 1;
            tally
                .conversations
                .push((visitor.conversation().to_owned(), asked));
            visitor = Visitor::new(port).await;
            asked = 0;
        }
    }
    tally
        .conversations
        .push((visitor.conversation().to_owned(), asked));
    tally
}

/// Makes the providers fail and recover, and reloads the configuration, without end.
async fn vary_providers(service: &Service, providers: &[Provider], mut random: Random) {
    let error = json!({ "error": { "message": "no" } });
    let mut ticks = interval(Duration::from_millis(150));
    loop {
        ticks.tick().await;
        let behavior = match random.below(12) {
            0 => Behavior::Refuse(503, error.clone()),
            1 => Behavior::Refuse(429, error.clone()),
            2 => Behavior::Refuse(401, error.clone()),
            3 => Behavior::Disconnect,
            4 => Behavior::Pause,
            5 => Behavior::EndlessEvent(1),
            _ => Behavior::Answer,
        };
        providers[usize::try_from(random.below(3)).unwrap()].set_behavior(behavior);
        if random.below(40) == 0 {
            service.signal("HUP").await;
        }
    }
}

async fn admin_request(service: &Service, method: &str, path: &str, body: &str) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\n"
    );
    request(service.port, &head, body).await.unwrap()
}

/// Runs outage drills without end: all faults, on all calls or a share of them. Most end by
/// themselves, some early.
async fn run_drills(service: &Service, mut random: Random) {
    let mut ticks = interval(Duration::from_secs(2));
    loop {
        ticks.tick().await;
        let mut pick = |count| usize::try_from(random.below(count)).unwrap();
        let provider = NAMES[pick(3)];
        let fault = FAULTS[pick(8)];
        let share = [0.3, 1.0][pick(2)];
        let duration = ["500ms", "1s", "3s"][pick(3)];
        let drill =
            json!({ "provider": provider, "fault": fault, "for": duration, "share": share });
        let answer = admin_request(service, "POST", "/admin/drills", &drill.to_string()).await;
        // 409: the previous drill may still run.
        assert!(
            answer.status == 200 || answer.status == 409,
            "{}",
            answer.body
        );
        if pick(3) == 0 {
            let answer = admin_request(service, "DELETE", "/admin/drills", "").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
}

/// Ends the running drill. Returns the number of drill reports.
pub async fn end_drills(service: &Service) -> usize {
    let answer = admin_request(service, "DELETE", "/admin/drills", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let list = admin_request(service, "GET", "/admin/drills", "")
        .await
        .json();
    assert_eq!(list["running"], json!([]));
    // The status is computed a few times a second.
    service
        .wait_for_status("no drill in the status", |status| status["drill"].is_null())
        .await;
    list["reports"].as_array().unwrap().len()
}

/// Runs all of it for this time. Returns the tally of each visitor.
pub async fn run_traffic(
    service: &Service,
    providers: &[Provider],
    seed: u64,
    time: Duration,
) -> Vec<VisitorTally> {
    let until = Instant::now() + time;
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            tokio::spawn(run_visitor(
                service.port,
                Random(seed * 1_000 + number),
                until,
            ))
        })
        .collect();
    let visiting = async {
        join_all(visitors)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    };
    tokio::select! {
        tallies = visiting => tallies,
        () = vary_providers(service, providers, Random(seed)) => unreachable!("it never ends"),
        () = run_drills(service, Random(seed)) => unreachable!("it never ends"),
    }
}
