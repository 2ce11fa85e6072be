//! Streams: added latency, CPU time per token and maximum token rate.

use std::time::Duration;

use super::Bench;
use crate::distribution::millis;
use crate::load;
use crate::report::{Comparison, Row};
use crate::script::Script;
use crate::targets::{Bound, Target};

const STREAMS: usize = 200;

/// Measures 200 streams of 100 tokens at 50 tokens per second.
pub async fn paced(bench: &mut Bench) -> anyhow::Result<()> {
    let script = Script::paced(100, Duration::from_millis(20));
    let mut first50 = Row::new("first token, 200 streams, p50, ms", Comparison::Difference);
    let mut first99 = Row::new("first token, 200 streams, p99, ms", Comparison::Difference);
    let mut gap99 = Row::new(
        "between tokens, 200 streams, p99, ms",
        Comparison::Difference,
    );
    let mut cpu = Row::new(
        "CPU seconds per million tokens, 200 streams",
        Comparison::Ratio,
    );
    for round in 0..bench.rounds {
        for endpoint in bench.routes(round)? {
            let running = load::start_streams(endpoint, STREAMS, script, 2).await?;
            let before = bench.cpu(endpoint)?;
            let result = running.finish().await?;
            first50.push(endpoint.route, millis(&result.firsts, 0.5));
            first99.push(endpoint.route, millis(&result.firsts, 0.99));
            gap99.push(endpoint.route, millis(&result.gaps, 0.99));
            cpu.push(
                endpoint.route,
                per_million(bench.cpu(endpoint)? - before, result.tokens),
            );
        }
    }
    let targets = &mut bench.report.targets;
    let added =
        |name, route| Target::new(name, Bound::AtMost(1.0), first50.compare_with_direct(route));
    targets.push(added(
        "`/v1`: ms added to the first token, p50, 200 streams",
        &first50.v1,
    ));
    targets.push(added(
        "`/ws`: ms added to the first token, p50, 200 streams",
        &first50.ws,
    ));
    let v1 = cpu.v1.ratio_to(&cpu.proxy);
    targets.push(Target::new(
        "`/v1`: CPU per token, times the proxy's",
        Bound::AtMost(1.4),
        v1,
    ));
    let ws = cpu.ws.ratio_to(&cpu.proxy);
    targets.push(Target::new(
        "`/ws`: CPU per token, times the proxy's",
        Bound::AtMost(2.0),
        ws,
    ));
    bench.report.rows.extend([first50, first99, gap99, cpu]);
    Ok(())
}

/// Measures 16 clients with unpaced streams, one after another.
pub async fn fast(bench: &mut Bench) -> anyhow::Result<()> {
    let time = Duration::from_millis(1500);
    let mut speed = Row::new("tokens per second, 16 unpaced streams", Comparison::Ratio);
    let mut cpu = Row::new("CPU seconds per million unpaced tokens", Comparison::Ratio);
    for round in 0..bench.rounds {
        for endpoint in bench.routes(round)? {
            let before = bench.cpu(endpoint)?;
            let started = std::time::Instant::now();
            let result = load::run_unpaced(endpoint, 16, Script::fast(1000), time).await?;
            #[allow(clippy::cast_precision_loss)]
            speed.push(
                endpoint.route,
                result.tokens as f64 / started.elapsed().as_secs_f64(),
            );
            cpu.push(
                endpoint.route,
                per_million(bench.cpu(endpoint)? - before, result.tokens),
            );
        }
    }
    bench.report.rows.extend([speed, cpu]);
    Ok(())
}

/// Scales seconds to a million tokens.
pub fn per_million(seconds: f64, tokens: usize) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let tokens = tokens as f64;
    seconds / tokens * 1e6
}
