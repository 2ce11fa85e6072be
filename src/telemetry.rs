//! Logs: to stderr, as lines for people or as JSON. Never a message text, a key or a path.

pub mod spans;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged where `RUST_LOG` says nothing: it is not set, or empty, as some files for containers leave it.
const USUAL: &str = "info,hyper=warn,actix_server=warn";

/// These write what passes over the wire, keys or paths, so they are silent whatever `RUST_LOG` says, also of a module of theirs.
const SILENT: [&str; 7] = [
    "sled",
    "actix_http",
    "eventsource_client",
    "reqwest",
    "hyper_util",
    "h2",
    "launchdarkly_sdk_transport",
];

/// Starts logging. `format` is `$FAILSOFT_LOG`: `json` for JSON lines. A second call does nothing.
pub fn init(filter: Option<&str>, format: Option<&str>) {
    let filter = EnvFilter::builder().parse_lossy(
        filter
            .filter(|filter| !filter.trim().is_empty())
            .unwrap_or(USUAL),
    );
    let discreet = filter_fn(|line| !is_silent(line.target()));
    let registry = tracing_subscriber::registry().with(filter).with(discreet);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if format == Some("json") {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry
            .with(
                lines
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false),
            )
            .try_init()
    };
    // Another subscriber is in place: a test's. It stays.
    drop(started);
}

/// Whether a line comes from one of the silent libraries.
fn is_silent(target: &str) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    SILENT.contains(&library)
}

/// A source file from its crate's name on: what lies before is the machine that it was built on.
fn within(file: &str) -> &str {
    let source = file.rfind("/src/").unwrap_or(0);
    let above = file
        .get(..source)
        .and_then(|folders| folders.rfind('/'))
        .map_or(0, |at| at + 1);
    file.get(above..).unwrap_or(file)
}

/// From now on a panic is logged by its place in the code alone: its text may hold anything that the code had in hand.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|place| format!("{}:{}", within(place.file()), place.line()));
        tracing::error!(place, "panic");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_silent_with_all_its_modules() {
        for target in ["sled", "sled::pagecache::iobuf", "reqwest::connect", "h2"] {
            assert!(is_silent(target), "{target}");
        }
        for target in ["failsoft::store::sled", "hyper::proto", "h2o", ""] {
            assert!(!is_silent(target), "{target}");
        }
    }

    #[test]
    fn a_place_does_not_tell_of_the_machine() {
        assert_eq!(
            within("/x/registry/src/host-1/sled-0.34.7/src/pagecache/mod.rs"),
            "sled-0.34.7/src/pagecache/mod.rs"
        );
        assert_eq!(within("src/turn/run.rs"), "src/turn/run.rs");
    }
}
