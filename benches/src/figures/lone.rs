//! What only the service does: fail over, answer without a provider, start.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Bench;
use crate::goals::{Bound, Goal};
use crate::http::Caller;
use crate::load::{Line, Way};
use crate::place::Behind;
use crate::script::{BEFORE_CUT, Fault, Script};
use crate::socket::Visitor;
use crate::spread::{Spread, millis, quantile};

/// Fail-overs a round.
const TIMES: usize = 20;

/// How long degraded answers are counted.
const TIME: Duration = Duration::from_secs(2);

/// Before the first token: what a refusal adds to it. In mid-answer: from the last token of who breaks to the next text.
pub async fn fail_over(bench: &mut Bench) -> anyhow::Result<()> {
    let [mut v1, mut ws, mut middle, mut middle_worst] = std::array::from_fn(|_| Spread::default());
    let whole = Script::fast(2 * BEFORE_CUT);
    for _ in 0..bench.rounds {
        let service = bench.place.service(Behind::Two).await?;
        let port = service.port()?;
        let mut caller = Caller::connect(port, "/v1/chat/completions").await?;
        let (mut usual, mut refused) = (Vec::new(), Vec::new());
        // Two good ones to each bad one, so that the breaker stays closed.
        for n in 0..3 * TIMES {
            let fault = if n % 3 == 2 {
                Fault::Refuse
            } else {
                Fault::None
            };
            let heard = caller.streamed(Script { fault, ..whole }).await?;
            if n % 3 == 2 { &mut refused } else { &mut usual }.extend(heard.first);
        }
        v1.push(millis(&refused, 0.5) - millis(&usual, 0.5));
        let (mut usual, mut refused, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..6 * TIMES {
            let fault = match n % 6 {
                2 => Fault::Refuse,
                5 => Fault::Cut,
                _ => Fault::None,
            };
            // Each in its own conversation, as the history is no part of this.
            let heard = Visitor::enter(port)
                .await?
                .ask(Script { fault, ..whole })
                .await?;
            match fault {
                Fault::None => usual.extend(heard.first),
                Fault::Refuse => refused.extend(heard.first),
                Fault::Cut => gaps.extend(heard.gaps.iter().max()),
            }
        }
        ws.push(millis(&refused, 0.5) - millis(&usual, 0.5));
        middle.push(millis(&gaps, 0.5));
        middle_worst.push(millis(&gaps, 1.0));
        drop(service);
    }
    let report = &mut bench.report;
    for (name, value) in [
        ("`/v1`: ms to fail over before the first token", &v1),
        ("`/ws`: ms to fail over before the first token", &ws),
        ("`/ws`: ms to fail over in mid-answer", &middle),
    ] {
        report
            .goals
            .push(Goal::new(name, Bound::AtMost(5.0), value.clone()));
    }
    report.single(
        "fail-over before the first token, added over `/v1`, p50, ms",
        v1,
    );
    report.single(
        "fail-over before the first token, added over `/ws`, p50, ms",
        ws,
    );
    report.single(
        "fail-over in mid-answer over `/ws`, last token to next text, p50, ms",
        middle,
    );
    report.single(
        "fail-over in mid-answer over `/ws`, last token to next text, the worst, ms",
        middle_worst,
    );
    Ok(())
}

/// With a provider that nobody can reach.
pub async fn degraded(bench: &mut Bench) -> anyhow::Result<()> {
    let [mut v1, mut ws, mut cpu_v1, mut cpu_ws] = std::array::from_fn(|_| Spread::default());
    for _ in 0..bench.rounds {
        let service = bench.place.service(Behind::Nobody).await?;
        let port = service.port()?;
        for (way, each, cpu) in [
            (Way::V1, &mut v1, &mut cpu_v1),
            (Way::Ws, &mut ws, &mut cpu_ws),
        ] {
            let mut tasks = JoinSet::new();
            let (before, begun) = (service.cpu()?, Instant::now());
            for _ in 0..64 {
                tasks.spawn(answers(Line { way, port }, begun + TIME));
            }
            let mut answers = 0.0;
            while let Some(one) = tasks.join_next().await {
                answers += f64::from(one??);
            }
            each.push(answers / begun.elapsed().as_secs_f64());
            cpu.push((service.cpu()? - before) / answers * 1e6);
        }
        drop(service);
    }
    let report = &mut bench.report;
    report.goals.push(Goal::new(
        "`/v1`: degraded answers a second",
        Bound::AtLeast(5000.0),
        v1.clone(),
    ));
    report.goals.push(Goal::new(
        "`/ws`: degraded answers a second",
        Bound::AtLeast(5000.0),
        ws.clone(),
    ));
    report.single("degraded answers a second over `/v1`, 64 connections", v1);
    report.single(
        "degraded answers a second over `/ws`, 64 conversations, each kept on disk",
        ws,
    );
    report.single("CPU µs a degraded answer over `/v1`", cpu_v1);
    report.single("CPU µs a degraded answer over `/ws`", cpu_ws);
    Ok(())
}

async fn answers(line: Line, until: Instant) -> anyhow::Result<u32> {
    let mut count = 0;
    if line.way == Way::Ws {
        let mut visitor = Visitor::enter(line.port).await?;
        while Instant::now() < until {
            visitor.ask_in_vain("What is the meaning of this?").await?;
            count += 1;
        }
    } else {
        let mut caller = Caller::connect(line.port, "/v1/chat/completions").await?;
        while Instant::now() < until {
            caller.whole(Script::fast(0)).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// From the process's start until it listens, with an empty store.
pub async fn start(bench: &mut Bench) -> anyhow::Result<()> {
    let mut value = Spread::default();
    for _ in 0..bench.rounds {
        let mut times = Vec::new();
        for _ in 0..3 {
            let service = bench.place.service(Behind::One).await?;
            times.push(service.ready_after.as_secs_f64() * 1000.0);
            drop(service);
        }
        value.push(quantile(&times, 0.5));
    }
    bench.report.goals.push(Goal::new(
        "ms to start",
        Bound::AtMost(300.0),
        value.clone(),
    ));
    bench.report.single("start until it listens, ms", value);
    Ok(())
}
