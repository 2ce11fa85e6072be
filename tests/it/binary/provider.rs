//! A provider that does what a test says: an OpenAI-compatible server on a local port, in the test's own process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the provider does with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// Answers it whole, as fast as the socket goes.
    Answer,
    /// Says the first part of the answer and then nothing, until it is told to answer.
    Pause,
    /// Says a word after the other with this pause between, without end, until it is told to answer.
    Drip(Duration),
    /// Begins an event and never ends it, for so many mebibytes or until the client is gone.
    Pour(usize),
    /// Says the first part of the answer, and then the connection ends.
    Cut,
    /// Refuses it with this status and this JSON.
    Refuse(u16, Value),
}

/// What drips.
pub const WORD: &str = "word ";

/// What a whole answer ends with.
pub const END: &str = "And this is the end of the answer.";

/// A running provider; it ends with the test.
pub struct Provider {
    port: u16,
    manner: Arc<watch::Sender<Manner>>,
    asked: Arc<watch::Sender<Vec<String>>>,
}

impl Provider {
    /// Starts one.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (manner, asked) = (
            Arc::new(watch::Sender::new(manner)),
            Arc::new(watch::Sender::default()),
        );
        let provider = Self {
            port,
            manner: Arc::clone(&manner),
            asked: Arc::clone(&asked),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manner, asked) = (manner.subscribe(), Arc::clone(&asked));
                // A client that left in mid-answer is no failure of the test.
                tokio::spawn(async move { drop(serve(stream, manner, &asked).await) });
            }
        });
        provider
    }

    /// From now on it does this, also to answers under way.
    pub fn now(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// Every request so far, head and body.
    pub fn requests(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    /// Waits until so many requests came.
    pub async fn asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let _ = asked.wait_for(|all| all.len() >= count).await;
    }

    /// What its `base_url` has to be.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// A configuration with this provider alone, patient and without limits that a test could meet.
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

/// Limits that no test meets, so that one address can be many visitors.
pub const UNLIMITED: &str = "
[limits]
connections_per_ip = 10000
messages_per_minute = 10000
messages_per_minute_per_ip = 100000
";

/// The n-th of many questions.
pub fn question(n: usize) -> String {
    format!("question {n}")
}

/// The part of the answer that comes before a pause.
pub fn first(question: &str) -> String {
    format!("You asked: {question}. ")
}

/// The whole answer to a question.
pub fn whole(question: &str) -> String {
    format!("{}{END}", first(question))
}

/// The head and the body of the next request; none where the client is gone.
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
    mut manner: watch::Receiver<Manner>,
    asked: &watch::Sender<Vec<String>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let Some((head, body)) = read_request(&mut stream).await? else {
        return Ok(());
    };
    asked.send_modify(|all| all.push(format!("{head}{body}")));
    let manners = manner.borrow_and_update().clone();
    if let Manner::Refuse(status, error) = manners {
        let error = error.to_string();
        let length = error.len();
        let answer = format!(
            "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{error}"
        );
        return stream.write_all(answer.as_bytes()).await;
    }
    if body.is_empty() {
        // A listing: the health check's.
        let list = r#"{"object":"list","data":[]}"#;
        let length = list.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{list}"
        );
        return stream.write_all(answer.as_bytes()).await;
    }
    let asked: Value = serde_json::from_str(&body).unwrap();
    let messages = asked["messages"].as_array().unwrap();
    let question = messages.last().unwrap()["content"].as_str().unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    if let Manner::Pour(mebibytes) = manners {
        stream.write_all(format!("{head}data: ").as_bytes()).await?;
        let mebibyte = vec![b'x'; 1024 * 1024];
        for _ in 0..mebibytes {
            stream.write_all(&mebibyte).await?;
        }
        return stream.flush().await;
    }
    let begun = first(question);
    stream
        .write_all(format!("{head}{}", event(&begun, None)).as_bytes())
        .await?;
    stream.flush().await?;
    if *manner.borrow() == Manner::Cut {
        return Ok(());
    }
    let pause = if let Manner::Drip(pause) = *manner.borrow() {
        Some(pause)
    } else {
        None
    };
    tokio::select! {
        told = told_to_answer(manner) => if !told { return Ok(()) },
        broken = drip(&mut stream, pause.unwrap_or_default()), if pause.is_some() => return broken,
    }
    let rest = event(&whole(question)[begun.len()..], None)
        + &event("", Some("stop"))
        + "data: [DONE]\n\n";
    stream.write_all(rest.as_bytes()).await?;
    stream.flush().await
}

/// Waits for the word; false where the test is over without one.
async fn told_to_answer(mut manner: watch::Receiver<Manner>) -> bool {
    manner
        .wait_for(|manner| *manner == Manner::Answer)
        .await
        .is_ok()
}

/// Drips until the client is gone.
async fn drip(stream: &mut BufReader<TcpStream>, pause: Duration) -> io::Result<()> {
    let mut pace = tokio::time::interval(pause);
    loop {
        pace.tick().await;
        stream.write_all(event(WORD, None).as_bytes()).await?;
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
