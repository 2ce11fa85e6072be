//! Complete answers, without streaming, over `/v1`.

use std::time::Duration;

use super::Bench;
use crate::distribution::{Distribution, millis};
use crate::load::{self, Endpoint, Route};
use crate::report::{Comparison, Row};
use crate::script::Script;
use crate::targets::{Bound, Target};

const MEASURE_TIME: Duration = Duration::from_millis(1500);

const CONNECTIONS: usize = 64;

/// A short answer.
const SCRIPT: fn() -> Script = || Script::fast(10);

/// Measures 200 and 1,000 requests per second.
pub async fn complete_at_rates(bench: &mut Bench) -> anyhow::Result<()> {
    for rate in [200, 1000] {
        let mut p50 = Row::new(
            format!("complete answer at {rate} per second, p50, ms"),
            Comparison::Difference,
        );
        let mut p99 = Row::new(
            format!("complete answer at {rate} per second, p99, ms"),
            Comparison::Difference,
        );
        let mut cpu = Row::new(
            format!("CPU µs per complete answer at {rate} per second"),
            Comparison::Ratio,
        );
        for round in 0..bench.rounds {
            for endpoint in bench
                .routes(round)?
                .into_iter()
                .filter(|endpoint| endpoint.route != Route::Ws)
            {
                let before = bench.cpu(endpoint)?;
                let result =
                    load::run_complete(endpoint, CONNECTIONS, SCRIPT(), Some(rate), MEASURE_TIME)
                        .await?;
                p50.push(endpoint.route, millis(&result.totals, 0.5));
                p99.push(endpoint.route, millis(&result.totals, 0.99));
                cpu.push(
                    endpoint.route,
                    super::streams::per_million(bench.cpu(endpoint)? - before, result.totals.len()),
                );
            }
        }
        bench.report.rows.extend([p50, p99, cpu]);
    }
    Ok(())
}

/// Measures the maximum throughput over 64 connections.
pub async fn max_throughput(bench: &mut Bench) -> anyhow::Result<()> {
    let mut max_throughput = Row::new(
        "complete answers per second, 64 connections",
        Comparison::Ratio,
    );
    let mut cpu = Row::new(
        "CPU µs per complete answer, 64 connections",
        Comparison::Ratio,
    );
    let [mut proxy_streamed, mut proxy_streamed_cpu] =
        std::array::from_fn(|_| Distribution::default());
    for round in 0..bench.rounds {
        let mut routes = bench.routes(round)?;
        for endpoint in &mut routes {
            // `/ws` has no complete answers. Its turn goes to the proxy in its streaming variant.
            *endpoint = if endpoint.route == Route::Ws {
                Endpoint {
                    route: Route::ProxyStreamed,
                    port: bench.testbed.proxy.port()?,
                }
            } else {
                *endpoint
            };
        }
        for endpoint in routes {
            let before = bench.cpu(endpoint)?;
            let started = std::time::Instant::now();
            let result =
                load::run_complete(endpoint, CONNECTIONS, SCRIPT(), None, MEASURE_TIME).await?;
            #[allow(clippy::cast_precision_loss)]
            let a_second = result.totals.len() as f64 / started.elapsed().as_secs_f64();
            let each =
                super::streams::per_million(bench.cpu(endpoint)? - before, result.totals.len());
            if endpoint.route == Route::ProxyStreamed {
                proxy_streamed.push(a_second);
                proxy_streamed_cpu.push(each);
            }
            max_throughput.push(endpoint.route, a_second);
            cpu.push(endpoint.route, each);
        }
    }
    let report = &mut bench.report;
    let name = "`/v1`: complete answers per second, times the proxy's";
    report.targets.push(Target::new(
        name,
        Bound::AtLeast(0.7),
        max_throughput.v1.ratio_to(&max_throughput.proxy),
    ));
    let where_streamed = "where the proxy requests a stream too";
    report.add_single(
        &format!("complete answers per second, 64 connections, {where_streamed}: the proxy's"),
        proxy_streamed.clone(),
    );
    report.add_single(
        &format!("CPU µs per complete answer, {where_streamed}: the proxy's"),
        proxy_streamed_cpu,
    );
    report.add_single(
        &format!("complete answers per second over `/v1`, {where_streamed}: times the proxy's"),
        max_throughput.v1.ratio_to(&proxy_streamed),
    );
    report.rows.extend([max_throughput, cpu]);
    Ok(())
}
