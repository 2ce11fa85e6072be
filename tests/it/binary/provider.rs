//! A provider that behaves as a test tells it: an OpenAI-compatible server in the test's process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The provider's reaction to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Behavior {
    /// Sends the full answer.
    Answer,
    /// Sends the start of the answer, and waits until the behaviour changes to `Answer`.
    Pause,
    /// Sends [`DRIPPED_WORD`] after each pause, until the behaviour changes to `Answer`.
    Drip(Duration),
    /// Starts an event and never ends it, for this many mebibytes or until the client is gone.
    EndlessEvent(usize),
    /// Sends the start of the answer, and closes the connection.
    Disconnect,
    /// Answers with this HTTP status and JSON.
    Refuse(u16, Value),
}

pub const DRIPPED_WORD: &str = "word ";

/// The last sentence of a full answer.
pub const ANSWER_END: &str = "And this is the end of the answer.";

/// A running provider. It ends with the test.
pub struct Provider {
    port: u16,
    behavior: Arc<watch::Sender<Behavior>>,
    requests: Arc<watch::Sender<Vec<String>>>,
}

impl Provider {
    pub async fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behavior = Arc::new(watch::Sender::new(behavior));
        let requests = Arc::new(watch::Sender::default());
        let provider = Self {
            port,
            behavior: Arc::clone(&behavior),
            requests: Arc::clone(&requests),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let behavior = behavior.subscribe();
                let requests = Arc::clone(&requests);
                // A client that leaves mid-answer is no failure of the test.
                tokio::spawn(async move { drop(serve(stream, behavior, &requests).await) });
            }
        });
        provider
    }

    /// Changes the behaviour, also of running answers.
    pub fn set_behavior(&self, behavior: Behavior) {
        self.behavior.send_replace(behavior);
    }

    /// Returns the head and body of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Waits until at least `count` requests have arrived.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        let _ = requests.wait_for(|requests| requests.len() >= count).await;
    }

    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// A configuration with this provider only, with long timeouts and high limits.
    pub fn config(&self) -> String {
        format!(
            r#"
[[providers]]
name = "scripted"
dialect = "openai"
base_url = "{}"
model = "scripted-1"
api_key = "scripted-key"
max_concurrent = 10000
timeouts = {{ connect = "60s", first_token = "60s", stall = "60s" }}
{UNLIMITED}"#,
            self.base_url()
        )
    }
}

/// Limits that no test reaches, so that one address can have many visitors.
pub const UNLIMITED: &str = "
[limits]
connections_per_ip = 10000
messages_per_minute = 10000
messages_per_minute_per_ip = 100000
";

pub fn question(n: usize) -> String {
    format!("question {n}")
}

/// The part of the answer before a pause.
pub fn answer_start(question: &str) -> String {
    format!("You asked: {question}. ")
}

pub fn full_answer(question: &str) -> String {
    format!("{}{ANSWER_END}", answer_start(question))
}

/// Reads the head and the body of the next request. Returns `None` if the client is gone.
pub async fn read_request(
    stream: &mut BufReader<TcpStream>,
) -> io::Result<Option<(String, String)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).await?;
    Ok(Some((head, String::from_utf8(body).unwrap())))
}

async fn serve(
    stream: TcpStream,
    mut behavior: watch::Receiver<Behavior>,
    requests: &watch::Sender<Vec<String>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let Some((head, body)) = read_request(&mut stream).await? else {
        return Ok(());
    };
    requests.send_modify(|requests| requests.push(format!("{head}{body}")));
    let current = behavior.borrow_and_update().clone();
    if let Behavior::Refuse(status, error) = current {
        let error = error.to_string();
        let length = error.len();
        let answer = format!(
            "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{error}"
        );
        return stream.write_all(answer.as_bytes()).await;
    }
    if body.is_empty() {
        // The health check lists the models.
        let list = r#"{"object":"list","data":[]}"#;
        let length = list.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{list}"
        );
        return stream.write_all(answer.as_bytes()).await;
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    let messages = request["messages"].as_array().unwrap();
    let question = messages.last().unwrap()["content"].as_str().unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    if let Behavior::EndlessEvent(mebibytes) = current {
        stream.write_all(format!("{head}data: ").as_bytes()).await?;
        let mebibyte = vec![b'x'; 1024 * 1024];
        for _ in 0..mebibytes {
            stream.write_all(&mebibyte).await?;
        }
        return stream.flush().await;
    }
    let start = answer_start(question);
    stream
        .write_all(format!("{head}{}", event(&start, None)).as_bytes())
        .await?;
    stream.flush().await?;
    if *behavior.borrow() == Behavior::Disconnect {
        return Ok(());
    }
    let pause = if let Behavior::Drip(pause) = *behavior.borrow() {
        Some(pause)
    } else {
        None
    };
    tokio::select! {
        answers = wait_for_answer(behavior) => if !answers { return Ok(()) },
        result = drip(&mut stream, pause.unwrap_or_default()), if pause.is_some() => return result,
    }
    let rest = event(&full_answer(question)[start.len()..], None)
        + &event("", Some("stop"))
        + "data: [DONE]\n\n";
    stream.write_all(rest.as_bytes()).await?;
    stream.flush().await
}

/// Waits for `Answer`. Returns `false` if the test has ended without it.
async fn wait_for_answer(mut behavior: watch::Receiver<Behavior>) -> bool {
    behavior
        .wait_for(|behavior| *behavior == Behavior::Answer)
        .await
        .is_ok()
}

/// Sends words until the client is gone.
async fn drip(stream: &mut BufReader<TcpStream>, pause: Duration) -> io::Result<()> {
    let mut pace = tokio::time::interval(pause);
    loop {
        pace.tick().await;
        stream
            .write_all(event(DRIPPED_WORD, None).as_bytes())
            .await?;
        stream.flush().await?;
    }
}

fn event(text: &str, finish: Option<&str>) -> String {
    let delta = json!({ "content": text });
    let chunk = json!({
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
    });
    format!("data: {chunk}\n\n")
}
