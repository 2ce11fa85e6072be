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

use super::eventually;
use super::openai_script::ScriptStep;

/// The events that a provider counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderCounts {
    /// Questions of visitors.
    pub questions: usize,
    /// One-token probes by the service.
    pub probes: usize,
    /// Requests without a body.
    pub listings: usize,
    /// Connections which the client closed in the middle of a script.
    pub client_disconnects: usize,
    pub in_flight: usize,
    pub max_in_flight: usize,
    /// Bytes sent by `Repeat` steps and accepted by the client's socket.
    pub repeated_bytes: usize,
}

/// A provider. It stops with the test's runtime.
pub struct ScriptedProvider {
    address: SocketAddr,
    shared: Arc<ProviderState>,
    /// Reserves the port while nobody listens on it.
    _reserved_port: TcpSocket,
    accept_task: Mutex<Option<JoinHandle<()>>>,
}

struct ProviderState {
    /// Scripts for the next questions of visitors, one each, before `usual` applies.
    next_scripts: Mutex<VecDeque<Vec<ScriptStep>>>,
    default_script: Mutex<Vec<ScriptStep>>,
    model_list_script: Mutex<Vec<ScriptStep>>,
    required_key: Mutex<Option<String>>,
    requests: Mutex<Vec<(Instant, Value)>>,
    call_times: Mutex<Vec<Instant>>,
    counts: watch::Sender<ProviderCounts>,
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl ScriptedProvider {
    /// Starts a provider which runs this script for every question.
    pub async fn start(usual: Vec<ScriptStep>) -> Self {
        let port = bind(([127, 0, 0, 1], 0).into());
        let provider = Self {
            address: port.local_addr().unwrap(),
            shared: Arc::new(ProviderState {
                next_scripts: Mutex::default(),
                default_script: Mutex::new(usual),
                model_list_script: Mutex::new(vec![super::model_list()]),
                required_key: Mutex::default(),
                requests: Mutex::default(),
                call_times: Mutex::default(),
                counts: watch::Sender::default(),
            }),
            _reserved_port: port,
            accept_task: Mutex::default(),
        };
        provider.listen();
        provider
    }

    /// Starts a provider which answers every question with this text, one event per word.
    pub async fn answering(text: &str) -> Self {
        Self::start(super::full_answer(text)).await
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Uses this script for the next question of a visitor which has none yet.
    pub fn script_next(&self, script: Vec<ScriptStep>) {
        self.shared.next_scripts.lock().unwrap().push_back(script);
    }

    /// Uses this script for every question from now on.
    pub fn script_default(&self, script: Vec<ScriptStep>) {
        *self.shared.default_script.lock().unwrap() = script;
    }

    /// Uses this script for every request for the list of models from now on.
    pub fn script_model_list(&self, script: Vec<ScriptStep>) {
        *self.shared.model_list_script.lock().unwrap() = script;
    }

    /// Rejects requests with any other key from now on.
    pub fn require_key(&self, key: &str) {
        *self.shared.required_key.lock().unwrap() = Some(format!("Bearer {key}"));
    }

    pub fn listen(&self) {
        let listener = bind(self.address).listen(64).unwrap();
        let task = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
        self.accept_task.lock().unwrap().replace(task);
    }

    /// Refuses new connections and closes open ones.
    pub async fn stop_listening(&self) {
        let task = self.accept_task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    pub fn counts(&self) -> ProviderCounts {
        *self.shared.counts.borrow()
    }

    pub fn question_count(&self) -> usize {
        self.counts().questions
    }

    /// Waits until the counts satisfy the predicate.
    #[track_caller]
    pub fn wait_for(
        &self,
        predicate: impl FnMut(&ProviderCounts) -> bool,
    ) -> impl Future<Output = ProviderCounts> {
        let mut counts = self.shared.counts.subscribe();
        eventually("the provider's counts", async move {
            *counts.wait_for(predicate).await.unwrap()
        })
    }

    /// Returns the bodies of the visitors' questions so far, each with its arrival time.
    pub fn requests(&self) -> Vec<(Instant, Value)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Returns the arrival times of all questions and probes so far.
    pub fn call_times(&self) -> Vec<Instant> {
        self.shared.call_times.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<ProviderState>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        connections.spawn(serve(BufReader::new(stream), Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: BufReader<TcpStream>, shared: Arc<ProviderState>) {
    while let Some((key, request)) = read_request(&mut stream).await {
        let is_listing = request.is_null();
        let is_probe = request["max_tokens"] == 1;
        let is_question = !is_listing && !is_probe;
        let once = if is_question {
            shared.next_scripts.lock().unwrap().pop_front()
        } else {
            None
        };
        let usual = if is_listing {
            &shared.model_list_script
        } else {
            &shared.default_script
        };
        let is_rejected = shared
            .required_key
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|required| *required != key);
        let rejection = is_rejected.then(|| vec![super::error_response(401, "", "")]);
        let script = rejection
            .or(once)
            .unwrap_or_else(|| usual.lock().unwrap().clone());
        let expand_echo = |act| {
            if matches!(act, ScriptStep::Echo) {
                super::openai_script::echo_script(&request)
            } else {
                vec![act]
            }
        };
        let script: Vec<_> = script.into_iter().flat_map(expand_echo).collect();
        if !is_listing {
            shared.call_times.lock().unwrap().push(Instant::now());
        }
        if is_question {
            shared
                .requests
                .lock()
                .unwrap()
                .push((Instant::now(), request));
        }
        shared.counts.send_modify(|counts| {
            counts.questions += usize::from(is_question);
            counts.probes += usize::from(is_probe);
            counts.listings += usize::from(is_listing);
            counts.in_flight += 1;
            counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        });
        let end = play_script(&mut stream, script, &shared.counts).await;
        shared.counts.send_modify(|counts| {
            counts.in_flight -= 1;
            counts.client_disconnects += usize::from(end == PlayEnd::ClientLeft);
        });
        if end != PlayEnd::Played {
            return;
        }
    }
}

#[derive(PartialEq, Eq)]
enum PlayEnd {
    Played,
    ClientLeft,
    Closed,
}

async fn play_script(
    stream: &mut BufReader<TcpStream>,
    script: Vec<ScriptStep>,
    counts: &watch::Sender<ProviderCounts>,
) -> PlayEnd {
    for act in script {
        match act {
            ScriptStep::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return PlayEnd::ClientLeft;
                }
            }
            ScriptStep::Repeat(pause, bytes) => {
                let mut beat = tokio::time::interval(pause);
                loop {
                    tokio::select! {
                        _ = beat.tick() => {}
                        () = client_closed(stream) => return PlayEnd::ClientLeft,
                    }
                    if stream.write_all(&bytes).await.is_err() {
                        return PlayEnd::ClientLeft;
                    }
                    counts.send_modify(|counts| counts.repeated_bytes += bytes.len());
                }
            }
            ScriptStep::Echo => unreachable!("expanded before the script is played"),
            ScriptStep::WaitForGate(gate) => tokio::select! {
                () = gate.wait() => {}
                () = client_closed(stream) => return PlayEnd::ClientLeft,
            },
            ScriptStep::Pause(pause) => {
                if tokio::time::timeout(pause, client_closed(stream))
                    .await
                    .is_ok()
                {
                    return PlayEnd::ClientLeft;
                }
            }
            ScriptStep::Hang => {
                client_closed(stream).await;
                return PlayEnd::ClientLeft;
            }
            ScriptStep::Reset => {
                socket2::SockRef::from(stream.get_ref())
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return PlayEnd::Closed;
            }
            ScriptStep::Close => {
                let _ = stream.shutdown().await;
                return PlayEnd::Closed;
            }
        }
    }
    PlayEnd::Played
}

/// Waits until the client closes the connection. It must send nothing before its response ends.
async fn client_closed(stream: &mut BufReader<TcpStream>) {
    let read = stream.fill_buf().await.map(<[u8]>::len);
    assert!(
        matches!(read, Err(_) | Ok(0)),
        "the client sent data before its response ended"
    );
}

/// Reads the next request: its `authorization` header and its JSON body, which is `Null` if empty.
/// Returns `None` if the client closes the connection instead.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
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
