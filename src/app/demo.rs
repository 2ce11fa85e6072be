//! Demo mode: simulated providers, each an HTTP server on loopback, called like real ones.

use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{Dialect, ProviderSettings, Settings};
use crate::simulator::{Simulator, TypingSpeed, WireFormat};

/// The simulated providers in order of preference. Each speaks another dialect.
const DEMO_PROVIDERS: [(&str, WireFormat, Dialect); 3] = [
    ("aurora", WireFormat::OpenAi, Dialect::OpenAi),
    ("borealis", WireFormat::Anthropic, Dialect::Anthropic),
    ("cascade", WireFormat::Ollama, Dialect::Ollama),
];

/// Starts the simulated providers in demo mode. Otherwise returns an empty list.
pub fn start_simulators(settings: &Settings) -> anyhow::Result<Arc<[Simulator]>> {
    DEMO_PROVIDERS
        .iter()
        .filter(|_| settings.demo)
        .map(|(name, format, _)| Simulator::start(name, *format, TypingSpeed::default()))
        .collect::<Result<_, _>>()
        .context("cannot start a simulated provider on loopback")
}

/// The settings of the providers in use: the configured ones, or the simulated ones in demo mode.
pub fn effective_providers(settings: &Settings, simulators: &[Simulator]) -> Vec<ProviderSettings> {
    if !settings.demo {
        return settings.providers.clone();
    }
    let to_settings = |(simulator, (name, _, dialect)): (&Simulator, _)| {
        let mut provider = settings.new_provider(name, dialect);
        provider.base_url = simulator.base_url();
        simulator.model().clone_into(&mut provider.model);
        provider
    };
    simulators
        .iter()
        .zip(DEMO_PROVIDERS)
        .map(to_settings)
        .collect()
}
