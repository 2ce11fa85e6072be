//! What is measured. Each figure takes all ways in turn, round by round, so that whatever else the machine does meets all of them.

mod growth;
mod lone;
mod memory;
mod requests;
mod streams;

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};

use crate::Wanted;
use crate::load::Line;
use crate::place::{Behind, Place};
use crate::process::Process;
use crate::report::{Report, placed};

/// The names for `--only`, in their order.
const NAMES: [&str; 10] = [
    "stream", "whole", "most", "speed", "growth", "long", "memory", "failover", "degraded", "start",
];

/// A run under way.
struct Bench {
    place: Place,
    /// The service that most figures are of.
    service: Process,
    rounds: u32,
    report: Report,
}

impl Bench {
    /// All ways, beginning with another one each round.
    fn ways(&self, round: u32) -> anyhow::Result<[Line; 4]> {
        let mut ways = self.place.ways(&self.service)?;
        ways.rotate_left(round as usize % 4);
        Ok(ways)
    }

    /// Seconds of processor time so far of what stands on this way; none where nothing does.
    fn cpu(&self, line: Line) -> anyhow::Result<f64> {
        match line.way {
            crate::load::Way::Straight => Ok(0.0),
            crate::load::Way::Relay | crate::load::Way::Gathered => self.place.relay.cpu(),
            crate::load::Way::V1 | crate::load::Way::Ws => self.service.cpu(),
        }
    }
}

/// Measures what is wanted, and tells it.
pub async fn all(wanted: &Wanted) -> anyhow::Result<()> {
    for name in &wanted.only {
        ensure!(
            NAMES.contains(&name.as_str()),
            "no figure is called {name}; there are: {}",
            NAMES.join(", ")
        );
    }
    let before = load_average()?;
    let begun = SystemTime::now();
    let mut place = Place::open(&wanted.service).await?;
    let service = place.service(Behind::One).await?;
    let mut bench = Bench {
        place,
        service,
        rounds: wanted.rounds,
        report: Report::default(),
    };
    for name in NAMES {
        if !wanted.only.is_empty() && !wanted.only.iter().any(|only| only == name) {
            continue;
        }
        let start = std::time::Instant::now();
        match name {
            "stream" => streams::paced(&mut bench).await,
            "speed" => streams::fast(&mut bench).await,
            "whole" => requests::at_a_rate(&mut bench).await,
            "most" => requests::most(&mut bench).await,
            "growth" => growth::streams(&mut bench).await,
            "long" => growth::long(&mut bench).await,
            "memory" => memory::measure(&mut bench).await,
            "failover" => lone::fail_over(&mut bench).await,
            "degraded" => lone::degraded(&mut bench).await,
            _ => lone::start(&mut bench).await,
        }
        .with_context(|| name.to_owned())?;
        eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    let took = begun.elapsed().unwrap_or_default();
    let text = format!(
        "{}{}",
        conditions(before, begun, took, wanted.rounds)?,
        bench.report.tables()
    );
    println!("{text}");
    if let Some(document) = wanted.document.as_ref().filter(|_| wanted.only.is_empty()) {
        let old = std::fs::read_to_string(document).context("the document")?;
        std::fs::write(document, placed(&old, &format!("\n{text}"))?)?;
    }
    Ok(())
}

/// When and where this was measured, and what else the machine had to do.
fn conditions(
    before: f64,
    begun: SystemTime,
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
    let seconds = begun.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let quiet = if before < 0.5 {
        "quiet"
    } else {
        "NOT quiet: others were at work, take the ratios alone"
    };
    Ok(format!(
        "Measured on {} in {} s: {name}, {cores} cores, Linux {}; load average before {before:.2} ({quiet}). \
        Median of {rounds} rounds (least to most).\n\n",
        date(seconds),
        took.as_secs(),
        kernel.trim(),
    ))
}

fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("needs Linux")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// The day, in UTC (Howard Hinnant's civil_from_days).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (
        year + era * 400,
        if month < 10 { month + 3 } else { month - 9 },
    );
    format!("{}-{month:02}-{date:02}", year + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    #[test]
    fn days_have_dates() {
        assert_eq!(super::date(0), "1970-01-01");
        assert_eq!(super::date(951_782_400), "2000-02-29");
        assert_eq!(super::date(1_767_225_599), "2025-12-31");
    }
}
