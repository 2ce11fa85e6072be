//! Redis killed, paused and cut at random under traffic: no accepted message is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::line::{Line, State};
use super::{Instance, history};
use crate::harness::Redis;
use crate::process::alone;
use crate::process::provider::{Manner, Provider};
use crate::process::visitor::{Heard, Visitor};

/// How many kills, pauses and cuts, unless `FAILSOFT_REDIS_TROUBLES` says another number (20000 for a long run).
const TROUBLES: u32 = 200;

/// The seed, unless `FAILSOFT_SEED` says another.
const SEED: u64 = 6;

/// Visitors at each instance.
const VISITORS: usize = 4;

/// Turns that one conversation is asked for, so that its history shows all of them.
const ASKED: usize = 90;

fn number<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What was accepted of one conversation: the texts, by turn.
type Accepted = (String, BTreeMap<String, String>);

/// Asks without end, a new conversation when one is full; now at this instance, now at that.
async fn talk(ports: [u16; 2], n: usize, over: watch::Receiver<bool>) -> Vec<Accepted> {
    let mut all = Vec::new();
    for round in 0.. {
        let mut visitor = Visitor::new(ports[(n + round) % 2]).await;
        let mut accepted = BTreeMap::new();
        for message in 0..ASKED {
            let text = format!("message {message} of {n} in {round}");
            visitor
                .say(json!({ "type": "send", "client_msg_id": format!("m{message}"), "text": text }))
                .await;
            loop {
                let Heard::Frame(frame) = visitor.hear().await else { panic!("closed") };
                match frame["type"].as_str().unwrap() {
                    "accepted" => {
                        accepted.insert(frame["turn"].as_str().unwrap().to_owned(), text.clone());
                    }
                    "done" => break,
                    "error" => panic!("{frame}"),
                    _ => {}
                }
            }
            if *over.borrow() {
                break;
            }
        }
        all.push((visitor.conversation().to_owned(), accepted));
        if *over.borrow() {
            return all;
        }
    }
    unreachable!("the rounds have no end")
}

#[tokio::test]
async fn no_accepted_message_is_lost_whatever_befalls_redis() {
    let _alone = alone().await;
    let troubles = number("FAILSOFT_REDIS_TROUBLES", TROUBLES);
    let seed = number("FAILSOFT_SEED", SEED);
    println!("seed {seed}: FAILSOFT_SEED={seed} FAILSOFT_REDIS_TROUBLES={troubles} repeats it");
    // Marsaglia's xorshift: all that is asked of it is to be the same again.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };

    // What a Redis that is killed has on its own disk is what it wrote there by the second: it does lose things.
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let lines = [Line::to(redis.socket()).await, Line::to(redis.socket()).await];
    let provider = Provider::start(Manner::Answer).await;
    let one = Instance::start(&provider, &lines[0].url()).await;
    let other = Instance::start(&provider, &lines[1].url()).await;
    let ports = [one.port(), other.port()];
    let (end, over) = watch::channel(false);
    let talking: Vec<_> = (0..2 * VISITORS).map(|n| tokio::spawn(talk(ports, n, over.clone()))).collect();
    for _ in 0..troubles {
        let (kind, which, long) = (draw(3), draw(2), Duration::from_millis(draw(60)));
        let line = &lines[usize::try_from(which).unwrap()];
        match kind {
            0 => redis.kill(),
            1 => redis.pause(),
            _ => line.now(State::Cut),
        }
        // The trouble itself: it lasts for a while that chance says.
        sleep(long).await;
        match kind {
            0 => redis.restart(),
            1 => redis.go_on(),
            _ => line.now(State::Whole),
        }
        sleep(Duration::from_millis(draw(60))).await;
    }
    end.send_replace(true);
    one.shares(true).await;
    other.shares(true).await;
    let mut count = 0;
    for talked in talking {
        for (conversation, accepted) in talked.await.unwrap() {
            count += accepted.len();
            for port in ports {
                let whole = |turns: &[Value]| {
                    turns.len() >= accepted.len() && turns.iter().all(|turn| turn["state"] == "done")
                };
                let turns = history(port, &conversation, whole).await;
                let known: BTreeMap<_, _> =
                    turns.iter().map(|turn| (turn["turn"].as_str().unwrap(), turn)).collect();
                for (turn, text) in &accepted {
                    let found = known.get(turn.as_str());
                    let found = found.unwrap_or_else(|| panic!("{text} is gone from {port}"));
                    assert_eq!((&found["question"], &found["state"]), (&json!(text), &json!("done")));
                }
            }
        }
    }
    println!("{count} accepted messages are there on both instances after {troubles} troubles");
    assert!(count > 200, "there was traffic");
}
