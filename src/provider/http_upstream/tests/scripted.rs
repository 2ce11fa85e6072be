//! A scripted server of raw bytes on a real socket, which records what it sees.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// An action after a request. After the last one the server closes the connection gracefully.
#[derive(Clone)]
pub enum Act {
    Send(Vec<u8>),
    /// Sends these bytes repeatedly until the client is gone.
    Flood(Vec<u8>),
    /// Stays silent until the client is gone.
    Wait,
    Reset,
    /// Waits for the next request on the same connection.
    Again,
}

#[derive(Debug, PartialEq)]
pub enum Seen {
    Opened,
    /// A request with head and body.
    Asked(String),
    /// The client closed its end.
    Closed,
}

/// Runs until the test's runtime ends.
pub struct Scripted {
    pub address: String,
    seen: mpsc::UnboundedReceiver<Seen>,
}

pub fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

/// A response with status 200 that ends when the connection is closed.
pub fn ok(kind: &str, body: &str) -> Act {
    send(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n{body}"
    ))
}

impl Scripted {
    /// The first request is answered by the first script and so on. The last script is repeated.
    pub async fn start(scripts: &[&[Act]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, seen) = mpsc::unbounded_channel();
        let mut scripts: Vec<Vec<Act>> = scripts.iter().map(|script| script.to_vec()).collect();
        scripts.reverse();
        let scripts = Arc::new(std::sync::Mutex::new(scripts));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sender.send(Seen::Opened).ok();
                tokio::spawn(serve(stream, Arc::clone(&scripts), sender.clone()));
            }
        });
        Self { address, seen }
    }

    pub async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(Duration::from_secs(20), self.seen.recv());
        next.await.expect("the server saw nothing").unwrap()
    }

    /// Waits until the client has closed a connection.
    pub async fn closed(&mut self) {
        while self.next().await != Seen::Closed {}
    }

    /// All events until now. A connection of our own, which comes after all earlier ones, marks the
    /// moment.
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

    /// The requests until now.
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
    sender: mpsc::UnboundedSender<Seen>,
) {
    let mut stream = BufReader::new(stream);
    'requests: while let Some(request) = request(&mut stream).await {
        let marker = request.starts_with("MARKER");
        sender.send(Seen::Asked(request)).ok();
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
                    sender.send(Seen::Closed).ok();
                }
                Act::Wait => {
                    stream.read_u8().await.ok();
                    sender.send(Seen::Closed).ok();
                }
                Act::Reset => {
                    let socket = socket2::SockRef::from(stream.get_ref());
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                Act::Again => continue 'requests,
            }
        }
        // A graceful close: everything sent arrives before the end.
        stream.shutdown().await.ok();
        return;
    }
    sender.send(Seen::Closed).ok();
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
