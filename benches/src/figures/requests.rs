//! Whole answers over `/v1`.

use std::time::Duration;

use super::Bench;
use crate::goals::{Bound, Goal};
use crate::load::{self, Line, Way};
use crate::report::{Against, Row};
use crate::script::Script;
use crate::spread::{Spread, millis};

const TIME: Duration = Duration::from_millis(1500);

const CONNECTIONS: usize = 64;

/// A short answer.
const SCRIPT: fn() -> Script = || Script::fast(10);

/// At 200 and at 1,000 a second.
pub async fn at_a_rate(bench: &mut Bench) -> anyhow::Result<()> {
    for rate in [200, 1000] {
        let mut p50 = Row::new(
            format!("whole answer at {rate} a second, p50, ms"),
            Against::More,
        );
        let mut p99 = Row::new(
            format!("whole answer at {rate} a second, p99, ms"),
            Against::More,
        );
        let mut cpu = Row::new(
            format!("CPU µs a whole answer at {rate} a second"),
            Against::Times,
        );
        for round in 0..bench.rounds {
            for line in bench
                .ways(round)?
                .into_iter()
                .filter(|line| line.way != Way::Ws)
            {
                let before = bench.cpu(line)?;
                let heard = load::whole(line, CONNECTIONS, SCRIPT(), Some(rate), TIME).await?;
                p50.push(line.way, millis(&heard.whole, 0.5));
                p99.push(line.way, millis(&heard.whole, 0.99));
                cpu.push(
                    line.way,
                    super::streams::a_million(bench.cpu(line)? - before, heard.whole.len()),
                );
            }
        }
        bench.report.rows.extend([p50, p99, cpu]);
    }
    Ok(())
}

/// As many as there can be over 64 connections.
pub async fn most(bench: &mut Bench) -> anyhow::Result<()> {
    let mut most = Row::new("whole answers a second, 64 connections", Against::Times);
    let mut cpu = Row::new("CPU µs a whole answer, 64 connections", Against::Times);
    let [mut gathered, mut gathered_cpu] = std::array::from_fn(|_| Spread::default());
    for round in 0..bench.rounds {
        let mut ways = bench.ways(round)?;
        for line in &mut ways {
            // Another way takes its turn: the relay as it is when it asks for a stream, as the service does.
            *line = if line.way == Way::Ws {
                Line {
                    way: Way::Gathered,
                    port: bench.place.relay.port()?,
                }
            } else {
                *line
            };
        }
        for line in ways {
            let (before, begun) = (bench.cpu(line)?, std::time::Instant::now());
            let heard = load::whole(line, CONNECTIONS, SCRIPT(), None, TIME).await?;
            #[allow(clippy::cast_precision_loss)]
            let a_second = heard.whole.len() as f64 / begun.elapsed().as_secs_f64();
            let each = super::streams::a_million(bench.cpu(line)? - before, heard.whole.len());
            if line.way == Way::Gathered {
                gathered.push(a_second);
                gathered_cpu.push(each);
            }
            most.push(line.way, a_second);
            cpu.push(line.way, each);
        }
    }
    let report = &mut bench.report;
    let name = "`/v1`: whole answers a second, times the relay's";
    report.goals.push(Goal::new(
        name,
        Bound::AtLeast(0.7),
        most.v1.times(&most.relay),
    ));
    let where_streamed = "where the relay asks for a stream too";
    report.single(
        &format!("whole answers a second, 64 connections, {where_streamed}: the relay's"),
        gathered.clone(),
    );
    report.single(
        &format!("CPU µs a whole answer, {where_streamed}: the relay's"),
        gathered_cpu,
    );
    report.single(
        &format!("whole answers a second over `/v1`, {where_streamed}: times the relay's"),
        most.v1.times(&gathered),
    );
    report.rows.extend([most, cpu]);
    Ok(())
}
