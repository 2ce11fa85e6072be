//! A receiver of alerts on a real socket, that takes them or misbehaves as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::openai_script::Gate;
use super::soon;

/// What it does with a delivery.
#[derive(Clone, Debug)]
pub enum Take {
    /// Takes it.
    Well,
    /// Answers with this status and these header lines.
    Status(u16, String),
    /// Says nothing until the gate lets it; then takes it.
    Hold(Gate),
    /// Resets the connection.
    Reset,
    /// Closes the connection in the middle of the head.
    CloseEarly,
    /// Takes it, with a body that never ends.
    Endless,
}

/// One delivery as it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, to the letter.
    pub bytes: Vec<u8>,
    /// The same as text.
    pub body: String,
    /// Whether it was taken.
    pub taken: bool,
}

impl Delivery {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Asserts that the signature is that of this key, over what came.
    #[track_caller]
    pub fn is_signed_by(&self, key: &[u8]) {
        let signed = format!(
            "{}.{}.{}",
            self.header("webhook-id"),
            self.header("webhook-timestamp"),
            self.body
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(signed.as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(self.header("webhook-signature"), expected);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let age = now - self.header("webhook-timestamp").parse::<u64>().unwrap();
        assert!(age < 60, "{age} s old");
    }
}

/// A receiver. It ends with the test's runtime.
pub struct Receiver {
    address: SocketAddr,
    takes: Arc<Mutex<VecDeque<Take>>>,
    came: Arc<watch::Sender<Vec<Delivery>>>,
}

impl Receiver {
    /// One that takes everything, until it is told otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            takes: Arc::default(),
            came: Arc::new(watch::Sender::default()),
        };
        let (takes, came) = (Arc::clone(&receiver.takes), Arc::clone(&receiver.came));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(
                    BufReader::new(stream),
                    Arc::clone(&takes),
                    Arc::clone(&came),
                ));
            }
        });
        receiver
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Does this with the next delivery that has nothing yet to be done with it.
    pub fn once(&self, take: Take) {
        self.takes.lock().unwrap().push_back(take);
    }

    /// All deliveries so far.
    pub fn came(&self) -> Vec<Delivery> {
        self.came.borrow().clone()
    }

    /// The events that were taken so far, each with its provider.
    pub fn taken(&self) -> Vec<(String, Value)> {
        let taken = self
            .came()
            .into_iter()
            .filter(|one| one.taken)
            .map(|one| one.json());
        taken
            .map(|json| {
                (
                    json["event"].as_str().unwrap().to_owned(),
                    json["provider"].clone(),
                )
            })
            .collect()
    }

    /// Waits until the deliveries are so.
    #[track_caller]
    pub fn until(
        &self,
        so: impl FnMut(&Vec<Delivery>) -> bool,
    ) -> impl Future<Output = Vec<Delivery>> {
        let mut came = self.came.subscribe();
        soon("the receiver to get it", async move {
            came.wait_for(so).await.unwrap().clone()
        })
    }

    /// Waits for a taken alert of this event, and gives it.
    #[track_caller]
    pub fn event(&self, event: &str) -> impl Future<Output = Delivery> {
        let event = event.to_owned();
        let is = move |one: &Delivery| one.taken && one.json()["event"] == event.as_str();
        let (so, find) = (is.clone(), is);
        let came = self.until(move |all| all.iter().any(&so));
        async move { came.await.into_iter().find(find).unwrap() }
    }
}

async fn serve(
    mut stream: BufReader<TcpStream>,
    takes: Arc<Mutex<VecDeque<Take>>>,
    came: Arc<watch::Sender<Vec<Delivery>>>,
) {
    while let Some(mut delivery) = read(&mut stream).await {
        let take = takes.lock().unwrap().pop_front().unwrap_or(Take::Well);
        delivery.taken = matches!(take, Take::Well | Take::Endless | Take::Hold(_));
        came.send_modify(|all| all.push(delivery));
        let sent = match take {
            Take::Well => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await,
            Take::Status(status, headers) => {
                let head = format!("HTTP/1.1 {status} So\r\n{headers}content-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await
            }
            Take::Hold(gate) => {
                gate.pass().await;
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
            }
            Take::Reset => {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(stream.get_ref())
                    .set_linger(linger)
                    .unwrap();
                return;
            }
            Take::CloseEarly => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
                return;
            }
            Take::Endless => {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
                    .await;
                while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The next request; none where the client closes instead.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Delivery> {
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.trim_end().to_owned());
        }
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    Some(Delivery {
        headers,
        bytes: body,
        body: text,
        taken: false,
    })
}
