//! A WebSocket client which checks that the server keeps to the chat protocol.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{PageModel, ShownTurn, TestApp, eventually};

/// A client. Its page outlives its connection.
pub struct WsClient {
    socket: WebSocketStream<TcpStream>,
    /// The turns as a page would show them.
    pub page: PageModel,
    /// The id of the open conversation.
    pub conversation: String,
    /// The last `welcome` frame.
    pub welcome: Value,
}

/// An event on the WebSocket.
#[derive(Debug)]
pub enum ClientEvent {
    Frame(Value),
    /// A Close frame, with its code if it has one.
    Closed(Option<u16>),
    /// The connection ended without a Close frame.
    ConnectionLost,
}

/// Returns a `client_msg_id` which no other message has.
pub fn unique_message_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("m{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns this field of each value, or an empty string where it is absent.
pub fn string_fields<'a>(values: impl IntoIterator<Item = &'a Value>, name: &str) -> Vec<String> {
    values
        .into_iter()
        .map(|value| value[name].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Opens a WebSocket on this connection, with these request headers.
///
/// # Errors
/// The handshake was refused.
pub async fn handshake(
    stream: TcpStream,
    headers: &[(&str, &str)],
) -> Result<WebSocketStream<TcpStream>, Box<Error>> {
    let address = stream.peer_addr().unwrap();
    let mut request = http::Request::builder()
        .uri(format!("ws://{address}/ws"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).unwrap();
    let result = eventually(
        "a handshake",
        tokio_tungstenite::client_async(request, stream),
    )
    .await;
    result.map(|(socket, _)| socket).map_err(Box::new)
}

impl WsClient {
    /// Connects and opens a new conversation.
    pub async fn open(app: &TestApp) -> Self {
        Self::connect_with_hello(app.port, &json!({})).await
    }

    /// Connects and opens an existing conversation.
    pub async fn join(app: &TestApp, conversation: &str) -> Self {
        Self::connect_with_hello(app.port, &json!({ "conversation": conversation })).await
    }

    /// Connects and sends this `hello`.
    pub async fn connect_with_hello(port: u16, hello: &Value) -> Self {
        let mut client = Self::connect(port).await;
        client.send_hello(hello).await;
        client
    }

    /// Connects without sending a `hello`.
    pub async fn connect(port: u16) -> Self {
        Self::from_stream(TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await
    }

    /// Connects with a minimal receive buffer, so that an unread stream soon stalls the server.
    pub async fn connect_with_small_buffer(port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::from_stream(
            socket
                .connect(SocketAddr::from(([127, 0, 0, 1], port)))
                .await
                .unwrap(),
        )
        .await
    }

    async fn from_stream(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let socket = handshake(stream, &[]).await.unwrap();
        Self {
            socket,
            page: PageModel::default(),
            conversation: String::new(),
            welcome: Value::Null,
        }
    }

    /// Sends `hello` and waits for `welcome`.
    pub async fn send_hello(&mut self, hello: &Value) {
        let mut hello = hello.clone();
        hello["type"] = "hello".into();
        self.send_frame(&hello).await;
        self.welcome = self.next_frame().await;
        assert_eq!(self.welcome["type"], "welcome", "{}", self.welcome);
        self.welcome["conversation"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.conversation);
    }

    /// Connects again and resumes the running turn after the last frame which the page applied.
    pub async fn reconnect(&mut self, port: u16) {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        self.socket = handshake(stream, &[]).await.unwrap();
        let resume = self
            .page
            .resume_point()
            .map(|(turn, seq)| json!({ "turn": turn, "seq": seq }));
        let conversation = self.conversation.clone();
        self.send_hello(&json!({ "conversation": conversation, "resume": resume }))
            .await;
    }

    pub async fn send_frame(&mut self, frame: &Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        eventually("space in the send buffer", self.socket.send(message))
            .await
            .unwrap();
    }

    /// Sends a question, waits until it is accepted and returns the id of its turn.
    pub async fn ask(&mut self, text: &str) -> String {
        let accepted = self.ask_as(&unique_message_id(), text).await;
        assert_eq!(accepted["type"], "accepted", "{accepted}");
        accepted["turn"].as_str().unwrap().to_owned()
    }

    /// Sends a question with this message id and returns the reply, `accepted` or `error`.
    pub async fn ask_as(&mut self, id: &str, text: &str) -> Value {
        self.send_frame(&json!({ "type": "send", "client_msg_id": id, "text": text }))
            .await;
        self.wait_for_frame(|frame| {
            ["accepted", "error"].contains(&frame["type"].as_str().unwrap())
                && frame["client_msg_id"] == id
        })
        .await
    }

    /// Sends a question and waits for the end of its answer.
    pub async fn ask_and_wait(&mut self, text: &str) -> &ShownTurn {
        let turn = self.ask(text).await;
        self.wait_for_done(&turn).await
    }

    /// Waits for the next event. Frames are applied to the page. Heartbeats are skipped and do not
    /// extend the time limit.
    #[track_caller]
    pub fn next_event(&mut self) -> impl Future<Output = ClientEvent> {
        eventually("a frame", self.receive())
    }

    async fn receive(&mut self) -> ClientEvent {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] == "heartbeat" {
                        continue;
                    }
                    self.page.apply_frame(&frame);
                    ClientEvent::Frame(frame)
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(reason))) => {
                    ClientEvent::Closed(reason.map(|reason| reason.code.into()))
                }
                Some(Ok(other)) => panic!("the server sent {other:?}"),
                Some(Err(_)) | None => ClientEvent::ConnectionLost,
            };
        }
    }

    /// Waits for the next frame. Panics if the connection ends.
    #[track_caller]
    pub fn next_frame(&mut self) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            match self.next_event().await {
                ClientEvent::Frame(frame) => frame,
                other => panic!("{caller}: {other:?} instead of a frame"),
            }
        }
    }

    /// Reads until a frame satisfies the predicate, and returns it.
    #[track_caller]
    pub fn wait_for_frame(
        &mut self,
        predicate: impl Fn(&Value) -> bool,
    ) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        eventually("a matching frame", async move {
            loop {
                match self.receive().await {
                    ClientEvent::Frame(frame) if predicate(&frame) => return frame,
                    ClientEvent::Frame(_) => {}
                    other => panic!("{caller}: {other:?} instead of a frame"),
                }
            }
        })
    }

    /// Reads until the turn satisfies the predicate.
    #[track_caller]
    pub fn wait_for_turn(
        &mut self,
        turn: &str,
        predicate: impl Fn(&ShownTurn) -> bool,
    ) -> impl Future<Output = &ShownTurn> {
        let caller = std::panic::Location::caller();
        eventually("a turn in the expected state", async move {
            while !self.page.find_turn(turn).is_some_and(&predicate) {
                let event = self.receive().await;
                assert!(
                    matches!(event, ClientEvent::Frame(_)),
                    "{caller}: {event:?} instead of a frame"
                );
            }
            self.page.turn(turn)
        })
    }

    #[track_caller]
    pub fn wait_for_done(&mut self, turn: &str) -> impl Future<Output = &ShownTurn> {
        self.wait_for_turn(turn, |shown| shown.done.is_some())
    }

    /// Reads until the server closes the connection, and returns the code of its Close frame.
    pub async fn wait_for_close(&mut self) -> Option<u16> {
        loop {
            match self.next_event().await {
                ClientEvent::Frame(_) => {}
                ClientEvent::Closed(code) => return code,
                ClientEvent::ConnectionLost => panic!("the connection ended without a Close"),
            }
        }
    }

    /// Asserts that no frame is pending: the reply to a ping is the next one.
    pub async fn assert_no_pending_frame(&mut self) {
        self.send_frame(&json!({ "type": "ping" })).await;
        let next = self.next_frame().await;
        assert_eq!(next["type"], "pong", "{next}");
    }

    /// Drops the connection without a Close frame.
    pub fn disconnect(self) -> PageModel {
        self.page
    }
}

/// Tries to open a WebSocket with these headers. The error is the HTTP status of the refusal.
///
/// # Errors
/// The handshake was refused.
pub async fn try_upgrade(app: &TestApp, headers: &[(&str, &str)]) -> Result<(), u16> {
    let stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    match handshake(stream, headers).await {
        Ok(_) => Ok(()),
        Err(error) => match *error {
            Error::Http(response) => Err(response.status().as_u16()),
            other => panic!("{other}"),
        },
    }
}
