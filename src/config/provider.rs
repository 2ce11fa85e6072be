//! The settings of a provider and the defaults of each dialect.

use super::enums::{Dialect, Prefill};
use super::policy::{BreakerSettings, CallRetry, CallTimeouts, HealthSettings};
use super::secret::Secret;

/// One of `[[providers]]`. The policies are the global ones with its own keys applied.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSettings {
    /// Unique. Consists of `[a-z0-9_-]`.
    pub name: String,
    pub dialect: Dialect,
    /// An http or https URL without trailing slash. The dialect appends its paths.
    pub base_url: String,
    /// The model, or the deployment for Azure.
    pub model: String,
    /// `None` sends requests without a key.
    pub api_key: Option<Secret>,
    /// The share of turns under the `weighted` strategy. At least 1.
    pub weight: u32,
    /// The maximum number of concurrent calls. At least 1.
    pub max_concurrent: usize,
    /// How the provider continues a partial answer.
    pub prefill: Prefill,
    /// The context window for prompt and answer, in tokens. `None` if unknown.
    pub context_tokens: Option<u64>,
    /// From 0 to 2. `None` omits it from the request.
    pub temperature: Option<f64>,
    /// `None` uses the dialect's default.
    pub api_version: Option<String>,
    /// Additional request headers with lower-case names. Values may be keys.
    pub headers: Vec<(String, Secret)>,
    pub prices: Option<Prices>,
    /// Once spent, the provider is skipped until midnight UTC. `None` sets no limit.
    pub daily_budget_usd: Option<f64>,
    pub breaker: BreakerSettings,
    pub health: HealthSettings,
    pub timeouts: CallTimeouts,
    pub retry: CallRetry,
}

impl ProviderSettings {
    /// Returns `true` if both refer to the same service with the same credentials.
    ///
    /// A rejected key, an exhausted quota or a missing model of one then applies to the other.
    pub fn same_endpoint(&self, other: &Self) -> bool {
        self.dialect == other.dialect
            && self.base_url == other.base_url
            && self.model == other.model
            && self.api_key == other.api_key
            && self.api_version == other.api_version
            && self.headers == other.headers
    }
}

/// Prices in US dollars per million tokens, 0 or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    pub input: f64,
    pub output: f64,
}

impl Dialect {
    /// The vendor's API address. `None` for Azure, where each resource has its own.
    pub fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com"),
            Self::Azure => None,
            Self::Ollama => Some("http://127.0.0.1:11434"),
        }
    }

    /// The environment variable of the API key. `None` for Ollama, which needs none.
    pub fn key_env_var(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Gemini => Some("GEMINI_API_KEY"),
            Self::Azure => Some("AZURE_OPENAI_API_KEY"),
            Self::Ollama => None,
        }
    }

    /// `None` for Azure, where each deployment has its own name.
    pub fn default_model(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("gpt-4o-mini"),
            Self::Anthropic => Some("claude-haiku-4-5"),
            Self::Gemini => Some("gemini-2.5-flash"),
            Self::Azure => None,
            Self::Ollama => Some("llama3.2"),
        }
    }

    /// The paths that the dialect appends. A base URL that ends in one of them probably repeats it.
    pub(super) fn appended_paths(self) -> &'static [&'static str] {
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
    use crate::config::Settings;
    use std::time::Duration;

    #[test]
    fn only_address_and_credentials_decide_the_same_endpoint() {
        let mut base = Settings::default().new_provider("a", Dialect::OpenAi);
        base.api_key = Some(Secret::new("key"));
        base.headers = vec![("x-team".to_owned(), Secret::new("blue"))];
        type Edit = fn(&mut ProviderSettings);
        let endpoint_edits: [Edit; 8] = [
            |p| p.dialect = Dialect::Ollama,
            |p| p.base_url.push('x'),
            |p| p.model.push('x'),
            |p| p.api_key = Some(Secret::new("other")),
            |p| p.api_key = None,
            |p| p.api_version = Some("2".to_owned()),
            |p| p.headers = vec![("x-team".to_owned(), Secret::new("red"))],
            |p| p.headers.clear(),
        ];
        let policy_edits: [Edit; 11] = [
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
            let mut other = base.clone();
            edit(&mut other);
            other
        };
        assert!(base == base.clone() && base.same_endpoint(&base.clone()));
        for other in endpoint_edits.iter().map(edited) {
            assert!(base != other && !base.same_endpoint(&other), "{other:?}");
        }
        for other in policy_edits.iter().map(edited) {
            assert!(base != other && base.same_endpoint(&other), "{other:?}");
        }
    }
}
