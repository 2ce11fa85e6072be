//! Loads settings from a file and the environment, and decides where the providers come from.

use super::diagnostics::{ConfigErrors, Problem};
use super::enums::{ConfigEnum, Dialect};
use super::parse::address::parse_ollama_host;
use super::parse::value;
use super::provider::ProviderSettings;
use super::reader::{Diagnostics, Environment};
use super::table_reader::TableReader;
use super::{LoadedConfig, ProviderSource, Secret, Settings, providers, sections, validate};
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Read if no file is named and it exists in the working directory.
const DEFAULT_FILE: &str = "failsoft.toml";
const CONFIG_ENV_VAR: &str = "FAILSOFT_CONFIG";
const OLLAMA_HOST_ENV_VAR: &str = "OLLAMA_HOST";

/// The path of the configuration file: the command-line argument, else `$FAILSOFT_CONFIG`, else
/// `failsoft.toml` in the working directory if it exists, else `None`.
///
/// A named file is returned even if it does not exist.
pub fn config_path(named: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let from_env = || {
        env(CONFIG_ENV_VAR)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    // A dangling symlink counts as existing, so that reading it reports the error.
    let default_file = || {
        Path::new(DEFAULT_FILE)
            .symlink_metadata()
            .is_ok()
            .then(|| PathBuf::from(DEFAULT_FILE))
    };
    named
        .map(Path::to_path_buf)
        .or_else(from_env)
        .or_else(default_file)
}

impl Settings {
    /// Loads the given file, if any, and the environment.
    ///
    /// # Errors
    /// Returns every problem, in the order of the file.
    pub fn load(
        path: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<LoadedConfig, ConfigErrors> {
        let Some(path) = path else {
            return Self::from_text("", "", env);
        };
        let file = path.display().to_string();
        let fail = |line, what| {
            ConfigErrors(vec![Problem {
                file: file.clone(),
                line,
                key: String::new(),
                message: what,
            }])
        };
        let bytes =
            std::fs::read(path).map_err(|error| fail(None, format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid_up_to = error.utf8_error().valid_up_to();
            let lines = error
                .as_bytes()
                .iter()
                .take(valid_up_to)
                .filter(|byte| **byte == b'\n')
                .count();
            fail(Some(lines + 1), "not UTF-8 text".to_owned())
        })?;
        let mut loaded = Self::from_text(&file, &text, env)?;
        loaded.file = Some(path.to_path_buf());
        Ok(loaded)
    }

    /// Loads the configuration again for a reload.
    ///
    /// A pipe is rejected: it is already drained, and an empty configuration would be valid.
    ///
    /// # Errors
    /// Like [`Settings::load`], or the path is a pipe or socket.
    pub fn reload(
        path: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<LoadedConfig, ConfigErrors> {
        let kind = path
            .and_then(|path| path.metadata().ok())
            .map(|data| data.file_type());
        match path.filter(|_| kind.is_some_and(|kind| kind.is_fifo() || kind.is_socket())) {
            None => Self::load(path, env),
            Some(path) => Err(ConfigErrors(vec![Problem {
                file: path.display().to_string(),
                line: None,
                key: String::new(),
                message: "came through a pipe, which cannot be read again; start with a file to reload it"
                    .to_owned(),
            }])),
        }
    }

    /// Parses the text of a configuration file. Problems refer to it as `file`.
    ///
    /// # Errors
    /// Returns every problem, in the order of the text.
    pub fn from_text(
        file: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<LoadedConfig, ConfigErrors> {
        let mut settings = Self::default();
        let (source, reader) = parse_document(file, text, env, |root| {
            let source = read_sections(root, &mut settings);
            validate::validate(root.reader, &settings);
            source
        })?;
        let mut warnings = reader.warnings;
        warnings.sort_by_key(|warning| warning.line);
        Ok(LoadedConfig {
            settings,
            warnings,
            source,
            file: None,
        })
    }
}

/// Parses a TOML document other than the configuration, with the same error reporting: unknown keys
/// are problems. Secrets from the environment are not available. Problems refer to it as `file`.
///
/// # Errors
/// Returns every problem, in the order of the text.
pub(crate) fn read_toml<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(&mut TableReader<'_, '_, '_>) -> T,
) -> Result<T, ConfigErrors> {
    parse_document(file, text, &|_| None, read).map(|(read, _)| read)
}

fn parse_document<'e, T>(
    file: &str,
    text: &str,
    env: Environment<'e>,
    read: impl FnOnce(&mut TableReader<'_, '_, 'e>) -> T,
) -> Result<(T, Diagnostics<'e>), ConfigErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Diagnostics::new(file, text, env);
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let read = TableReader::read_document(&mut reader, document.get_ref(), read);
    report_syntax(&mut reader, &syntax_errors);
    reader.problems.sort_by_key(|problem| problem.line);
    if reader.problems.is_empty() {
        Ok((read, reader))
    } else {
        Err(ConfigErrors(reader.problems))
    }
}

// The order matters: each provider starts from the global policies, and drills name providers.
fn read_sections(root: &mut TableReader, s: &mut Settings) -> ProviderSource {
    root.read_table("server", |t| sections::read_server(t, &mut s.server));
    root.read_table("chat", |t| sections::read_chat(t, &mut s.chat));
    root.read_table("routing", |t| sections::read_routing(t, &mut s.routing));
    root.read_table("timeouts", |t| {
        sections::read_call_timeouts(t, &mut s.timeouts.call);
        t.read("turn", &mut s.timeouts.turn, value::positive_duration);
    });
    root.read_table("breaker", |t| sections::read_breaker(t, &mut s.breaker));
    root.read_table("retry", |t| {
        sections::read_call_retry(t, &mut s.retry.call);
        t.read("budget", &mut s.retry.budget, value::float(0.0..=1000.0));
    });
    root.read_table("health", |t| sections::read_health(t, &mut s.health));
    root.read_table("cache", |t| sections::read_cache(t, &mut s.cache));
    root.read_table("degradation", |t| {
        sections::read_degradation(t, &mut s.degradation)
    });
    root.read_table("quality", |t| sections::read_quality(t, &mut s.quality));
    root.read_table("alerts", |t| sections::read_alerts(t, &mut s.alerts));
    root.read_table("telemetry", |t| {
        t.read(
            "otlp_endpoint",
            &mut s.telemetry.otlp_endpoint,
            sections::parse_endpoint,
        )
    });
    root.read_table("store", |t| sections::read_store(t, &mut s.store));
    root.read_table("limits", |t| sections::read_limits(t, &mut s.limits));
    root.read_table("widget", |t| {
        t.read_secret("identity_secret", &mut s.widget.identity_secret)
    });
    providers::read_providers(root, s);
    let source = if s.providers.is_empty() {
        providers_from_env(root.reader, s)
    } else {
        ProviderSource::File
    };
    // In demo mode the providers and their names are added later.
    let names: Option<Vec<String>> = (!s.demo).then(|| {
        s.providers
            .iter()
            .map(|provider| provider.name.clone())
            .collect()
    });
    root.read_tables("drills", |t| {
        s.drills.extend(sections::read_drill(t, names.as_deref()))
    });
    source
}

/// Reports syntax errors. Drops other problems of the same lines, which are probably consequences.
fn report_syntax(reader: &mut Diagnostics<'_>, errors: &[toml::de::Error]) {
    let mut first_errors = BTreeMap::new();
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        first_errors
            .entry(reader.line_at(at))
            .or_insert((at, error.message()));
    }
    reader.problems.retain(|problem| {
        problem
            .line
            .is_none_or(|line| !first_errors.contains_key(&line))
    });
    for (line, (at, message)) in first_errors {
        let column = at - reader.line_start(at) + 1;
        reader.add_problem(
            Some(line),
            "",
            format!("not TOML at column {column}: {message}"),
        );
    }
}

/// Adds a provider for each API key in the environment. Without any, switches to demo mode.
fn providers_from_env(reader: &mut Diagnostics<'_>, settings: &mut Settings) -> ProviderSource {
    let mut found = Vec::new();
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini] {
        let key = dialect
            .key_env_var()
            .and_then(|variable| Some((variable, env_value(reader.env, variable)?)));
        if let Some((variable, key)) = key {
            if key.is_ascii() && !key.contains(|c: char| c.is_control()) {
                let api_key = Some(Secret::new(key));
                found.push(ProviderSettings {
                    api_key,
                    ..settings.new_provider(dialect.as_str(), dialect)
                });
            } else {
                report_env(
                    reader,
                    variable,
                    "has characters in it that no key has".to_owned(),
                );
            }
        }
    }
    if let Some(host) = env_value(reader.env, OLLAMA_HOST_ENV_VAR) {
        match parse_ollama_host(&host) {
            Ok(base_url) => {
                let dialect = Dialect::Ollama;
                found.push(ProviderSettings {
                    base_url,
                    ..settings.new_provider(dialect.as_str(), dialect)
                });
            }
            Err(what) => report_env(reader, OLLAMA_HOST_ENV_VAR, what),
        }
    }
    settings.providers = found;
    if !settings.providers.is_empty() {
        return ProviderSource::Environment;
    }
    // A stall timeout in the file takes precedence over that of the demo.
    let stall = settings.timeouts.call.stall;
    settings.apply_demo_defaults();
    if reader.line_of_key("timeouts.stall").is_some() {
        settings.timeouts.call.stall = stall;
    }
    ProviderSource::Demo
}

/// The trimmed value of an environment variable. `None` if it is unset or blank.
fn env_value(env: Environment<'_>, variable: &str) -> Option<String> {
    env(variable)
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

fn report_env(reader: &mut Diagnostics<'_>, variable: &str, what: String) {
    reader.problems.push(Problem {
        file: "environment".to_owned(),
        line: None,
        key: variable.to_owned(),
        message: what,
    });
}
