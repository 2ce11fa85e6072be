//! Growth of the cost with the number of streams and the length of answers.

use std::time::Duration;

use super::Bench;
use super::streams::per_million;
use crate::distribution::millis;
use crate::load::{self, Route};
use crate::report::{Comparison, Row};
use crate::script::Script;
use crate::targets::{Bound, Target};

/// The total token rate, however many streams share it. With more streams each connection carries
/// fewer tokens and each stream's memory leaves the CPU caches, so a token costs the proxy more
/// too. The service must not grow faster than the proxy.
const TOKENS_PER_SECOND: u32 = 8_000;

/// Tokens per answer.
const TOKENS: usize = 10;

/// Measures 10 to 5,000 streams.
pub async fn streams(bench: &mut Bench) -> anyhow::Result<()> {
    let mut costs = Vec::new();
    for count in [10_u16, 100, 1000, 5000] {
        let every = Duration::from_secs(1) * u32::from(count) / TOKENS_PER_SECOND;
        let script = Script::paced(TOKENS, every);
        // Two seconds' worth of answers, at least one per stream.
        let answers = (Duration::from_secs(2).as_micros() / script.duration().as_micros()).max(1);
        let mut first50 = Row::new(
            format!("first token, {count} streams, p50, ms"),
            Comparison::Difference,
        );
        let mut first99 = Row::new(
            format!("first token, {count} streams, p99, ms"),
            Comparison::Difference,
        );
        let mut gap99 = Row::new(
            format!("between tokens, {count} streams, p99, ms"),
            Comparison::Difference,
        );
        let mut cpu = Row::new(
            format!("CPU seconds per million tokens, {count} streams"),
            Comparison::Ratio,
        );
        for round in 0..bench.rounds {
            for endpoint in bench.routes(round)? {
                let running = load::start_streams(
                    endpoint,
                    usize::from(count),
                    script,
                    usize::try_from(answers)?,
                )
                .await?;
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
        costs.push((cpu.proxy.clone(), cpu.v1.clone(), cpu.ws.clone()));
        bench.report.rows.extend([first50, first99, gap99, cpu]);
    }
    if let [(proxy, v1, ws), .., (last_proxy, last_v1, last_ws)] = costs.as_slice() {
        let grown = [
            last_proxy.ratio_to(proxy),
            last_v1.ratio_to(v1),
            last_ws.ratio_to(ws),
        ];
        let [by_proxy, by_v1, by_ws] = &grown;
        let name = "`/v1`: growth of CPU per token from 10 to 5,000 streams, times the proxy's";
        bench.report.targets.push(Target::new(
            name,
            Bound::AtMost(1.25),
            by_v1.ratio_to(by_proxy),
        ));
        let name = "`/ws`: growth of CPU per token from 10 to 5,000 streams, times the proxy's";
        bench.report.targets.push(Target::new(
            name,
            Bound::AtMost(1.25),
            by_ws.ratio_to(by_proxy),
        ));
        for (route, grown) in ["the proxy", "`/v1`", "`/ws`"].into_iter().zip(grown) {
            bench.report.add_single(
                &format!("{route}: CPU per token with 5,000 streams, times that with 10"),
                grown,
            );
        }
    }
    Ok(())
}

/// Compares one answer of 100,000 tokens with 1,000 answers of 100.
pub async fn long(bench: &mut Bench) -> anyhow::Result<()> {
    let name = |length: &str| format!("CPU seconds per million tokens, answers of {length}");
    let mut short = Row::new(name("100"), Comparison::Ratio);
    let mut long = Row::new(name("100,000"), Comparison::Ratio);
    for round in 0..bench.rounds {
        for endpoint in bench
            .routes(round)?
            .into_iter()
            .filter(|endpoint| endpoint.route != Route::Direct)
        {
            for (row, tokens, answers) in [(&mut short, 100, 1000), (&mut long, 100_000, 1)] {
                let before = bench.cpu(endpoint)?;
                let result = load::start_streams(endpoint, 1, Script::fast(tokens), answers)
                    .await?
                    .finish()
                    .await?;
                row.push(
                    endpoint.route,
                    per_million(bench.cpu(endpoint)? - before, result.tokens),
                );
            }
        }
    }
    let targets = &mut bench.report.targets;
    let name = "`/v1`: CPU per token in answers of 100,000 tokens, times that in answers of 100";
    targets.push(Target::new(
        name,
        Bound::AtMost(1.1),
        long.v1.ratio_to(&short.v1),
    ));
    let name = "`/ws`: CPU per token in answers of 100,000 tokens, times that in answers of 100";
    targets.push(Target::new(
        name,
        Bound::AtMost(1.1),
        long.ws.ratio_to(&short.ws),
    ));
    bench.report.rows.extend([short, long]);
    Ok(())
}
