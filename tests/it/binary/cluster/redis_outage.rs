//! Two instances lose Redis: each continues standalone at once, and they join again.

use std::time::{Duration, Instant};

use super::super::{exclusive, wait_for};
use super::{BETA, ExtraConfig, InstancePair, refuses};
use crate::harness::full_answer;

/// The longest that the loss of Redis may delay an answer.
const MAX_DELAY_WITHOUT_REDIS: Duration = Duration::from_millis(50);

#[tokio::test]
async fn instances_continue_without_redis_and_rejoin_with_few_connections() {
    let _exclusive = exclusive().await;
    let tables = "[limits]\nmessages_per_minute_per_ip = 1000\nmessages_per_minute = 1000";
    let alpha_keys = r#"breaker = { blocked_for = "1s" }"#;
    let mut pair = InstancePair::start(ExtraConfig { tables, alpha_keys }).await;
    for is_paused in [true, false] {
        let usual = median(&pair).await;
        if is_paused {
            pair.redis.pause()
        } else {
            pair.redis.kill()
        }
        let without = median(&pair).await;
        println!("an answer takes {usual:?}, without Redis {without:?}");
        assert!(
            without < usual + MAX_DELAY_WITHOUT_REDIS,
            "{without:?} after {usual:?}"
        );
        // Each instance discovers the refused key itself, and probes itself.
        pair.alpha.script_default(refuses(401));
        let asked = pair.alpha.question_count();
        for index in 0..2 {
            assert_eq!(pair.ask(index).await["message"], BETA);
            pair.wait_for_alpha_state(index, "blocked").await;
        }
        assert_eq!(pair.alpha.question_count(), asked + 2);
        let probes = pair.alpha.counts().probes;
        pair.alpha
            .wait_for(|counts| counts.probes >= probes + 2)
            .await;
        pair.alpha.script_default(full_answer("Recovered."));
        for index in 0..2 {
            pair.wait_for_alpha_state(index, "closed").await;
        }
        if is_paused {
            pair.redis.resume()
        } else {
            pair.redis.restart()
        }
        pair.wait_until_joined().await;
        wait_until_propagated(&pair).await;
    }
    let tries = pair.redis.client_connections();
    println!("{tries} connections of two instances since the restart of Redis");
    assert!(tries < 20, "{tries}");
    pair.stop().await;
}

/// The median time of nine answers.
async fn median(pair: &InstancePair) -> Duration {
    let mut took = Vec::new();
    for round in 0..9 {
        let started = Instant::now();
        pair.ask(round % 2).await;
        took.push(started.elapsed());
    }
    took.sort();
    took[4]
}

/// Waits until a refused key of one instance reaches the other one through Redis again.
async fn wait_until_propagated(pair: &InstancePair) {
    // A new connection may still lose an event. Then each instance discovers the refused key
    // itself, and the test tries again.
    let propagated = async {
        loop {
            pair.alpha.script_default(refuses(401));
            let asked = pair.alpha.question_count();
            pair.ask(0).await;
            pair.wait_for_alpha_state(0, "blocked").await;
            pair.wait_for_alpha_state(1, "blocked").await;
            let is_propagated = pair.alpha.question_count() == asked + 1;
            pair.alpha.script_default(full_answer("Recovered."));
            for index in 0..2 {
                pair.wait_for_alpha_state(index, "closed").await;
            }
            if is_propagated {
                return;
            }
        }
    };
    wait_for("an event to reach the other instance", propagated).await;
}
