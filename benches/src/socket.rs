//! A minimal client of the WebSocket chat protocol.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answers::AnswerTiming;
use crate::http::count_tokens;
use crate::script::Script;

/// A chat client with an open conversation.
pub struct ChatClient {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The number of parsed bytes at the start of the buffer.
    parsed: usize,
    question_count: u64,
}

impl ChatClient {
    /// Opens a new conversation and waits for `welcome`.
    pub async fn connect(port: u16) -> anyhow::Result<Self> {
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
        let mut chat_client = Self {
            stream,
            buffer: Vec::new(),
            parsed: 0,
            question_count: 0,
        };
        chat_client.send_frame(r#"{"type":"hello"}"#).await?;
        let welcome = chat_client.next_frame().await?;
        ensure!(
            is(&welcome, "welcome"),
            "no welcome: {}",
            String::from_utf8_lossy(&welcome)
        );
        Ok(chat_client)
    }

    /// Sends a question and reads its answer to the end.
    pub async fn ask(&mut self, script: Script) -> anyhow::Result<AnswerTiming> {
        let mut timing = AnswerTiming::begin();
        self.send(&script.question()).await?;
        loop {
            let frame = self.next_frame().await?;
            if is(&frame, "token") {
                timing.read(count_tokens(&frame), Instant::now());
            } else if is(&frame, "snapshot") {
                timing.caught_up(count_tokens(&frame), Instant::now());
            } else if is(&frame, "done") {
                timing.read(0, Instant::now());
                ensure!(
                    contains(&frame, b"\"source\":\"ai\""),
                    "{}",
                    String::from_utf8_lossy(&frame)
                );
                return timing.require_tokens(script);
            } else if is(&frame, "error") {
                bail!("refused: {}", String::from_utf8_lossy(&frame));
            }
        }
    }

    /// Sends a question and expects a degraded answer.
    pub async fn ask_degraded(&mut self, question: &str) -> anyhow::Result<()> {
        self.send(question).await?;
        loop {
            let frame = self.next_frame().await?;
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
        self.question_count += 1;
        let id = self.question_count;
        self.send_frame(&format!(
            r#"{{"type":"send","client_msg_id":"m{id}","text":"{text}"}}"#
        ))
        .await
    }

    /// Sends a text frame, masked with zeros.
    async fn send_frame(&mut self, text: &str) -> anyhow::Result<()> {
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

    /// Returns the next text frame. Skips control frames.
    async fn next_frame(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some((kind, payload)) = self.parse_frame() {
                match kind {
                    0x1 => return Ok(payload),
                    0x8 => bail!("closed: {}", String::from_utf8_lossy(&payload)),
                    _ => continue,
                }
            }
            self.buffer.drain(..self.parsed);
            self.parsed = 0;
            ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the service is gone"
            );
        }
    }

    /// Parses a buffered frame into its opcode and payload. Returns `None` if it is incomplete.
    fn parse_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.buffer[self.parsed..];
        let kind = *bytes.first()? & 0x0f;
        let short = *bytes.get(1)? & 0x7f;
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
        self.parsed += head + length;
        Some((kind, payload))
    }
}

fn is(frame: &[u8], kind: &str) -> bool {
    let rest = frame.strip_prefix(b"{\"type\":\"").unwrap_or_default();
    rest.strip_prefix(kind.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"\""))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
