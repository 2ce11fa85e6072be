//! Figures which only the service has: failover, degraded answers, start.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Bench;
use crate::distribution::{Distribution, millis, quantile};
use crate::http::HttpClient;
use crate::load::{Endpoint, Route};
use crate::script::{Fault, Script, TOKENS_BEFORE_CUT};
use crate::socket::ChatClient;
use crate::targets::{Bound, Target};
use crate::testbed::Providers;

/// Failovers per round.
const FAILOVERS_PER_ROUND: usize = 20;

/// The duration for which degraded answers are counted.
const MEASURE_TIME: Duration = Duration::from_secs(2);

/// Measures failover. Before the first token: the time which a refusal adds to the first token.
/// Mid-stream: from the last token of the failing provider to the next text.
pub async fn failover(bench: &mut Bench) -> anyhow::Result<()> {
    let [mut v1, mut ws, mut middle, mut middle_worst] =
        std::array::from_fn(|_| Distribution::default());
    let whole = Script::fast(2 * TOKENS_BEFORE_CUT);
    for _ in 0..bench.rounds {
        let service = bench.testbed.service(Providers::FaultyThenSound).await?;
        let port = service.port()?;
        let mut http_client = HttpClient::connect(port, "/v1/chat/completions").await?;
        let mut usual = Vec::new();
        let mut refused = Vec::new();
        // Two good calls per bad call, so that the breaker stays closed.
        for n in 0..3 * FAILOVERS_PER_ROUND {
            let fault = if n % 3 == 2 {
                Fault::Refuse
            } else {
                Fault::None
            };
            let timing = http_client.ask_streaming(Script { fault, ..whole }).await?;
            if n % 3 == 2 { &mut refused } else { &mut usual }.extend(timing.first);
        }
        v1.push(millis(&refused, 0.5) - millis(&usual, 0.5));
        let mut usual = Vec::new();
        let mut refused = Vec::new();
        let mut gaps = Vec::new();
        for n in 0..6 * FAILOVERS_PER_ROUND {
            let fault = match n % 6 {
                2 => Fault::Refuse,
                5 => Fault::Cut,
                _ => Fault::None,
            };
            // A conversation per question, so that history adds no cost.
            let timing = ChatClient::connect(port)
                .await?
                .ask(Script { fault, ..whole })
                .await?;
            match fault {
                Fault::None => usual.extend(timing.first),
                Fault::Refuse => refused.extend(timing.first),
                Fault::Cut => gaps.extend(timing.gaps.iter().max()),
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
        ("`/ws`: ms to fail over mid-stream", &middle),
    ] {
        report
            .targets
            .push(Target::new(name, Bound::AtMost(5.0), value.clone()));
    }
    report.add_single(
        "failover before the first token, added over `/v1`, p50, ms",
        v1,
    );
    report.add_single(
        "failover before the first token, added over `/ws`, p50, ms",
        ws,
    );
    report.add_single(
        "failover mid-stream over `/ws`, last token to next text, p50, ms",
        middle,
    );
    report.add_single(
        "failover mid-stream over `/ws`, last token to next text, worst, ms",
        middle_worst,
    );
    Ok(())
}

/// Measures degraded answers, with an unreachable provider.
pub async fn degraded(bench: &mut Bench) -> anyhow::Result<()> {
    let [mut v1, mut ws, mut cpu_v1, mut cpu_ws] = std::array::from_fn(|_| Distribution::default());
    for _ in 0..bench.rounds {
        let service = bench.testbed.service(Providers::Unreachable).await?;
        let port = service.port()?;
        for (route, each, cpu) in [
            (Route::V1, &mut v1, &mut cpu_v1),
            (Route::Ws, &mut ws, &mut cpu_ws),
        ] {
            let mut tasks = JoinSet::new();
            let before = service.cpu()?;
            let started = Instant::now();
            for _ in 0..64 {
                tasks.spawn(answers(Endpoint { route, port }, started + MEASURE_TIME));
            }
            let mut answers = 0.0;
            while let Some(count) = tasks.join_next().await {
                answers += f64::from(count??);
            }
            each.push(answers / started.elapsed().as_secs_f64());
            cpu.push((service.cpu()? - before) / answers * 1e6);
        }
        drop(service);
    }
    let report = &mut bench.report;
    report.targets.push(Target::new(
        "`/v1`: degraded answers per second",
        Bound::AtLeast(5000.0),
        v1.clone(),
    ));
    report.targets.push(Target::new(
        "`/ws`: degraded answers per second",
        Bound::AtLeast(5000.0),
        ws.clone(),
    ));
    report.add_single("degraded answers per second over `/v1`, 64 connections", v1);
    report.add_single(
        "degraded answers per second over `/ws`, 64 conversations, each saved to disk",
        ws,
    );
    report.add_single("CPU µs per degraded answer over `/v1`", cpu_v1);
    report.add_single("CPU µs per degraded answer over `/ws`", cpu_ws);
    Ok(())
}

async fn answers(endpoint: Endpoint, until: Instant) -> anyhow::Result<u32> {
    let mut count = 0;
    if endpoint.route == Route::Ws {
        let mut chat_client = ChatClient::connect(endpoint.port).await?;
        while Instant::now() < until {
            chat_client
                .ask_degraded("What is the meaning of this?")
                .await?;
            count += 1;
        }
    } else {
        let mut http_client = HttpClient::connect(endpoint.port, "/v1/chat/completions").await?;
        while Instant::now() < until {
            http_client.ask_complete(Script::fast(0)).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// Measures the time from the process's start until listening, with an empty store.
pub async fn start(bench: &mut Bench) -> anyhow::Result<()> {
    let mut value = Distribution::default();
    for _ in 0..bench.rounds {
        let mut times = Vec::new();
        for _ in 0..3 {
            let service = bench.testbed.service(Providers::Sound).await?;
            times.push(service.ready_after.as_secs_f64() * 1000.0);
            drop(service);
        }
        value.push(quantile(&times, 0.5));
    }
    bench.report.targets.push(Target::new(
        "ms to start",
        Bound::AtMost(300.0),
        value.clone(),
    ));
    bench.report.add_single("start until listening, ms", value);
    Ok(())
}
