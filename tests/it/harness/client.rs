//! A WebSocket client that shows what it is sent and holds the server to the protocol.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Page, Shown, TestApp, soon};

/// One client. Its page outlives its connection.
pub struct WsClient {
    socket: WebSocketStream<TcpStream>,
    /// What it shows.
    pub page: Page,
    /// The conversation that is open.
    pub conversation: String,
    /// The last `welcome`.
    pub welcome: Value,
}

/// What came over a socket.
#[derive(Debug)]
pub enum Heard {
    /// A frame.
    Frame(Value),
    /// A Close with this code; none where it named none.
    Closed(Option<u16>),
    /// The end of the connection without a Close.
    Cut,
}

/// A `client_msg_id` that no other has.
pub fn fresh_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("m{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A field of each, as text.
pub fn texts<'a>(of: impl IntoIterator<Item = &'a Value>, name: &str) -> Vec<String> {
    of.into_iter()
        .map(|one| one[name].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// A WebSocket to this address of loopback with these headers.
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
    let shaken = soon(
        "a handshake",
        tokio_tungstenite::client_async(request, stream),
    )
    .await;
    shaken.map(|(socket, _)| socket).map_err(Box::new)
}

impl WsClient {
    /// A client with a new conversation.
    pub async fn open(app: &TestApp) -> Self {
        Self::hello(app.port, &json!({})).await
    }

    /// A client in a known conversation.
    pub async fn join(app: &TestApp, conversation: &str) -> Self {
        Self::hello(app.port, &json!({ "conversation": conversation })).await
    }

    /// A client that says this hello.
    pub async fn hello(port: u16, hello: &Value) -> Self {
        let mut client = Self::connect(port).await;
        client.say_hello(hello).await;
        client
    }

    /// A client that has said nothing yet.
    pub async fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await
    }

    /// A client that takes in as little as it can before it reads.
    pub async fn narrow(port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(
            socket
                .connect(SocketAddr::from(([127, 0, 0, 1], port)))
                .await
                .unwrap(),
        )
        .await
    }

    async fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let socket = handshake(stream, &[]).await.unwrap();
        Self {
            socket,
            page: Page::default(),
            conversation: String::new(),
            welcome: Value::Null,
        }
    }

    /// Says hello and waits for the welcome.
    pub async fn say_hello(&mut self, hello: &Value) {
        let mut hello = hello.clone();
        hello["type"] = "hello".into();
        self.say(&hello).await;
        self.welcome = self.next().await;
        assert_eq!(self.welcome["type"], "welcome", "{}", self.welcome);
        self.welcome["conversation"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.conversation);
    }

    /// Connects again, and takes the running turn up where the page stands.
    pub async fn reconnect(&mut self, port: u16) {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        self.socket = handshake(stream, &[]).await.unwrap();
        let resume = self
            .page
            .resume()
            .map(|(turn, seq)| json!({ "turn": turn, "seq": seq }));
        let conversation = self.conversation.clone();
        self.say_hello(&json!({ "conversation": conversation, "resume": resume }))
            .await;
    }

    /// Sends a frame.
    pub async fn say(&mut self, frame: &Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    /// Sends any message.
    pub async fn send(&mut self, message: Message) {
        soon("room to send", self.socket.send(message))
            .await
            .unwrap();
    }

    /// Sends a question and waits until it is accepted; gives its turn.
    pub async fn ask(&mut self, text: &str) -> String {
        let accepted = self.ask_as(&fresh_id(), text).await;
        assert_eq!(accepted["type"], "accepted", "{accepted}");
        accepted["turn"].as_str().unwrap().to_owned()
    }

    /// Sends a question under this id; gives what it is answered by, `accepted` or `error`.
    pub async fn ask_as(&mut self, id: &str, text: &str) -> Value {
        self.say(&json!({ "type": "send", "client_msg_id": id, "text": text }))
            .await;
        self.until(|frame| {
            ["accepted", "error"].contains(&frame["type"].as_str().unwrap())
                && frame["client_msg_id"] == id
        })
        .await
    }

    /// Asks and waits for the end of the answer.
    pub async fn answered(&mut self, text: &str) -> &Shown {
        let turn = self.ask(text).await;
        self.done(&turn).await
    }

    /// What comes next; frames are applied to the page. Heartbeats are no event: they do not prolong the wait.
    #[track_caller]
    pub fn hear(&mut self) -> impl Future<Output = Heard> {
        soon("a frame", self.receive())
    }

    async fn receive(&mut self) -> Heard {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] == "heartbeat" {
                        continue;
                    }
                    self.page.apply(&frame);
                    Heard::Frame(frame)
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(reason))) => {
                    Heard::Closed(reason.map(|reason| reason.code.into()))
                }
                Some(Ok(other)) => panic!("the server sent {other:?}"),
                Some(Err(_)) | None => Heard::Cut,
            };
        }
    }

    /// The next frame.
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        async move {
            match self.hear().await {
                Heard::Frame(frame) => frame,
                other => panic!("{place}: {other:?} instead of a frame"),
            }
        }
    }

    /// Reads until such a frame comes.
    #[track_caller]
    pub fn until(&mut self, so: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        soon("such a frame", async move {
            loop {
                match self.receive().await {
                    Heard::Frame(frame) if so(&frame) => return frame,
                    Heard::Frame(_) => {}
                    other => panic!("{place}: {other:?} instead of a frame"),
                }
            }
        })
    }

    /// Reads until a turn shows so.
    #[track_caller]
    pub fn shows(
        &mut self,
        turn: &str,
        so: impl Fn(&Shown) -> bool,
    ) -> impl Future<Output = &Shown> {
        let place = std::panic::Location::caller();
        soon("a turn to show so", async move {
            while !self.page.find(turn).is_some_and(&so) {
                let heard = self.receive().await;
                assert!(
                    matches!(heard, Heard::Frame(_)),
                    "{place}: {heard:?} instead of a frame"
                );
            }
            self.page.turn(turn)
        })
    }

    /// Reads until a turn has ended.
    #[track_caller]
    pub fn done(&mut self, turn: &str) -> impl Future<Output = &Shown> {
        self.shows(turn, |shown| shown.done.is_some())
    }

    /// Reads until the server closes, and gives its code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.hear().await {
                Heard::Frame(_) => {}
                Heard::Closed(code) => return code,
                Heard::Cut => panic!("the connection ended without a Close"),
            }
        }
    }

    /// Nothing else was on its way: the answer to a ping comes next.
    pub async fn quiet(&mut self) {
        self.say(&json!({ "type": "ping" })).await;
        let next = self.next().await;
        assert_eq!(next["type"], "pong", "{next}");
    }

    /// Leaves without a word.
    pub fn leave(self) -> Page {
        self.page
    }
}

/// Tries to open a WebSocket with these headers; the error is the status that it was refused with.
///
/// # Errors
/// The handshake was refused.
pub async fn upgrade(app: &TestApp, headers: &[(&str, &str)]) -> Result<(), u16> {
    let stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    match handshake(stream, headers).await {
        Ok(_) => Ok(()),
        Err(error) => match *error {
            Error::Http(answer) => Err(answer.status().as_u16()),
            other => panic!("{other}"),
        },
    }
}
