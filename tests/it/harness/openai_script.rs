//! What a scripted provider does, and the bytes of OpenAI's dialect.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// One act of a provider after a request. After the last one it waits for the next request on the same connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes again and again, with this pause between, until the client is gone.
    Every(Duration, Vec<u8>),
    /// Answers whole, with every word that it was shown, once.
    Echo,
    /// Waits until the gate lets one through.
    Hold(Gate),
    /// Says nothing for so long.
    Wait(Duration),
    /// Says nothing until the client is gone.
    Silence,
    /// Resets the connection.
    Reset,
    /// Closes the connection in good order.
    Close,
}

/// Holds scripts back until the test opens it; each opening lets one through, once.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// Lets one more through.
    pub fn open(&self) {
        self.0.add_permits(1);
    }

    /// Waits to be let through.
    pub async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    /// The act of waiting here.
    pub fn hold(&self) -> Act {
        Act::Hold(self.clone())
    }
}

/// Sends this text as it is.
pub fn say(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

/// The head of a streamed answer.
pub fn head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .into()
}

/// Text as one HTTP chunk.
pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The chunk that ends a body.
pub fn last_chunk() -> String {
    "0\r\n\r\n".into()
}

/// One event of a stream.
pub fn event(data: &str) -> String {
    chunk(&format!("data: {data}\n\n"))
}

/// One piece of an answer.
pub fn word(text: &str) -> String {
    event(&json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }).to_string())
}

/// The head and these words, each an event of its own, and no end.
pub fn spoken<'a>(words: impl IntoIterator<Item = &'a str>) -> Act {
    let mut text = head();
    text.extend(words.into_iter().map(word));
    say(&text)
}

/// The end of a whole answer: its finish, its usage, its end mark, the end of the body.
pub fn finish() -> String {
    let mut text = event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    text += &event(r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}"#);
    text + &event("[DONE]") + &last_chunk()
}

/// A whole answer, word by word.
pub fn answer(text: &str) -> Vec<Act> {
    vec![spoken(words(text)), say(&finish())]
}

/// The words of a text, each with the white space after it.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// An error answer with these header lines and this body.
pub fn refusal(status: u16, headers: &str, body: &str) -> Act {
    let length = body.len();
    say(&format!(
        "HTTP/1.1 {status} No\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

/// A list of models.
pub fn listing() -> Act {
    let body =
        json!({ "object": "list", "data": [{ "id": "a-model", "object": "model" }] }).to_string();
    let length = body.len();
    say(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// A whole answer in just these pieces: what stands between them keeps them from being taken in as one.
pub fn apart<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<Act> {
    let between = event(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let pieces = pieces.into_iter().map(|piece| word(piece) + &between);
    vec![say(&(head() + &pieces.collect::<String>())), say(&finish())]
}

/// What an echo does with a request.
pub fn echo(request: &Value) -> Vec<Act> {
    let messages = request["messages"].as_array().into_iter().flatten();
    let shown = messages
        .filter_map(|message| message["content"].as_str())
        .flat_map(str::split_whitespace);
    // Once each, or answers to answers would double each time.
    let mut said: Vec<&str> = Vec::new();
    for word in shown {
        if !said.contains(&word) {
            said.push(word);
        }
    }
    answer(&said.join(" "))
}
