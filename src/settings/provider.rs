//! One configured backend, and what each dialect brings along.

use super::choice::{Dialect, Prefill};
use super::policy::{BreakerSettings, CallRetry, CallTimeouts, HealthSettings};
use super::secret::Secret;

/// One of `[[providers]]`, with the global policies already overlaid by its own.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Unique, `[a-z0-9_-]`.
    pub name: String,
    /// The protocol it speaks.
    pub dialect: Dialect,
    /// http or https, without a slash at its end; the dialect adds its path.
    pub base_url: String,
    /// The model, or Azure's deployment.
    pub model: String,
    /// None: it is asked without a key.
    pub api_key: Option<Secret>,
    /// Share of turns under the weighted strategy; at least 1.
    pub weight: u32,
    /// Most calls at once; at least 1.
    pub max_concurrent: usize,
    /// How it continues a started answer.
    pub prefill: Prefill,
    /// Room for prompt and answer, in tokens; none: unknown.
    pub context_tokens: Option<u64>,
    /// 0 to 2; none: left out of the request.
    pub temperature: Option<f64>,
    /// None: the dialect's own.
    pub api_version: Option<String>,
    /// More request headers: lower-case name and value, which may be a key.
    pub headers: Vec<(String, Secret)>,
    /// None: what it costs is unknown.
    pub prices: Option<Prices>,
    /// Spent: passed over until midnight UTC. None: no limit.
    pub daily_budget_usd: Option<f64>,
    /// Its effective breaker.
    pub breaker: BreakerSettings,
    /// Its effective health checks.
    pub health: HealthSettings,
    /// Its effective timeouts.
    pub timeouts: CallTimeouts,
    /// Its effective retries.
    pub retry: CallRetry,
}

impl ProviderSettings {
    /// Whether another says just the same.
    pub fn is_the_same(&self, other: &Self) -> bool {
        let Self {
            name,
            dialect: _,
            base_url: _,
            model: _,
            api_key: _,
            weight,
            max_concurrent,
            prefill,
            context_tokens,
            temperature,
            api_version: _,
            headers: _,
            prices,
            daily_budget_usd,
            breaker,
            health,
            timeouts,
            retry,
        } = other;
        let calls = self.prefill == *prefill
            && self.context_tokens == *context_tokens
            && self.temperature == *temperature
            && self.timeouts == *timeouts
            && self.retry == *retry;
        let measures = self.weight == *weight
            && self.max_concurrent == *max_concurrent
            && self.prices == *prices
            && self.daily_budget_usd == *daily_budget_usd
            && self.breaker == *breaker
            && self.health == *health;
        self.name == *name && self.is_the_same_service(other) && calls && measures
    }

    /// Whether another is the same service: what is known of the one, its key or its quota refused or its model not found, holds for the other.
    pub fn is_the_same_service(&self, other: &Self) -> bool {
        let same_key = match (&self.api_key, &other.api_key) {
            (Some(key), Some(other)) => key.is(other),
            (key, other) => key.is_none() && other.is_none(),
        };
        let headers = self.headers.iter().zip(&other.headers);
        let mut same = headers.map(|((name, value), other)| *name == other.0 && value.is(&other.1));
        self.dialect == other.dialect
            && self.base_url == other.base_url
            && self.model == other.model
            && self.api_version == other.api_version
            && same_key
            && self.headers.len() == other.headers.len()
            && same.all(|same| same)
    }
}

/// US dollars per million tokens, 0 or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// For what is sent.
    pub input: f64,
    /// For what is answered.
    pub output: f64,
}

impl Dialect {
    /// Where it is reached unless the configuration says otherwise; Azure has no common address.
    pub fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com"),
            Self::Azure => None,
            Self::Ollama => Some("http://127.0.0.1:11434"),
        }
    }

    /// The environment variable its key is taken from unless the configuration says otherwise; Ollama needs no key.
    pub fn key_variable(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Gemini => Some("GEMINI_API_KEY"),
            Self::Azure => Some("AZURE_OPENAI_API_KEY"),
            Self::Ollama => None,
        }
    }

    /// The model asked where none is configured; Azure's deployments have names of their own.
    pub fn default_model(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("gpt-4o-mini"),
            Self::Anthropic => Some("claude-haiku-4-5"),
            Self::Gemini => Some("gemini-2.5-flash"),
            Self::Azure => None,
            Self::Ollama => Some("llama3.2"),
        }
    }

    /// What the dialect itself adds to a base URL, so that a base URL which ends in one of these most likely has it twice.
    pub(super) fn added_paths(self) -> &'static [&'static str] {
        match self {
            Self::OpenAi => &["/chat/completions", "/models"],
            Self::Anthropic => &["/v1/messages", "/v1"],
            Self::Gemini => &["/v1beta/models", "/v1beta", "/v1"],
            Self::Azure => &["/chat/completions", "/openai/deployments", "/openai"],
            Self::Ollama => &["/api/chat", "/api", "/v1"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use std::time::Duration;

    #[test]
    fn what_makes_it_another_service_is_told_from_what_only_changes_its_measures() {
        let mut one = Settings::default().provider("a", Dialect::OpenAi);
        one.api_key = Some(Secret::new("key"));
        one.headers = vec![("x-team".to_owned(), Secret::new("blue"))];
        type Edit = fn(&mut ProviderSettings);
        let another: [Edit; 8] = [
            |p| p.dialect = Dialect::Ollama,
            |p| p.base_url.push('x'),
            |p| p.model.push('x'),
            |p| p.api_key = Some(Secret::new("other")),
            |p| p.api_key = None,
            |p| p.api_version = Some("2".to_owned()),
            |p| p.headers = vec![("x-team".to_owned(), Secret::new("red"))],
            |p| p.headers.clear(),
        ];
        let measures: [Edit; 11] = [
            |p| p.weight += 1,
            |p| p.max_concurrent += 1,
            |p| p.prefill = Prefill::Vllm,
            |p| p.context_tokens = Some(9),
            |p| p.temperature = Some(0.5),
            |p| {
                p.prices = Some(Prices {
                    input: 1.0,
                    output: 1.0,
                })
            },
            |p| p.daily_budget_usd = Some(1.0),
            |p| p.breaker.probes += 1,
            |p| p.health.timeout = Duration::ZERO,
            |p| p.timeouts.stall = Duration::ZERO,
            |p| p.retry.same_provider += 1,
        ];
        let edited = |edit: &Edit| {
            let mut other = one.clone();
            edit(&mut other);
            other
        };
        assert!(one.is_the_same(&one.clone()) && one.is_the_same_service(&one.clone()));
        for other in another.iter().map(edited) {
            assert!(
                !one.is_the_same(&other) && !one.is_the_same_service(&other),
                "{other:?}"
            );
        }
        for other in measures.iter().map(edited) {
            assert!(
                !one.is_the_same(&other) && one.is_the_same_service(&other),
                "{other:?}"
            );
        }
    }
}
