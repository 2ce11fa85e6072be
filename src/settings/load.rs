//! Loads settings from a file and the environment, and decides where the providers come from.

use super::address::ollama_host;
use super::choice::{Choice, Dialect};
use super::problem::{Problem, Problems};
use super::provider::ProviderSettings;
use super::read::Table;
use super::reader::{Environment, Reader};
use super::{Loaded, Secret, Settings, Source, check, load_providers, load_tables, value};
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Read if no file is named and it exists in the working directory.
const USUAL_FILE: &str = "failsoft.toml";
const FILE_VARIABLE: &str = "FAILSOFT_CONFIG";
const OLLAMA_VARIABLE: &str = "OLLAMA_HOST";

/// The path of the configuration file: the command-line argument, else `$FAILSOFT_CONFIG`, else
/// `failsoft.toml` in the working directory if it exists, else `None`.
///
/// A named file is returned even if it does not exist.
pub fn find(named: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let from_env = || {
        env(FILE_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    // A dangling symlink counts as existing, so that reading it reports the error.
    let default_file = || {
        Path::new(USUAL_FILE)
            .symlink_metadata()
            .is_ok()
            .then(|| PathBuf::from(USUAL_FILE))
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
    ) -> Result<Loaded, Problems> {
        let Some(path) = path else {
            return Self::from_text("", "", env);
        };
        let file = path.display().to_string();
        let fail = |line, what| {
            Problems(vec![Problem {
                file: file.clone(),
                line,
                key: String::new(),
                what,
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
    pub fn load_again(
        path: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, Problems> {
        let kind = path
            .and_then(|path| path.metadata().ok())
            .map(|data| data.file_type());
        match path.filter(|_| kind.is_some_and(|kind| kind.is_fifo() || kind.is_socket())) {
            None => Self::load(path, env),
            Some(path) => Err(Problems(vec![Problem {
                file: path.display().to_string(),
                line: None,
                key: String::new(),
                what: "came through a pipe, which cannot be read again; start with a file to reload it"
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
    ) -> Result<Loaded, Problems> {
        let mut settings = Self::default();
        let (source, reader) = document(file, text, env, |root| {
            let source = tables(root, &mut settings);
            check::across(root.reader, &settings);
            source
        })?;
        let mut warnings = reader.warnings;
        warnings.sort_by_key(|warning| warning.line);
        Ok(Loaded {
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
    read: impl FnOnce(&mut Table<'_, '_, '_>) -> T,
) -> Result<T, Problems> {
    document(file, text, &|_| None, read).map(|(read, _)| read)
}

fn document<'e, T>(
    file: &str,
    text: &str,
    env: Environment<'e>,
    read: impl FnOnce(&mut Table<'_, '_, 'e>) -> T,
) -> Result<(T, Reader<'e>), Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(file, text, env);
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let read = Table::root(&mut reader, document.get_ref(), read);
    tell_syntax(&mut reader, &syntax_errors);
    reader.problems.sort_by_key(|problem| problem.line);
    if reader.problems.is_empty() {
        Ok((read, reader))
    } else {
        Err(Problems(reader.problems))
    }
}

// The order matters: each provider starts from the global policies, and drills name providers.
fn tables(root: &mut Table, s: &mut Settings) -> Source {
    root.table("server", |t| load_tables::server(t, &mut s.server));
    root.table("chat", |t| load_tables::chat(t, &mut s.chat));
    root.table("routing", |t| load_tables::routing(t, &mut s.routing));
    root.table("timeouts", |t| {
        load_tables::call_timeouts(t, &mut s.timeouts.call);
        t.read("turn", &mut s.timeouts.turn, value::span);
    });
    root.table("breaker", |t| load_tables::breaker(t, &mut s.breaker));
    root.table("retry", |t| {
        load_tables::call_retry(t, &mut s.retry.call);
        t.read("budget", &mut s.retry.budget, value::number(0.0..=1000.0));
    });
    root.table("health", |t| load_tables::health(t, &mut s.health));
    root.table("cache", |t| load_tables::cache(t, &mut s.cache));
    root.table("degradation", |t| {
        load_tables::degradation(t, &mut s.degradation)
    });
    root.table("quality", |t| load_tables::quality(t, &mut s.quality));
    root.table("alerts", |t| load_tables::alerts(t, &mut s.alerts));
    root.table("telemetry", |t| {
        t.read(
            "otlp_endpoint",
            &mut s.telemetry.otlp_endpoint,
            load_tables::endpoint,
        )
    });
    root.table("store", |t| load_tables::store(t, &mut s.store));
    root.table("limits", |t| load_tables::limits(t, &mut s.limits));
    root.table("widget", |t| {
        t.secret("identity_secret", &mut s.widget.identity_secret)
    });
    load_providers::providers(root, s);
    let source = if s.providers.is_empty() {
        from_environment(root.reader, s)
    } else {
        Source::File
    };
    // In demo mode the providers and their names are added later.
    let names: Option<Vec<String>> = (!s.demo).then(|| {
        s.providers
            .iter()
            .map(|provider| provider.name.clone())
            .collect()
    });
    root.tables("drills", |t| {
        s.drills.extend(load_tables::drill(t, names.as_deref()))
    });
    source
}

/// Reports syntax errors. Drops other problems of the same lines, which are probably consequences.
fn tell_syntax(reader: &mut Reader<'_>, errors: &[toml::de::Error]) {
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
        reader.problem(
            Some(line),
            "",
            format!("not TOML at column {column}: {message}"),
        );
    }
}

/// Adds a provider for each API key in the environment. Without any, switches to demo mode.
fn from_environment(reader: &mut Reader<'_>, settings: &mut Settings) -> Source {
    let mut found = Vec::new();
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini] {
        let key = dialect
            .key_variable()
            .and_then(|variable| Some((variable, held(reader.env, variable)?)));
        if let Some((variable, key)) = key {
            if key.is_ascii() && !key.contains(|c: char| c.is_control()) {
                let api_key = Some(Secret::new(key));
                found.push(ProviderSettings {
                    api_key,
                    ..settings.provider(dialect.name(), dialect)
                });
            } else {
                tell_environment(
                    reader,
                    variable,
                    "has characters in it that no key has".to_owned(),
                );
            }
        }
    }
    if let Some(host) = held(reader.env, OLLAMA_VARIABLE) {
        match ollama_host(&host) {
            Ok(base_url) => {
                let dialect = Dialect::Ollama;
                found.push(ProviderSettings {
                    base_url,
                    ..settings.provider(dialect.name(), dialect)
                });
            }
            Err(what) => tell_environment(reader, OLLAMA_VARIABLE, what),
        }
    }
    settings.providers = found;
    if !settings.providers.is_empty() {
        return Source::Environment;
    }
    // A stall timeout in the file takes precedence over that of the demo.
    let stall = settings.timeouts.call.stall;
    settings.enter_demo();
    if reader.line_of("timeouts.stall").is_some() {
        settings.timeouts.call.stall = stall;
    }
    Source::Demo
}

/// The trimmed value of an environment variable. `None` if it is unset or blank.
fn held(env: Environment<'_>, variable: &str) -> Option<String> {
    env(variable)
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

fn tell_environment(reader: &mut Reader<'_>, variable: &str, what: String) {
    reader.problems.push(Problem {
        file: "environment".to_owned(),
        line: None,
        key: variable.to_owned(),
        what,
    });
}
