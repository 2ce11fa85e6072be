//! `GET /metrics`, in the text format of Prometheus (0.0.4). Gauges are read from the current state
//! when they are scraped; turns update their counters themselves.

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{CounterVec, GaugeVec, IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder};

use super::{AppState, access};
use crate::domain::{ProviderState, Timestamp};
use crate::provider::handle::Provider;
use crate::provider::status::ProviderStatus;
use crate::router::actor::{ACTOR_TIMEOUT, GetRetryBudgetBalance};
use crate::router::runtime_config::RuntimeConfig;

/// Renders the metrics. Costs are shown only to the operator and to local requests.
pub async fn scrape(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let with_costs = access::check_cost_access(&request, &state.settings().server).is_ok();
    let balance = retry_budget_balance(&state).await;
    match collectors(&state, balance, with_costs).and_then(encode) {
        Ok(text) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, TEXT_FORMAT))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(text),
        Err(error) => {
            tracing::error!(%error, "failed to encode the metrics");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Returns `None` while the router is being restarted or is too slow to answer.
async fn retry_budget_balance(state: &AppState) -> Option<f64> {
    let router = state.chat.turns.router.borrow().clone()?;
    tokio::time::timeout(ACTOR_TIMEOUT, router.send(GetRetryBudgetBalance))
        .await
        .ok()?
        .ok()
}

type Collectors = Vec<Box<dyn Collector>>;

fn collectors(
    state: &AppState,
    balance: Option<f64>,
    with_costs: bool,
) -> prometheus::Result<Collectors> {
    let turns = &state.chat.turns;
    let mut collectors: Collectors = turns.observer.metrics.collectors().into();
    let sessions = IntGauge::new("failsoft_sessions", "Open WebSockets.")?;
    sessions.set(i64::try_from(state.connections.open_count()).unwrap_or(i64::MAX));
    collectors.push(Box::new(sessions));
    let help = "Retries and hedges that would be paid for now, over all providers.";
    let budget = GaugeVec::new(Opts::new("failsoft_retry_budget", help), &[])?;
    if let Some(balance) = balance {
        let gauge = budget.get_metric_with_label_values::<&str>(&[])?;
        gauge.set(balance);
    }
    collectors.push(Box::new(budget));
    let table = turns.config();
    collectors.extend(provider_collectors(&table.providers, turns.clock.wall())?);
    if with_costs {
        collectors.extend(usage_collectors(&table)?);
    }
    Ok(collectors)
}

/// The gauges of the providers. A provider whose value is unknown has no sample.
fn provider_collectors(
    providers: &[Arc<Provider>],
    now: Timestamp,
) -> prometheus::Result<Collectors> {
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
    for provider in providers {
        let status = provider.status.borrow().clone();
        let name = &*provider.name;
        for (gauges, value) in [
            (&states, Some(breaker_state_value(status.state))),
            (
                &health,
                is_up(&status, now).map(|up| f64::from(u8::from(up))),
            ),
            (&quality, status.quality_avg),
        ] {
            if let Some(value) = value {
                gauges.get_metric_with_label_values(&[name])?.set(value);
            }
        }
    }
    Ok(vec![Box::new(states), Box::new(health), Box::new(quality)])
}

/// Token and cost counters, including those of providers that were removed from the configuration.
fn usage_collectors(table: &RuntimeConfig) -> prometheus::Result<Collectors> {
    let counters = |name, help, labels: &[&str]| CounterVec::new(Opts::new(name, help), labels);
    let tokens = counters(
        "failsoft_tokens_total",
        "Tokens read (input) and written (output), estimated where not told.",
        &["provider", "direction"],
    )?;
    let cost = counters(
        "failsoft_cost_usd_total",
        "What tokens cost in USD, of providers whose prices are configured.",
        &["provider"],
    )?;
    let configured = table
        .providers
        .iter()
        .map(|provider| (&provider.name, provider.prices.is_some(), &provider.status));
    let removed = table
        .removed_providers
        .iter()
        .map(|provider| (&provider.name, provider.has_prices, &provider.status));
    for (name, has_prices, status) in configured.chain(removed) {
        let used = status.borrow().usage_totals;
        #[allow(clippy::cast_precision_loss, reason = "nobody pays for 2^53 tokens")]
        for (direction, count) in [
            ("input", used.input_tokens as f64),
            ("output", used.output_tokens as f64),
        ] {
            let counter = tokens.get_metric_with_label_values(&[&**name, direction])?;
            counter.inc_by(count);
        }
        if has_prices {
            // `inc_by` panics on a negative value.
            let counter = cost.get_metric_with_label_values(&[name])?;
            counter.inc_by(used.cost_usd.max(0.0));
        }
    }
    Ok(vec![Box::new(tokens), Box::new(cost)])
}

fn breaker_state_value(state: ProviderState) -> f64 {
    match state {
        ProviderState::Closed => 0.0,
        ProviderState::HalfOpen => 1.0,
        ProviderState::Open => 2.0,
        ProviderState::Blocked => 3.0,
        ProviderState::Disabled => 4.0,
    }
}

/// Returns the result of the last health check, or `None` if it is outdated or there was none.
fn is_up(provider_status: &ProviderStatus, now: Timestamp) -> Option<bool> {
    let check = provider_status
        .last_check
        .filter(|check| now < check.expires_at)?;
    Some(check.fault.is_none())
}

/// Encodes the metrics. A metric without samples still gets its `HELP` and `TYPE` lines, so that it
/// can be discovered.
fn encode(collectors: Collectors) -> prometheus::Result<String> {
    let registry = Registry::new();
    let mut without_samples = String::new();
    for collector in collectors {
        let families = collector.collect();
        let empty = families
            .iter()
            .filter(|family| family.get_metric().is_empty());
        without_samples.extend(empty.map(family_header));
        registry.register(collector)?;
    }
    Ok(TextEncoder::new().encode_to_string(&registry.gather())? + &without_samples)
}

fn family_header(family: &MetricFamily) -> String {
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
    use crate::domain::FaultKind;
    use crate::provider::health::HealthCheck;

    #[test]
    fn health_check_result_expires() {
        let with = |failed| ProviderStatus {
            last_check: Some(HealthCheck {
                fault: failed,
                expires_at: Timestamp(10),
            }),
            ..ProviderStatus::default()
        };
        assert_eq!(is_up(&with(None), Timestamp(9)), Some(true));
        assert_eq!(
            is_up(&with(Some(FaultKind::Timeout)), Timestamp(9)),
            Some(false)
        );
        assert_eq!(is_up(&with(Some(FaultKind::Timeout)), Timestamp(10)), None);
        assert_eq!(is_up(&ProviderStatus::default(), Timestamp(0)), None);
    }

    #[test]
    fn metric_without_samples_has_its_header() {
        let gauges = GaugeVec::new(Opts::new("a_thing", "What it is."), &["provider"]).unwrap();
        let header = "# HELP a_thing What it is.\n# TYPE a_thing gauge\n";
        assert_eq!(encode(vec![Box::new(gauges.clone())]).unwrap(), header);
        gauges.with_label_values(&["x"]).set(0.5);
        assert_eq!(
            encode(vec![Box::new(gauges)]).unwrap(),
            format!("{header}a_thing{{provider=\"x\"}} 0.5\n")
        );
    }
}
