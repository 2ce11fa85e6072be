//! A streamed `/v1/chat/completions` answer, read step by step.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wait_for;

pub struct StreamedAnswer {
    stream: TcpStream,
    /// The head and the body received so far.
    pub text: String,
}

impl StreamedAnswer {
    /// Asks `model`, which may be `auto`, and returns before the answer arrives.
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

    /// Reads until the text received so far fulfils the condition.
    pub async fn read_until(&mut self, condition: impl Fn(&str) -> bool) {
        let reading = async {
            while !condition(&self.text) {
                assert!(self.read_more().await, "the answer ended: {}", self.text);
            }
        };
        wait_for("more of an answer", reading).await;
    }

    /// Reads to the end of the connection, and returns everything.
    pub async fn read_to_end(mut self) -> String {
        wait_for("the end of an answer", async {
            while self.read_more().await {}
        })
        .await;
        self.text
    }

    /// Reads the next bytes. Returns `false` at the end of the connection.
    async fn read_more(&mut self) -> bool {
        let mut bytes = [0; 2048];
        let read = self.stream.read(&mut bytes).await.unwrap();
        self.text += std::str::from_utf8(&bytes[..read]).unwrap();
        read > 0
    }
}
