//! Demo mode: simulated providers, each a real HTTP server on loopback, reached over the ordinary path.

use std::sync::Arc;

use anyhow::Context as _;

use crate::settings::{Dialect, ProviderSettings, Settings};
use crate::simulator::{Pace, Simulator, Speaks};

/// The demo's cast, in order of preference: each speaks another dialect.
const CAST: [(&str, Speaks, Dialect); 3] = [
    ("aurora", Speaks::OpenAi, Dialect::OpenAi),
    ("borealis", Speaks::Anthropic, Dialect::Anthropic),
    ("cascade", Speaks::Ollama, Dialect::Ollama),
];

/// Starts the simulated providers where this is a demo.
pub fn start(settings: &Settings) -> anyhow::Result<Arc<[Arc<Simulator>]>> {
    let mut all = Vec::new();
    for (name, speaks, _) in CAST.into_iter().filter(|_| settings.demo) {
        let started = Simulator::start(name, speaks, Pace::default());
        all.push(Arc::new(
            started.context("a simulated provider does not start on loopback")?,
        ));
    }
    Ok(all.into())
}

/// The providers to use: the configured ones, or the simulated ones as if they were configured.
pub fn providers(settings: &Settings, simulators: &[Arc<Simulator>]) -> Vec<ProviderSettings> {
    if !settings.demo {
        return settings.providers.clone();
    }
    let configured = |one: &Arc<Simulator>| {
        let dialect = CAST
            .iter()
            .find(|(name, ..)| *name == one.name())
            .map_or(Dialect::OpenAi, |cast| cast.2);
        let mut provider = settings.provider(one.name(), dialect);
        provider.base_url = one.base_url();
        one.model().clone_into(&mut provider.model);
        provider
    };
    simulators.iter().map(configured).collect()
}
