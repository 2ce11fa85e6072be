//! The scripted provider: OpenAI's dialect over plain sockets, with as little work as possible.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior};

use crate::script::{Fault, Script, TOKEN_END, TOKENS_BEFORE_CUT};

/// Tokens per write in an unpaced answer.
const TOKENS_PER_WRITE: usize = 16;

/// The number of different tokens.
const DISTINCT_TOKENS: usize = 64;

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// The bytes of each token, as an HTTP chunk of its own.
static TOKENS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let delta = |n| {
        format!(
            r#"{{"index":0,"delta":{{"content":"{}"}},"finish_reason":null}}"#,
            word(n)
        )
    };
    (0..DISTINCT_TOKENS)
        .map(|n| chunk(&event(&delta(n))))
        .collect()
});

/// The bytes after the tokens.
static ANSWER_END: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let finish = event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#);
    let usage = format!(
        r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}}}{}"#,
        "\n\n"
    );
    let mut bytes = [chunk(&finish), chunk(&usage), chunk("data: [DONE]\n\n")].concat();
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
});

fn word(n: usize) -> String {
    let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap_or_default());
    format!(
        "{}{}{} {}",
        letter(n),
        letter(n / 2 + 7),
        letter(n / 26),
        char::from(TOKEN_END)
    )
}

fn event(choice: &str) -> String {
    format!(
        r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{choice}]}}{}"#,
        "\n\n"
    )
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Serves until standard input ends. Prints the two ports as the first line.
pub async fn serve() -> anyhow::Result<()> {
    let faulty = TcpListener::bind("127.0.0.1:0").await?;
    let sound = TcpListener::bind("127.0.0.1:0").await?;
    println!(
        "{} {}",
        faulty.local_addr()?.port(),
        sound.local_addr()?.port()
    );
    std::io::stdout().flush()?;
    crate::process::end_with_input();
    tokio::join!(accept(faulty, true), accept(sound, false));
    Ok(())
}

async fn accept(listener: TcpListener, may_fail: bool) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            // An error only means that the client disconnected.
            tokio::spawn(async move { drop(serve_connection(stream, may_fail).await) });
        }
    }
}

async fn serve_connection(mut stream: TcpStream, may_fail: bool) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let plain = Arc::<[u8]>::from(complete_answer(&Script::fast(1)));
    while let Some(request) = crate::http::read_message(&mut stream, &mut buffer).await? {
        let text = String::from_utf8_lossy(&request);
        let streamed = text.contains(r#""stream":true"#);
        match Script::parse(&text) {
            // A model list or a probe, without a script.
            None if streamed => answer(&mut stream, Script::fast(1)).await?,
            None => stream.write_all(&plain).await?,
            Some(script) if may_fail && script.fault == Fault::Refuse => {
                stream
                    .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}")
                    .await?;
            }
            Some(script) if may_fail && script.fault == Fault::Cut => {
                answer_part(
                    &mut stream,
                    Script {
                        tokens: TOKENS_BEFORE_CUT,
                        ..script
                    },
                )
                .await?;
                return stream.set_zero_linger();
            }
            Some(script) if streamed => answer(&mut stream, script).await?,
            Some(script) => stream.write_all(&complete_answer(&script)).await?,
        }
    }
    Ok(())
}

async fn answer(stream: &mut TcpStream, script: Script) -> std::io::Result<()> {
    answer_part(stream, script).await?;
    stream.write_all(&ANSWER_END).await
}

/// Sends the head and the tokens.
async fn answer_part(stream: &mut TcpStream, script: Script) -> std::io::Result<()> {
    let tokens = || TOKENS.iter().cycle().take(script.tokens);
    if script.interval.is_zero() {
        let mut bytes = STREAM_HEAD.to_vec();
        for (n, token) in tokens().enumerate() {
            bytes.extend_from_slice(token);
            if n % TOKENS_PER_WRITE == TOKENS_PER_WRITE - 1 {
                stream.write_all(&bytes).await?;
                bytes.clear();
            }
        }
        return stream.write_all(&bytes).await;
    }
    let mut pace = tokio::time::interval_at(Instant::now() + script.interval, script.interval);
    // When behind schedule, send all due tokens at once, as a real provider would.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for (n, token) in tokens().enumerate() {
        if n == 0 {
            stream.write_all(&[STREAM_HEAD, token].concat()).await?;
        } else {
            pace.tick().await;
            stream.write_all(token).await?;
        }
    }
    Ok(())
}

/// The response without streaming.
fn complete_answer(script: &Script) -> Vec<u8> {
    let text: String = (0..script.tokens)
        .map(|n| word(n % DISTINCT_TOKENS))
        .collect();
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}}}"#
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}
