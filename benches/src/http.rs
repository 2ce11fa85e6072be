//! A minimal HTTP/1.1 client: the load must cost less than what it measures.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answers::AnswerTiming;
use crate::script::{Script, TOKEN_END, body};

/// The last bytes of a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Reads one message with a `content-length`, head and body. Returns `None` if the peer
/// disconnects.
pub async fn read_message(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(head) = find(buffer, b"\r\n\r\n") {
            let length = length(&buffer[..head]).unwrap_or(0);
            let end = head + 4 + length;
            while buffer.len() < end {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            let rest = buffer.split_off(end);
            return Ok(Some(std::mem::replace(buffer, rest)));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn length(head: &[u8]) -> Option<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, rest) = head.split_once("content-length:")?;
    rest.lines().next()?.trim().parse().ok()
}

/// Counts the tokens which end in these bytes.
pub fn count_tokens(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == TOKEN_END).count()
}

/// A client of `/chat/completions`, one request at a time.
pub struct HttpClient {
    stream: TcpStream,
    path: &'static str,
    buffer: Vec<u8>,
}

impl HttpClient {
    pub async fn connect(port: u16, path: &'static str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            path,
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    async fn post(&mut self, script: Script, streamed: bool) -> anyhow::Result<()> {
        let path = self.path;
        let body = body(script, streamed);
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    /// Requests a stream and reads it to its end.
    pub async fn ask_streaming(&mut self, script: Script) -> anyhow::Result<AnswerTiming> {
        let mut timing = AnswerTiming::begin();
        self.buffer.clear();
        self.post(script, true).await?;
        loop {
            // Keep the last bytes of the previous read, to find an end mark split over two reads.
            let kept = self.buffer.len().saturating_sub(64);
            self.buffer.drain(..kept);
            let before = self.buffer.len();
            ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the answer ended early"
            );
            if timing.reads() == 0 && !self.buffer.starts_with(b"HTTP/1.1 200") {
                bail!("refused: {}", String::from_utf8_lossy(&self.buffer));
            }
            timing.read(count_tokens(&self.buffer[before..]), Instant::now());
            if self.buffer.ends_with(LAST_CHUNK) {
                ensure!(
                    find(&self.buffer, b"[DONE]").is_some(),
                    "the answer has no end mark"
                );
                return timing.require_tokens(script);
            }
        }
    }

    /// Requests a complete answer.
    pub async fn ask_complete(&mut self, script: Script) -> anyhow::Result<AnswerTiming> {
        let mut timing = AnswerTiming::begin();
        self.buffer.clear();
        self.post(script, false).await?;
        let answer = read_message(&mut self.stream, &mut self.buffer)
            .await?
            .context("no answer")?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "refused: {}",
            String::from_utf8_lossy(&answer)
        );
        timing.read(count_tokens(&answer), Instant::now());
        if script.tokens == 0 {
            Ok(timing)
        } else {
            timing.require_tokens(script)
        }
    }
}
