//! Measures what the service does to what passes through it: a load generator, a scripted provider and a bare relay in one program.
//!
//! `benches/run.sh` builds it and runs it. The service, and the relay, have one core to themselves; load and provider share another.

mod answers;
mod figures;
mod goals;
mod http;
mod load;
mod place;
mod process;
mod provider;
mod relay;
mod report;
mod script;
mod socket;
mod spread;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use load::{Line, Way};
use script::Script;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measures, prints the tables, and writes them into the document.
    Run(Wanted),
    /// Asks a service, or whatever speaks as one, again and again over one connection: a load for a profiler.
    Ask {
        /// Where it listens.
        #[arg(long)]
        port: u16,
        #[arg(long)]
        way: Way,
        /// How many answers.
        #[arg(long, default_value_t = 100)]
        answers: usize,
        /// Tokens an answer.
        #[arg(long, default_value_t = 100)]
        tokens: usize,
        /// From one token to the next; 0: as fast as they are taken.
        #[arg(long, default_value_t = 0)]
        every_ms: u64,
        /// Whole answers instead of streams; not over ws.
        #[arg(long)]
        whole: bool,
    },
    /// A provider that answers as the question says. Two ports: the first breaks where it is told to, the second never does.
    Provider,
    /// What the service is compared with: the same libraries, and nothing but passing on.
    Relay {
        /// Where the provider is.
        #[arg(long)]
        provider: String,
    },
}

/// What is to be measured.
#[derive(clap::Args)]
pub struct Wanted {
    /// The service's program.
    #[arg(long)]
    service: PathBuf,
    /// The document whose tables are written anew; without it, or with --only, they are printed alone.
    #[arg(long)]
    document: Option<PathBuf>,
    /// This figure alone: stream, whole, most, speed, memory, failover, degraded, start, growth, long. May be given again.
    #[arg(long)]
    only: Vec<String>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=25))]
    rounds: u32,
    /// The whole run is given up after so many seconds.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.what {
        What::Relay { provider } => relay::serve(&provider),
        What::Provider => alone(provider::serve()),
        What::Ask {
            port,
            way,
            answers,
            tokens,
            every_ms,
            whole,
        } => {
            let script = Script::paced(tokens, Duration::from_millis(every_ms));
            alone(load::ask(Line { way, port }, script, answers, whole))
        }
        What::Run(wanted) => alone(run(wanted)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failsoft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// On one thread: load and provider have one core together.
fn alone(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Whatever ends it, the processes that were started are gone afterwards.
async fn run(wanted: Wanted) -> anyhow::Result<()> {
    let limit = Duration::from_secs(wanted.limit);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = figures::all(&wanted) => ended,
        () = tokio::time::sleep(limit) => anyhow::bail!("not done after {} s: try --only, or --limit", limit.as_secs()),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
