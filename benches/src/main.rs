//! Measures the latency, CPU time and memory which the service adds to requests: a load generator,
//! a scripted provider and a bare proxy in one program.
//!
//! `benches/run.sh` builds and runs it. The service or the proxy has one core; load and provider
//! share another.

mod answers;
mod distribution;
mod figures;
mod http;
mod load;
mod process;
mod provider;
mod proxy;
mod report;
mod script;
mod socket;
mod targets;
mod testbed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use load::{Endpoint, Route};
use script::Script;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Measures, prints the tables, and writes them into the document.
    Run(RunOptions),
    /// Asks a service repeatedly over one connection: a load for a profiler.
    Ask {
        /// The port of the service.
        #[arg(long)]
        port: u16,
        #[arg(long)]
        route: Route,
        /// The number of answers.
        #[arg(long, default_value_t = 100)]
        answers: usize,
        /// Tokens per answer.
        #[arg(long, default_value_t = 100)]
        tokens: usize,
        /// Milliseconds between two tokens; 0 sends them as fast as they are read.
        #[arg(long, default_value_t = 0)]
        every_ms: u64,
        /// Request complete answers instead of streams; not over ws.
        #[arg(long)]
        whole: bool,
    },
    /// A provider which answers as the question says, on two ports: the first fails where the
    /// question says so, the second never does.
    Provider,
    /// The bare proxy with which the service is compared: the same libraries, no features.
    Proxy {
        /// The provider's URL.
        #[arg(long)]
        provider: String,
    },
}

/// The options of a measurement.
#[derive(clap::Args)]
pub struct RunOptions {
    /// The service binary.
    #[arg(long)]
    service: PathBuf,
    /// The document whose tables are replaced. Without it, or with --only, they are only printed.
    #[arg(long)]
    document: Option<PathBuf>,
    /// Measure only this figure: stream, whole, most, speed, memory, failover, degraded, start,
    /// growth, long. May be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// The number of rounds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=25))]
    rounds: u32,
    /// The run is aborted after this many seconds.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        BenchCommand::Proxy { provider } => proxy::serve(&provider),
        BenchCommand::Provider => block_on_single_thread(provider::serve()),
        BenchCommand::Ask {
            port,
            route,
            answers,
            tokens,
            every_ms,
            whole,
        } => {
            let script = Script::paced(tokens, Duration::from_millis(every_ms));
            block_on_single_thread(load::ask(Endpoint { route, port }, script, answers, whole))
        }
        BenchCommand::Run(options) => block_on_single_thread(run(options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failsoft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs on a single thread, since load and provider share one core.
fn block_on_single_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Runs the measurements. On any end, a signal included, all started processes are dropped and so
/// killed.
async fn run(options: RunOptions) -> anyhow::Result<()> {
    let limit = Duration::from_secs(options.limit);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = figures::all(&options) => result,
        () = tokio::time::sleep(limit) => anyhow::bail!("not done after {} s: try --only, or --limit", limit.as_secs()),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
