//! A provider on a real socket that does what its script says, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::openai_script::Act;
use super::soon;

/// What a provider has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions of visitors.
    pub asked: usize,
    /// The service's own one-token questions.
    pub probes: usize,
    /// Listings: requests without a body.
    pub listings: usize,
    /// Connections that the client closed in mid-script.
    pub left: usize,
    /// Calls under way.
    pub open: usize,
    /// The most calls that ever were under way at once.
    pub most: usize,
    /// Bytes that it sent again and again, and that the client's side took.
    pub poured: usize,
}

/// One provider. It ends with the test's runtime.
pub struct ScriptedProvider {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Keeps the port while nobody listens on it.
    _port: TcpSocket,
    listening: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// What is done once each, one question of a visitor after the other; then the usual.
    once: Mutex<VecDeque<Vec<Act>>>,
    usual: Mutex<Vec<Act>>,
    listing: Mutex<Vec<Act>>,
    key: Mutex<Option<String>>,
    requests: Mutex<Vec<(Instant, Value)>>,
    calls: Mutex<Vec<Instant>>,
    counts: watch::Sender<Counts>,
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl ScriptedProvider {
    /// A provider that does this with every question.
    pub async fn start(usual: Vec<Act>) -> Self {
        let port = bind(([127, 0, 0, 1], 0).into());
        let provider = Self {
            address: port.local_addr().unwrap(),
            shared: Arc::new(Shared {
                once: Mutex::default(),
                usual: Mutex::new(usual),
                listing: Mutex::new(vec![super::listing()]),
                key: Mutex::default(),
                requests: Mutex::default(),
                calls: Mutex::default(),
                counts: watch::Sender::default(),
            }),
            _port: port,
            listening: Mutex::default(),
        };
        provider.listen();
        provider
    }

    /// A provider that answers everything with this text, word by word.
    pub async fn answering(text: &str) -> Self {
        Self::start(super::answer(text)).await
    }

    /// What its `base_url` has to be.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Does this with the next question of a visitor that has no script yet.
    pub fn once(&self, script: Vec<Act>) {
        self.shared.once.lock().unwrap().push_back(script);
    }

    /// Does this with every question from now on.
    pub fn usually(&self, script: Vec<Act>) {
        *self.shared.usual.lock().unwrap() = script;
    }

    /// Does this with every listing from now on.
    pub fn lists(&self, script: Vec<Act>) {
        *self.shared.listing.lock().unwrap() = script;
    }

    /// Refuses who asks with any other key from now on.
    pub fn demands(&self, key: &str) {
        *self.shared.key.lock().unwrap() = Some(format!("Bearer {key}"));
    }

    /// Accepts connections.
    pub fn listen(&self) {
        let listener = bind(self.address).listen(64).unwrap();
        let task = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
        self.listening.lock().unwrap().replace(task);
    }

    /// Refuses connections and closes those that are open.
    pub async fn refuse(&self) {
        let task = self.listening.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Questions of visitors so far.
    pub fn asked(&self) -> usize {
        self.counts().asked
    }

    /// Waits until what it has seen is so.
    #[track_caller]
    pub fn until(&self, so: impl FnMut(&Counts) -> bool) -> impl Future<Output = Counts> {
        let mut counts = self.shared.counts.subscribe();
        soon("the provider to see it", async move {
            *counts.wait_for(so).await.unwrap()
        })
    }

    /// The bodies of the visitors' questions so far, and when they came.
    pub fn requests(&self) -> Vec<(Instant, Value)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// When each call came so far, the service's own among them.
    pub fn calls(&self) -> Vec<Instant> {
        self.shared.calls.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        connections.spawn(serve(BufReader::new(stream), Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: BufReader<TcpStream>, shared: Arc<Shared>) {
    while let Some((key, request)) = read(&mut stream).await {
        let listing = request.is_null();
        let probe = request["max_tokens"] == 1;
        let asked = !listing && !probe;
        let once = if asked {
            shared.once.lock().unwrap().pop_front()
        } else {
            None
        };
        let usual = if listing {
            &shared.listing
        } else {
            &shared.usual
        };
        let refused = shared
            .key
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|demanded| *demanded != key);
        let refusal = refused.then(|| vec![super::refusal(401, "", "")]);
        let script = refusal
            .or(once)
            .unwrap_or_else(|| usual.lock().unwrap().clone());
        let told = |act| {
            if matches!(act, Act::Echo) {
                super::openai_script::echo(&request)
            } else {
                vec![act]
            }
        };
        let script: Vec<_> = script.into_iter().flat_map(told).collect();
        if !listing {
            shared.calls.lock().unwrap().push(Instant::now());
        }
        if asked {
            shared
                .requests
                .lock()
                .unwrap()
                .push((Instant::now(), request));
        }
        shared.counts.send_modify(|counts| {
            counts.asked += usize::from(asked);
            counts.probes += usize::from(probe);
            counts.listings += usize::from(listing);
            counts.open += 1;
            counts.most = counts.most.max(counts.open);
        });
        let end = play(&mut stream, script, &shared.counts).await;
        shared.counts.send_modify(|counts| {
            counts.open -= 1;
            counts.left += usize::from(end == End::Left);
        });
        if end != End::Played {
            return;
        }
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Played,
    Left,
    Closed,
}

async fn play(
    stream: &mut BufReader<TcpStream>,
    script: Vec<Act>,
    counts: &watch::Sender<Counts>,
) -> End {
    for act in script {
        match act {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return End::Left;
                }
            }
            Act::Every(pause, bytes) => {
                let mut beat = tokio::time::interval(pause);
                loop {
                    tokio::select! {
                        _ = beat.tick() => {}
                        () = gone(stream) => return End::Left,
                    }
                    if stream.write_all(&bytes).await.is_err() {
                        return End::Left;
                    }
                    counts.send_modify(|counts| counts.poured += bytes.len());
                }
            }
            Act::Echo => unreachable!("put into words before"),
            Act::Hold(gate) => tokio::select! {
                () = gate.pass() => {}
                () = gone(stream) => return End::Left,
            },
            Act::Wait(pause) => {
                if tokio::time::timeout(pause, gone(stream)).await.is_ok() {
                    return End::Left;
                }
            }
            Act::Silence => {
                gone(stream).await;
                return End::Left;
            }
            Act::Reset => {
                socket2::SockRef::from(stream.get_ref())
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return End::Closed;
            }
            Act::Close => {
                let _ = stream.shutdown().await;
                return End::Closed;
            }
        }
    }
    End::Played
}

/// Waits until the client closes the connection. It has nothing to say before it has its answer.
async fn gone(stream: &mut BufReader<TcpStream>) {
    let read = stream.fill_buf().await.map(<[u8]>::len);
    assert!(
        matches!(read, Err(_) | Ok(0)),
        "the client spoke before it was answered"
    );
}

/// What the next request says in `authorization`, and its JSON body, null where it has none; none where the client closes instead.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(digits) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = digits.trim().parse().unwrap();
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            value.trim().clone_into(&mut key);
        }
        if line == "\r\n" {
            break;
        }
    }
    if length == 0 {
        return Some((key, Value::Null));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((key, serde_json::from_slice(&body).unwrap()))
}
