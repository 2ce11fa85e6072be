//! Logs on stderr, for people or as JSON lines. They never contain message texts, keys or paths.

pub mod spans;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The filter if `RUST_LOG` is unset or empty. Some container setups set it to an empty value.
const DEFAULT_FILTER: &str = "info,hyper=warn,actix_server=warn";

/// Crates whose logs contain wire data, keys or paths. They stay silent regardless of `RUST_LOG`.
const SILENT_CRATES: [&str; 7] = [
    "sled",
    "actix_http",
    "eventsource_client",
    "reqwest",
    "hyper_util",
    "h2",
    "launchdarkly_sdk_transport",
];

/// Starts logging. `format` is the value of `$FAILSOFT_LOG`: `json` selects JSON lines. Further
/// calls have no effect.
pub fn init(filter: Option<&str>, format: Option<&str>) {
    let filter = filter.filter(|filter| !filter.trim().is_empty());
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or(DEFAULT_FILTER));
    let not_silent = filter_fn(|line| !is_silent(line.target()));
    let registry = tracing_subscriber::registry().with(filter).with(not_silent);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let result = if format == Some("json") {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        let colours = std::io::stderr().is_terminal();
        let layer = layer.with_ansi(colours).with_target(false);
        registry.with(layer).try_init()
    };
    // Fails if a test has already installed a subscriber.
    drop(result);
}

fn is_silent(target: &str) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    SILENT_CRATES.contains(&library)
}

/// The path of a source file from its crate's folder on. The rest would reveal the build machine.
fn crate_relative(file: &str) -> &str {
    let source = file.rfind("/src/").unwrap_or(0);
    let crate_start = file
        .get(..source)
        .and_then(|folders| folders.rfind('/'))
        .map_or(0, |at| at + 1);
    file.get(crate_start..).unwrap_or(file)
}

/// Logs panics by their source location only. The panic message may contain private data.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|place| format!("{}:{}", crate_relative(place.file()), place.line()));
        tracing::error!(place, "panic");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_crates_are_silent_in_all_modules() {
        for target in ["sled", "sled::pagecache::iobuf", "reqwest::connect", "h2"] {
            assert!(is_silent(target), "{target}");
        }
        for target in ["failsoft::store::sled", "hyper::proto", "h2o", ""] {
            assert!(!is_silent(target), "{target}");
        }
    }

    #[test]
    fn source_paths_do_not_reveal_the_build_machine() {
        assert_eq!(
            crate_relative("/x/registry/src/host-1/sled-0.34.7/src/pagecache/mod.rs"),
            "sled-0.34.7/src/pagecache/mod.rs"
        );
        assert_eq!(crate_relative("src/turn/run.rs"), "src/turn/run.rs");
    }
}
