//! Memory in use: of a service that has nothing to do, of open sockets, of streams.

use std::time::Duration;

use super::Bench;
use crate::goals::{Bound, Goal};
use crate::load::{self, Line, Way};
use crate::place::Behind;
use crate::process::Process;
use crate::script::Script;
use crate::socket::Visitor;
use crate::spread::Spread;

const KB: f64 = 1000.0;
const MB: f64 = 1e6;

const SOCKETS: u16 = 10_000;
const STREAMS: u16 = 1000;

/// Until what a service does at its start is done.
const SETTLED: Duration = Duration::from_millis(300);

/// Each on a service that has just started. It has no use for more than three rounds: memory is not noisy.
pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let [
        mut idle,
        mut socket,
        mut stream_relay,
        mut stream_v1,
        mut stream_ws,
        mut all_v1,
        mut all_ws,
    ] = std::array::from_fn(|_| Spread::default());
    for _ in 0..bench.rounds.min(3) {
        let service = bench.place.service(Behind::One).await?;
        tokio::time::sleep(SETTLED).await;
        let before = service.memory()?;
        idle.push(before / MB);
        let mut visitors = Vec::new();
        for _ in 0..SOCKETS {
            visitors.push(Visitor::enter(service.port()?).await?);
        }
        socket.push((service.memory()? - before) / f64::from(SOCKETS) / KB);
        drop(visitors);
        drop(service);
        let relay = bench.place.relay().await?;
        let before = relay.memory()?;
        stream_relay
            .push((most_of_streams(&relay, Way::Relay).await? - before) / f64::from(STREAMS) / KB);
        drop(relay);
        for (way, one, all) in [
            (Way::V1, &mut stream_v1, &mut all_v1),
            (Way::Ws, &mut stream_ws, &mut all_ws),
        ] {
            let service = bench.place.service(Behind::One).await?;
            tokio::time::sleep(SETTLED).await;
            let before = service.memory()?;
            let most = most_of_streams(&service, way).await?;
            one.push((most - before) / f64::from(STREAMS) / KB);
            all.push(most / MB);
            drop(service);
        }
    }
    let report = &mut bench.report;
    report.goals.push(Goal::new(
        "KB an idle socket, of 10,000",
        Bound::AtMost(25.0),
        socket.clone(),
    ));
    report.goals.push(Goal::new(
        "`/v1`: MB in all at 1,000 streams",
        Bound::AtMost(80.0),
        all_v1.clone(),
    ));
    report.goals.push(Goal::new(
        "`/ws`: MB in all at 1,000 streams",
        Bound::AtMost(80.0),
        all_ws.clone(),
    ));
    report.single("memory at rest, MB", idle);
    report.single(
        "memory an idle socket (of 10,000, each in its own conversation), KB",
        socket,
    );
    report.single(
        "memory a stream through the relay (of 1,000, 100 tokens each), KB",
        stream_relay,
    );
    report.single(
        "memory a stream over `/v1` (of 1,000, 100 tokens each), KB",
        stream_v1,
    );
    report.single(
        "memory a stream over `/ws` (of 1,000, 100 tokens each), KB",
        stream_ws,
    );
    report.single("memory in all at 1,000 streams over `/v1`, MB", all_v1);
    report.single("memory in all at 1,000 streams over `/ws`, MB", all_ws);
    Ok(())
}

async fn most_of_streams(service: &Process, way: Way) -> anyhow::Result<f64> {
    let script = Script::paced(100, Duration::from_millis(50));
    let line = Line {
        way,
        port: service.port()?,
    };
    // Half of it passes until all have begun.
    let running = load::streams(
        line,
        usize::from(STREAMS),
        Script {
            tokens: 100,
            ..script
        },
        1,
    )
    .await?;
    let mut most = 0.0_f64;
    let mut ended = std::pin::pin!(running.ended());
    loop {
        tokio::select! {
            ended = &mut ended => {
                ended?;
                return Ok(most);
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => most = most.max(service.memory()?),
        }
    }
}
