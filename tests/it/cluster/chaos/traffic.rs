//! Visitors who talk without a pause while instances and Redis fail. A visitor who is cut off comes
//! back, and sends the message again that was not answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::binary::ws_client::{SocketEvent, Visitor};

/// Messages of one conversation: few enough for its history to show all of them.
const MESSAGES_PER_CONVERSATION: usize = 80;

/// The pause before a retry: the start of an instance has no event to wait for.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// The current ports of the instances.
pub type Ports = Arc<[AtomicU16; 2]>;

/// A turn that a visitor's message was accepted as.
#[derive(Debug)]
pub struct AcceptedMessage {
    /// The `client_msg_id` of the message.
    pub message: String,
    pub text: String,
    pub durable: bool,
}

/// The frames that a visitor received in one conversation.
#[derive(Default)]
pub struct ConversationLog {
    pub conversation: String,
    /// By turn id.
    pub accepted: BTreeMap<String, AcceptedMessage>,
    /// The visitor changed to another instance during the conversation.
    pub roamed: bool,
}

pub struct TalkingVisitor {
    pub ports: Ports,
    /// The index of the instance for the first conversation; the next one starts at the other.
    pub first: usize,
    /// The visitor reconnects to the other instance instead of the same one.
    pub roams: bool,
    pub name: usize,
}

impl TalkingVisitor {
    /// Talks until `over` is set, in one conversation after the other.
    pub async fn talk(self, over: watch::Receiver<bool>) -> Vec<ConversationLog> {
        let mut conversations = Vec::new();
        for round in 0.. {
            let mut connection = Connection {
                ports: &self.ports,
                index: self.first + round,
                visitor: None,
            };
            let mut log = ConversationLog::default();
            for message in 0..MESSAGES_PER_CONVERSATION {
                let text = format!("message {message} of {} in {round}", self.name);
                self.ask(&mut connection, &mut log, &format!("m{message}"), &text)
                    .await;
                if *over.borrow() {
                    break;
                }
            }
            conversations.push(log);
            if *over.borrow() {
                return conversations;
            }
        }
        unreachable!("the rounds have no end")
    }

    /// Sends a message until it is answered.
    async fn ask(
        &self,
        connection: &mut Connection<'_>,
        log: &mut ConversationLog,
        id: &str,
        text: &str,
    ) {
        let message = json!({ "type": "send", "client_msg_id": id, "text": text });
        loop {
            let visitor = connection.visitor(&mut log.conversation).await;
            if visitor.try_send_frame(message.clone()).await.is_ok()
                && read_answer(visitor, log, id, text).await
            {
                return;
            }
            if !connection.is_open().await {
                log.roamed |= self.roams;
                connection.index += usize::from(self.roams);
            }
        }
    }
}

/// Reads to the end of the answer. Returns `false` if the visitor is cut off, or has to ask again.
async fn read_answer(
    visitor: &mut Visitor,
    log: &mut ConversationLog,
    id: &str,
    text: &str,
) -> bool {
    let mut turn = Value::Null;
    loop {
        let SocketEvent::Frame(frame) = visitor.next_event().await else {
            return false;
        };
        match frame["type"].as_str().unwrap() {
            "accepted" => {
                turn = frame["turn"].clone();
                let durable = frame["durable"] == true;
                let known = log.accepted.entry(turn.as_str().unwrap().to_owned());
                known
                    .or_insert(AcceptedMessage {
                        message: id.to_owned(),
                        text: text.to_owned(),
                        durable,
                    })
                    .durable |= durable;
            }
            "done" if frame["turn"] == turn => return true,
            // The visitor's previous turn still runs, or its dead instance still has the claim.
            "error" if frame["code"] == "busy" => return false,
            "error" => panic!("{frame}"),
            _ => {}
        }
    }
}

/// A visitor's connection to one of the instances.
struct Connection<'p> {
    ports: &'p Ports,
    /// The index of the instance, modulo their number.
    index: usize,
    visitor: Option<Visitor>,
}

impl Connection<'_> {
    /// The visitor, connected again if needed. Retries until the connection succeeds.
    async fn visitor(&mut self, conversation: &mut String) -> &mut Visitor {
        while self.visitor.is_none() {
            let hello =
                json!({ "conversation": (!conversation.is_empty()).then_some(&*conversation) });
            let port = self.ports[self.index % self.ports.len()].load(Ordering::Relaxed);
            self.visitor = Visitor::try_connect(port, hello, None).await;
            if let Some(visitor) = &self.visitor {
                visitor.conversation().clone_into(conversation);
            } else {
                sleep(RETRY_DELAY).await;
            }
        }
        self.visitor.as_mut().unwrap()
    }

    /// Checks the connection, and drops the visitor if it is closed.
    async fn is_open(&mut self) -> bool {
        sleep(RETRY_DELAY).await;
        let is_open = match &mut self.visitor {
            Some(visitor) => visitor
                .try_send_frame(json!({ "type": "ping" }))
                .await
                .is_ok(),
            None => false,
        };
        if !is_open {
            self.visitor = None;
        }
        is_open
    }
}
