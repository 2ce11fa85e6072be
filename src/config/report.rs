//! The output of `failsoft check`: the providers in order, missing settings and warnings.

use super::enums::{ConfigEnum, Dialect};
use super::parse::duration::format_duration;
use super::provider::ProviderSettings;
use super::{LoadedConfig, ProviderSource, Settings};
use std::fmt::Write;

/// Renders the report on a valid configuration. Ends in a line break and contains no secret.
pub fn report(loaded: &LoadedConfig) -> String {
    let settings = &loaded.settings;
    let file = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no configuration file".to_owned(),
    };
    let mut text = format!("{file}: fine\n\n{}\n", source_heading(loaded.source));
    if !settings.providers.is_empty() {
        push_lines(&mut text, "  ", &provider_table(&settings.providers));
    }
    text.push('\n');
    push_lines(&mut text, "", &summary_lines(settings));
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    for (title, lines) in [
        ("Missing", missing_settings(loaded)),
        ("Warnings", warnings),
    ] {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{title}:");
            push_lines(&mut text, "  ", &lines);
        }
    }
    text
}

fn push_lines(text: &mut String, indent: &str, lines: &[String]) {
    for line in lines {
        let _ = writeln!(text, "{indent}{line}");
    }
}

fn source_heading(source: ProviderSource) -> &'static str {
    match source {
        ProviderSource::File => "Providers, in order of preference:",
        ProviderSource::Environment => "Providers, by the keys in the environment:",
        ProviderSource::Demo => "Providers: none, so three simulated ones stand in (demo mode)",
    }
}

fn provider_table(providers: &[ProviderSettings]) -> Vec<String> {
    let header = ["", "name", "dialect", "model", "base_url", "key"].map(str::to_owned);
    let mut rows = vec![header.to_vec()];
    rows.extend(providers.iter().zip(1..).map(|(p, position)| {
        vec![
            position.to_string(),
            p.name.clone(),
            p.dialect.to_string(),
            p.model.clone(),
            p.base_url.clone(),
            key_status(p).to_owned(),
        ]
    }));
    align_columns(&rows)
}

/// Renders rows as lines with aligned columns.
pub(crate) fn align_columns(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn key_status(provider: &ProviderSettings) -> &'static str {
    match (&provider.api_key, provider.dialect.key_env_var()) {
        (Some(_), _) => "key set",
        (None, Some(_)) => "no key",
        (None, None) => "no key needed",
    }
}

fn summary_lines(settings: &Settings) -> [String; 3] {
    let routing = &settings.routing;
    let first_token = settings.timeouts.call.first_token.iter();
    let first_token: Vec<String> = first_token.map(|step| format_duration(*step)).collect();
    let first_token = first_token.join(", ");
    let turn = format_duration(settings.timeouts.turn);
    let data_dir = settings.server.data_dir.display();
    [
        format!(
            "Routing   {}, at most {} attempts a turn, {} in mid-answer",
            routing.strategy, routing.max_attempts, routing.mid_stream
        ),
        format!("Timeouts  first token {first_token}; turn {turn}"),
        format!("Server    {}, data in {data_dir}", settings.server.listen),
    ]
}

fn missing_settings(loaded: &LoadedConfig) -> Vec<String> {
    let providers = &loaded.settings.providers;
    let mut missing = Vec::new();
    if loaded.source != ProviderSource::File {
        for dialect in Dialect::ALL {
            let variable = match dialect {
                Dialect::Azure => continue,
                Dialect::Ollama => "OLLAMA_HOST",
                other => other.key_env_var().unwrap_or_default(),
            };
            if !providers
                .iter()
                .any(|provider| provider.dialect == *dialect)
            {
                missing.push(format!("${variable}: not set, so no {dialect}"));
            }
        }
    }
    if let [only] = providers.as_slice() {
        let name = &only.name;
        missing.push(format!(
            "a second provider: when {name} fails there is no other"
        ));
    }
    for provider in providers {
        if provider.prices.is_none() && provider.dialect != Dialect::Ollama {
            let name = &provider.name;
            missing.push(format!("prices of {name}: what it costs stays unknown"));
        }
    }
    if loaded.settings.server.admin_token.is_none() {
        missing.push("server.admin_token: the admin API and drills are off".to_owned());
    }
    missing
}
