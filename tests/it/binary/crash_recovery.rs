//! Crashes: what is there when the service comes back after it was killed in the middle of everything.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{join_all, select_all};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Manner, Provider, UNLIMITED, whole};
use super::service::{Service, ms};
use super::ws_client::{Heard, Shown, Visitor};
use super::{alone, within};

/// How much of an answer's text a crash may cost.
const LOST: Duration = Duration::from_millis(500);

/// From word to word of an answer that is cut.
const PACE: Duration = Duration::from_millis(20);

/// How many answers are under way at the crash.
const CUT: usize = 16;

/// What a visitor had read at which moment.
type Read = Vec<(Instant, String)>;

/// Reads on until so many characters stand, keeping what stood when.
async fn watch(visitor: &mut Visitor, shown: &mut Shown, read: &mut Read, chars: usize) {
    while shown.text.len() < chars {
        visitor.read(shown, shown.text.chars().count() + 1).await;
        assert!(shown.done.is_none(), "it ended before it could be cut");
        read.push((Instant::now(), shown.text.clone()));
    }
}

/// Kills the service under answers, and starts it again. Gives it with what visitors had, and how much of their text is not there.
async fn cut(folder: &Path) -> (Service, Vec<(Visitor, Shown)>, Duration) {
    let provider = Provider::start(Manner::Drip(PACE)).await;
    let service = Service::start(folder, &provider.config()).await;
    let port = service.port;
    // Each begins when the one before has some text, of ever other length, so that their checkpoints fall at other moments.
    let mut visitors: Vec<(Visitor, Shown, Read)> = Vec::new();
    for n in 0..CUT {
        let mut visitor = Visitor::new(port).await;
        let mut shown = Shown::default();
        visitor.send(&format!("question {n}")).await;
        visitor.read(&mut shown, 25 + 5 * (n % 7)).await;
        visitors.push((visitor, shown, Vec::new()));
    }
    // The last one reads this much, which takes several checkpoints; the others read on for as long.
    let reading = visitors
        .iter_mut()
        .zip(1..)
        .map(|((visitor, shown, read), place)| {
            let chars = if place == CUT { 500 } else { usize::MAX };
            watch(visitor, shown, read, chars).boxed_local()
        });
    drop(select_all(reading).await);
    let killed = Instant::now();
    service.kill().await;

    // On the same port, and with a provider that has the same name.
    let answering = Provider::start(Manner::Answer).await;
    let service = Service::start_on(folder, &answering.config(), port).await;
    let mut most = Duration::ZERO;
    for (n, (visitor, shown, read)) in visitors.iter().enumerate() {
        let back = Visitor::back(port, visitor.conversation()).await;
        let [turn] = back.history() else {
            panic!("{:?}", back.history())
        };
        assert_eq!(
            (&turn["state"], &turn["finish"]),
            (&json!("interrupted"), &json!("interrupted"))
        );
        assert_eq!(turn["question"], format!("question {n}"));
        let text = turn["text"].as_str().unwrap();
        // The service may have been ahead of what had reached the visitor, never of another opinion.
        assert!(
            text.starts_with(&shown.text) || shown.text.starts_with(text),
            "{text}\n\n{}",
            shown.text
        );
        assert!(read.len() > 20, "it read on");
        let missing = read.iter().find(|(_, shown)| shown.len() > text.len());
        most = most.max(missing.map_or(Duration::ZERO, |(at, _)| killed.duration_since(*at)));
    }
    let visitors = visitors
        .into_iter()
        .map(|(visitor, shown, _)| (visitor, shown));
    (service, visitors.collect(), most)
}

#[tokio::test]
async fn an_answer_cut_by_a_crash_is_there_as_interrupted_and_can_be_had_again() {
    let _alone = alone().await;
    let mut least = Duration::MAX;
    // A machine that is busy elsewhere may hold a checkpoint up once; what is built wrong loses too much each time.
    for _ in 0..3 {
        let folder = TempDir::new().unwrap();
        let (service, visitors, lost) = cut(folder.path()).await;
        println!(
            "of {CUT} answers cut by a crash at most the last {} were lost",
            ms(lost)
        );
        least = least.min(lost);
        if least <= LOST {
            let (visitor, shown) = &visitors[0];
            resumed(service.port, visitor.conversation(), shown).await;
            retried(service.port, visitor.conversation(), shown).await;
            assert_eq!(service.stop().await.code, Some(0));
            return;
        }
    }
    panic!("at least {least:?} were lost");
}

/// Who comes back to the turn is told how it ended.
async fn resumed(port: u16, conversation: &str, shown: &Shown) {
    let resume = json!({ "turn": shown.turn(), "seq": shown.seq });
    let mut back = Visitor::enter(
        port,
        json!({ "conversation": conversation, "resume": resume }),
    )
    .await;
    let mut again = Shown::default();
    back.read(&mut again, usize::MAX).await;
    assert_eq!(again.turn(), shown.turn());
    assert_eq!(*again.end("finish"), "interrupted");
}

/// The same message is the same turn; a retry is a new one that says what it is.
async fn retried(port: u16, conversation: &str, shown: &Shown) {
    let mut back = Visitor::back(port, conversation).await;
    let turn = back.history()[0].clone();
    let id = turn["client_msg_id"].clone();
    back.say(json!({ "type": "send", "client_msg_id": id, "text": turn["question"] }))
        .await;
    let accepted = back.next("accepted").await;
    assert_eq!(
        (&accepted["turn"], &accepted["duplicate"]),
        (&json!(shown.turn()), &json!(true))
    );
    back.next("done").await;
    back.say(json!({ "type": "retry", "turn": shown.turn(), "client_msg_id": "retry-1" }))
        .await;
    let again = back.answer().await;
    assert_eq!(again.start.as_ref().unwrap()["retry_of"], shown.turn());
    assert_eq!(again.accepted.as_ref().unwrap()["duplicate"], false);
    assert_eq!(
        (again.end("finish"), again.end("source")),
        (&json!("stop"), &json!("ai"))
    );
    let back = Visitor::back(port, conversation).await;
    let states: Vec<_> = back
        .history()
        .iter()
        .map(|turn| (&turn["state"], &turn["retry_of"]))
        .collect();
    let first = json!(shown.turn());
    assert_eq!(
        states,
        [
            (&json!("interrupted"), &Value::Null),
            (&json!("done"), &first)
        ]
    );
}

/// What one visitor was told of their messages.
#[derive(Default)]
struct Told {
    conversation: String,
    /// The text of each accepted message, by turn.
    accepted: BTreeMap<String, String>,
    /// The turns whose end was seen.
    ended: Vec<String>,
    durable: bool,
}

/// Sends message after message until the service is gone, ticking for each that is accepted.
async fn talk(port: u16, n: usize, tick: tokio::sync::mpsc::UnboundedSender<()>) -> Told {
    let mut visitor = Visitor::new(port).await;
    let conversation = visitor.conversation().to_owned();
    let mut told = Told {
        conversation,
        durable: true,
        ..Told::default()
    };
    for message in 0.. {
        let text = format!("message {message} of {n}");
        if visitor
            .try_say(
                json!({ "type": "send", "client_msg_id": format!("m{message}"), "text": text }),
            )
            .await
            .is_err()
        {
            break;
        }
        let mut shown = Shown::default();
        while shown.done.is_none() || shown.accepted.is_none() {
            let Heard::Frame(frame) = visitor.hear().await else {
                return told;
            };
            shown.apply(&frame);
            if frame["type"] == "accepted" {
                told.durable &= frame["durable"] == true;
                told.accepted
                    .insert(frame["turn"].as_str().unwrap().to_owned(), text.clone());
                let _ = tick.send(());
            }
        }
        told.ended.push(shown.turn().to_owned());
    }
    told
}

#[tokio::test]
async fn every_message_that_was_accepted_is_there_after_a_crash() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let port = service.port;
    let (tick, mut ticks) = tokio::sync::mpsc::unbounded_channel();
    let talking = join_all((0..16).map(|n| tokio::spawn(talk(port, n, tick.clone()))));
    for _ in 0..200 {
        within("an accepted message", ticks.recv()).await.unwrap();
    }
    service.kill().await;
    let told: Vec<Told> = talking.await.into_iter().map(Result::unwrap).collect();

    let _service = Service::start_on(folder.path(), &provider.config(), port).await;
    let (mut accepted, mut interrupted) = (0, 0);
    for one in &told {
        let back = Visitor::back(port, &one.conversation).await;
        let turns: BTreeMap<_, _> = back
            .history()
            .iter()
            .map(|turn| (turn["turn"].as_str().unwrap(), turn))
            .collect();
        for (turn, text) in &one.accepted {
            let found = turns
                .get(turn.as_str())
                .unwrap_or_else(|| panic!("{text} is gone"));
            assert_eq!(found["question"], *text);
            // An end that was shown was written before, unless the disk was too slow, which is said by `durable`.
            let ended = one.ended.contains(turn) && one.durable;
            assert!(!ended || found["state"] == "done", "{found}");
            match found["state"].as_str().unwrap() {
                "done" => assert_eq!(found["text"], whole(text)),
                "interrupted" => interrupted += 1,
                other => panic!("{other}"),
            }
        }
        accepted += one.accepted.len();
    }
    println!(
        "{accepted} accepted messages are there after the crash, {interrupted} of them interrupted"
    );
    assert!(accepted >= 200);
}

/// How the status sees a provider.
fn provider<'s>(status: &'s Value, name: &str) -> &'s Value {
    let all = status["providers"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap()
}

/// Asks, and stops the answer as soon as the second provider has begun it.
async fn stopped(visitor: &mut Visitor) -> Shown {
    let mut shown = Shown::default();
    visitor.send("Is the first one broken?").await;
    visitor.read(&mut shown, 1).await;
    visitor
        .say(json!({ "type": "stop", "turn": shown.turn() }))
        .await;
    visitor.read(&mut shown, usize::MAX).await;
    assert_eq!(
        (shown.end("provider"), shown.end("finish")),
        (&json!("borealis"), &json!("stopped"))
    );
    shown
}

#[tokio::test]
async fn a_breaker_that_was_open_comes_back_open() {
    for (fault, state, crash) in [("down", "open", true), ("unauthorized", "blocked", false)] {
        let folder = TempDir::new().unwrap();
        let service = Service::start(folder.path(), UNLIMITED).await;
        let mut visitor = Visitor::new(service.port).await;
        let broken = service
            .post("/demo/providers/aurora", json!({ "fault": fault }))
            .await;
        assert_eq!(broken.status, 200, "{}", broken.body);
        let trip = async {
            loop {
                stopped(&mut visitor).await;
                let status = service.get("/status.json").await.json();
                if provider(&status, "aurora")["state"] != "closed" {
                    return status;
                }
            }
        };
        let status = within("the breaker to trip", trip).await;
        let before = provider(&status, "aurora").clone();
        assert_eq!(
            (&before["state"], &before["healthy"]),
            (&json!(state), &json!(false))
        );
        // Written in the order of the calls: when this is on disk, the breaker is.
        assert_eq!(
            stopped(&mut visitor).await.accepted.unwrap()["durable"],
            true
        );
        if crash {
            service.kill().await;
        } else {
            assert_eq!(service.stop().await.code, Some(0));
        }
        let service = Service::start(folder.path(), UNLIMITED).await;
        let status = service.get("/status.json").await.json();
        let after = provider(&status, "aurora");
        assert_ne!(after["state"], "closed", "{fault}: {after}");
        assert_ne!(status["active"], "aurora");
        assert_eq!(provider(&status, "borealis")["state"], "closed");
        if after["state"] == *state {
            assert_eq!(after["reason"], before["reason"], "{fault}");
        }
    }
}

#[tokio::test]
async fn an_answer_cut_by_a_crash_comes_late_and_once() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Drip(PACE)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut conversations = Vec::new();
    for n in 0..3 {
        let (mut visitor, mut shown) = (Visitor::new(service.port).await, Shown::default());
        visitor.send(&format!("question {n}")).await;
        visitor.read(&mut shown, 5).await;
        conversations.push(visitor.conversation().to_owned());
    }
    service.kill().await;
    provider.now(Manner::Answer);
    let service = Service::start(folder.path(), &provider.config()).await;
    for (n, conversation) in conversations.iter().enumerate() {
        let mut back = Visitor::back(service.port, conversation).await;
        assert_eq!(back.history()[0]["state"], "interrupted");
        let known = back.history()[0]["followup"].clone();
        let late = if known.is_null() {
            back.next("followup").await
        } else {
            known
        };
        assert_eq!(late["text"], whole(&format!("question {n}")));
    }
    // Another crash, and nobody is asked again.
    service.kill().await;
    let asked = provider.requests().len();
    let service = Service::start(folder.path(), &provider.config()).await;
    for conversation in &conversations {
        let back = Visitor::back(service.port, conversation).await;
        assert!(back.history()[0]["followup"]["text"].is_string());
    }
    Visitor::new(service.port).await.ask("And now?").await;
    assert_eq!(provider.requests().len(), asked + 1);
}
