//! The metrics, as Prometheus reads them (text format 0.0.4). What others keep anyway is drawn when it is asked for; what only happens, the
//! turns count as it does.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, GaugeVec, IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder};

use super::{State, gate};
use crate::chat::{At, ProviderState};
use crate::provider::backend::{Backend, Vitals};
use crate::router::actor::{ACTOR_LIMIT, Balance};
use crate::router::table::Table;

/// `GET /metrics`. What providers are paid for is shown to the operator, and to who is on this very machine.
pub async fn scrape(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let paid = gate::accounts(&request, &state.settings().server).is_ok();
    let balance = balance(&state).await;
    match collectors(&state, balance, paid).and_then(written) {
        Ok(text) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, TEXT_FORMAT))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// What the retry budget would pay for; none while the router is being rebuilt, or behind.
async fn balance(state: &State) -> Option<f64> {
    let router = state.lobby.desk.router.borrow().clone()?;
    tokio::time::timeout(ACTOR_LIMIT, router.send(Balance))
        .await
        .ok()?
        .ok()
}

type Collectors = Vec<Box<dyn Collector>>;

fn collectors(state: &State, balance: Option<f64>, paid: bool) -> prometheus::Result<Collectors> {
    let desk = &state.lobby.desk;
    let mut all: Collectors = desk.tally.collectors().into();
    all.push(number(
        "failsoft_sessions",
        "Open WebSockets.",
        state.connections.open(),
    )?);
    let budget = GaugeVec::new(
        Opts::new(
            "failsoft_retry_budget",
            "Retries and hedges that would be paid for now, over all providers.",
        ),
        &[],
    )?;
    if let Some(balance) = balance {
        budget
            .get_metric_with_label_values::<&str>(&[])?
            .set(balance);
    }
    all.push(Box::new(budget));
    let now = desk.clock.wall();
    let table = desk.table();
    let backends: Vec<_> = table.backends.iter().map(|one| &**one).collect();
    all.extend(of_providers(&backends, now)?);
    if paid {
        all.extend(used(&table)?);
    }
    Ok(all)
}

fn number(name: &str, help: &str, value: usize) -> prometheus::Result<Box<dyn Collector>> {
    let gauge = IntGauge::new(name, help)?;
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    Ok(Box::new(gauge))
}

/// What the providers' vitals say. What is not known of one has no line.
fn of_providers(backends: &[&Backend], now: At) -> prometheus::Result<Collectors> {
    let gauges = |name, help| GaugeVec::new(Opts::new(name, help), &["provider"]);
    let states = gauges(
        "failsoft_breaker_state",
        "0 closed, 1 half-open, 2 open, 3 blocked (key or quota refused), 4 switched off by the operator.",
    )?;
    let health = gauges(
        "failsoft_health_up",
        "What the last health check found, as long as it is believed: 1 up.",
    )?;
    let quality = gauges(
        "failsoft_answer_quality",
        "How good answers look, 0 to 1: a mean of about the last 20.",
    )?;
    for backend in backends {
        let vitals = backend.vitals.borrow().clone();
        let name = &*backend.name;
        states
            .get_metric_with_label_values(&[name])?
            .set(state_number(vitals.state));
        if let Some(up) = up(&vitals, now) {
            health
                .get_metric_with_label_values(&[name])?
                .set(f64::from(u8::from(up)));
        }
        if let Some(score) = vitals.quality {
            quality.get_metric_with_label_values(&[name])?.set(score);
        }
    }
    Ok(vec![Box::new(states), Box::new(health), Box::new(quality)])
}

/// What the providers were paid for, those among them that are not configured any more.
fn used(table: &Table) -> prometheus::Result<Collectors> {
    let tokens = CounterVec::new(
        Opts::new(
            "failsoft_tokens_total",
            "Tokens read (input) and written (output), estimated where not told.",
        ),
        &["provider", "direction"],
    )?;
    let cost = CounterVec::new(
        Opts::new(
            "failsoft_cost_usd_total",
            "What tokens cost in USD, of providers whose prices are configured.",
        ),
        &["provider"],
    )?;
    let there = table
        .backends
        .iter()
        .map(|one| (&one.name, one.prices.is_some(), &one.vitals));
    let gone = table
        .departed
        .iter()
        .map(|one| (&one.name, one.priced, &one.vitals));
    for (name, priced, vitals) in there.chain(gone) {
        let used = vitals.borrow().used;
        #[allow(clippy::cast_precision_loss, reason = "nobody pays for 2^53 tokens")]
        for (direction, used) in [
            ("input", used.input_tokens as f64),
            ("output", used.output_tokens as f64),
        ] {
            tokens
                .get_metric_with_label_values(&[&**name, direction])?
                .inc_by(used);
        }
        if priced {
            // Less than nothing it cannot cost; a counter would end the thread.
            cost.get_metric_with_label_values(&[name])?
                .inc_by(used.cost_usd.max(0.0));
        }
    }
    Ok(vec![Box::new(tokens), Box::new(cost)])
}

fn state_number(state: ProviderState) -> f64 {
    match state {
        ProviderState::Closed => 0.0,
        ProviderState::HalfOpen => 1.0,
        ProviderState::Open => 2.0,
        ProviderState::Blocked => 3.0,
        ProviderState::Disabled => 4.0,
    }
}

/// What the last check found; none where there was none lately.
fn up(vitals: &Vitals, now: At) -> Option<bool> {
    let check = vitals.check.filter(|check| now < check.until)?;
    Some(check.failed.is_none())
}

/// The text. A metric with no line yet is named all the same, so that who looks for it finds that it exists.
fn written(all: Collectors) -> prometheus::Result<String> {
    let registry = Registry::new();
    let mut bare = String::new();
    for collector in all {
        let families = collector.collect();
        for family in families
            .iter()
            .filter(|family| family.get_metric().is_empty())
        {
            bare += &head(family);
        }
        registry.register(collector)?;
    }
    Ok(TextEncoder::new().encode_to_string(&registry.gather())? + &bare)
}

/// The two lines over a metric's own.
fn head(family: &MetricFamily) -> String {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "untyped",
    };
    let name = family.name();
    format!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Fault;
    use crate::provider::health::Check;

    #[test]
    fn a_check_counts_as_long_as_it_is_believed() {
        let with = |failed| Vitals {
            check: Some(Check {
                failed,
                until: At(10),
            }),
            ..Vitals::default()
        };
        assert_eq!(up(&with(None), At(9)), Some(true));
        assert_eq!(up(&with(Some(Fault::Timeout)), At(9)), Some(false));
        assert_eq!(up(&with(Some(Fault::Timeout)), At(10)), None);
        assert_eq!(up(&Vitals::default(), At(0)), None);
    }

    #[test]
    fn a_metric_without_a_line_is_named() {
        let gauges = GaugeVec::new(Opts::new("a_thing", "What it is."), &["provider"]).unwrap();
        let named = "# HELP a_thing What it is.\n# TYPE a_thing gauge\n";
        assert_eq!(written(vec![Box::new(gauges.clone())]).unwrap(), named);
        gauges.with_label_values(&["x"]).set(0.5);
        assert_eq!(
            written(vec![Box::new(gauges)]).unwrap(),
            format!("{named}a_thing{{provider=\"x\"}} 0.5\n")
        );
    }
}
