//! Tests of the whole configuration: text in, settings or problems out.

mod defaults;
mod problems;
mod provider_problems;
mod providers;
mod reading;
mod report;
mod warnings;

use super::{ConfigErrors, LoadedConfig, Settings};

/// A secret that must appear in no message and no report.
const CANARY: &str = "canary";

/// An environment with one API key, which contains the canary.
fn env(name: &str) -> Option<String> {
    (name == "OPENAI_API_KEY").then(|| format!("sk-{CANARY}"))
}

fn empty(_: &str) -> Option<String> {
    None
}

fn load(text: &str) -> Result<LoadedConfig, ConfigErrors> {
    Settings::from_text("failsoft.toml", text, &env)
}

fn settings(text: &str) -> Settings {
    load(text)
        .unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
        .settings
}

fn problems(text: &str) -> Vec<String> {
    let problems = load(text)
        .err()
        .unwrap_or_else(|| panic!("nothing wrong in\n{text}"));
    let lines = problems.0.iter().map(ToString::to_string);
    lines
        .map(|line| {
            line.strip_prefix("failsoft.toml:")
                .unwrap_or(&line)
                .to_owned()
        })
        .collect()
}

const PROVIDER: &str = "[[providers]]\nname = \"a\"\ndialect = \"openai\"\nmodel = \"m\"\n";

fn assert_problem(text: &str, start: &str, part: &str) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}\nin\n{text}");
    assert!(
        found[0].starts_with(start),
        "{found:?} does not start with {start}"
    );
    assert!(found[0].contains(part), "{found:?} does not contain {part}");
}
