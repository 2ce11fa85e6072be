//! Crash recovery: the state of conversations, answers and breakers after a kill and a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{join_all, select_all};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Behavior, Provider, UNLIMITED, full_answer};
use super::service::{Service, ms};
use super::ws_client::{ShownTurn, SocketEvent, Visitor};
use super::{exclusive, wait_for};

/// The most recent text that a crash may lose.
const MAX_LOST: Duration = Duration::from_millis(500);

/// The pause between two words of an interrupted answer.
const WORD_PAUSE: Duration = Duration::from_millis(20);

/// The number of running answers at the crash.
const RUNNING_ANSWERS: usize = 16;

/// A visitor's text at each moment of reading.
type ReadTimes = Vec<(Instant, String)>;

/// Reads until the text has this many characters, recording the text after each frame.
async fn read_recording(
    visitor: &mut Visitor,
    shown: &mut ShownTurn,
    read: &mut ReadTimes,
    chars: usize,
) {
    while shown.text.len() < chars {
        visitor
            .read_at_least(shown, shown.text.chars().count() + 1)
            .await;
        assert!(shown.done.is_none(), "it ended before it could be cut");
        read.push((Instant::now(), shown.text.clone()));
    }
}

/// Kills the service under running answers, and starts it again.
///
/// Returns the new service, the visitors with what they had read, and the longest time whose text
/// is lost.
async fn crash_and_restart(folder: &Path) -> (Service, Vec<(Visitor, ShownTurn)>, Duration) {
    let provider = Provider::start(Behavior::Drip(WORD_PAUSE)).await;
    let service = Service::start(folder, &provider.config()).await;
    let port = service.port;
    // Each answer starts when the previous one has some text, of varying length, so that their
    // checkpoints are spread over time.
    let mut visitors: Vec<(Visitor, ShownTurn, ReadTimes)> = Vec::new();
    for n in 0..RUNNING_ANSWERS {
        let mut visitor = Visitor::new(port).await;
        let mut shown = ShownTurn::default();
        visitor.send_message(&format!("question {n}")).await;
        visitor.read_at_least(&mut shown, 25 + 5 * (n % 7)).await;
        visitors.push((visitor, shown, Vec::new()));
    }
    // The last visitor reads 500 characters, which takes several checkpoints; the others read on
    // meanwhile.
    let reading = visitors
        .iter_mut()
        .zip(1..)
        .map(|((visitor, shown, read), place)| {
            let chars = if place == RUNNING_ANSWERS {
                500
            } else {
                usize::MAX
            };
            read_recording(visitor, shown, read, chars).boxed_local()
        });
    drop(select_all(reading).await);
    let killed = Instant::now();
    service.kill().await;

    // On the same port, and with a provider of the same name.
    let answering = Provider::start(Behavior::Answer).await;
    let service = Service::start_on(folder, &answering.config(), port).await;
    let mut max_lost = Duration::ZERO;
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
        // The service may have been ahead of the visitor, but never has another text.
        assert!(
            text.starts_with(&shown.text) || shown.text.starts_with(text),
            "{text}\n\n{}",
            shown.text
        );
        assert!(read.len() > 20, "the visitor read on");
        let missing = read.iter().find(|(_, shown)| shown.len() > text.len());
        max_lost =
            max_lost.max(missing.map_or(Duration::ZERO, |(at, _)| killed.duration_since(*at)));
    }
    let visitors = visitors
        .into_iter()
        .map(|(visitor, shown, _)| (visitor, shown));
    (service, visitors.collect(), max_lost)
}

#[tokio::test]
async fn a_crash_leaves_answers_interrupted_and_they_can_be_retried() {
    let _exclusive = exclusive().await;
    let mut min_lost = Duration::MAX;
    // A busy machine may delay a checkpoint once; a real defect loses too much every time.
    for _ in 0..3 {
        let folder = TempDir::new().unwrap();
        let (service, visitors, lost) = crash_and_restart(folder.path()).await;
        println!(
            "of {RUNNING_ANSWERS} answers cut by a crash at most the last {} were lost",
            ms(lost)
        );
        min_lost = min_lost.min(lost);
        if min_lost <= MAX_LOST {
            let (visitor, shown) = &visitors[0];
            assert_resumes_as_interrupted(service.port, visitor.conversation(), shown).await;
            assert_retry_succeeds(service.port, visitor.conversation(), shown).await;
            assert_eq!(service.stop().await.code, Some(0));
            return;
        }
    }
    panic!("at least {min_lost:?} were lost");
}

/// A visitor who resumes the turn learns that it was interrupted.
async fn assert_resumes_as_interrupted(port: u16, conversation: &str, shown: &ShownTurn) {
    let resume = json!({ "turn": shown.turn_id(), "seq": shown.seq });
    let mut back = Visitor::connect(
        port,
        json!({ "conversation": conversation, "resume": resume }),
    )
    .await;
    let mut again = ShownTurn::default();
    back.read_to_end(&mut again).await;
    assert_eq!(again.turn_id(), shown.turn_id());
    assert_eq!(*again.done_field("finish"), "interrupted");
}

/// Sending the same message again gives the same turn; a retry gives a new one that refers to it.
async fn assert_retry_succeeds(port: u16, conversation: &str, shown: &ShownTurn) {
    let mut back = Visitor::back(port, conversation).await;
    let turn = back.history()[0].clone();
    let id = turn["client_msg_id"].clone();
    back.send_frame(json!({ "type": "send", "client_msg_id": id, "text": turn["question"] }))
        .await;
    let accepted = back.next("accepted").await;
    assert_eq!(
        (&accepted["turn"], &accepted["duplicate"]),
        (&json!(shown.turn_id()), &json!(true))
    );
    back.next("done").await;
    back.send_frame(
        json!({ "type": "retry", "turn": shown.turn_id(), "client_msg_id": "retry-1" }),
    )
    .await;
    let again = back.read_answer().await;
    assert_eq!(again.start.as_ref().unwrap()["retry_of"], shown.turn_id());
    assert_eq!(again.accepted.as_ref().unwrap()["duplicate"], false);
    assert_eq!(
        (again.done_field("finish"), again.done_field("source")),
        (&json!("stop"), &json!("ai"))
    );
    let back = Visitor::back(port, conversation).await;
    let states: Vec<_> = back
        .history()
        .iter()
        .map(|turn| (&turn["state"], &turn["retry_of"]))
        .collect();
    let first = json!(shown.turn_id());
    assert_eq!(
        states,
        [
            (&json!("interrupted"), &Value::Null),
            (&json!("done"), &first)
        ]
    );
}

/// The frames that one visitor received for their messages.
#[derive(Default)]
struct MessageLog {
    conversation: String,
    /// The text of each accepted message, by turn id.
    accepted: BTreeMap<String, String>,
    /// The turns whose `done` frame arrived.
    ended: Vec<String>,
    durable: bool,
}

/// Sends messages until the service is gone, and sends a tick for each accepted one.
async fn send_until_gone(
    port: u16,
    n: usize,
    tick: tokio::sync::mpsc::UnboundedSender<()>,
) -> MessageLog {
    let mut visitor = Visitor::new(port).await;
    let conversation = visitor.conversation().to_owned();
    let mut log = MessageLog {
        conversation,
        durable: true,
        ..MessageLog::default()
    };
    for message in 0.. {
        let text = format!("message {message} of {n}");
        if visitor
            .try_send_frame(
                json!({ "type": "send", "client_msg_id": format!("m{message}"), "text": text }),
            )
            .await
            .is_err()
        {
            break;
        }
        let mut shown = ShownTurn::default();
        while shown.done.is_none() || shown.accepted.is_none() {
            let SocketEvent::Frame(frame) = visitor.next_event().await else {
                return log;
            };
            shown.apply(&frame);
            if frame["type"] == "accepted" {
                log.durable &= frame["durable"] == true;
                log.accepted
                    .insert(frame["turn"].as_str().unwrap().to_owned(), text.clone());
                let _ = tick.send(());
            }
        }
        log.ended.push(shown.turn_id().to_owned());
    }
    log
}

#[tokio::test]
async fn every_accepted_message_survives_a_crash() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let port = service.port;
    let (tick, mut ticks) = tokio::sync::mpsc::unbounded_channel();
    let talking = join_all((0..16).map(|n| tokio::spawn(send_until_gone(port, n, tick.clone()))));
    for _ in 0..200 {
        wait_for("an accepted message", ticks.recv()).await.unwrap();
    }
    service.kill().await;
    let logs: Vec<MessageLog> = talking.await.into_iter().map(Result::unwrap).collect();

    let _service = Service::start_on(folder.path(), &provider.config(), port).await;
    let mut accepted = 0;
    let mut interrupted = 0;
    for log in &logs {
        let back = Visitor::back(port, &log.conversation).await;
        let turns: BTreeMap<_, _> = back
            .history()
            .iter()
            .map(|turn| (turn["turn"].as_str().unwrap(), turn))
            .collect();
        for (turn, text) in &log.accepted {
            let found = turns
                .get(turn.as_str())
                .unwrap_or_else(|| panic!("{text} is gone"));
            assert_eq!(found["question"], *text);
            // A turn is stored before its end is shown, unless the disk is too slow: then
            // `durable` is false.
            let ended = log.ended.contains(turn) && log.durable;
            assert!(!ended || found["state"] == "done", "{found}");
            match found["state"].as_str().unwrap() {
                "done" => assert_eq!(found["text"], full_answer(text)),
                "interrupted" => interrupted += 1,
                other => panic!("{other}"),
            }
        }
        accepted += log.accepted.len();
    }
    println!(
        "{accepted} accepted messages are there after the crash, {interrupted} of them interrupted"
    );
    assert!(accepted >= 200);
}

/// The status of the provider with this name.
fn provider_status<'s>(status: &'s Value, name: &str) -> &'s Value {
    let mut providers = status["providers"].as_array().unwrap().iter();
    providers.find(|provider| provider["name"] == name).unwrap()
}

/// Asks a question, and stops the answer as soon as the second provider has started it.
async fn ask_and_stop(visitor: &mut Visitor) -> ShownTurn {
    let mut shown = ShownTurn::default();
    visitor.send_message("Is the first one broken?").await;
    visitor.read_at_least(&mut shown, 1).await;
    visitor
        .send_frame(json!({ "type": "stop", "turn": shown.turn_id() }))
        .await;
    visitor.read_to_end(&mut shown).await;
    assert_eq!(
        (shown.done_field("provider"), shown.done_field("finish")),
        (&json!("borealis"), &json!("stopped"))
    );
    shown
}

#[tokio::test]
async fn an_open_breaker_is_open_after_a_restart() {
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
                ask_and_stop(&mut visitor).await;
                let status = service.get("/status.json").await.json();
                if provider_status(&status, "aurora")["state"] != "closed" {
                    return status;
                }
            }
        };
        let status = wait_for("the breaker to trip", trip).await;
        let before = provider_status(&status, "aurora").clone();
        assert_eq!(
            (&before["state"], &before["healthy"]),
            (&json!(state), &json!(false))
        );
        // Writes keep their order: when this turn is on disk, the breaker's state is too.
        assert_eq!(
            ask_and_stop(&mut visitor).await.accepted.unwrap()["durable"],
            true
        );
        if crash {
            service.kill().await;
        } else {
            assert_eq!(service.stop().await.code, Some(0));
        }
        let service = Service::start(folder.path(), UNLIMITED).await;
        let status = service.get("/status.json").await.json();
        let after = provider_status(&status, "aurora");
        assert_ne!(after["state"], "closed", "{fault}: {after}");
        assert_ne!(status["active"], "aurora");
        assert_eq!(provider_status(&status, "borealis")["state"], "closed");
        if after["state"] == *state {
            assert_eq!(after["reason"], before["reason"], "{fault}");
        }
    }
}

#[tokio::test]
async fn an_interrupted_answer_gets_one_followup_after_a_crash() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Drip(WORD_PAUSE)).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut conversations = Vec::new();
    for n in 0..3 {
        let mut visitor = Visitor::new(service.port).await;
        let mut shown = ShownTurn::default();
        visitor.send_message(&format!("question {n}")).await;
        visitor.read_at_least(&mut shown, 5).await;
        conversations.push(visitor.conversation().to_owned());
    }
    service.kill().await;
    provider.set_behavior(Behavior::Answer);
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
        assert_eq!(late["text"], full_answer(&format!("question {n}")));
    }
    // After another crash the provider is not asked again.
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
