//! Parses `[[providers]]`: the defaults of the dialect, then the global policies, then its own
//! keys.

use super::diagnostics::{join_with_or, quoted};
use super::enums::{ConfigEnum, Dialect};
use super::parse::address::is_loopback;
use super::parse::value::{
    MAX_COUNT, ParseResult, base_url, config_enum, float, from_text, integer, optional, prefill,
    single_line,
};
use super::provider::{Prices, ProviderSettings};
use super::sections::{read_breaker, read_call_retry, read_call_timeouts, read_health};
use super::table_reader::TableReader;
use super::{Secret, Settings};

/// Parses all providers. `settings` must already contain the global policies.
pub(super) fn read_providers(root: &mut TableReader, settings: &mut Settings) {
    let mut first_uses: Vec<(String, String)> = Vec::new();
    let mut providers = Vec::new();
    root.read_tables("providers", |t| {
        let provider = read_provider(t, settings);
        if let Some((_, first)) = first_uses.iter().find(|(name, _)| *name == provider.name) {
            let what = format!(
                "{} is already the name of {first}; every provider needs a name of its own",
                quoted(&provider.name)
            );
            t.add_problem("name", what);
        } else if !provider.name.is_empty() {
            let place = format!("{} (line {})", t.path, t.line);
            first_uses.push((provider.name.clone(), place));
        }
        providers.push(provider);
    });
    settings.providers = providers;
}

/// Parses one provider. Invalid keys keep their default, so that the rest is checked as well.
fn read_provider(t: &mut TableReader, settings: &Settings) -> ProviderSettings {
    let names: Vec<&str> = Dialect::ALL
        .iter()
        .map(|dialect| dialect.as_str())
        .collect();
    let hint = format!("use {}", join_with_or(&names));
    let dialect = t.read_required("dialect", &hint, config_enum);
    let mut p = settings.new_provider("", dialect.unwrap_or(Dialect::OpenAi));

    let hint = "a name of its own, such as \"openai\"";
    let name = t.read_required("name", hint, from_text("a name in quotes", parse_name));
    p.name = name.unwrap_or_default();
    let hint = match p.dialect.default_model() {
        Some(model) => format!("such as {model:?}"),
        None => "the deployment's name".to_owned(),
    };
    t.require("model", &hint);
    t.read("model", &mut p.model, single_line);
    t.read("base_url", &mut p.base_url, base_url);
    t.read("weight", &mut p.weight, integer(1..=1_000_000));
    let max_concurrent = integer(1..=1_000_000);
    t.read("max_concurrent", &mut p.max_concurrent, max_concurrent);
    t.read("prefill", &mut p.prefill, prefill);
    t.read("context_tokens", &mut p.context_tokens, |value| {
        integer(0..=MAX_COUNT)(value).map(|tokens: u64| (tokens > 0).then_some(tokens))
    });
    t.read("temperature", &mut p.temperature, |value| {
        float(0.0..=2.0)(value).map(Some)
    });
    let api_version = optional(from_text("text in quotes", parse_api_version));
    t.read("api_version", &mut p.api_version, api_version);
    t.read_named_secrets("headers", &mut p.headers, parse_header_name);
    read_prices(t, &mut p);
    t.read("daily_budget_usd", &mut p.daily_budget_usd, |value| {
        float(0.0..=f64::INFINITY)(value).map(|usd| (usd > 0.0).then_some(usd))
    });
    if dialect == Some(Dialect::Ollama) && p.context_tokens.is_none() {
        let what = "without it the server cuts longer conversations, and does not say so; write how many tokens the model may hold, such as 8192";
        t.add_warning("context_tokens", what);
    }
    if p.daily_budget_usd.is_some() && p.prices.is_none() {
        let what =
            "without prices what is spent stays unknown; write prices = { input = …, output = … }";
        t.add_warning("daily_budget_usd", what);
    }
    t.read_table("breaker", |t| read_breaker(t, &mut p.breaker));
    t.read_table("health", |t| read_health(t, &mut p.health));
    t.read_table("timeouts", |t| {
        read_call_timeouts(t, &mut p.timeouts);
        t.reject_local("turn", "[timeouts]");
    });
    t.read_table("retry", |t| {
        read_call_retry(t, &mut p.retry);
        t.reject_local("budget", "[retry]");
    });
    read_api_key(t, &mut p, dialect.is_some());
    if dialect.is_some() {
        check_base_url(t, &p);
    }
    p
}

fn parse_name(text: &str) -> ParseResult<String> {
    const MAX_NAME_LEN: usize = 64;
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if text == "auto" {
        return Err("\"auto\" stands for any provider in requests; use another name".to_owned());
    }
    if (1..=MAX_NAME_LEN).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    let text = quoted(text);
    Err(format!(
        "{text} is not a name; use a to z, 0 to 9, _ and -, at most {MAX_NAME_LEN} of them"
    ))
}

fn parse_api_version(text: &str) -> ParseResult<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    let text = quoted(text);
    Err(format!(
        "{text} is not a version; it has letters, digits, -, . and _ only"
    ))
}

fn parse_header_name(name: &str) -> ParseResult<String> {
    /// Headers that the HTTP client sets from the connection and the body.
    const RESERVED: [&str; 5] = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
    ];
    let name = name.to_ascii_lowercase();
    if RESERVED.contains(&name.as_str()) {
        return Err("this header is set by the service itself; leave it out".to_owned());
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_allowed) {
        return Err("not the name of a header; it has letters, digits and - only".to_owned());
    }
    Ok(name)
}

fn read_prices(t: &mut TableReader, p: &mut ProviderSettings) {
    let hint = "US dollars per million tokens";
    t.read_table("prices", |t| {
        let input = t.read_required("input", hint, float(0.0..=f64::INFINITY));
        let output = t.read_required("output", hint, float(0.0..=f64::INFINITY));
        p.prices = Some(Prices {
            input: input.unwrap_or_default(),
            output: output.unwrap_or_default(),
        });
    });
}

/// Reads the API key of the file, else that of the dialect's environment variable.
///
/// A missing key is a problem only at the vendor's own address. Elsewhere it may be unnecessary.
fn read_api_key(t: &mut TableReader, p: &mut ProviderSettings, dialect_known: bool) {
    t.read_checked_secret("api_key", &mut p.api_key, |key| {
        if key.is_ascii() {
            return Ok(());
        }
        Err("the key has other characters than ASCII in it, which no key has".to_owned())
    });
    let Some(variable) = p.dialect.key_env_var() else {
        return;
    };
    if !dialect_known || t.contains("api_key") {
        return;
    }
    let has_custom_address = t.contains("base_url") && p.dialect != Dialect::Azure;
    let is_local = is_loopback(&p.base_url);
    match (t.reader.env)(variable).filter(|key| !key.trim().is_empty()) {
        Some(key) => {
            p.api_key = Some(Secret::new(key.trim()));
            if has_custom_address && !is_local {
                t.add_warning("base_url", format!("api_key is not written, so the key in ${variable} is sent to this address; write api_key, or api_key = \"\" for none"));
            }
        }
        None if !has_custom_address => {
            let what = format!("missing: the environment variable {variable} is not set");
            t.add_problem("api_key", format!("{what}; set it, or write api_key"));
        }
        None if !is_local => {
            let what = "no key is written; write api_key, or api_key = \"\" if none is needed";
            t.add_warning("api_key", what);
        }
        None => {}
    }
}

fn check_base_url(t: &mut TableReader, p: &ProviderSettings) {
    if p.dialect == Dialect::Azure {
        let hint = "the address of the Azure resource, such as \"https://NAME.openai.azure.com\"";
        t.require("base_url", hint);
    }
    let mut paths = p.dialect.appended_paths().iter();
    if let Some(path) = paths.find(|path| p.base_url.ends_with(**path)) {
        let what = format!(
            "ends in {path}, which the {} dialect adds by itself; most likely it should end before that",
            p.dialect
        );
        t.add_warning("base_url", what);
    }
}
