//! Visitors who talk without end, whatever becomes of the instances: who is cut off comes back, and sends again what was not answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::binary::ws_client::{Heard, Visitor};

/// Messages of one conversation: so few that its history shows all of them.
const ASKED: usize = 80;

/// The pause before the same is tried again: an instance that is being started has no event to wait for.
const AGAIN: Duration = Duration::from_millis(20);

/// Where the instances are at present.
pub type Ports = Arc<[AtomicU16; 2]>;

/// What a visitor was told of a turn.
#[derive(Debug)]
pub struct Accepted {
    /// The name of the message that opened it.
    pub message: String,
    pub text: String,
    /// Whether a disk had it.
    pub durable: bool,
}

/// What a visitor was told of one conversation.
#[derive(Default)]
pub struct Talked {
    pub conversation: String,
    /// By turn.
    pub accepted: BTreeMap<String, Accepted>,
    /// Whether the visitor went to another instance in the middle.
    pub roamed: bool,
}

/// A visitor, and which instance it goes to.
pub struct Talker {
    pub ports: Ports,
    /// The instance of its first conversation; the next one begins at the other.
    pub first: usize,
    /// Whether it comes back to any instance, instead of the one where it was.
    pub roams: bool,
    pub name: usize,
}

impl Talker {
    /// Talks until it is over, one conversation after the other, and tells what was accepted.
    pub async fn talk(self, over: watch::Receiver<bool>) -> Vec<Talked> {
        let mut all = Vec::new();
        for round in 0.. {
            let mut at = Place {
                ports: &self.ports,
                which: self.first + round,
                visitor: None,
            };
            let mut talked = Talked::default();
            for message in 0..ASKED {
                let text = format!("message {message} of {} in {round}", self.name);
                self.ask(&mut at, &mut talked, &format!("m{message}"), &text)
                    .await;
                if *over.borrow() {
                    break;
                }
            }
            all.push(talked);
            if *over.borrow() {
                return all;
            }
        }
        unreachable!("the rounds have no end")
    }

    /// Asks one question until it is answered.
    async fn ask(&self, at: &mut Place<'_>, talked: &mut Talked, id: &str, text: &str) {
        let message = json!({ "type": "send", "client_msg_id": id, "text": text });
        loop {
            let visitor = at.visitor(&mut talked.conversation).await;
            if visitor.try_say(message.clone()).await.is_ok()
                && answered(visitor, talked, id, text).await
            {
                return;
            }
            if !at.lives().await {
                talked.roamed |= self.roams;
                at.which += usize::from(self.roams);
            }
        }
    }
}

/// Reads to the end of the answer. False where the visitor is cut off, or has to ask again.
async fn answered(visitor: &mut Visitor, talked: &mut Talked, id: &str, text: &str) -> bool {
    let mut turn = Value::Null;
    loop {
        let Heard::Frame(frame) = visitor.hear().await else {
            return false;
        };
        match frame["type"].as_str().unwrap() {
            "accepted" => {
                turn = frame["turn"].clone();
                let (message, text, durable) =
                    (id.to_owned(), text.to_owned(), frame["durable"] == true);
                let known = talked.accepted.entry(turn.as_str().unwrap().to_owned());
                known
                    .or_insert(Accepted {
                        message,
                        text,
                        durable,
                    })
                    .durable |= durable;
            }
            "done" if frame["turn"] == turn => return true,
            // Its own turn, or what is left of it, on an instance that is gone.
            "error" if frame["code"] == "busy" => return false,
            "error" => panic!("{frame}"),
            _ => {}
        }
    }
}

/// Where a visitor is.
struct Place<'p> {
    ports: &'p Ports,
    which: usize,
    visitor: Option<Visitor>,
}

impl Place<'_> {
    /// The visitor, who comes as often as it takes.
    async fn visitor(&mut self, conversation: &mut String) -> &mut Visitor {
        while self.visitor.is_none() {
            let hello =
                json!({ "conversation": (!conversation.is_empty()).then_some(&*conversation) });
            let port = self.ports[self.which % self.ports.len()].load(Ordering::Relaxed);
            self.visitor = Visitor::try_enter(port, hello, None).await;
            if let Some(visitor) = &self.visitor {
                visitor.conversation().clone_into(conversation);
            } else {
                sleep(AGAIN).await;
            }
        }
        self.visitor.as_mut().unwrap()
    }

    /// Whether the socket still stands; one that does not is left.
    async fn lives(&mut self) -> bool {
        sleep(AGAIN).await;
        let lives = match &mut self.visitor {
            Some(visitor) => visitor.try_say(json!({ "type": "ping" })).await.is_ok(),
            None => false,
        };
        if !lives {
            self.visitor = None;
        }
        lives
    }
}
