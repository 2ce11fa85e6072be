//! The steps of a scripted provider, and the bytes of OpenAI's dialect.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// One step of a provider's response to a request. After the last step the provider waits for the
/// next request on the same connection.
#[derive(Clone, Debug)]
pub enum ScriptStep {
    Send(Vec<u8>),
    /// Sends these bytes repeatedly, with this pause in between, until the client disconnects.
    Repeat(Duration, Vec<u8>),
    /// Sends a complete answer made of all distinct words of the request.
    Echo,
    /// Waits until the gate lets one script through.
    WaitForGate(ScriptGate),
    Pause(Duration),
    /// Sends nothing until the client disconnects.
    Hang,
    Reset,
    /// Closes the connection properly.
    Close,
}

/// Blocks scripts until the test opens it. Each opening lets one script through.
#[derive(Clone, Debug)]
pub struct ScriptGate(Arc<Semaphore>);

impl Default for ScriptGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl ScriptGate {
    pub fn let_one_through(&self) {
        self.0.add_permits(1);
    }

    pub async fn wait(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    /// Returns the step which waits at this gate.
    pub fn wait_step(&self) -> ScriptStep {
        ScriptStep::WaitForGate(self.clone())
    }
}

/// Sends this text unchanged.
pub fn send_text(text: &str) -> ScriptStep {
    ScriptStep::Send(text.as_bytes().to_vec())
}

/// The head of a streamed response.
pub fn stream_head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .into()
}

/// The text as one chunk of a chunked body.
pub fn http_chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The chunk which ends a body.
pub fn last_http_chunk() -> String {
    "0\r\n\r\n".into()
}

/// One server-sent event, as an HTTP chunk.
pub fn sse_event(data: &str) -> String {
    http_chunk(&format!("data: {data}\n\n"))
}

/// An event with a piece of an answer.
pub fn token_event(text: &str) -> String {
    sse_event(&json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }).to_string())
}

/// The head and one event per word, without an end.
pub fn partial_answer<'a>(words: impl IntoIterator<Item = &'a str>) -> ScriptStep {
    let mut text = stream_head();
    text.extend(words.into_iter().map(token_event));
    send_text(&text)
}

/// The end of a complete answer: finish reason, usage, end mark, end of the body.
pub fn stream_end() -> String {
    let mut text = sse_event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    text += &sse_event(r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}"#);
    text + &sse_event("[DONE]") + &last_http_chunk()
}

/// A complete answer with one event per word.
pub fn full_answer(text: &str) -> Vec<ScriptStep> {
    vec![partial_answer(split_words(text)), send_text(&stream_end())]
}

/// Splits a text into words, each with the space after it.
pub fn split_words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// An error response with these header lines and this body.
pub fn error_response(status: u16, headers: &str, body: &str) -> ScriptStep {
    let length = body.len();
    send_text(&format!(
        "HTTP/1.1 {status} No\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

/// The response to a request for the list of models.
pub fn model_list() -> ScriptStep {
    let body =
        json!({ "object": "list", "data": [{ "id": "a-model", "object": "model" }] }).to_string();
    let length = body.len();
    send_text(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// A complete answer in exactly these pieces. The usage events in between keep the client from
/// merging pieces.
pub fn answer_in_pieces<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<ScriptStep> {
    let between = sse_event(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let pieces = pieces
        .into_iter()
        .map(|piece| token_event(piece) + &between);
    vec![
        send_text(&(stream_head() + &pieces.collect::<String>())),
        send_text(&stream_end()),
    ]
}

/// The steps of an echo to this request.
pub fn echo_script(request: &Value) -> Vec<ScriptStep> {
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
    full_answer(&distinct.join(" "))
}
