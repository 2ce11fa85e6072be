//! The measured figures. Each measures all routes in turn, round by round, so that other load on
//! the machine affects all of them alike.

mod growth;
mod memory;
mod requests;
mod service_only;
mod streams;

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};

use crate::RunOptions;
use crate::load::Endpoint;
use crate::process::Process;
use crate::report::{Report, replace_tables};
use crate::testbed::{Providers, Testbed};

/// The names for `--only`, in the order of measurement.
const FIGURE_NAMES: [&str; 10] = [
    "stream", "whole", "most", "speed", "growth", "long", "memory", "failover", "degraded", "start",
];

/// A running measurement.
struct Bench {
    testbed: Testbed,
    /// The service of most figures.
    service: Process,
    rounds: u32,
    report: Report,
}

impl Bench {
    /// Returns all routes, starting with another one each round.
    fn routes(&self, round: u32) -> anyhow::Result<[Endpoint; 4]> {
        let mut routes = self.testbed.routes(&self.service)?;
        routes.rotate_left(round as usize % 4);
        Ok(routes)
    }

    /// Returns the CPU seconds so far of the process on this route. Zero on the direct route.
    fn cpu(&self, endpoint: Endpoint) -> anyhow::Result<f64> {
        match endpoint.route {
            crate::load::Route::Direct => Ok(0.0),
            crate::load::Route::Proxy | crate::load::Route::ProxyStreamed => {
                self.testbed.proxy.cpu()
            }
            crate::load::Route::V1 | crate::load::Route::Ws => self.service.cpu(),
        }
    }
}

/// Measures the selected figures, prints the tables and updates the document.
pub async fn all(options: &RunOptions) -> anyhow::Result<()> {
    for name in &options.only {
        ensure!(
            FIGURE_NAMES.contains(&name.as_str()),
            "no figure is called {name}; there are: {}",
            FIGURE_NAMES.join(", ")
        );
    }
    let before = load_average()?;
    let started = SystemTime::now();
    let mut testbed = Testbed::open(&options.service).await?;
    let service = testbed.service(Providers::Sound).await?;
    let mut bench = Bench {
        testbed,
        service,
        rounds: options.rounds,
        report: Report::default(),
    };
    for name in FIGURE_NAMES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let start = std::time::Instant::now();
        match name {
            "stream" => streams::paced(&mut bench).await,
            "speed" => streams::fast(&mut bench).await,
            "whole" => requests::complete_at_rates(&mut bench).await,
            "most" => requests::max_throughput(&mut bench).await,
            "growth" => growth::streams(&mut bench).await,
            "long" => growth::long(&mut bench).await,
            "memory" => memory::measure(&mut bench).await,
            "failover" => service_only::failover(&mut bench).await,
            "degraded" => service_only::degraded(&mut bench).await,
            _ => service_only::start(&mut bench).await,
        }
        .with_context(|| name.to_owned())?;
        eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    let took = started.elapsed().unwrap_or_default();
    let text = format!(
        "{}{}",
        conditions(before, started, took, options.rounds)?,
        bench.report.tables()
    );
    println!("{text}");
    if let Some(document) = options
        .document
        .as_ref()
        .filter(|_| options.only.is_empty())
    {
        let old = std::fs::read_to_string(document).context("the document")?;
        std::fs::write(document, replace_tables(&old, &format!("\n{text}"))?)?;
    }
    Ok(())
}

/// Describes date, machine and background load of the run.
fn conditions(
    before: f64,
    started: SystemTime,
    took: Duration,
    rounds: u32,
) -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let name = name.trim_start_matches([' ', '\t', ':']);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let seconds = started.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let quiet = if before < 0.5 {
        "quiet"
    } else {
        "NOT quiet: other processes were running, use only the ratios"
    };
    Ok(format!(
        "Measured on {} in {} s: {name}, {cores} cores, Linux {}; load average before {before:.2} ({quiet}). \
        Median of {rounds} rounds (minimum to maximum).\n\n",
        date(seconds),
        took.as_secs(),
        kernel.trim(),
    ))
}

fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("needs Linux")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Formats a day in UTC (Howard Hinnant's `civil_from_days`).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day = days % 146_097;
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{}-{month:02}-{date:02}", year + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    #[test]
    fn date_formats_days_since_1970() {
        assert_eq!(super::date(0), "1970-01-01");
        assert_eq!(super::date(951_782_400), "2000-02-29");
        assert_eq!(super::date(1_767_225_599), "2025-12-31");
    }
}
