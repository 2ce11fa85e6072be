//! Creates a `Provider` and the parts of its actor from the configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;

use super::random_unit;
use crate::actor_exit::AddrWatch;
use crate::cluster::Cluster;
use crate::config::{ConfigEnum as _, Dialect, Prefill, ProviderSettings, Secret, fingerprint};
use crate::domain::{FaultKind, ProviderState};
use crate::ops::status::RestoredHistory;
use crate::provider::actor::probes::ProbeCoordinator;
use crate::provider::actor::{ProviderActor, ProviderParts};
use crate::provider::breaker::BreakerConfig;
use crate::provider::client::HttpProviderClient;
use crate::provider::clock::Clock;
use crate::provider::concurrency_limit::ConcurrencyLimit;
use crate::provider::cost::{DailySpend, ProviderPricing};
use crate::provider::dialect::{self, DialectKind, ModelConfig};
use crate::provider::event::ProviderEvent;
use crate::provider::fault_injection::FaultSwitch;
use crate::provider::handle::{AttemptTimeouts, Provider};
use crate::provider::status::ProviderStatus;
use crate::provider::transport::Transport;
use crate::store::{BreakerRecord, DailySpendRecord, Store};

/// A probe permit counts as lost this long after the maximum duration of an attempt.
const PROBE_LEASE_MARGIN: Duration = Duration::from_secs(10);

const LOAD_TIMEOUT: Duration = Duration::from_secs(2);

pub struct ProviderSpec {
    pub settings: ProviderSettings,
    client: Arc<HttpProviderClient>,
    fault_switch: Arc<FaultSwitch>,
    account_id: Arc<str>,
    probe_coordinator: Option<Arc<dyn ProbeCoordinator>>,
}

/// The state of a provider that survives a change of its settings.
#[derive(Clone)]
pub struct ProviderRuntime {
    pub actor: AddrWatch<ProviderActor>,
    pub status: Arc<watch::Sender<ProviderStatus>>,
    pub events: Arc<watch::Sender<Option<ProviderEvent>>>,
    pub concurrency: Arc<ConcurrencyLimit>,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
}

impl ProviderSpec {
    /// `cluster` coordinates probes with other instances. `fault_switch` keeps a running drill
    /// active across a change of settings; `None` creates a new switch.
    pub fn new(
        settings: ProviderSettings,
        transport: Transport,
        cluster: Option<&Cluster>,
        fault_switch: Option<Arc<FaultSwitch>>,
    ) -> Self {
        let fault_switch = fault_switch.unwrap_or_else(|| Arc::new(FaultSwitch::new(random_unit)));
        let dialect = dialect::new_dialect(dialect_kind(settings.dialect), model_config(&settings));
        let client = HttpProviderClient::new(
            &settings.base_url,
            dialect.into(),
            transport,
            Arc::clone(&fault_switch),
        );
        let account_id = account_id(&settings);
        Self {
            settings,
            client: Arc::new(client),
            fault_switch,
            probe_coordinator: cluster.map(|cluster| cluster.probe_coordinator(&account_id)),
            account_id,
        }
    }

    fn prices(&self) -> Option<(f64, f64)> {
        let prices = self.settings.prices?;
        Some((prices.input, prices.output))
    }

    pub fn provider(&self, runtime: &ProviderRuntime) -> Provider {
        let provider = &self.settings;
        let timeouts = &provider.timeouts;
        Provider {
            name: provider.name.as_str().into(),
            model: provider.model.as_str().into(),
            dialect: provider.dialect.as_str(),
            context_tokens: context_tokens(provider),
            timeouts: AttemptTimeouts {
                first_token: timeouts.first_token.clone(),
                stall: timeouts.stall,
                total: timeouts.attempt,
            },
            retry: provider.retry.clone(),
            supports_prefill: AtomicBool::new(provider.prefill != Prefill::Off),
            weight: provider.weight,
            prices: self.prices(),
            has_daily_budget: provider.daily_budget_usd.is_some(),
            client: self.client.clone(),
            actor: runtime.actor.clone(),
            account_id: Arc::clone(&self.account_id),
            events: runtime.events.subscribe(),
            status: runtime.status.subscribe(),
            fault_switch: Arc::clone(&self.fault_switch),
        }
    }

    /// The parts from which the provider's actor is built, also after a panic.
    pub fn parts(&self, runtime: ProviderRuntime) -> ProviderParts {
        let provider = &self.settings;
        ProviderParts {
            name: provider.name.as_str().into(),
            breaker_config: breaker_config(provider),
            probe_timeout: provider.timeouts.first_token_timeout(0),
            health_settings: provider.health.clone(),
            pricing: ProviderPricing {
                prices: self.prices(),
                daily_budget_usd: provider.daily_budget_usd,
            },
            client: self.client.clone(),
            fault_switch: Arc::clone(&self.fault_switch),
            concurrency: runtime.concurrency,
            max_concurrent: provider.max_concurrent,
            status: runtime.status,
            actor: runtime.actor,
            store: runtime.store,
            clock: runtime.clock,
            random_unit,
            events: runtime.events,
            probe_coordinator: self.probe_coordinator.clone(),
        }
    }
}

/// The state of the providers and the service as saved in the store.
#[derive(Default)]
pub struct RestoredState {
    /// Breakers that were not closed.
    pub breakers: Vec<BreakerRecord>,
    pub daily_spend: Vec<DailySpendRecord>,
    pub history: RestoredHistory,
}

impl RestoredState {
    /// Loads the saved state. If that fails or takes too long, everything starts afresh.
    pub async fn load(store: &dyn Store) -> Self {
        let reads = async {
            futures_util::try_join!(
                store.breakers(),
                store.daily_spend(),
                store.incidents(),
                store.service_lifetime()
            )
        };
        let read = tokio::time::timeout(LOAD_TIMEOUT, reads).await;
        let Ok(Ok((breakers, daily_spend, incidents, lifetime))) = read else {
            tracing::warn!("saved breakers, daily spend and incidents not loaded");
            return Self::default();
        };
        Self {
            breakers,
            daily_spend,
            history: RestoredHistory {
                incidents,
                lifetime,
            },
        }
    }
}

/// The initial status of a provider: its saved spend, and its breaker if that was not closed.
pub fn restored_status(provider: &str, restored: &RestoredState) -> ProviderStatus {
    let mut spend = restored.daily_spend.iter();
    let spend = spend.find(|record| record.provider == provider);
    let spend = spend.map(|record| DailySpend {
        day: record.utc_day,
        usd: record.usd,
        estimated: record.is_estimated,
    });
    let mut status = ProviderStatus {
        spend_today: spend.unwrap_or_default(),
        ..ProviderStatus::default()
    };
    let mut breakers = restored.breakers.iter();
    if let Some(record) = breakers.find(|record| record.provider == provider) {
        // Records of earlier versions only have the wire name, which several faults share.
        let has_wire_name = |fault: &FaultKind| fault.wire_name() == record.reason;
        let fault = record
            .fault
            .or_else(|| FaultKind::ALL.into_iter().find(has_wire_name));
        status.state = if record.is_blocked {
            ProviderState::Blocked
        } else {
            ProviderState::Open
        };
        status.retry_at = Some(record.retry_at);
        status.last_fault = fault;
        status.failed_probes = record.failed_probes;
    }
    status
}

/// A stable id of the account in use: a hash of dialect, base URL, model and key. Instances with
/// the same account share breaker events.
fn account_id(provider: &ProviderSettings) -> Arc<str> {
    let key = provider.api_key.as_ref().map_or("", Secret::expose);
    let dialect = provider.dialect.as_str();
    fingerprint([dialect, &provider.base_url, &provider.model, key]).into()
}

fn dialect_kind(dialect: Dialect) -> DialectKind {
    match dialect {
        Dialect::OpenAi => DialectKind::OpenAi,
        Dialect::Anthropic => DialectKind::Anthropic,
        Dialect::Gemini => DialectKind::Gemini,
        Dialect::Azure => DialectKind::Azure,
        Dialect::Ollama => DialectKind::Ollama,
    }
}

fn context_tokens(provider: &ProviderSettings) -> u32 {
    let tokens = provider.context_tokens.unwrap_or(0);
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn model_config(provider: &ProviderSettings) -> ModelConfig {
    let headers = provider.headers.iter();
    ModelConfig {
        base_url: provider.base_url.clone(),
        name: provider.model.clone(),
        key: provider.api_key.as_ref().map(|key| key.expose().into()),
        api_version: provider.api_version.clone().unwrap_or_default(),
        temperature: provider.temperature,
        headers: headers
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
        context_tokens: context_tokens(provider),
        prefill: match provider.prefill {
            Prefill::Off | Prefill::Assistant => dialect::Prefill::Plain,
            Prefill::Vllm => dialect::Prefill::Vllm,
            Prefill::Prefix => dialect::Prefill::Prefix,
        },
    }
}

fn breaker_config(provider: &ProviderSettings) -> BreakerConfig {
    let breaker = &provider.breaker;
    BreakerConfig {
        consecutive_failures: breaker.consecutive_failures,
        failure_rate: breaker.failure_rate,
        min_calls: breaker.min_calls,
        window: breaker.window,
        slow_factor: breaker.slow_factor,
        slow_rate: breaker.slow_rate,
        stream_failure_rate: breaker.stream_failure_rate,
        open_for: breaker.open_for,
        open_max: breaker.open_max,
        blocked_for: breaker.blocked_for,
        probes: breaker.probes,
        recovery_probe: provider.health.recovery_probe,
        probe_lease: provider.timeouts.attempt + PROBE_LEASE_MARGIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn account_id_depends_on_address_model_and_key() {
        let settings = crate::config::Settings::default();
        let base = settings.new_provider("a", Dialect::OpenAi);
        let other_name = ProviderSettings {
            name: "b".into(),
            ..base.clone()
        };
        assert_eq!(
            account_id(&base),
            account_id(&other_name),
            "the name may differ between instances"
        );
        assert_eq!(account_id(&base).len(), 16);
        let key = crate::config::Secret::new("canary-key".to_owned());
        for other in [
            ProviderSettings {
                model: "m".into(),
                ..base.clone()
            },
            ProviderSettings {
                base_url: format!("{}x", base.base_url),
                ..base.clone()
            },
            ProviderSettings {
                api_key: Some(key),
                ..base.clone()
            },
        ] {
            assert_ne!(account_id(&base), account_id(&other));
        }
    }

    #[test]
    fn providers_start_with_their_saved_status() {
        let breaker = |provider: &str, blocked| BreakerRecord {
            provider: provider.into(),
            is_blocked: blocked,
            failed_probes: 2,
            retry_at: Timestamp(9),
            reason: "timeout".into(),
            fault: None,
        };
        let spent = |provider: &str| DailySpendRecord {
            provider: provider.into(),
            utc_day: 7,
            usd: 1.5,
            is_estimated: true,
        };
        let remembered = RestoredState {
            breakers: vec![breaker("a", false), breaker("b", true)],
            daily_spend: vec![spent("b"), spent("c")],
            history: RestoredHistory::default(),
        };
        let cost = DailySpend {
            day: 7,
            usd: 1.5,
            estimated: true,
        };
        for (name, state, spent) in [
            ("a", ProviderState::Open, DailySpend::default()),
            ("b", ProviderState::Blocked, cost),
            ("c", ProviderState::Closed, cost),
            ("d", ProviderState::Closed, DailySpend::default()),
        ] {
            let provider_status = restored_status(name, &remembered);
            assert_eq!(
                (provider_status.state, provider_status.spend_today),
                (state, spent),
                "{name}"
            );
        }
        assert_eq!(
            restored_status("a", &remembered).last_fault,
            Some(FaultKind::Timeout)
        );
    }

    #[test]
    fn saved_fault_is_restored_even_if_faults_share_a_wire_name() {
        let restored_fault = |text: &str| {
            let breakers = vec![serde_json::from_str(text).unwrap()];
            restored_status(
                "a",
                &RestoredState {
                    breakers,
                    ..RestoredState::default()
                },
            )
            .last_fault
        };
        let record = |fields: &str| {
            format!(
                r#"{{"provider":"a","blocked":false,"strikes":0,"until":"1970-01-01T00:00:09Z","reason":"refused"{fields}}}"#
            )
        };
        for fault in [
            FaultKind::Unreachable,
            FaultKind::Unauthorized,
            FaultKind::QuotaSpent,
        ] {
            let name = serde_json::to_string(&fault).unwrap();
            assert_eq!(
                restored_fault(&record(&format!(",\"fault\":{name}"))),
                Some(fault)
            );
        }
        assert_eq!(
            restored_fault(&record("")),
            Some(FaultKind::Unreachable),
            "records of earlier versions have no fault"
        );
        for unknown in [r#""eaten""#, r#"{"eaten":{"by":"a dog"}}"#, "null"] {
            let fault = restored_fault(&record(&format!(",\"fault\":{unknown}")));
            assert_eq!(
                fault,
                Some(FaultKind::Unreachable),
                "{unknown}: falls back to the wire name"
            );
        }
    }
}
