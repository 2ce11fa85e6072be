//! Streams: what is added to their tokens' times, how much processor a token takes, how many a second there can be.

use std::time::Duration;

use super::Bench;
use crate::goals::{Bound, Goal};
use crate::load;
use crate::report::{Against, Row};
use crate::script::Script;
use crate::spread::millis;

const STREAMS: usize = 200;

/// 200 streams of 100 tokens at 50 tokens a second.
pub async fn paced(bench: &mut Bench) -> anyhow::Result<()> {
    let script = Script::paced(100, Duration::from_millis(20));
    let mut first50 = Row::new("first token, 200 streams, p50, ms", Against::More);
    let mut first99 = Row::new("first token, 200 streams, p99, ms", Against::More);
    let mut gap99 = Row::new("between tokens, 200 streams, p99, ms", Against::More);
    let mut cpu = Row::new("CPU seconds a million tokens, 200 streams", Against::Times);
    for round in 0..bench.rounds {
        for line in bench.ways(round)? {
            let running = load::streams(line, STREAMS, script, 2).await?;
            let before = bench.cpu(line)?;
            let heard = running.ended().await?;
            first50.push(line.way, millis(&heard.firsts, 0.5));
            first99.push(line.way, millis(&heard.firsts, 0.99));
            gap99.push(line.way, millis(&heard.gaps, 0.99));
            cpu.push(line.way, a_million(bench.cpu(line)? - before, heard.tokens));
        }
    }
    let goals = &mut bench.report.goals;
    let added = |name, way| Goal::new(name, Bound::AtMost(1.0), first50.beside_straight(way));
    goals.push(added(
        "`/v1`: ms added to the first token, p50, 200 streams",
        &first50.v1,
    ));
    goals.push(added(
        "`/ws`: ms added to the first token, p50, 200 streams",
        &first50.ws,
    ));
    let v1 = cpu.v1.times(&cpu.relay);
    goals.push(Goal::new(
        "`/v1`: CPU a token, times the relay's",
        Bound::AtMost(1.4),
        v1,
    ));
    let ws = cpu.ws.times(&cpu.relay);
    goals.push(Goal::new(
        "`/ws`: CPU a token, times the relay's",
        Bound::AtMost(2.0),
        ws,
    ));
    bench.report.rows.extend([first50, first99, gap99, cpu]);
    Ok(())
}

/// 16 streams without a pace, one after another.
pub async fn fast(bench: &mut Bench) -> anyhow::Result<()> {
    let time = Duration::from_millis(1500);
    let mut speed = Row::new("tokens a second, 16 streams without a pace", Against::Times);
    let mut cpu = Row::new(
        "CPU seconds a million tokens without a pace",
        Against::Times,
    );
    for round in 0..bench.rounds {
        for line in bench.ways(round)? {
            let (before, begun) = (bench.cpu(line)?, std::time::Instant::now());
            let heard = load::flat_out(line, 16, Script::fast(1000), time).await?;
            #[allow(clippy::cast_precision_loss)]
            speed.push(
                line.way,
                heard.tokens as f64 / begun.elapsed().as_secs_f64(),
            );
            cpu.push(line.way, a_million(bench.cpu(line)? - before, heard.tokens));
        }
    }
    bench.report.rows.extend([speed, cpu]);
    Ok(())
}

/// What a million tokens would have taken.
pub fn a_million(seconds: f64, tokens: usize) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let tokens = tokens as f64;
    seconds / tokens * 1e6
}
