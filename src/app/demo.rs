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
pub fn start_simulators(settings: &Settings) -> anyhow::Result<Arc<[Arc<Simulator>]>> {
    let mut simulators = Vec::new();
    for (name, speaks, _) in DEMO_PROVIDERS.into_iter().filter(|_| settings.demo) {
        let simulator = Simulator::start(name, speaks, TypingSpeed::default());
        simulators.push(Arc::new(
            simulator.context("cannot start a simulated provider on loopback")?,
        ));
    }
    Ok(simulators.into())
}

/// The settings of the providers in use: the configured ones, or the simulated ones in demo mode.
pub fn effective_providers(
    settings: &Settings,
    simulators: &[Arc<Simulator>],
) -> Vec<ProviderSettings> {
    if !settings.demo {
        return settings.providers.clone();
    }
    let to_settings = |simulator: &Arc<Simulator>| {
        let dialect = DEMO_PROVIDERS
            .iter()
            .find(|(name, ..)| *name == simulator.name())
            .map_or(Dialect::OpenAi, |entry| entry.2);
        let mut provider = settings.new_provider(simulator.name(), dialect);
        provider.base_url = simulator.base_url();
        simulator.model().clone_into(&mut provider.model);
        provider
    };
    simulators.iter().map(to_settings).collect()
}
