//! A scripted server of raw bytes on a real socket, which records what it sees.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// An action after a request. After the last one the server closes the connection gracefully.
#[derive(Clone)]
pub enum ServerAction {
    Send(Vec<u8>),
    /// Sends these bytes repeatedly until the client is gone.
    Flood(Vec<u8>),
    /// Stays silent until the client is gone.
    Hang,
    Reset,
    /// Waits for the next request on the same connection.
    NextRequest,
}

#[derive(Debug, PartialEq)]
pub enum ServerEvent {
    Connected,
    /// A request with head and body.
    Request(String),
    /// The client closed its end.
    Closed,
}

/// Runs until the test's runtime ends.
pub struct ScriptedServer {
    pub address: String,
    events: mpsc::UnboundedReceiver<ServerEvent>,
}

pub fn send(text: &str) -> ServerAction {
    ServerAction::Send(text.as_bytes().to_vec())
}

/// A response with status 200 that ends when the connection is closed.
pub fn ok_response(kind: &str, body: &str) -> ServerAction {
    send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n{body}"
    ))
}

impl ScriptedServer {
    /// The first request is answered by the first script and so on. The last script is repeated.
    pub async fn start(scripts: &[&[ServerAction]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, seen) = mpsc::unbounded_channel();
        let mut scripts: Vec<Vec<ServerAction>> =
            scripts.iter().map(|script| script.to_vec()).collect();
        scripts.reverse();
        let scripts = Arc::new(std::sync::Mutex::new(scripts));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sender.send(ServerEvent::Connected).ok();
                tokio::spawn(serve(stream, Arc::clone(&scripts), sender.clone()));
            }
        });
        Self {
            address,
            events: seen,
        }
    }

    pub async fn next_event(&mut self) -> ServerEvent {
        let next = tokio::time::timeout(Duration::from_secs(20), self.events.recv());
        next.await.expect("the server saw nothing").unwrap()
    }

    /// Waits until the client has closed a connection.
    pub async fn wait_for_close(&mut self) {
        while self.next_event().await != ServerEvent::Closed {}
    }

    /// All events until now. A connection of our own, which comes after all earlier ones, marks the
    /// moment.
    pub async fn events_so_far(&mut self) -> Vec<ServerEvent> {
        let mut marker = TcpStream::connect(&self.address).await.unwrap();
        marker.write_all(b"MARKER\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        loop {
            match self.next_event().await {
                ServerEvent::Request(head) if head.starts_with("MARKER") => break,
                other => seen.push(other),
            }
        }
        let last = seen
            .iter()
            .rposition(|seen| *seen == ServerEvent::Connected);
        seen.remove(last.unwrap());
        seen
    }

    /// The requests until now.
    pub async fn requests(&mut self) -> Vec<String> {
        let seen = self.events_so_far().await.into_iter();
        seen.filter_map(|seen| match seen {
            ServerEvent::Request(request) => Some(request),
            _ => None,
        })
        .collect()
    }
}

async fn serve(
    stream: TcpStream,
    scripts: Arc<std::sync::Mutex<Vec<Vec<ServerAction>>>>,
    sender: mpsc::UnboundedSender<ServerEvent>,
) {
    let mut stream = BufReader::new(stream);
    'requests: while let Some(request) = request(&mut stream).await {
        let marker = request.starts_with("MARKER");
        sender.send(ServerEvent::Request(request)).ok();
        if marker {
            return;
        }
        let script = {
            let mut scripts = scripts.lock().unwrap();
            let last = scripts.len() == 1;
            if last {
                scripts.first().cloned()
            } else {
                scripts.pop()
            }
        };
        for act in script.unwrap() {
            match act {
                ServerAction::Send(bytes) => {
                    stream.write_all(&bytes).await.ok();
                }
                ServerAction::Flood(bytes) => {
                    while stream.write_all(&bytes).await.is_ok() {}
                    sender.send(ServerEvent::Closed).ok();
                }
                ServerAction::Hang => {
                    stream.read_u8().await.ok();
                    sender.send(ServerEvent::Closed).ok();
                }
                ServerAction::Reset => {
                    let socket = socket2::SockRef::from(stream.get_ref());
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                ServerAction::NextRequest => continue 'requests,
            }
        }
        // A graceful close: everything sent arrives before the end.
        stream.shutdown().await.ok();
        return;
    }
    sender.send(ServerEvent::Closed).ok();
}

/// Reads one request, or `None` if the client closes the connection instead.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(digits) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = digits.trim().parse().unwrap();
        }
        let blank = line == "\r\n";
        request.push_str(&line);
        if blank {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.push_str(&String::from_utf8(body).unwrap());
    Some(request)
}
