//! The steps of a scripted provider, and the bytes of OpenAI's dialect.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// One step of a provider's response to a request. After the last step the provider waits for the
/// next request on the same connection.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Vec<u8>),
    /// Sends these bytes repeatedly, with this pause in between, until the client disconnects.
    Every(Duration, Vec<u8>),
    /// Sends a complete answer made of all distinct words of the request.
    Echo,
    /// Waits until the gate lets one script through.
    Hold(Gate),
    Wait(Duration),
    /// Sends nothing until the client disconnects.
    Silence,
    Reset,
    /// Closes the connection properly.
    Close,
}

/// Blocks scripts until the test opens it. Each opening lets one script through.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.add_permits(1);
    }

    pub async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    /// Returns the step which waits at this gate.
    pub fn hold(&self) -> Act {
        Act::Hold(self.clone())
    }
}

/// Sends this text unchanged.
pub fn say(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

/// The head of a streamed response.
pub fn head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .into()
}

/// The text as one chunk of a chunked body.
pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The chunk which ends a body.
pub fn last_chunk() -> String {
    "0\r\n\r\n".into()
}

/// One server-sent event, as an HTTP chunk.
pub fn event(data: &str) -> String {
    chunk(&format!("data: {data}\n\n"))
}

/// An event with a piece of an answer.
pub fn word(text: &str) -> String {
    event(&json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }).to_string())
}

/// The head and one event per word, without an end.
pub fn spoken<'a>(words: impl IntoIterator<Item = &'a str>) -> Act {
    let mut text = head();
    text.extend(words.into_iter().map(word));
    say(&text)
}

/// The end of a complete answer: finish reason, usage, end mark, end of the body.
pub fn finish() -> String {
    let mut text = event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    text += &event(r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}"#);
    text + &event("[DONE]") + &last_chunk()
}

/// A complete answer with one event per word.
pub fn answer(text: &str) -> Vec<Act> {
    vec![spoken(words(text)), say(&finish())]
}

/// Splits a text into words, each with the space after it.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// An error response with these header lines and this body.
pub fn refusal(status: u16, headers: &str, body: &str) -> Act {
    let length = body.len();
    say(&format!(
        "HTTP/1.1 {status} No\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

/// The response to a request for the list of models.
pub fn listing() -> Act {
    let body =
        json!({ "object": "list", "data": [{ "id": "a-model", "object": "model" }] }).to_string();
    let length = body.len();
    say(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// A complete answer in exactly these pieces. The usage events in between keep the client from
/// merging pieces.
pub fn apart<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<Act> {
    let between = event(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let pieces = pieces.into_iter().map(|piece| word(piece) + &between);
    vec![say(&(head() + &pieces.collect::<String>())), say(&finish())]
}

/// The steps of an echo to this request.
pub fn echo(request: &Value) -> Vec<Act> {
    let messages = request["messages"].as_array().into_iter().flatten();
    let shown = messages
        .filter_map(|message| message["content"].as_str())
        .flat_map(str::split_whitespace);
    // Each word once: otherwise answers which quote answers would double each time.
    let mut distinct: Vec<&str> = Vec::new();
    for word in shown {
        if !distinct.contains(&word) {
            distinct.push(word);
        }
    }
    answer(&distinct.join(" "))
}
