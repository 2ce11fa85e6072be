//! A visitor with a real WebSocket, who checks frames as the protocol requires of a client.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use futures_util::{SinkExt as _, StreamExt as _};

use super::wait_for;

pub enum SocketEvent {
    Frame(Value),
    /// The end of the connection, with its close code if there is one.
    Closed(Option<u16>),
}

/// A visitor in a conversation.
pub struct Visitor {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The `welcome` frame.
    pub welcome: Value,
    messages: u32,
}

impl Visitor {
    pub async fn new(port: u16) -> Self {
        Self::connect(port, json!({ "conversation": null })).await
    }

    /// Returns to a conversation.
    pub async fn back(port: u16, conversation: &str) -> Self {
        Self::connect(port, json!({ "conversation": conversation })).await
    }

    /// Connects, and sends a `hello` frame with these fields.
    pub async fn connect(port: u16, hello: Value) -> Self {
        Self::connect_with_header(port, hello, None).await
    }

    /// Like [`Self::connect`], with an additional header in the handshake.
    pub async fn connect_with_header(
        port: u16,
        hello: Value,
        header: Option<(&'static str, &str)>,
    ) -> Self {
        let visitor = Self::try_connect(port, hello, header).await;
        visitor.unwrap_or_else(|| panic!("the visitor was not welcomed"))
    }

    /// Like [`Self::connect_with_header`]. Returns `None` if the service is gone.
    pub async fn try_connect(
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
        // The default buffers would take too much memory for thousands of visitors.
        let small = WebSocketConfig::default().read_buffer_size(4096);
        let opening = connect_async_with_config(request, Some(small), true);
        let (socket, _) = wait_for("the handshake", opening).await.ok()?;
        let mut visitor = Self {
            socket,
            welcome: Value::Null,
            messages: 0,
        };
        hello["type"] = "hello".into();
        visitor.try_send_frame(hello).await.ok()?;
        loop {
            match visitor.next_event().await {
                SocketEvent::Frame(frame) if frame["type"] == "welcome" => {
                    visitor.welcome = frame;
                    return Some(visitor);
                }
                SocketEvent::Frame(frame) if frame["type"] == "error" => panic!("{frame}"),
                SocketEvent::Frame(_) => {}
                SocketEvent::Closed(_) => return None,
            }
        }
    }

    pub fn conversation(&self) -> &str {
        self.welcome["conversation"].as_str().unwrap()
    }

    /// The turns of the `welcome` frame.
    pub fn history(&self) -> &[Value] {
        self.welcome["history"].as_array().unwrap()
    }

    /// Sends a frame; panics if the connection is gone.
    pub async fn send_frame(&mut self, frame: Value) {
        self.try_send_frame(frame).await.unwrap();
    }

    /// Sends a frame. Returns an error if the connection is gone.
    pub async fn try_send_frame(&mut self, frame: Value) -> Result<(), Error> {
        self.socket.send(Message::text(frame.to_string())).await
    }

    /// Sends a message with a new `client_msg_id`, which is returned.
    pub async fn send_message(&mut self, text: &str) -> String {
        self.messages += 1;
        // The history's length keeps ids of different visits apart.
        let id = format!("m{}-{}", self.messages, self.history().len());
        self.send_frame(json!({ "type": "send", "client_msg_id": id, "text": text }))
            .await;
        id
    }

    /// Waits for the next frame, or for the close.
    pub async fn next_event(&mut self) -> SocketEvent {
        loop {
            match wait_for("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return SocketEvent::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(frame))) => {
                    return SocketEvent::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return SocketEvent::Closed(None),
            }
        }
    }

    /// Returns the next frame of this type, skipping others.
    pub async fn next(&mut self, kind: &str) -> Value {
        loop {
            match self.next_event().await {
                SocketEvent::Frame(frame) if frame["type"] == kind => return frame,
                SocketEvent::Frame(frame) if frame["type"] == "error" => panic!("{frame}"),
                SocketEvent::Frame(_) => {}
                SocketEvent::Closed(code) => panic!("closed with {code:?} before {kind}"),
            }
        }
    }

    pub async fn next_error(&mut self, code: &str) -> Value {
        loop {
            match self.next_event().await {
                SocketEvent::Frame(frame) if frame["type"] == "error" => {
                    assert_eq!(frame["code"], code, "{frame}");
                    return frame;
                }
                SocketEvent::Frame(_) => {}
                SocketEvent::Closed(code) => panic!("closed with {code:?} before an error"),
            }
        }
    }

    /// Reads until the turn shows at least this many characters, or ends.
    pub async fn read_at_least(&mut self, shown: &mut ShownTurn, chars: usize) {
        while shown.done.is_none() && shown.text.chars().count() < chars {
            match self.next_event().await {
                SocketEvent::Frame(frame) => shown.apply(&frame),
                SocketEvent::Closed(code) => panic!("closed with {code:?} in mid-answer"),
            }
        }
    }
    pub async fn read_to_end(&mut self, shown: &mut ShownTurn) {
        self.read_at_least(shown, usize::MAX).await;
    }

    /// Reads the next turn to its end.
    pub async fn read_answer(&mut self) -> ShownTurn {
        let mut shown = ShownTurn::default();
        self.read_to_end(&mut shown).await;
        shown
    }

    /// Sends a message and reads its answer.
    pub async fn ask(&mut self, text: &str) -> ShownTurn {
        self.send_message(text).await;
        self.read_answer().await
    }

    /// Reads until the connection closes, and returns the close code.
    pub async fn read_until_close(&mut self, shown: &mut ShownTurn) -> Option<u16> {
        loop {
            match self.next_event().await {
                SocketEvent::Frame(frame) => shown.apply(&frame),
                SocketEvent::Closed(code) => return code,
            }
        }
    }
}

/// One turn as a client displays it.
#[derive(Debug, Default)]
pub struct ShownTurn {
    /// The turn's id, once it is known.
    pub turn: Option<Value>,
    pub text: String,
    /// The sequence number of the last frame.
    pub seq: u64,
    /// The `accepted` frame, if this visitor sent the message.
    pub accepted: Option<Value>,
    /// The `start` frame.
    pub start: Option<Value>,
    /// The `done` frame.
    pub done: Option<Value>,
}

impl ShownTurn {
    /// Applies a frame as the protocol specifies. Frames that belong to no turn are ignored.
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
                    "the text of `done` differs from the shown text"
                );
                self.done = Some(frame.clone());
            }
            _ => {}
        }
    }

    /// A field of the `done` frame.
    pub fn done_field(&self, field: &str) -> &Value {
        let done = self
            .done
            .as_ref()
            .unwrap_or_else(|| panic!("no done: {self:?}"));
        &done[field]
    }

    pub fn turn_id(&self) -> &str {
        self.turn.as_ref().and_then(Value::as_str).unwrap()
    }
}
