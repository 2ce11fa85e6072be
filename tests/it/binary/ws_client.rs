//! A visitor with a real WebSocket, who reads frames as the protocol says a client has to.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use futures_util::{SinkExt as _, StreamExt as _};

use super::within;

/// What comes over a socket.
pub enum Heard {
    /// A frame.
    Frame(Value),
    /// The end, with its close code where there is one.
    Closed(Option<u16>),
}

/// A visitor in a conversation.
pub struct Visitor {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The frame that greeted them.
    pub welcome: Value,
    messages: u32,
}

impl Visitor {
    /// Opens a new conversation.
    pub async fn new(port: u16) -> Self {
        Self::enter(port, json!({ "conversation": null })).await
    }

    /// Comes back to a conversation.
    pub async fn back(port: u16, conversation: &str) -> Self {
        Self::enter(port, json!({ "conversation": conversation })).await
    }

    /// Says hello with these fields.
    pub async fn enter(port: u16, hello: Value) -> Self {
        Self::with_header(port, hello, None).await
    }

    /// Says hello with these fields, over a handshake with this header.
    pub async fn with_header(
        port: u16,
        hello: Value,
        header: Option<(&'static str, &str)>,
    ) -> Self {
        let entered = Self::try_enter(port, hello, header).await;
        entered.unwrap_or_else(|| panic!("the visitor was not let in"))
    }

    /// The same at a service that may be gone: none where it is.
    pub async fn try_enter(
        port: u16,
        mut hello: Value,
        header: Option<(&'static str, &str)>,
    ) -> Option<Self> {
        let mut request = format!("ws://127.0.0.1:{port}/ws")
            .into_client_request()
            .unwrap();
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        // The usual buffers would make thousands of visitors a matter of this process's memory.
        let small = WebSocketConfig::default().read_buffer_size(4096);
        let opening = connect_async_with_config(request, Some(small), true);
        let (socket, _) = within("the handshake", opening).await.ok()?;
        let mut visitor = Self {
            socket,
            welcome: Value::Null,
            messages: 0,
        };
        hello["type"] = "hello".into();
        visitor.try_say(hello).await.ok()?;
        loop {
            match visitor.hear().await {
                Heard::Frame(frame) if frame["type"] == "welcome" => {
                    visitor.welcome = frame;
                    return Some(visitor);
                }
                Heard::Frame(frame) if frame["type"] == "error" => panic!("{frame}"),
                Heard::Frame(_) => {}
                Heard::Closed(_) => return None,
            }
        }
    }

    /// The conversation's id.
    pub fn conversation(&self) -> &str {
        self.welcome["conversation"].as_str().unwrap()
    }

    /// The turns that the greeting showed.
    pub fn history(&self) -> &[Value] {
        self.welcome["history"].as_array().unwrap()
    }

    /// Sends a frame.
    pub async fn say(&mut self, frame: Value) {
        self.try_say(frame).await.unwrap();
    }

    /// Sends a frame to a service that may be gone.
    pub async fn try_say(&mut self, frame: Value) -> Result<(), Error> {
        self.socket.send(Message::text(frame.to_string())).await
    }

    /// Sends a message under a name of its own, which is given back.
    pub async fn send(&mut self, text: &str) -> String {
        self.messages += 1;
        // Unlike in each visit: what an earlier one sent is another message.
        let id = format!("m{}-{}", self.messages, self.history().len());
        self.say(json!({ "type": "send", "client_msg_id": id, "text": text }))
            .await;
        id
    }

    /// What comes next.
    pub async fn hear(&mut self) -> Heard {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Closed(None),
            }
        }
    }

    /// The next frame of this type; others are passed over.
    pub async fn next(&mut self, kind: &str) -> Value {
        loop {
            match self.hear().await {
                Heard::Frame(frame) if frame["type"] == kind => return frame,
                Heard::Frame(frame) if frame["type"] == "error" => panic!("{frame}"),
                Heard::Frame(_) => {}
                Heard::Closed(code) => panic!("closed with {code:?} before {kind}"),
            }
        }
    }

    /// Waits for an error frame with this code.
    pub async fn next_error(&mut self, code: &str) -> Value {
        loop {
            match self.hear().await {
                Heard::Frame(frame) if frame["type"] == "error" => {
                    assert_eq!(frame["code"], code, "{frame}");
                    return frame;
                }
                Heard::Frame(_) => {}
                Heard::Closed(code) => panic!("closed with {code:?} before an error"),
            }
        }
    }

    /// Reads on until the turn shows at least so many characters, or ends.
    pub async fn read(&mut self, shown: &mut Shown, chars: usize) {
        while shown.done.is_none() && shown.text.chars().count() < chars {
            match self.hear().await {
                Heard::Frame(frame) => shown.apply(&frame),
                Heard::Closed(code) => panic!("closed with {code:?} in mid-answer"),
            }
        }
    }

    /// Reads the next turn to its end.
    pub async fn answer(&mut self) -> Shown {
        let mut shown = Shown::default();
        self.read(&mut shown, usize::MAX).await;
        shown
    }

    /// Sends a message and reads its answer.
    pub async fn ask(&mut self, text: &str) -> Shown {
        self.send(text).await;
        self.answer().await
    }

    /// Reads on to the close, and gives its code.
    pub async fn leave(&mut self, shown: &mut Shown) -> Option<u16> {
        loop {
            match self.hear().await {
                Heard::Frame(frame) => shown.apply(&frame),
                Heard::Closed(code) => return code,
            }
        }
    }
}

/// One turn as a client shows it.
#[derive(Debug, Default)]
pub struct Shown {
    /// The turn, once it is known.
    pub turn: Option<Value>,
    /// The text that stands.
    pub text: String,
    /// The last frame applied.
    pub seq: u64,
    /// The frame that accepted the message, where this visitor sent it.
    pub accepted: Option<Value>,
    /// The frame that opened the turn.
    pub start: Option<Value>,
    /// The frame that ended it.
    pub done: Option<Value>,
}

impl Shown {
    /// Applies a frame of the turn as the protocol says; what belongs to no turn is passed over.
    pub fn apply(&mut self, frame: &Value) {
        let kind = frame["type"].as_str().unwrap();
        match kind {
            "start" | "attempt" | "token" | "restart" | "done" | "snapshot" => {}
            "accepted" => return self.accepted = Some(frame.clone()),
            "error" => panic!("{frame}"),
            _ => return,
        }
        let turn = self.turn.get_or_insert_with(|| frame["turn"].clone());
        assert_eq!(*turn, frame["turn"], "frames of two turns at once");
        assert!(self.done.is_none(), "after done: {frame}");
        let seq = frame["seq"].as_u64().unwrap();
        assert!(
            kind == "snapshot" || seq == self.seq + 1,
            "after frame {}: {frame}",
            self.seq
        );
        self.seq = seq;
        match kind {
            "start" => self.start = Some(frame.clone()),
            "token" => self.text.push_str(frame["text"].as_str().unwrap()),
            "restart" => self.text.clear(),
            "snapshot" => frame["text"].as_str().unwrap().clone_into(&mut self.text),
            "done" => {
                assert_eq!(
                    frame["text"], self.text,
                    "done says another text than was shown"
                );
                self.done = Some(frame.clone());
            }
            _ => {}
        }
    }

    /// A field of the end.
    pub fn end(&self, field: &str) -> &Value {
        let done = self
            .done
            .as_ref()
            .unwrap_or_else(|| panic!("no done: {self:?}"));
        &done[field]
    }

    /// The turn's id as text.
    pub fn turn(&self) -> &str {
        self.turn.as_ref().and_then(Value::as_str).unwrap()
    }
}
