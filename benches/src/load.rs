//! Load generators, and the routes which they use.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answers::{AnswerTiming, LoadResult};
use crate::http::HttpClient;
use crate::script::Script;
use crate::socket::ChatClient;

/// A route to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Route {
    /// Without anything in between.
    Direct,
    /// Through the bare proxy.
    Proxy,
    /// Through the bare proxy, which requests a stream and returns a complete answer, as the
    /// service does. It has no column in the tables.
    ProxyStreamed,
    /// Through the service's OpenAI-compatible API.
    V1,
    /// Through the service's WebSocket chat.
    Ws,
}

/// A route and the port at its start.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    pub route: Route,
    pub port: u16,
}

enum LoadClient {
    HttpClient(HttpClient),
    ChatClient(ChatClient),
}

impl Endpoint {
    async fn open(self) -> anyhow::Result<LoadClient> {
        Ok(match self.route {
            Route::Ws => LoadClient::ChatClient(ChatClient::connect(self.port).await?),
            Route::Direct => {
                LoadClient::HttpClient(HttpClient::connect(self.port, "/chat/completions").await?)
            }
            Route::ProxyStreamed => LoadClient::HttpClient(
                HttpClient::connect(self.port, "/streamed/chat/completions").await?,
            ),
            Route::Proxy | Route::V1 => LoadClient::HttpClient(
                HttpClient::connect(self.port, "/v1/chat/completions").await?,
            ),
        })
    }

    async fn clients(self, count: usize) -> anyhow::Result<Vec<LoadClient>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.open().await?);
        }
        Ok(clients)
    }
}

impl LoadClient {
    async fn ask(&mut self, script: Script) -> anyhow::Result<AnswerTiming> {
        match self {
            Self::HttpClient(http_client) => http_client.ask_streaming(script).await,
            Self::ChatClient(chat_client) => chat_client.ask(script).await,
        }
    }
}

/// A load which runs in the background.
pub struct RunningLoad(JoinSet<anyhow::Result<LoadResult>>);

impl RunningLoad {
    pub async fn finish(mut self) -> anyhow::Result<LoadResult> {
        let mut result = LoadResult::default();
        while let Some(answers) = self.0.join_next().await {
            result.merge(answers.context("the load's task")??);
        }
        Ok(result)
    }
}

/// Starts `count` concurrent streams, spread evenly over the duration of one answer, with `answers`
/// answers each.
///
/// Chat clients connect in advance. HTTP clients connect with their first request, since the
/// service soon closes a connection without one.
pub async fn start_streams(
    endpoint: Endpoint,
    count: usize,
    script: Script,
    answers: usize,
) -> anyhow::Result<RunningLoad> {
    let mut ahead = if endpoint.route == Route::Ws {
        endpoint.clients(count).await?
    } else {
        Vec::new()
    };
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..u32::try_from(count)? {
        let at = begin + script.duration() * n / u32::try_from(count)?;
        let chat_client = ahead.pop();
        tasks.spawn(async move {
            tokio::time::sleep_until(at).await;
            let mut client = match chat_client {
                Some(chat_client) => chat_client,
                None => endpoint.open().await?,
            };
            let mut result = LoadResult::default();
            for _ in 0..answers {
                result.add(
                    client
                        .ask(script)
                        .await
                        .with_context(|| format!("{:?}", endpoint.route))?,
                );
            }
            Ok(result)
        });
    }
    Ok(RunningLoad(tasks))
}

/// Runs `count` clients which request one stream after another, for `time`.
pub async fn run_unpaced(
    endpoint: Endpoint,
    count: usize,
    script: Script,
    time: Duration,
) -> anyhow::Result<LoadResult> {
    let clients = endpoint.clients(count).await?;
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut result = LoadResult::default();
            while Instant::now() < end {
                result.add(
                    client
                        .ask(script)
                        .await
                        .with_context(|| format!("{:?}", endpoint.route))?,
                );
            }
            Ok(result)
        });
    }
    RunningLoad(tasks).finish().await
}

/// Requests complete answers over `count` connections for `time`: at `rate` per second, or as many
/// as possible if it is `None`.
pub async fn run_complete(
    endpoint: Endpoint,
    count: usize,
    script: Script,
    rate: Option<u32>,
    time: Duration,
) -> anyhow::Result<LoadResult> {
    let begin = Instant::now();
    let every = rate.map(|rate| Duration::from_secs(1) / rate);
    let mut tasks = JoinSet::new();
    for (n, client) in (0_u32..).zip(endpoint.clients(count).await?) {
        let LoadClient::HttpClient(mut http_client) = client else {
            anyhow::bail!("no such route")
        };
        let count = u32::try_from(count)?;
        tasks.spawn(async move {
            let mut result = LoadResult::default();
            for round in 0_u32.. {
                let due = every.map(|every| begin + every * (round * count + n));
                if due.unwrap_or_else(Instant::now) - begin > time {
                    break;
                }
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                result.add(
                    http_client
                        .ask_complete(script)
                        .await
                        .with_context(|| format!("{:?}", endpoint.route))?,
                );
            }
            Ok(result)
        });
    }
    RunningLoad(tasks).finish().await
}

/// Requests answers one after another.
pub async fn ask(
    endpoint: Endpoint,
    script: Script,
    answers: usize,
    whole: bool,
) -> anyhow::Result<()> {
    let mut client = endpoint.open().await?;
    for _ in 0..answers {
        match &mut client {
            LoadClient::HttpClient(http_client) if whole => {
                http_client.ask_complete(script).await?
            }
            client => client.ask(script).await?,
        };
    }
    Ok(())
}
