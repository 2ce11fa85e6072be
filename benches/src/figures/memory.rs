//! Resident memory: of an idle service, of open sockets, of streams.

use std::time::Duration;

use super::Bench;
use crate::distribution::Distribution;
use crate::load::{self, Endpoint, Route};
use crate::process::Process;
use crate::script::Script;
use crate::socket::ChatClient;
use crate::targets::{Bound, Target};
use crate::testbed::Providers;

const KB: f64 = 1000.0;
const MB: f64 = 1e6;

const SOCKETS: u16 = 10_000;
const STREAMS: u16 = 1000;

/// The wait until a service has finished its startup work.
const STARTUP_TIME: Duration = Duration::from_millis(300);

/// Measures each figure on a fresh service. At most three rounds, since memory is not noisy.
pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let [
        mut idle,
        mut socket,
        mut stream_proxy,
        mut stream_v1,
        mut stream_ws,
        mut all_v1,
        mut all_ws,
    ] = std::array::from_fn(|_| Distribution::default());
    for _ in 0..bench.rounds.min(3) {
        let service = bench.testbed.service(Providers::Sound).await?;
        tokio::time::sleep(STARTUP_TIME).await;
        let before = service.memory()?;
        idle.push(before / MB);
        let mut chat_clients = Vec::new();
        for _ in 0..SOCKETS {
            chat_clients.push(ChatClient::connect(service.port()?).await?);
        }
        socket.push((service.memory()? - before) / f64::from(SOCKETS) / KB);
        drop(chat_clients);
        drop(service);
        let proxy = bench.testbed.proxy().await?;
        let before = proxy.memory()?;
        stream_proxy.push(
            (peak_of_streams(&proxy, Route::Proxy).await? - before) / f64::from(STREAMS) / KB,
        );
        drop(proxy);
        for (route, single, total) in [
            (Route::V1, &mut stream_v1, &mut all_v1),
            (Route::Ws, &mut stream_ws, &mut all_ws),
        ] {
            let service = bench.testbed.service(Providers::Sound).await?;
            tokio::time::sleep(STARTUP_TIME).await;
            let before = service.memory()?;
            let peak = peak_of_streams(&service, route).await?;
            single.push((peak - before) / f64::from(STREAMS) / KB);
            total.push(peak / MB);
            drop(service);
        }
    }
    let report = &mut bench.report;
    report.targets.push(Target::new(
        "KB per idle socket, of 10,000",
        Bound::AtMost(25.0),
        socket.clone(),
    ));
    report.targets.push(Target::new(
        "`/v1`: total MB at 1,000 streams",
        Bound::AtMost(80.0),
        all_v1.clone(),
    ));
    report.targets.push(Target::new(
        "`/ws`: total MB at 1,000 streams",
        Bound::AtMost(80.0),
        all_ws.clone(),
    ));
    report.add_single("idle memory, MB", idle);
    report.add_single(
        "memory per idle socket (of 10,000, each in its own conversation), KB",
        socket,
    );
    report.add_single(
        "memory per stream through the proxy (of 1,000, 100 tokens each), KB",
        stream_proxy,
    );
    report.add_single(
        "memory per stream over `/v1` (of 1,000, 100 tokens each), KB",
        stream_v1,
    );
    report.add_single(
        "memory per stream over `/ws` (of 1,000, 100 tokens each), KB",
        stream_ws,
    );
    report.add_single("total memory at 1,000 streams over `/v1`, MB", all_v1);
    report.add_single("total memory at 1,000 streams over `/ws`, MB", all_ws);
    Ok(())
}

async fn peak_of_streams(service: &Process, route: Route) -> anyhow::Result<f64> {
    let script = Script::paced(100, Duration::from_millis(50));
    let endpoint = Endpoint {
        route,
        port: service.port()?,
    };
    // The streams start one after another over half of the load's duration.
    let running = load::start_streams(
        endpoint,
        usize::from(STREAMS),
        Script {
            tokens: 100,
            ..script
        },
        1,
    )
    .await?;
    let mut peak = 0.0_f64;
    let mut ended = std::pin::pin!(running.finish());
    loop {
        tokio::select! {
            ended = &mut ended => {
                ended?;
                return Ok(peak);
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => peak = peak.max(service.memory()?),
        }
    }
}
