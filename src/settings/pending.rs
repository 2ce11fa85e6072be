//! Keys that are read and checked, but whose feature is not built yet: who sets one is told.

use super::problem::Problem;
use super::reader::Written;

/// Those keys: `[]` stands for any index, `.*` for all of a table. This is the one place to shorten.
const NOT_BUILT: &[&str] = &["chat.retention", "drills[]", "telemetry.otlp_endpoint"];

/// A warning for each key of the file that asks for what is not built yet; one that only repeats its default asks for nothing.
pub(super) fn not_built_yet(file: &str, written: &[Written]) -> Vec<Problem> {
    let asked = written.iter().filter(|written| written.asks && is_pending(&written.key));
    asked
        .map(|written| Problem {
            file: file.to_owned(),
            line: Some(written.line),
            key: written.key.clone(),
            what: "not built yet, so this has no effect".to_owned(),
        })
        .collect()
}

fn is_pending(key: &str) -> bool {
    // Indices stand at the digits between brackets; no key of ours has a digit or a bracket elsewhere.
    let any: String = key.chars().filter(|c| !c.is_ascii_digit()).collect();
    NOT_BUILT.iter().any(|pending| match pending.strip_suffix('*') {
        Some(table) => any.starts_with(table),
        None => any == **pending,
    })
}
