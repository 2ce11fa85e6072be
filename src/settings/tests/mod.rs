//! The configuration as a whole: texts in, settings or problems out.

mod defaults;
mod problems;
mod provider_problems;
mod providers;
mod reading;
mod report;
mod warnings;

use super::{Loaded, Problems, Settings};

/// What no message and no report may ever hold.
const CANARY: &str = "canary";

/// An environment with one key, which is a canary.
fn env(name: &str) -> Option<String> {
    (name == "OPENAI_API_KEY").then(|| format!("sk-{CANARY}"))
}

fn empty(_: &str) -> Option<String> {
    None
}

fn load(text: &str) -> Result<Loaded, Problems> {
    Settings::from_text("failsoft.toml", text, &env)
}

fn settings(text: &str) -> Settings {
    load(text)
        .unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
        .settings
}

/// Each problem as one line, without the file's name.
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

/// A good provider, in four lines.
const PROVIDER: &str = "[[providers]]\nname = \"a\"\ndialect = \"openai\"\nmodel = \"m\"\n";

/// Exactly one problem, which begins with line and key and says what would be right.
fn one(text: &str, begins: &str, says: &str) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}\nin\n{text}");
    assert!(
        found[0].starts_with(begins),
        "{found:?} does not begin with {begins}"
    );
    assert!(found[0].contains(says), "{found:?} does not say {says}");
}
