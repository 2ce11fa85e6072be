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
