//! A client of `/v1/chat/completions` which reads streamed answers and checks OpenAI's protocol.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;

use super::{TestApp, TestRequest, eventually};

/// A streamed answer, as far as it was read.
pub struct CompletionStream {
    pub status: u16,
    /// Header names are in lower case.
    pub headers: BTreeMap<String, String>,
    /// The chunks, without the error.
    pub chunks: Vec<Value>,
    /// The number of comment lines.
    pub keepalive_comments: usize,
    /// The error which ended the stream.
    pub error: Option<Value>,
    /// `[DONE]` was received.
    pub has_end_mark: bool,
    stream: BufReader<TcpStream>,
    /// Received text which is not a complete event yet.
    partial_event: String,
}

/// The request body of a question.
pub fn question_body(text: &str) -> Value {
    json!({ "model": "auto", "messages": [{ "role": "user", "content": text }] })
}

/// The request body of a question with a streamed answer.
pub fn streaming_body(text: &str) -> Value {
    let mut body = question_body(text);
    body["stream"] = true.into();
    body
}

impl TestApp {
    pub fn completion_request(&self, body: &Value) -> TestRequest {
        self.request("POST", "/v1/chat/completions").json(body)
    }

    /// Requests a streamed answer and waits for the response head.
    pub async fn stream_answer(&self, text: &str) -> CompletionStream {
        CompletionStream::open(self.completion_request(&streaming_body(text))).await
    }
}

impl CompletionStream {
    /// Sends the request and reads the response head.
    pub async fn open(request: TestRequest) -> Self {
        let mut stream = BufReader::new(request.send_without_reading().await);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            eventually("a response head", stream.read_line(&mut line))
                .await
                .unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let (first, headers) = lines.split_first().unwrap();
        let headers = headers.iter().map(|line| line.split_once(':').unwrap());
        Self {
            status: first.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().into()))
                .collect(),
            chunks: Vec::new(),
            keepalive_comments: 0,
            error: None,
            has_end_mark: false,
            stream,
            partial_event: String::new(),
        }
    }

    /// Returns a header, or an empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the text received so far.
    pub fn text(&self) -> String {
        let texts = self
            .chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        texts.collect()
    }

    /// Returns provider, attempt and source of the chunks with text, without adjacent repeats.
    pub fn text_sources(&self) -> Vec<String> {
        let with_text = self
            .chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["delta"]["content"].is_string());
        let mut sources: Vec<_> = with_text
            .map(|chunk| {
                let metadata = &chunk["failsoft"];
                let provider = metadata["provider"].as_str().unwrap_or("none");
                format!(
                    "{provider} {} {}",
                    metadata["attempt"],
                    metadata["source"].as_str().unwrap()
                )
            })
            .collect();
        sources.dedup();
        sources
    }

    /// Reads until the text equals `text`.
    #[track_caller]
    pub fn read_until_text(&mut self, text: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            while self.text() != text {
                assert!(
                    self.read_http_chunk().await,
                    "{caller}: the stream ended with {:?}",
                    self.text()
                );
            }
        }
    }

    /// Reads to the end and checks it: either `[DONE]` after exactly one finish, or an error.
    #[track_caller]
    pub fn read_to_end(mut self) -> impl Future<Output = Self> {
        let caller = std::panic::Location::caller();
        async move {
            while self.read_http_chunk().await {}
            assert_eq!(self.partial_event, "", "{caller}: half an event at the end");
            let finishes = self.finish_reasons();
            assert_eq!(
                self.has_end_mark,
                self.error.is_none(),
                "{caller}: an end mark or an error, not both"
            );
            assert_eq!(
                finishes.len(),
                usize::from(self.has_end_mark),
                "{caller}: {finishes:?}"
            );
            self
        }
    }

    /// Returns the `finish_reason`, of which there must be exactly one.
    #[track_caller]
    pub fn finish_reason(&self) -> String {
        let finishes = self.finish_reasons();
        assert_eq!(finishes.len(), 1, "{finishes:?}");
        finishes[0].clone()
    }

    fn finish_reasons(&self) -> Vec<String> {
        let reasons = self
            .chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["finish_reason"]);
        reasons
            .filter_map(|reason| reason.as_str().map(str::to_owned))
            .collect()
    }

    /// Reads one HTTP chunk of the body. Returns `false` at the end of the body.
    async fn read_http_chunk(&mut self) -> bool {
        let mut length = String::new();
        eventually("more of a stream", self.stream.read_line(&mut length))
            .await
            .unwrap();
        let length = usize::from_str_radix(length.trim_end(), 16).expect("the body was cut");
        let mut chunk = vec![0; length + 2];
        eventually("the rest of a chunk", self.stream.read_exact(&mut chunk))
            .await
            .unwrap();
        self.partial_event += std::str::from_utf8(&chunk[..length]).unwrap();
        while let Some((event, rest)) = self.partial_event.split_once("\n\n") {
            let event = event.to_owned();
            self.partial_event = rest.to_owned();
            self.apply_event(&event);
        }
        length > 0
    }

    fn apply_event(&mut self, event: &str) {
        if event.starts_with(':') {
            self.keepalive_comments += 1;
            return;
        }
        assert!(
            !self.has_end_mark && self.error.is_none(),
            "after the end came {event}"
        );
        match event.strip_prefix("data: ").expect("not an event") {
            "[DONE]" => self.has_end_mark = true,
            data => self.apply_chunk(serde_json::from_str(data).unwrap()),
        }
    }

    /// Checks the invariants on which clients rely, and stores the chunk.
    fn apply_chunk(&mut self, chunk: Value) {
        if chunk["error"].is_object() {
            assert!(
                chunk["error"]["message"].is_string() && chunk["error"]["type"].is_string(),
                "{chunk}"
            );
            self.error = Some(chunk["error"].clone());
            return;
        }
        assert_eq!(chunk["object"], "chat.completion.chunk", "{chunk}");
        let first = self.chunks.first().unwrap_or(&chunk);
        assert_eq!(
            (&chunk["id"], &chunk["created"]),
            (&first["id"], &first["created"]),
            "{chunk}"
        );
        assert!(
            chunk["id"].as_str().unwrap().starts_with("chatcmpl-") && chunk["created"].is_u64(),
            "{chunk}"
        );
        assert!(chunk["model"].is_string(), "{chunk}");
        for key in ["provider", "attempt", "source"] {
            assert!(chunk["failsoft"].get(key).is_some(), "{key} in {chunk}");
        }
        let choices = chunk["choices"].as_array().unwrap();
        let role = &chunk["choices"][0]["delta"]["role"];
        let expected = if self.chunks.is_empty() {
            json!("assistant")
        } else {
            Value::Null
        };
        assert_eq!(
            *role, expected,
            "only the first chunk names the role: {chunk}"
        );
        match &choices[..] {
            [choice] => {
                assert!(
                    self.finish_reasons().is_empty(),
                    "after the finish came {chunk}"
                );
                assert_eq!(choice["index"], 0, "{chunk}");
                assert!(choice.get("finish_reason").is_some(), "{chunk}");
            }
            [] => assert!(
                chunk["usage"].is_object() && self.finish_reasons().len() == 1,
                "{chunk}"
            ),
            _ => panic!("more than one choice in {chunk}"),
        }
        self.chunks.push(chunk);
    }
}
