//! Loads settings from a file and the environment, and decides where the providers come from.

use super::diagnostics::{ConfigErrors, Diagnostics, Environment, Problem};
use super::enums::{ConfigEnum, Dialect};
use super::parse::address::parse_ollama_host;
use super::parse::value;
use super::provider::ProviderSettings;
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
pub fn config_path(named: Option<&Path>, env: Environment<'_>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    if let Some(path) = env(CONFIG_ENV_VAR).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    // A dangling symlink counts as existing, so that reading it reports the error.
    let exists = Path::new(DEFAULT_FILE).symlink_metadata().is_ok();
    exists.then(|| DEFAULT_FILE.into())
}

impl Settings {
    /// Loads the given file, if any, and the environment.
    ///
    /// # Errors
    /// Returns every problem, in the order of the file.
    pub fn load(path: Option<&Path>, env: Environment<'_>) -> Result<LoadedConfig, ConfigErrors> {
        let Some(path) = path else {
            return Self::from_text("", "", env);
        };
        let file = path.display().to_string();
        let fail = |line, what| ConfigErrors(vec![Problem::new(&file, line, "", what)]);
        let bytes =
            std::fs::read(path).map_err(|error| fail(None, format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid_bytes = error.utf8_error().valid_up_to();
            let valid = error.as_bytes().iter().take(valid_bytes);
            let line = valid.filter(|byte| **byte == b'\n').count() + 1;
            fail(Some(line), "not UTF-8 text".to_owned())
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
    pub fn reload(path: Option<&Path>, env: Environment<'_>) -> Result<LoadedConfig, ConfigErrors> {
        let is_drained = |path: &&Path| {
            path.metadata()
                .is_ok_and(|data| data.file_type().is_fifo() || data.file_type().is_socket())
        };
        let Some(pipe) = path.filter(is_drained) else {
            return Self::load(path, env);
        };
        let what =
            "came through a pipe, which cannot be read again; start with a file to reload it";
        let file = pipe.display().to_string();
        Err(ConfigErrors(vec![Problem::new(&file, None, "", what)]))
    }

    /// Parses the text of a configuration file. Problems refer to it as `file`.
    ///
    /// # Errors
    /// Returns every problem, in the order of the text.
    pub fn from_text(
        file: &str,
        text: &str,
        env: Environment<'_>,
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
    let read = TableReader::run(&mut reader, String::new(), 1, document.get_ref(), read);
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
        let endpoint = value::optional(value::base_url);
        t.read("otlp_endpoint", &mut s.telemetry.otlp_endpoint, endpoint);
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
    let names: Vec<&str> = s
        .providers
        .iter()
        .map(|provider| provider.name.as_str())
        .collect();
    let names = (!s.demo).then_some(names.as_slice());
    root.read_tables("drills", |t| {
        s.drills.extend(sections::read_drill(t, names))
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
    let is_clean = |line| !first_errors.contains_key(&line);
    let problems = &mut reader.problems;
    problems.retain(|problem| problem.line.is_none_or(is_clean));
    for (line, (at, message)) in first_errors {
        let column = reader.column_at(at);
        let what = format!("not TOML at column {column}: {message}");
        reader.add_problem(Some(line), "", what);
    }
}

/// Adds a provider for each API key in the environment. Without any, switches to demo mode.
fn providers_from_env(reader: &mut Diagnostics<'_>, settings: &mut Settings) -> ProviderSource {
    let mut found = Vec::new();
    let dialects = Dialect::ALL.iter().copied();
    for dialect in dialects.filter(|dialect| *dialect != Dialect::Azure) {
        let variable = dialect.key_env_var().unwrap_or(OLLAMA_HOST_ENV_VAR);
        let Some(value) = (reader.env)(variable).filter(|value| !value.trim().is_empty()) else {
            continue;
        };
        match provider_from_env(settings, dialect, value.trim()) {
            Ok(provider) => found.push(provider),
            Err(what) => {
                let problem = Problem::new("environment", None, variable, what);
                reader.problems.push(problem);
            }
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

/// A provider with an API key, or for Ollama an address, from the environment.
fn provider_from_env(
    settings: &Settings,
    dialect: Dialect,
    value: &str,
) -> Result<ProviderSettings, String> {
    let mut provider = settings.new_provider(dialect.as_str(), dialect);
    if dialect == Dialect::Ollama {
        provider.base_url = parse_ollama_host(value)?;
    } else if value.is_ascii() && !value.contains(|c: char| c.is_control()) {
        provider.api_key = Some(Secret::new(value));
    } else {
        return Err("has characters in it that no key has".to_owned());
    }
    Ok(provider)
}
