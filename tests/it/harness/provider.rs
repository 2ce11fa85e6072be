//! A scripted provider on a real socket, which records its requests.

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

/// The events that a provider counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions of visitors.
    pub asked: usize,
    /// One-token probes by the service.
    pub probes: usize,
    /// Requests without a body.
    pub listings: usize,
    /// Connections which the client closed in the middle of a script.
    pub left: usize,
    pub open: usize,
    pub most: usize,
    /// Bytes sent by `Repeat` steps and accepted by the client's socket.
    pub poured: usize,
}

/// A provider. It stops with the test's runtime.
pub struct ScriptedProvider {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Reserves the port while nobody listens on it.
    _port: TcpSocket,
    listening: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// Scripts for the next questions of visitors, one each, before `usual` applies.
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
    /// Starts a provider which runs this script for every question.
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

    /// Starts a provider which answers every question with this text, one event per word.
    pub async fn answering(text: &str) -> Self {
        Self::start(super::answer(text)).await
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Uses this script for the next question of a visitor which has none yet.
    pub fn once(&self, script: Vec<Act>) {
        self.shared.once.lock().unwrap().push_back(script);
    }

    /// Uses this script for every question from now on.
    pub fn usually(&self, script: Vec<Act>) {
        *self.shared.usual.lock().unwrap() = script;
    }

    /// Uses this script for every request for the list of models from now on.
    pub fn lists(&self, script: Vec<Act>) {
        *self.shared.listing.lock().unwrap() = script;
    }

    /// Rejects requests with any other key from now on.
    pub fn demands(&self, key: &str) {
        *self.shared.key.lock().unwrap() = Some(format!("Bearer {key}"));
    }

    pub fn listen(&self) {
        let listener = bind(self.address).listen(64).unwrap();
        let task = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
        self.listening.lock().unwrap().replace(task);
    }

    /// Refuses new connections and closes open ones.
    pub async fn refuse(&self) {
        let task = self.listening.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    pub fn asked(&self) -> usize {
        self.counts().asked
    }

    /// Waits until the counts satisfy the predicate.
    #[track_caller]
    pub fn until(&self, predicate: impl FnMut(&Counts) -> bool) -> impl Future<Output = Counts> {
        let mut counts = self.shared.counts.subscribe();
        soon("the provider's counts", async move {
            *counts.wait_for(predicate).await.unwrap()
        })
    }

    /// Returns the bodies of the visitors' questions so far, each with its arrival time.
    pub fn requests(&self) -> Vec<(Instant, Value)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Returns the arrival times of all questions and probes so far.
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
        let is_listing = request.is_null();
        let is_probe = request["max_tokens"] == 1;
        let is_question = !is_listing && !is_probe;
        let once = if is_question {
            shared.once.lock().unwrap().pop_front()
        } else {
            None
        };
        let usual = if is_listing {
            &shared.listing
        } else {
            &shared.usual
        };
        let is_rejected = shared
            .key
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|required| *required != key);
        let rejection = is_rejected.then(|| vec![super::refusal(401, "", "")]);
        let script = rejection
            .or(once)
            .unwrap_or_else(|| usual.lock().unwrap().clone());
        let expand_echo = |act| {
            if matches!(act, Act::Echo) {
                super::openai_script::echo(&request)
            } else {
                vec![act]
            }
        };
        let script: Vec<_> = script.into_iter().flat_map(expand_echo).collect();
        if !is_listing {
            shared.calls.lock().unwrap().push(Instant::now());
        }
        if is_question {
            shared
                .requests
                .lock()
                .unwrap()
                .push((Instant::now(), request));
        }
        shared.counts.send_modify(|counts| {
            counts.asked += usize::from(is_question);
            counts.probes += usize::from(is_probe);
            counts.listings += usize::from(is_listing);
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
            Act::Echo => unreachable!("expanded before the script is played"),
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

/// Waits until the client closes the connection. It must send nothing before its response ends.
async fn gone(stream: &mut BufReader<TcpStream>) {
    let read = stream.fill_buf().await.map(<[u8]>::len);
    assert!(
        matches!(read, Err(_) | Ok(0)),
        "the client sent data before its response ended"
    );
}

/// Reads the next request: its `authorization` header and its JSON body, which is `Null` if empty.
/// Returns `None` if the client closes the connection instead.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut length = 0;
    let mut key = String::new();
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
