//! The configuration: a TOML file and the environment as typed values.
//!
//! [`config_path`] finds the file. [`Settings::load`] reads it together with the environment and
//! returns either a [`LoadedConfig`] with all defaults filled in, or every [`Problem`] at once.
//! [`report()`] renders the output of `failsoft check`. Nothing here uses the network, and no
//! message contains a secret.
//!
//! In reading order: the sections (`model`, `policy`, `provider`, `enums`), their value types
//! (`secret`, `duration`, `address`, `cron`), and the parser (`table_reader` walks the document,
//! `value` parses one value, `load`, `sections` and `providers` name the keys, `validate` checks
//! across sections).
//!
//! Relative paths, including those of `file:` secrets, start at the working directory.

mod diagnostics;
mod enums;
mod load;
mod model;
mod parse;
mod policy;
mod provider;
mod providers;
mod report;
mod secret;
mod sections;
mod table_reader;
mod validate;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

pub use diagnostics::{ConfigErrors, Problem};
pub use enums::{
    CacheSharing, ConfigEnum, Dialect, InjectedFault, MidStream, Prefill, ProbeKind,
    RoutingStrategy, StoreBackend,
};
pub use load::config_path;
pub(crate) use load::read_toml;
pub use model::{
    AlertSettings, CacheSettings, ChatSettings, DailyWindow, DegradationSettings, DrillSettings,
    LimitSettings, QualitySettings, ServerSettings, StoreSettings, TelemetrySettings,
    WidgetSettings,
};
pub use parse::address::parse_listen_address;
pub use parse::cron::Cron;
pub use parse::duration::{format_duration, parse_duration};
pub(crate) use parse::value::type_mismatch;
pub use parse::webhook::{is_private_host, is_public_address, webhook_key};
pub use policy::{
    BreakerSettings, CallRetry, CallTimeouts, HealthSettings, RetrySettings, RoutingSettings,
    TimeoutSettings,
};
pub use provider::{Prices, ProviderSettings};
pub(crate) use report::align_columns;
pub use report::report;
pub use secret::{Secret, fingerprint};
pub(crate) use table_reader::TableReader;

use std::path::PathBuf;
use std::time::Duration;

/// The complete configuration. `Default` is the result of an empty file without demo mode.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub server: ServerSettings,
    pub chat: ChatSettings,
    /// `[[providers]]`, in order of preference. Empty in demo mode until the simulated providers
    /// are added.
    pub providers: Vec<ProviderSettings>,
    pub routing: RoutingSettings,
    pub timeouts: TimeoutSettings,
    pub breaker: BreakerSettings,
    pub retry: RetrySettings,
    pub health: HealthSettings,
    pub cache: CacheSettings,
    pub degradation: DegradationSettings,
    pub quality: QualitySettings,
    pub alerts: AlertSettings,
    pub drills: Vec<DrillSettings>,
    pub telemetry: TelemetrySettings,
    pub store: StoreSettings,
    pub limits: LimitSettings,
    pub widget: WidgetSettings,
    /// No provider was configured; the service runs simulated ones.
    pub demo: bool,
}

#[derive(Debug, Clone)]
pub struct LoadedConfig {
    pub settings: Settings,
    /// Problems that do not prevent a start, in the order of the file.
    pub warnings: Vec<Problem>,
    pub source: ProviderSource,
    /// `None` if the configuration comes from the environment alone.
    pub file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderSource {
    File,
    Environment,
    Demo,
}

impl Settings {
    /// The stall timeout in demo mode. Short, so that the audience does not wait.
    const DEMO_STALL_TIMEOUT: Duration = Duration::from_secs(3);

    /// The default settings in demo mode, without providers.
    pub fn demo() -> Self {
        let mut settings = Self::default();
        settings.apply_demo_defaults();
        settings
    }

    /// Switches to demo mode: visitors may set options, and the stall timeout is three seconds.
    ///
    /// The timeout applies to providers that [`Self::new_provider`] creates afterwards.
    pub fn apply_demo_defaults(&mut self) {
        self.demo = true;
        self.chat.visitor_options = true;
        self.timeouts.call.stall = Self::DEMO_STALL_TIMEOUT;
    }

    /// A provider with the defaults of its dialect and the global policies, without a key.
    ///
    /// Azure has no default base URL and model; both are empty.
    pub fn new_provider(&self, name: &str, dialect: Dialect) -> ProviderSettings {
        ProviderSettings {
            name: name.to_owned(),
            dialect,
            base_url: dialect.default_base_url().unwrap_or_default().to_owned(),
            model: dialect.default_model().unwrap_or_default().to_owned(),
            api_key: None,
            weight: 1,
            max_concurrent: 64,
            prefill: Prefill::Off,
            context_tokens: None,
            temperature: None,
            api_version: None,
            headers: Vec::new(),
            prices: None,
            daily_budget_usd: None,
            breaker: self.breaker.clone(),
            health: self.health.clone(),
            timeouts: self.timeouts.call.clone(),
            retry: self.retry.call.clone(),
        }
    }
}
