//! A raw HTTP client, and what the tests share.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{Simulator, TypingSpeed, WireFormat};

pub(super) const ALL_FORMATS: [WireFormat; 3] = [
    WireFormat::OpenAi,
    WireFormat::Anthropic,
    WireFormat::Ollama,
];
/// Longer than any step takes; a test that waits so long fails.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const INSTANT: TypingSpeed = TypingSpeed {
    first_token: Duration::ZERO,
    word_interval: Duration::ZERO,
};
/// One word, then nothing more during the test.
pub(super) const ONE_WORD: TypingSpeed = TypingSpeed {
    first_token: Duration::ZERO,
    word_interval: Duration::from_secs(3600),
};
pub(super) const QUESTION: &str = "Tell me a story";

pub(super) struct WireClient {
    stream: TcpStream,
    pub(super) seen: Vec<u8>,
}

impl WireClient {
    pub(super) async fn connect(simulator: &Simulator) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::connect(simulator.address).await?,
            seen: Vec::new(),
        })
    }

    pub(super) async fn request(
        simulator: &Simulator,
        method: &str,
        path: &str,
        body: &str,
    ) -> Self {
        let mut wire = Self::connect(simulator).await.unwrap();
        wire.send(method, path, body, "close").await;
        wire
    }

    pub(super) async fn ask(simulator: &Simulator) -> Self {
        let body = chat_body(simulator.state.dialect, true, 1000).to_string();
        Self::request(
            simulator,
            "POST",
            simulator.state.dialect.chat_path(),
            &body,
        )
        .await
    }

    pub(super) async fn send(&mut self, method: &str, path: &str, body: &str, connection: &str) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: {connection}\r\ncontent-length: {length}\r\n\r\n"
        );
        self.stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
    }

    /// Reads once. Returns the number of bytes, 0 at a clean end.
    pub(super) async fn read_some(&mut self) -> io::Result<usize> {
        timeout(STEP_TIMEOUT, self.stream.read_buf(&mut self.seen))
            .await
            .expect("the wire is silent")
    }

    pub(super) async fn read_until(&mut self, mark: &str) {
        while !self.text().contains(mark) {
            assert_ne!(
                self.read_some().await.unwrap(),
                0,
                "ended before {mark}: {}",
                self.text()
            );
        }
    }

    /// Reads to the end. An error means that it was not clean.
    pub(super) async fn read_to_end(&mut self) -> io::Result<()> {
        while self.read_some().await? > 0 {}
        Ok(())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    pub(super) fn body(&self) -> String {
        let text = self.text();
        let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
        if !head.contains("transfer-encoding: chunked") {
            return rest.to_owned();
        }
        let mut body = Vec::new();
        while let Some((size, tail)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            // The last chunk may still be on its way.
            body.extend(tail.bytes().take(size));
            rest = tail.get(size + 2..).unwrap_or_default();
        }
        String::from_utf8(body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body()).unwrap()
    }

    /// The words of the stream so far, without lines that are not JSON.
    pub(super) fn words(&self, dialect: WireFormat) -> Vec<String> {
        let pointer = match dialect {
            WireFormat::OpenAi => "/choices/0/delta/content",
            WireFormat::Anthropic => "/delta/text",
            WireFormat::Ollama => "/message/content",
        };
        self.body()
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap_or(line)).ok()
            })
            .filter_map(|event| event.pointer(pointer)?.as_str().map(str::to_owned))
            .filter(|word| !word.is_empty())
            .collect()
    }
}

pub(super) fn chat_body(dialect: WireFormat, stream: bool, limit: usize) -> Value {
    let messages = json!([{"role": "user", "content": QUESTION}]);
    match dialect {
        WireFormat::Ollama => {
            json!({"model": "m", "messages": messages, "stream": stream, "options": {"num_predict": limit}})
        }
        _ => json!({"model": "m", "messages": messages, "stream": stream, "max_tokens": limit}),
    }
}

pub(super) fn end_mark(dialect: WireFormat) -> &'static str {
    match dialect {
        WireFormat::OpenAi => "data: [DONE]\n\n",
        WireFormat::Anthropic => "\"type\":\"message_stop\"}\n\n",
        WireFormat::Ollama => "\"done\":true",
    }
}

pub(super) fn start_simulator(dialect: WireFormat, pace: TypingSpeed) -> Simulator {
    Simulator::start("aurora", dialect, pace).unwrap()
}
