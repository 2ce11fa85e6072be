//! Creates a `Provider` and the parts of its actor from the configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;

use super::chance;
use crate::chat::{Fault, ProviderState};
use crate::fleet::Fleet;
use crate::ops::status::Past;
use crate::provider::actor::{ProviderActor, Seed};
use crate::provider::backend::{Backend, Clock, Patience, Vitals, Whereabouts};
use crate::provider::breaker::Rules;
use crate::provider::dialect::{self, Kind, Model};
use crate::provider::drill::Switch;
use crate::provider::http_upstream::HttpUpstream;
use crate::provider::leave::Probing;
use crate::provider::news::News;
use crate::provider::places::Places;
use crate::provider::spending::{Spent, Terms};
use crate::provider::transport::Transport;
use crate::settings::{
    BreakerSettings, Choice as _, Dialect, Prefill, ProviderSettings, fingerprint,
};
use crate::store::{BreakerRecord, SpentRecord, Store};

/// A probe permit counts as lost this long after the maximum duration of an attempt.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

pub struct Made {
    pub settings: ProviderSettings,
    upstream: Arc<HttpUpstream>,
    drills: Arc<Switch>,
    account: Arc<str>,
    probing: Option<Arc<dyn Probing>>,
}

/// The state of a provider that survives a change of its settings.
#[derive(Clone)]
pub struct Lasting {
    pub actor: Whereabouts<ProviderActor>,
    pub vitals: Arc<watch::Sender<Vitals>>,
    pub voice: Arc<watch::Sender<Option<News>>>,
    pub places: Arc<Places>,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
}

impl Made {
    /// `fleet` coordinates probes with other instances. `drills` keeps a running drill active
    /// across a change of settings; `None` creates a new switch.
    pub fn new(
        settings: ProviderSettings,
        transport: Transport,
        fleet: Option<&Fleet>,
        drills: Option<Arc<Switch>>,
    ) -> Self {
        let drills = drills.unwrap_or_else(|| Arc::new(Switch::new(chance::fraction)));
        let dialect = dialect::of(kind(settings.dialect), model(&settings));
        let upstream = Arc::new(HttpUpstream::new(
            &settings.base_url,
            dialect.into(),
            transport,
            Arc::clone(&drills),
        ));
        let account = account(&settings);
        let probing = fleet.map(|fleet| fleet.probing(&account));
        Self {
            settings,
            upstream,
            drills,
            account,
            probing,
        }
    }

    fn prices(&self) -> Option<(f64, f64)> {
        self.settings
            .prices
            .as_ref()
            .map(|prices| (prices.input, prices.output))
    }

    pub fn backend(&self, lasting: &Lasting) -> Backend {
        let provider = &self.settings;
        Backend {
            name: provider.name.as_str().into(),
            model: provider.model.as_str().into(),
            dialect: provider.dialect.name(),
            context_tokens: tokens(provider),
            patience: patience(provider),
            retry: provider.retry.clone(),
            prefill: AtomicBool::new(provider.prefill != Prefill::Off),
            weight: provider.weight,
            prices: self.prices(),
            is_budgeted: provider.daily_budget_usd.is_some(),
            upstream: self.upstream.clone(),
            actor: lasting.actor.clone(),
            account: Arc::clone(&self.account),
            voice: lasting.voice.subscribe(),
            vitals: lasting.vitals.subscribe(),
            drills: Arc::clone(&self.drills),
        }
    }

    /// The parts from which the provider's actor is built, also after a panic.
    pub fn seed(&self, lasting: Lasting) -> Seed {
        let Lasting {
            actor,
            vitals,
            voice,
            places,
            store,
            clock,
        } = lasting;
        let provider = &self.settings;
        Seed {
            name: provider.name.as_str().into(),
            rules: rules(
                &provider.breaker,
                provider.health.recovery_probe,
                provider.timeouts.attempt,
            ),
            probe_limit: provider.timeouts.first_token_after(0),
            health: provider.health.clone(),
            terms: Terms {
                prices: self.prices(),
                daily_budget_usd: provider.daily_budget_usd,
            },
            upstream: self.upstream.clone(),
            drills: Arc::clone(&self.drills),
            places,
            max_concurrent: provider.max_concurrent,
            vitals,
            actor,
            store,
            clock,
            chance: chance::fraction,
            voice,
            probing: self.probing.clone(),
        }
    }
}

/// The state of the providers and the service as saved in the store.
#[derive(Default)]
pub struct Remembered {
    /// Breakers that were not closed.
    pub breakers: Vec<BreakerRecord>,
    pub spent: Vec<SpentRecord>,
    pub past: Past,
}

/// The initial status of a provider: its saved spend, and its breaker if that was not closed.
pub fn recalled(provider: &str, remembered: &Remembered) -> Vitals {
    let spent = remembered
        .spent
        .iter()
        .find(|record| record.provider == provider);
    let spent = spent.map(|record| Spent {
        day: record.day,
        usd: record.usd,
        estimated: record.estimated,
    });
    let vitals = Vitals {
        spent: spent.unwrap_or_default(),
        ..Vitals::default()
    };
    let Some(record) = remembered
        .breakers
        .iter()
        .find(|record| record.provider == provider)
    else {
        return vitals;
    };
    // Records of earlier versions only have the wire name, which several faults share.
    let fault_by_wire_name = || {
        Fault::ALL
            .into_iter()
            .find(|fault| fault.reason() == record.reason)
    };
    let fault = record.fault.or_else(fault_by_wire_name);
    Vitals {
        state: if record.blocked {
            ProviderState::Blocked
        } else {
            ProviderState::Open
        },
        retry_at: Some(record.until),
        reason: fault,
        strikes: record.strikes,
        ..vitals
    }
}

/// A stable id of the account in use: a hash of dialect, base URL, model and key. Instances with
/// the same account share breaker events.
fn account(provider: &ProviderSettings) -> Arc<str> {
    let key = provider.api_key.as_ref().map_or("", |key| key.expose());
    fingerprint([
        provider.dialect.name(),
        &provider.base_url,
        &provider.model,
        key,
    ])
    .into()
}

fn kind(dialect: Dialect) -> Kind {
    match dialect {
        Dialect::OpenAi => Kind::Openai,
        Dialect::Anthropic => Kind::Anthropic,
        Dialect::Gemini => Kind::Gemini,
        Dialect::Azure => Kind::Azure,
        Dialect::Ollama => Kind::Ollama,
    }
}

fn tokens(provider: &ProviderSettings) -> u32 {
    provider
        .context_tokens
        .map_or(0, |tokens| u32::try_from(tokens).unwrap_or(u32::MAX))
}

fn model(provider: &ProviderSettings) -> Model {
    let headers = provider.headers.iter();
    Model {
        base_url: provider.base_url.clone(),
        model: provider.model.clone(),
        key: provider.api_key.as_ref().map(|key| key.expose().into()),
        api_version: provider.api_version.clone().unwrap_or_default(),
        temperature: provider.temperature,
        headers: headers
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
        context_tokens: tokens(provider),
        prefill: match provider.prefill {
            Prefill::Off | Prefill::Assistant => dialect::Prefill::Plain,
            Prefill::Vllm => dialect::Prefill::Vllm,
            Prefill::Prefix => dialect::Prefill::Prefix,
        },
    }
}

fn patience(provider: &ProviderSettings) -> Patience {
    let timeouts = &provider.timeouts;
    Patience {
        first_token: timeouts.first_token.clone(),
        stall: timeouts.stall,
        attempt: timeouts.attempt,
    }
}

fn rules(breaker: &BreakerSettings, recovery_probe: bool, attempt: Duration) -> Rules {
    Rules {
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
        recovery_probe,
        probe_lease: attempt + LEASE_MARGIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::At;

    #[test]
    fn account_id_depends_on_address_model_and_key() {
        let settings = crate::settings::Settings::default();
        let base = settings.provider("a", Dialect::OpenAi);
        let other_name = ProviderSettings {
            name: "b".into(),
            ..base.clone()
        };
        assert_eq!(
            account(&base),
            account(&other_name),
            "the name may differ between instances"
        );
        assert_eq!(account(&base).len(), 16);
        let key = crate::settings::Secret::new("canary-key".to_owned());
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
            assert_ne!(account(&base), account(&other));
        }
    }

    #[test]
    fn providers_start_with_their_saved_status() {
        let breaker = |provider: &str, blocked| BreakerRecord {
            provider: provider.into(),
            blocked,
            strikes: 2,
            until: At(9),
            reason: "timeout".into(),
            fault: None,
        };
        let spent = |provider: &str| SpentRecord {
            provider: provider.into(),
            day: 7,
            usd: 1.5,
            estimated: true,
        };
        let remembered = Remembered {
            breakers: vec![breaker("a", false), breaker("b", true)],
            spent: vec![spent("b"), spent("c")],
            past: Past::default(),
        };
        let cost = Spent {
            day: 7,
            usd: 1.5,
            estimated: true,
        };
        for (name, state, spent) in [
            ("a", ProviderState::Open, Spent::default()),
            ("b", ProviderState::Blocked, cost),
            ("c", ProviderState::Closed, cost),
            ("d", ProviderState::Closed, Spent::default()),
        ] {
            let vitals = recalled(name, &remembered);
            assert_eq!((vitals.state, vitals.spent), (state, spent), "{name}");
        }
        assert_eq!(recalled("a", &remembered).reason, Some(Fault::Timeout));
    }

    #[test]
    fn saved_fault_is_restored_even_if_faults_share_a_wire_name() {
        let restored_fault = |text: &str| {
            let breakers = vec![serde_json::from_str(text).unwrap()];
            recalled(
                "a",
                &Remembered {
                    breakers,
                    ..Remembered::default()
                },
            )
            .reason
        };
        let record = |fields: &str| {
            format!(
                r#"{{"provider":"a","blocked":false,"strikes":0,"until":"1970-01-01T00:00:09Z","reason":"refused"{fields}}}"#
            )
        };
        for fault in [Fault::Unreachable, Fault::Unauthorized, Fault::QuotaSpent] {
            let name = serde_json::to_string(&fault).unwrap();
            assert_eq!(
                restored_fault(&record(&format!(",\"fault\":{name}"))),
                Some(fault)
            );
        }
        assert_eq!(
            restored_fault(&record("")),
            Some(Fault::Unreachable),
            "records of earlier versions have no fault"
        );
        for unknown in [r#""eaten""#, r#"{"eaten":{"by":"a dog"}}"#, "null"] {
            let fault = restored_fault(&record(&format!(",\"fault\":{unknown}")));
            assert_eq!(
                fault,
                Some(Fault::Unreachable),
                "{unknown}: falls back to the wire name"
            );
        }
    }
}
