//! As little WebSocket, and as little of the service's own protocol, as the load needs.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answers::Heard;
use crate::http::tokens;
use crate::script::Script;

/// A visitor with an open chat.
pub struct Visitor {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer was taken.
    taken: usize,
    asked: u64,
}

impl Visitor {
    /// Opens a new conversation and waits for the welcome.
    pub async fn enter(port: u16) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .context("connecting")?;
        stream.set_nodelay(true)?;
        let hello = "GET /ws HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        stream.write_all(hello.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.context("no handshake")?);
        }
        ensure!(
            head.starts_with(b"HTTP/1.1 101"),
            "refused: {}",
            String::from_utf8_lossy(&head)
        );
        let mut visitor = Self {
            stream,
            buffer: Vec::new(),
            taken: 0,
            asked: 0,
        };
        visitor.say(r#"{"type":"hello"}"#).await?;
        let welcome = visitor.frame().await?;
        ensure!(
            is(&welcome, "welcome"),
            "no welcome: {}",
            String::from_utf8_lossy(&welcome)
        );
        Ok(visitor)
    }

    /// Sends a question and reads to its answer's end.
    pub async fn ask(&mut self, script: Script) -> anyhow::Result<Heard> {
        let mut heard = Heard::begin();
        self.send(&script.question()).await?;
        loop {
            let frame = self.frame().await?;
            if is(&frame, "token") {
                heard.read(tokens(&frame), Instant::now());
            } else if is(&frame, "snapshot") {
                heard.caught_up(tokens(&frame), Instant::now());
            } else if is(&frame, "done") {
                heard.read(0, Instant::now());
                ensure!(
                    contains(&frame, b"\"source\":\"ai\""),
                    "{}",
                    String::from_utf8_lossy(&frame)
                );
                return heard.whole(script);
            } else if is(&frame, "error") {
                bail!("refused: {}", String::from_utf8_lossy(&frame));
            }
        }
    }

    /// Sends a question that no provider can answer, and waits for what is said instead.
    pub async fn ask_in_vain(&mut self, question: &str) -> anyhow::Result<()> {
        self.send(question).await?;
        loop {
            let frame = self.frame().await?;
            if is(&frame, "done") {
                ensure!(
                    contains(&frame, b"\"degraded\":true"),
                    "{}",
                    String::from_utf8_lossy(&frame)
                );
                return Ok(());
            }
            if is(&frame, "error") {
                bail!("refused: {}", String::from_utf8_lossy(&frame));
            }
        }
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        self.asked += 1;
        let id = self.asked;
        self.say(&format!(
            r#"{{"type":"send","client_msg_id":"m{id}","text":"{text}"}}"#
        ))
        .await
    }

    /// One text frame, masked with zeros.
    async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let mut frame = vec![0x81];
        match u8::try_from(text.len()) {
            Ok(short) if short < 126 => frame.push(0x80 | short),
            _ => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        Ok(self.stream.write_all(&frame).await?)
    }

    /// The next text frame; what is none is passed over.
    async fn frame(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some((kind, payload)) = self.ready() {
                match kind {
                    0x1 => return Ok(payload),
                    0x8 => bail!("closed: {}", String::from_utf8_lossy(&payload)),
                    _ => continue,
                }
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the service is gone"
            );
        }
    }

    /// A frame that was read already: its kind and what is in it.
    fn ready(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.buffer[self.taken..];
        let (kind, short) = (*bytes.first()? & 0x0f, *bytes.get(1)? & 0x7f);
        let (head, length) = match short {
            126 => (
                4,
                usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            ),
            127 => (
                10,
                usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
            ),
            short => (2, usize::from(short)),
        };
        let payload = bytes.get(head..head + length)?.to_vec();
        self.taken += head + length;
        Some((kind, payload))
    }
}

fn is(frame: &[u8], kind: &str) -> bool {
    let rest = frame.strip_prefix(b"{\"type\":\"").unwrap_or_default();
    rest.strip_prefix(kind.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"\""))
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}
