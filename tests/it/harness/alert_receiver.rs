//! An alert webhook receiver on a real socket. It accepts deliveries, or misbehaves as scripted.

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

use super::eventually;
use super::openai_script::ScriptGate;

/// The receiver's reaction to one delivery.
#[derive(Clone, Debug)]
pub enum DeliveryResponse {
    Accept,
    /// Responds with this status and these header lines.
    Status(u16, String),
    /// Accepts once the gate opens.
    AcceptAfter(ScriptGate),
    Reset,
    /// Closes the connection in the middle of the response head.
    CloseMidHead,
    /// Accepts, but the response body never ends.
    EndlessBody,
}

/// One delivery as it arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Header names are in lower case.
    pub headers: BTreeMap<String, String>,
    pub body_bytes: Vec<u8>,
    /// `bytes` as text.
    pub body: String,
    pub is_accepted: bool,
}

impl Delivery {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns a header, or an empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Asserts that the delivery carries a fresh signature made with this key.
    #[track_caller]
    pub fn assert_signed_by(&self, key: &[u8]) {
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

/// An alert receiver. It stops with the test's runtime.
pub struct AlertReceiver {
    address: SocketAddr,
    next_responses: Arc<Mutex<VecDeque<DeliveryResponse>>>,
    deliveries: Arc<watch::Sender<Vec<Delivery>>>,
}

impl AlertReceiver {
    /// Starts a receiver which accepts everything until scripted otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            next_responses: Arc::default(),
            deliveries: Arc::new(watch::Sender::default()),
        };
        let takes = Arc::clone(&receiver.next_responses);
        let came = Arc::clone(&receiver.deliveries);
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

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Uses this response for the next delivery which has none scripted yet.
    pub fn respond_next(&self, take: DeliveryResponse) {
        self.next_responses.lock().unwrap().push_back(take);
    }

    /// Returns all deliveries so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.borrow().clone()
    }

    /// Returns the events accepted so far, each with its provider.
    pub fn accepted_events(&self) -> Vec<(String, Value)> {
        self.deliveries()
            .into_iter()
            .filter(|delivery| delivery.is_accepted)
            .map(|delivery| {
                let json = delivery.json();
                (
                    json["event"].as_str().unwrap().to_owned(),
                    json["provider"].clone(),
                )
            })
            .collect()
    }

    /// Waits until the list of deliveries satisfies the predicate.
    #[track_caller]
    pub fn wait_for(
        &self,
        predicate: impl FnMut(&Vec<Delivery>) -> bool,
    ) -> impl Future<Output = Vec<Delivery>> {
        let mut came = self.deliveries.subscribe();
        eventually("the receiver's deliveries", async move {
            came.wait_for(predicate).await.unwrap().clone()
        })
    }

    /// Waits for an accepted alert with this event and returns it.
    #[track_caller]
    pub fn wait_for_event(&self, event: &str) -> impl Future<Output = Delivery> {
        let event = event.to_owned();
        let is_wanted = move |delivery: &Delivery| {
            delivery.is_accepted && delivery.json()["event"] == event.as_str()
        };
        let is_found = is_wanted.clone();
        let deliveries = self.wait_for(move |deliveries| deliveries.iter().any(&is_found));
        async move { deliveries.await.into_iter().find(is_wanted).unwrap() }
    }
}

async fn serve(
    mut stream: BufReader<TcpStream>,
    takes: Arc<Mutex<VecDeque<DeliveryResponse>>>,
    came: Arc<watch::Sender<Vec<Delivery>>>,
) {
    while let Some(mut delivery) = read_delivery(&mut stream).await {
        let take = takes
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(DeliveryResponse::Accept);
        delivery.is_accepted = matches!(
            take,
            DeliveryResponse::Accept
                | DeliveryResponse::EndlessBody
                | DeliveryResponse::AcceptAfter(_)
        );
        came.send_modify(|deliveries| deliveries.push(delivery));
        let sent = match take {
            DeliveryResponse::Accept => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await,
            DeliveryResponse::Status(status, headers) => {
                let head = format!("HTTP/1.1 {status} So\r\n{headers}content-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await
            }
            DeliveryResponse::AcceptAfter(gate) => {
                gate.wait().await;
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
            }
            DeliveryResponse::Reset => {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(stream.get_ref())
                    .set_linger(linger)
                    .unwrap();
                return;
            }
            DeliveryResponse::CloseMidHead => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
                return;
            }
            DeliveryResponse::EndlessBody => {
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

/// Reads the next request. Returns `None` if the client closes the connection instead.
async fn read_delivery(stream: &mut BufReader<TcpStream>) -> Option<Delivery> {
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
        body_bytes: body,
        body: text,
        is_accepted: false,
    })
}
