//! Configuration: what the operator wrote, as typed values.
//!
//! [`find`] says which file, [`Settings::load`] reads it and the environment and either gives [`Loaded`] settings with all
//! defaults filled in, or every [`Problem`] at once. [`report()`] is the text of `failsoft check`. Nothing here reaches the
//! network, and no message holds a secret.
//!
//! In reading order: the tables (`tables`, `policy`, `provider`, `choice`), the values in them (`secret`,
//! `duration`, `address`, `cron`), then how they are read (`reader` and `read` walk the file, `value` reads one value, `load`,
//! `load_tables` and `load_providers` name the keys, `check` looks across them).
//!
//! Relative paths, also in `file:` secrets, start at the working directory.

mod address;
mod check;
mod choice;
mod cron;
mod duration;
mod load;
mod load_providers;
mod load_tables;
mod policy;
mod problem;
mod provider;
mod read;
mod read_secrets;
mod reader;
mod report;
mod secret;
mod tables;
mod value;
mod webhook;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

pub use address::listen_address;
pub use choice::{
    Choice, Dialect, Fault, MidStream, Prefill, ProbeKind, Share, StoreBackend, Strategy,
};
pub use cron::Cron;
pub use duration::{parse_duration, show_duration};
pub use load::find;
pub(crate) use load::read_toml;
pub use policy::{
    BreakerSettings, CallRetry, CallTimeouts, HealthSettings, RetrySettings, RoutingSettings,
    TimeoutSettings,
};
pub use problem::{Problem, Problems};
pub use provider::{Prices, ProviderSettings};
pub(crate) use read::Table;
pub use report::report;
pub use secret::{Secret, fingerprint};
pub use tables::{
    AlertSettings, CacheSettings, ChatSettings, DegradationSettings, DrillSettings, Hours,
    LimitSettings, QualitySettings, ServerSettings, StoreSettings, TelemetrySettings,
    WidgetSettings,
};
pub(crate) use value::wrong;
pub use webhook::{is_private_host, is_public, webhook_key};

use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration; `Default` is what an empty file gives, before providers are looked for.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `[server]`
    pub server: ServerSettings,
    /// `[chat]`
    pub chat: ChatSettings,
    /// `[[providers]]`, in order of preference; empty in demo mode, until the simulated ones are added.
    pub providers: Vec<ProviderSettings>,
    /// `[routing]`
    pub routing: RoutingSettings,
    /// `[timeouts]`
    pub timeouts: TimeoutSettings,
    /// `[breaker]`
    pub breaker: BreakerSettings,
    /// `[retry]`
    pub retry: RetrySettings,
    /// `[health]`
    pub health: HealthSettings,
    /// `[cache]`
    pub cache: CacheSettings,
    /// `[degradation]`
    pub degradation: DegradationSettings,
    /// `[quality]`
    pub quality: QualitySettings,
    /// `[alerts]`
    pub alerts: AlertSettings,
    /// `[[drills]]`
    pub drills: Vec<DrillSettings>,
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
    /// `[store]`
    pub store: StoreSettings,
    /// `[limits]`
    pub limits: LimitSettings,
    /// `[widget]`
    pub widget: WidgetSettings,
    /// Whether no provider was found, so that simulated ones are to stand in.
    pub demo: bool,
}

/// Settings that may be used, and what the operator should know about them.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is odd but no reason to refuse, in the order of the file.
    pub warnings: Vec<Problem>,
    /// Where the providers come from.
    pub source: Source,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

/// Where the providers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `[[providers]]` of the file.
    File,
    /// Keys in the environment.
    Environment,
    /// Nowhere: demo mode.
    Demo,
}

impl Settings {
    /// How long a simulated provider may fall silent, so that a demo does not keep its audience waiting.
    const DEMO_STALL: Duration = Duration::from_secs(3);

    /// The settings of a demo: the defaults, [`Self::enter_demo`], and no providers yet.
    pub fn demo() -> Self {
        let mut settings = Self::default();
        settings.enter_demo();
        settings
    }

    /// Makes this a demo: visitors may set options, and a silent provider is given up after three seconds.
    /// Providers made by [`Self::provider`] after this have that timeout.
    pub fn enter_demo(&mut self) {
        self.demo = true;
        self.chat.visitor_options = true;
        self.timeouts.call.stall = Self::DEMO_STALL;
    }

    /// A provider with its dialect's defaults and the global policies, without a key; Azure's address and model are empty.
    pub fn provider(&self, name: &str, dialect: Dialect) -> ProviderSettings {
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
