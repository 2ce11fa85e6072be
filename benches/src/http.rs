//! As little HTTP/1.1 as the load needs: the load must cost less than what it measures.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answers::Heard;
use crate::script::{Script, TOKEN_END, body};

/// The last bytes of a body in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Takes one message with a length off a connection: its head and its body. None where the peer is gone.
pub async fn message(
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

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}

fn length(head: &[u8]) -> Option<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, rest) = head.split_once("content-length:")?;
    rest.lines().next()?.trim().parse().ok()
}

/// How many tokens end in these bytes.
pub fn tokens(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == TOKEN_END).count()
}

/// A client of `/chat/completions`, one request at a time.
pub struct Caller {
    stream: TcpStream,
    path: &'static str,
    buffer: Vec<u8>,
}

impl Caller {
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
        let (path, body) = (self.path, body(script, streamed));
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    /// Asks for a stream and reads it to its end.
    pub async fn streamed(&mut self, script: Script) -> anyhow::Result<Heard> {
        let mut heard = Heard::begin();
        self.buffer.clear();
        self.post(script, true).await?;
        loop {
            // The last bytes of what was read before stay, so that an end that was cut in two is found.
            let kept = self.buffer.len().saturating_sub(64);
            self.buffer.drain(..kept);
            let before = self.buffer.len();
            ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the answer was cut"
            );
            if heard.reads() == 0 && !self.buffer.starts_with(b"HTTP/1.1 200") {
                bail!("refused: {}", String::from_utf8_lossy(&self.buffer));
            }
            heard.read(tokens(&self.buffer[before..]), Instant::now());
            if self.buffer.ends_with(LAST_CHUNK) {
                ensure!(
                    find(&self.buffer, b"[DONE]").is_some(),
                    "the answer broke off"
                );
                return heard.whole(script);
            }
        }
    }

    /// Asks for a whole answer.
    pub async fn whole(&mut self, script: Script) -> anyhow::Result<Heard> {
        let mut heard = Heard::begin();
        self.buffer.clear();
        self.post(script, false).await?;
        let answer = message(&mut self.stream, &mut self.buffer)
            .await?
            .context("no answer")?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "refused: {}",
            String::from_utf8_lossy(&answer)
        );
        heard.read(tokens(&answer), Instant::now());
        if script.tokens == 0 {
            Ok(heard)
        } else {
            heard.whole(script)
        }
    }
}
