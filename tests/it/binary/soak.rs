//! The binary under random traffic for minutes: conversations, provider faults, cut connections,
//! stops, pages that leave, reloads and outage drills. At the end the process uses hardly more than
//! at the start, and every question has exactly one complete answer.
//!
//! Run by `tests/soak.sh MINUTES`.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::provider::{Behavior, Provider};
use super::service::Service;
use super::soak_traffic::{VISITORS, VisitorTally, config, end_drills, run_traffic};
use super::ws_client::Visitor;
use super::{exclusive, wait_for};

/// The permitted growth of the resident memory: what the allocator keeps for its threads, and the
/// store's cache. It is reached within the first 50,000 questions and hardly grows from there.
const MAX_MEMORY_GROWTH_KIB: u64 = 48 * 1024;

/// The questions per further KiB: the store indexes its records in memory, about 150 bytes each.
const QUESTIONS_PER_INDEX_KIB: u64 = 8;

#[derive(Debug)]
struct ResourceUsage {
    descriptors: usize,
    threads: u64,
    memory_kib: u64,
}

fn resource_usage(service: &Service) -> ResourceUsage {
    let process = format!("/proc/{}", service.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap_or_else(|| line.trim())
            .parse()
            .unwrap_or_else(|_| {
                line.split_whitespace()
                    .find_map(|word| word.parse().ok())
                    .unwrap()
            })
    };
    ResourceUsage {
        descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
        threads: field("Threads:"),
        memory_kib: field("VmRSS:"),
    }
}

/// The sum of a metric over all of its labels.
async fn metric(service: &Service, name: &str) -> f64 {
    let text = service.get("/metrics").await.body;
    let values = text.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
    });
    values
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Waits until there is no session, no running turn, no provider call and no open breaker.
async fn wait_until_idle(service: &Service) {
    let idle = async {
        while metric(service, "failsoft_sessions").await > 0.0
            || metric(service, "failsoft_turns_in_flight").await > 0.0
        {
            tokio::task::yield_now().await;
        }
    };
    wait_for("the end of all sessions and turns", idle).await;
    let providers_idle = |status: &Value| {
        status["providers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|provider| provider["in_flight"] == 0 && provider["state"] == "closed")
    };
    service
        .wait_for_status("every permit back and every breaker closed", providers_idle)
        .await;
}

#[tokio::test]
#[ignore = "runs for minutes: tests/soak.sh MINUTES"]
async fn soak() {
    let _exclusive = exclusive().await;
    let minutes = std::env::var("FAILSOFT_SOAK_MINUTES").map_or(1.0, |text| text.parse().unwrap());
    let seed = std::env::var("FAILSOFT_SOAK_SEED").map_or(7, |text| text.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let mut providers = Vec::new();
    for _ in 0..3 {
        providers.push(Provider::start(Behavior::Answer).await);
    }
    let mut service = Service::start(folder.path(), &config(&providers)).await;
    let repair = || {
        providers
            .iter()
            .for_each(|provider| provider.set_behavior(Behavior::Answer))
    };

    // The first traffic creates what is kept for the life of the process: measure after it.
    let mut tallies = run_traffic(&service, &providers, seed, Duration::from_secs(10)).await;
    repair();
    end_drills(&service).await;
    wait_until_idle(&service).await;
    let before = resource_usage(&service);
    tallies.extend(
        run_traffic(
            &service,
            &providers,
            seed + 1,
            Duration::from_secs_f64(60.0 * minutes),
        )
        .await,
    );
    repair();
    let reports = end_drills(&service).await;
    wait_until_idle(&service).await;
    // Blocking calls run on a pool, which ends threads that were idle for ten seconds.
    let max_threads = before.threads + 8;
    let idle = async {
        while resource_usage(&service).threads > max_threads {
            tokio::task::yield_now().await;
        }
    };
    wait_for("the pool to end its idle threads", idle).await;
    let after = resource_usage(&service);

    let sum = |count: fn(&VisitorTally) -> u64| tallies.iter().map(count).sum::<u64>();
    let asked = sum(|tally| tally.asked);
    println!("soak of {minutes} minutes, seed {seed}, {VISITORS} visitors, 3 providers");
    println!(
        "  questions {asked}: by AI {}, labelled {}, stopped {}; drafts {}",
        sum(|tally| tally.ai),
        sum(|tally| tally.degraded),
        sum(|tally| tally.stopped),
        tallies.iter().map(|tally| tally.drafts).sum::<usize>()
    );
    println!(
        "  connections cut {}, conversations left {}",
        sum(|tally| tally.cuts),
        sum(|tally| tally.left)
    );
    println!("  drill reports {reports}");
    println!("  at the start {before:?}");
    println!("  at the end   {after:?}");
    let ended = metric(&service, "failsoft_turns_total").await;
    println!("  turns ended by the metrics {ended}, in flight 0");
    #[allow(clippy::cast_precision_loss, reason = "far below what is exact")]
    let started = asked as f64;
    assert!(
        (ended - started).abs() < 0.5,
        "{started} turns started, {ended} ended"
    );
    // A few connections to providers are kept alive.
    assert!(
        after.descriptors <= before.descriptors + 16,
        "descriptors: {before:?}, {after:?}"
    );
    assert!(
        after.threads <= max_threads,
        "threads: {before:?}, {after:?}"
    );
    let growth = MAX_MEMORY_GROWTH_KIB + asked / QUESTIONS_PER_INDEX_KIB;
    assert!(
        after.memory_kib <= before.memory_kib + growth,
        "memory: {before:?}, {after:?}"
    );

    // No turn is lost: each conversation has all of its questions, each with an answer.
    let mut stored = 0;
    for (conversation, count) in tallies.iter().flat_map(|tally| &tally.conversations) {
        let visitor = Visitor::back(service.port, conversation).await;
        assert_eq!(
            visitor.history().len(),
            (*count).min(100),
            "questions of a conversation"
        );
        assert!(
            visitor
                .history()
                .iter()
                .all(|turn| turn["state"] == "done" && turn["text"].is_string())
        );
        stored += count;
    }
    println!(
        "  conversations with all their turns {}, {stored} turns",
        tallies
            .iter()
            .map(|tally| tally.conversations.len())
            .sum::<usize>()
    );
    assert!(!service.has_exited());
    let ended = service.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("panicked"), "something panicked");
}
