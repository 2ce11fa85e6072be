//! A provider of raw bytes on a real socket, and what it saw.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the server does after a request; after the last of its acts it closes the connection in good order.
#[derive(Clone)]
pub enum Act {
    /// Sends this.
    Send(Vec<u8>),
    /// Sends this again and again, until the client is gone.
    Flood(Vec<u8>),
    /// Says nothing until the client is gone.
    Wait,
    /// Resets the connection.
    Reset,
    /// Waits for another request on the same connection.
    Again,
}

/// What the server saw.
#[derive(Debug, PartialEq)]
pub enum Seen {
    /// A connection.
    Opened,
    /// A request: head and body.
    Asked(String),
    /// The client closed its end.
    Closed,
}

/// The server. It lives as long as the test's runtime.
pub struct Scripted {
    pub address: String,
    seen: mpsc::UnboundedReceiver<Seen>,
}

pub fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

/// An answer with status 200 that ends where the connection does.
pub fn ok(kind: &str, body: &str) -> Act {
    send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n{body}"
    ))
}

impl Scripted {
    /// The first request is answered by the first script and so on, the last script serves the rest.
    pub async fn start(scripts: &[&[Act]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, seen) = mpsc::unbounded_channel();
        let mut scripts: Vec<Vec<Act>> = scripts.iter().map(|script| script.to_vec()).collect();
        scripts.reverse();
        let scripts = Arc::new(std::sync::Mutex::new(scripts));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tell.send(Seen::Opened).ok();
                tokio::spawn(serve(stream, Arc::clone(&scripts), tell.clone()));
            }
        });
        Self { address, seen }
    }

    /// The next thing seen.
    pub async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(Duration::from_secs(20), self.seen.recv());
        next.await.expect("the server saw nothing").unwrap()
    }

    /// Waits until the client closed a connection.
    pub async fn closed(&mut self) {
        while self.next().await != Seen::Closed {}
    }

    /// All that was seen before now: a connection of our own, which comes after every earlier one, marks the moment.
    pub async fn so_far(&mut self) -> Vec<Seen> {
        let mut marker = TcpStream::connect(&self.address).await.unwrap();
        marker.write_all(b"MARKER\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Seen::Asked(head) if head.starts_with("MARKER") => break,
                other => seen.push(other),
            }
        }
        let last = seen.iter().rposition(|seen| *seen == Seen::Opened);
        seen.remove(last.unwrap());
        seen
    }

    /// The requests before now.
    pub async fn requests(&mut self) -> Vec<String> {
        let seen = self.so_far().await.into_iter();
        seen.filter_map(|seen| match seen {
            Seen::Asked(request) => Some(request),
            _ => None,
        })
        .collect()
    }
}

async fn serve(
    stream: TcpStream,
    scripts: Arc<std::sync::Mutex<Vec<Vec<Act>>>>,
    tell: mpsc::UnboundedSender<Seen>,
) {
    let mut stream = BufReader::new(stream);
    'requests: while let Some(request) = request(&mut stream).await {
        let marker = request.starts_with("MARKER");
        tell.send(Seen::Asked(request)).ok();
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
                Act::Send(bytes) => {
                    stream.write_all(&bytes).await.ok();
                }
                Act::Flood(bytes) => {
                    while stream.write_all(&bytes).await.is_ok() {}
                    tell.send(Seen::Closed).ok();
                }
                Act::Wait => {
                    stream.read_u8().await.ok();
                    tell.send(Seen::Closed).ok();
                }
                Act::Reset => {
                    let socket = socket2::SockRef::from(stream.get_ref());
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                Act::Again => continue 'requests,
            }
        }
        // In good order: what was sent arrives before the end.
        stream.shutdown().await.ok();
        return;
    }
    tell.send(Seen::Closed).ok();
}

/// Reads one request; none where the client closes instead.
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
