//! The output of `failsoft check`: the providers in order, missing settings and warnings.

use super::enums::{ConfigEnum, Dialect};
use super::parse::duration::format_duration;
use super::provider::ProviderSettings;
use super::{LoadedConfig, ProviderSource, Settings};
use std::fmt::Write;

/// Renders the report on a valid configuration. Ends in a line break and contains no secret.
pub fn report(loaded: &LoadedConfig) -> String {
    let settings = &loaded.settings;
    let file = loaded
        .file
        .as_ref()
        .map_or("no configuration file".to_owned(), |file| {
            file.display().to_string()
        });
    let mut text = format!("{file}: fine\n\n{}\n", source_heading(loaded.source));
    if !settings.providers.is_empty() {
        text.push_str(&provider_table(&settings.providers));
    }
    text.push('\n');
    for line in summary_lines(settings) {
        let _ = writeln!(text, "{line}");
    }
    push_section(&mut text, "Missing", &missing_settings(loaded));
    push_section(
        &mut text,
        "Warnings",
        &loaded
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    );
    text
}

fn source_heading(source: ProviderSource) -> &'static str {
    match source {
        ProviderSource::File => "Providers, in order of preference:",
        ProviderSource::Environment => "Providers, by the keys in the environment:",
        ProviderSource::Demo => "Providers: none, so three simulated ones stand in (demo mode)",
    }
}

fn provider_table(providers: &[ProviderSettings]) -> String {
    let header = ["", "name", "dialect", "model", "base_url", "key"].map(str::to_owned);
    let rows = providers.iter().zip(1..).map(|(p, position)| {
        [
            position.to_string(),
            p.name.clone(),
            p.dialect.to_string(),
            p.model.clone(),
            p.base_url.clone(),
            key_status(p).to_owned(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let width = cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default();
            let _ = write!(line, "  {cell:width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn key_status(provider: &ProviderSettings) -> &'static str {
    match (&provider.api_key, provider.dialect.key_env_var()) {
        (Some(_), _) => "key set",
        (None, Some(_)) => "no key",
        (None, None) => "no key needed",
    }
}

fn summary_lines(settings: &Settings) -> [String; 3] {
    let first_token: Vec<String> = settings
        .timeouts
        .call
        .first_token
        .iter()
        .map(|step| format_duration(*step))
        .collect();
    [
        format!(
            "Routing   {}, at most {} attempts a turn, {} in mid-answer",
            settings.routing.strategy, settings.routing.max_attempts, settings.routing.mid_stream
        ),
        format!(
            "Timeouts  first token {}; turn {}",
            first_token.join(", "),
            format_duration(settings.timeouts.turn)
        ),
        format!(
            "Server    {}, data in {}",
            settings.server.listen,
            settings.server.data_dir.display()
        ),
    ]
}

fn missing_settings(loaded: &LoadedConfig) -> Vec<String> {
    let settings = &loaded.settings;
    let mut missing = Vec::new();
    if loaded.source != ProviderSource::File {
        let is_configured = |dialect: &Dialect| {
            settings
                .providers
                .iter()
                .any(|provider| provider.dialect == *dialect)
        };
        for dialect in Dialect::ALL
            .iter()
            .filter(|dialect| !is_configured(dialect))
        {
            let variable = match dialect {
                Dialect::Azure => continue,
                Dialect::Ollama => "OLLAMA_HOST",
                other => other.key_env_var().unwrap_or_default(),
            };
            missing.push(format!("${variable}: not set, so no {dialect}"));
        }
    }
    if let [only] = settings.providers.as_slice() {
        missing.push(format!(
            "a second provider: when {} fails there is no other",
            only.name
        ));
    }
    for provider in &settings.providers {
        if provider.prices.is_none() && provider.dialect != Dialect::Ollama {
            missing.push(format!(
                "prices of {}: what it costs stays unknown",
                provider.name
            ));
        }
    }
    if settings.server.admin_token.is_none() {
        missing.push("server.admin_token: the admin API and drills are off".to_owned());
    }
    missing
}

fn push_section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}
