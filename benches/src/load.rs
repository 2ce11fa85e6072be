//! Loads, and the ways that they take.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answers::{Answers, Heard};
use crate::http::Caller;
use crate::script::Script;
use crate::socket::Visitor;

/// A way to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// Nothing in between.
    Straight,
    /// The bare relay.
    Relay,
    /// The bare relay where it asks for a stream and gives a whole answer, as the service does. It stands in no table.
    Gathered,
    /// The service's API.
    V1,
    /// The service's chat.
    Ws,
}

/// A way, and the port at which it begins.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub way: Way,
    pub port: u16,
}

enum Client {
    Caller(Caller),
    Visitor(Visitor),
}

impl Line {
    async fn open(self) -> anyhow::Result<Client> {
        Ok(match self.way {
            Way::Ws => Client::Visitor(Visitor::enter(self.port).await?),
            Way::Straight => Client::Caller(Caller::connect(self.port, "/chat/completions").await?),
            Way::Gathered => {
                Client::Caller(Caller::connect(self.port, "/gathered/chat/completions").await?)
            }
            Way::Relay | Way::V1 => {
                Client::Caller(Caller::connect(self.port, "/v1/chat/completions").await?)
            }
        })
    }

    async fn clients(self, count: usize) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.open().await?);
        }
        Ok(clients)
    }
}

impl Client {
    async fn ask(&mut self, script: Script) -> anyhow::Result<Heard> {
        match self {
            Self::Caller(caller) => caller.streamed(script).await,
            Self::Visitor(visitor) => visitor.ask(script).await,
        }
    }
}

/// An opened load that goes on in the background.
pub struct Running(JoinSet<anyhow::Result<Answers>>);

impl Running {
    pub async fn ended(mut self) -> anyhow::Result<Answers> {
        let mut all = Answers::default();
        while let Some(one) = self.0.join_next().await {
            all.merge(one.context("the load's task")??);
        }
        Ok(all)
    }
}

/// So many streams at once, begun one after another over the time that one answer takes, each with so many answers.
///
/// Visitors are in their chats before; a caller connects when it has something to ask, as a connection without a request is soon closed.
pub async fn streams(
    line: Line,
    count: usize,
    script: Script,
    answers: usize,
) -> anyhow::Result<Running> {
    let mut ahead = if line.way == Way::Ws {
        line.clients(count).await?
    } else {
        Vec::new()
    };
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..u32::try_from(count)? {
        let at = begin + script.lasts() * n / u32::try_from(count)?;
        let visitor = ahead.pop();
        tasks.spawn(async move {
            tokio::time::sleep_until(at).await;
            let mut client = match visitor {
                Some(visitor) => visitor,
                None => line.open().await?,
            };
            let mut all = Answers::default();
            for _ in 0..answers {
                all.add(
                    client
                        .ask(script)
                        .await
                        .with_context(|| format!("{:?}", line.way))?,
                );
            }
            Ok(all)
        });
    }
    Ok(Running(tasks))
}

/// So many clients that ask for streams one after another, without a pause, for `time`.
pub async fn flat_out(
    line: Line,
    count: usize,
    script: Script,
    time: Duration,
) -> anyhow::Result<Answers> {
    let clients = line.clients(count).await?;
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut all = Answers::default();
            while Instant::now() < end {
                all.add(
                    client
                        .ask(script)
                        .await
                        .with_context(|| format!("{:?}", line.way))?,
                );
            }
            Ok(all)
        });
    }
    Running(tasks).ended().await
}

/// Whole answers, so many a second over `count` connections, for `time`; without a rate as many as can be had.
pub async fn whole(
    line: Line,
    count: usize,
    script: Script,
    rate: Option<u32>,
    time: Duration,
) -> anyhow::Result<Answers> {
    let begin = Instant::now();
    let every = rate.map(|rate| Duration::from_secs(1) / rate);
    let mut tasks = JoinSet::new();
    for (n, client) in (0_u32..).zip(line.clients(count).await?) {
        let Client::Caller(mut caller) = client else {
            anyhow::bail!("no such way")
        };
        let count = u32::try_from(count)?;
        tasks.spawn(async move {
            let mut all = Answers::default();
            for round in 0_u32.. {
                let due = every.map(|every| begin + every * (round * count + n));
                if due.unwrap_or_else(Instant::now) - begin > time {
                    break;
                }
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                all.add(
                    caller
                        .whole(script)
                        .await
                        .with_context(|| format!("{:?}", line.way))?,
                );
            }
            Ok(all)
        });
    }
    Running(tasks).ended().await
}

/// So many answers one after another.
pub async fn ask(line: Line, script: Script, answers: usize, whole: bool) -> anyhow::Result<()> {
    let mut client = line.open().await?;
    for _ in 0..answers {
        match &mut client {
            Client::Caller(caller) if whole => caller.whole(script).await?,
            client => client.ask(script).await?,
        };
    }
    Ok(())
}
