//! What happens to the cost when there is more: more streams, longer answers.

use std::time::Duration;

use super::Bench;
use super::streams::a_million;
use crate::goals::{Bound, Goal};
use crate::load::{self, Way};
use crate::report::{Against, Row};
use crate::script::Script;
use crate::spread::millis;

/// The same tokens a second, by more and more streams. Each has connections of its own, which are opened for fewer and fewer tokens, and what it needs
/// lies in no cache any more: that makes a token dearer for the relay too, and for the service it is to be no more than for the relay.
const TOKENS_A_SECOND: u32 = 8_000;

/// Tokens an answer.
const TOKENS: usize = 10;

/// From 10 to 5,000 streams.
pub async fn streams(bench: &mut Bench) -> anyhow::Result<()> {
    let mut costs = Vec::new();
    for count in [10_u16, 100, 1000, 5000] {
        let every = Duration::from_secs(1) * u32::from(count) / TOKENS_A_SECOND;
        let script = Script::paced(TOKENS, every);
        // Two seconds' worth, at least one answer each.
        let answers = (Duration::from_secs(2).as_micros() / script.lasts().as_micros()).max(1);
        let mut first50 = Row::new(
            format!("first token, {count} streams, p50, ms"),
            Against::More,
        );
        let mut first99 = Row::new(
            format!("first token, {count} streams, p99, ms"),
            Against::More,
        );
        let mut gap99 = Row::new(
            format!("between tokens, {count} streams, p99, ms"),
            Against::More,
        );
        let mut cpu = Row::new(
            format!("CPU seconds a million tokens, {count} streams"),
            Against::Times,
        );
        for round in 0..bench.rounds {
            for line in bench.ways(round)? {
                let running =
                    load::streams(line, usize::from(count), script, usize::try_from(answers)?)
                        .await?;
                let before = bench.cpu(line)?;
                let heard = running.ended().await?;
                first50.push(line.way, millis(&heard.firsts, 0.5));
                first99.push(line.way, millis(&heard.firsts, 0.99));
                gap99.push(line.way, millis(&heard.gaps, 0.99));
                cpu.push(line.way, a_million(bench.cpu(line)? - before, heard.tokens));
            }
        }
        costs.push((cpu.relay.clone(), cpu.v1.clone(), cpu.ws.clone()));
        bench.report.rows.extend([first50, first99, gap99, cpu]);
    }
    if let [(relay, v1, ws), .., (last_relay, last_v1, last_ws)] = costs.as_slice() {
        let grown = [
            last_relay.times(relay),
            last_v1.times(v1),
            last_ws.times(ws),
        ];
        let [by_relay, by_v1, by_ws] = &grown;
        let name = "`/v1`: growth of the CPU a token from 10 to 5,000 streams, times the relay's";
        bench
            .report
            .goals
            .push(Goal::new(name, Bound::AtMost(1.25), by_v1.times(by_relay)));
        let name = "`/ws`: growth of the CPU a token from 10 to 5,000 streams, times the relay's";
        bench
            .report
            .goals
            .push(Goal::new(name, Bound::AtMost(1.25), by_ws.times(by_relay)));
        for (way, grown) in ["the relay", "`/v1`", "`/ws`"].into_iter().zip(grown) {
            bench.report.single(
                &format!("{way}: CPU a token of 5,000 streams, times that of 10"),
                grown,
            );
        }
    }
    Ok(())
}

/// One answer of 100,000 tokens, and 1,000 of 100.
pub async fn long(bench: &mut Bench) -> anyhow::Result<()> {
    let name = |length: &str| format!("CPU seconds a million tokens, answers of {length}");
    let mut short = Row::new(name("100"), Against::Times);
    let mut long = Row::new(name("100,000"), Against::Times);
    for round in 0..bench.rounds {
        for line in bench
            .ways(round)?
            .into_iter()
            .filter(|line| line.way != Way::Straight)
        {
            for (row, tokens, answers) in [(&mut short, 100, 1000), (&mut long, 100_000, 1)] {
                let before = bench.cpu(line)?;
                let heard = load::streams(line, 1, Script::fast(tokens), answers)
                    .await?
                    .ended()
                    .await?;
                row.push(line.way, a_million(bench.cpu(line)? - before, heard.tokens));
            }
        }
    }
    let goals = &mut bench.report.goals;
    let name = "`/v1`: CPU a token of an answer of 100,000, times that of one of 100";
    goals.push(Goal::new(
        name,
        Bound::AtMost(1.1),
        long.v1.times(&short.v1),
    ));
    let name = "`/ws`: CPU a token of an answer of 100,000, times that of one of 100";
    goals.push(Goal::new(
        name,
        Bound::AtMost(1.1),
        long.ws.times(&short.ws),
    ));
    bench.report.rows.extend([short, long]);
    Ok(())
}
