//! A plain HTTP client with one request per connection.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::eventually;

pub struct TestRequest {
    port: u16,
    head: String,
    host: String,
    body: String,
}

#[derive(Debug)]
pub struct TestResponse {
    pub status: u16,
    /// Header names are in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl TestRequest {
    /// A request to a loopback port.
    pub fn new(port: u16, method: &str, path: &str) -> Self {
        Self {
            port,
            head: format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n"),
            host: format!("127.0.0.1:{port}"),
            body: String::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// Replaces the `Host` header.
    pub fn host(self, host: &str) -> Self {
        Self {
            host: host.into(),
            ..self
        }
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(&body.to_string())
    }

    pub fn body(self, body: &str) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    /// Sends the request and returns the connection with the response unread.
    pub async fn send_without_reading(self) -> TcpStream {
        let Self {
            port,
            head,
            host,
            body,
        } = self;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let request = format!("{head}host: {host}\r\n{length}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub async fn send(self) -> TestResponse {
        let mut stream = self.send_without_reading().await;
        let mut bytes = Vec::new();
        eventually("an HTTP response", stream.read_to_end(&mut bytes))
            .await
            .unwrap();
        TestResponse::parse(&bytes)
    }

    /// Sends a HEAD request, checks that the response has no body and returns its status.
    pub async fn send_head_request(self) -> u16 {
        let mut stream = self.send_without_reading().await;
        let mut text = String::new();
        eventually("a response head", stream.read_to_string(&mut text))
            .await
            .unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").expect("an incomplete head");
        assert_eq!(rest, "", "after {head}");
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl TestResponse {
    /// Parses the bytes of a complete response.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").expect("an incomplete head");
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: BTreeMap<_, _> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let chunked = headers
            .get("transfer-encoding")
            .is_some_and(|coding| coding == "chunked");
        let body = if chunked {
            decode_chunked(rest)
        } else {
            rest.to_owned()
        };
        if let Some(length) = headers.get("content-length") {
            assert_eq!(length.parse(), Ok(body.len()), "the body was cut");
        }
        Self {
            status,
            headers,
            body,
        }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Returns a header, or an empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

fn decode_chunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body += &after[..length];
        rest = &after[length + 2..];
    }
}
