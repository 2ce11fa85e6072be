//! A streamed answer over the API that OpenAI's clients know, as far as it was read.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// An answer on its way.
pub struct Streamed {
    stream: TcpStream,
    /// Its head and its body so far.
    pub text: String,
}

impl Streamed {
    /// Asks `model`, which may be `auto`.
    pub async fn ask(port: u16, model: &str, question: &str) -> Self {
        let messages = json!([{ "role": "user", "content": question }]);
        let body = json!({ "model": model, "stream": true, "messages": messages }).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
            Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        Self {
            stream,
            text: String::new(),
        }
    }

    /// Reads on until the text is so.
    pub async fn read(&mut self, so: impl Fn(&str) -> bool) {
        let reading = async {
            while !so(&self.text) {
                assert!(self.more().await, "the answer ended: {}", self.text);
            }
        };
        within("more of an answer", reading).await;
    }

    /// Reads on to the end of the connection, and gives all of it.
    pub async fn end(mut self) -> String {
        within("the end of an answer", async { while self.more().await {} }).await;
        self.text
    }

    /// False where the connection has ended.
    async fn more(&mut self) -> bool {
        let mut bytes = [0; 2048];
        let read = self.stream.read(&mut bytes).await.unwrap();
        self.text += std::str::from_utf8(&bytes[..read]).unwrap();
        read > 0
    }
}
