//! Parses `[[providers]]`: the defaults of the dialect, then the global policies, then its own
//! keys.

use super::diagnostics::{join_with_or, quoted};
use super::enums::{ConfigEnum, Dialect};
use super::parse::address::{is_loopback, parse_base_url};
use super::parse::value::{
    ParseResult, config_enum, float, from_text, integer, optional, prefill, single_line,
};
use super::provider::{Prices, ProviderSettings};
use super::sections::{MAX_COUNT, read_breaker, read_call_retry, read_call_timeouts, read_health};
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
            first_uses.push((
                provider.name.clone(),
                format!("{} (line {})", t.path, t.line),
            ));
        }
        providers.push(provider);
    });
    settings.providers = providers;
}

/// Parses one provider. Invalid keys keep their default, so that the rest is checked as well.
fn read_provider(t: &mut TableReader, settings: &Settings) -> ProviderSettings {
    let mut dialect = None;
    let names: Vec<&str> = Dialect::ALL
        .iter()
        .map(|dialect| dialect.as_str())
        .collect();
    t.require("dialect", &format!("use {}", join_with_or(&names)));
    t.read("dialect", &mut dialect, |value| {
        config_enum(value).map(Some)
    });
    let mut p = settings.new_provider("", dialect.unwrap_or(Dialect::OpenAi));

    t.require("name", "a name of its own, such as \"openai\"");
    t.read(
        "name",
        &mut p.name,
        from_text("a name in quotes", parse_name),
    );
    t.require(
        "model",
        &p.dialect
            .default_model()
            .map_or("the deployment's name".to_owned(), |model| {
                format!("such as {model:?}")
            }),
    );
    t.read("model", &mut p.model, single_line);
    t.read(
        "base_url",
        &mut p.base_url,
        from_text("a URL in quotes", parse_base_url),
    );
    t.read("weight", &mut p.weight, integer(1..=1_000_000));
    t.read(
        "max_concurrent",
        &mut p.max_concurrent,
        integer(1..=1_000_000),
    );
    t.read("prefill", &mut p.prefill, prefill);
    t.read("context_tokens", &mut p.context_tokens, |value| {
        integer(0..=MAX_COUNT)(value).map(|tokens: u64| (tokens > 0).then_some(tokens))
    });
    t.read("temperature", &mut p.temperature, |value| {
        float(0.0..=2.0)(value).map(Some)
    });
    t.read(
        "api_version",
        &mut p.api_version,
        optional(from_text("text in quotes", parse_api_version)),
    );
    t.read_named_secrets("headers", &mut p.headers, parse_header_name);
    read_prices(t, &mut p);
    t.read("daily_budget_usd", &mut p.daily_budget_usd, |value| {
        float(0.0..=f64::INFINITY)(value).map(|usd| (usd > 0.0).then_some(usd))
    });
    if dialect == Some(Dialect::Ollama) && p.context_tokens.is_none() {
        t.add_warning(
            "context_tokens",
            "without it the server cuts longer conversations, and does not say so; write how many tokens the model may hold, such as 8192",
        );
    }
    if p.daily_budget_usd.is_some() && p.prices.is_none() {
        t.add_warning(
            "daily_budget_usd",
            "without prices what is spent stays unknown; write prices = { input = …, output = … }",
        );
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
    if text.is_empty() || text.len() > MAX_NAME_LEN || !text.bytes().all(is_allowed) {
        return Err(format!(
            "{} is not a name; use a to z, 0 to 9, _ and -, at most {MAX_NAME_LEN} of them",
            quoted(text)
        ));
    }
    if text == "auto" {
        return Err("\"auto\" stands for any provider in requests; use another name".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_api_version(text: &str) -> ParseResult<String> {
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not a version; it has letters, digits, -, . and _ only",
        quoted(text)
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
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    {
        return Err("not the name of a header; it has letters, digits and - only".to_owned());
    }
    Ok(name)
}

fn read_prices(t: &mut TableReader, p: &mut ProviderSettings) {
    let mut prices = Prices {
        input: 0.0,
        output: 0.0,
    };
    t.read_table("prices", |t| {
        for (key, price) in [("input", &mut prices.input), ("output", &mut prices.output)] {
            t.require(key, "US dollars per million tokens");
            t.read(key, price, float(0.0..=f64::INFINITY));
        }
    });
    p.prices = t.contains("prices").then_some(prices);
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
    let (true, false, Some(variable)) = (
        dialect_known,
        t.contains("api_key"),
        p.dialect.key_env_var(),
    ) else {
        return;
    };
    let has_custom_address = t.contains("base_url") && p.dialect != Dialect::Azure;
    let is_local = is_loopback(&p.base_url);
    match (t.reader.env)(variable).filter(|key| !key.trim().is_empty()) {
        Some(key) => {
            p.api_key = Some(Secret::new(key.trim()));
            if has_custom_address && !is_local {
                t.add_warning("base_url", format!("api_key is not written, so the key in ${variable} is sent to this address; write api_key, or api_key = \"\" for none"));
            }
        }
        None if !has_custom_address => t.add_problem(
            "api_key",
            format!(
                "missing: the environment variable {variable} is not set; set it, or write api_key"
            ),
        ),
        None if !is_local => t.add_warning(
            "api_key",
            "no key is written; write api_key, or api_key = \"\" if none is needed",
        ),
        None => {}
    }
}

fn check_base_url(t: &mut TableReader, p: &ProviderSettings) {
    if p.dialect == Dialect::Azure {
        t.require(
            "base_url",
            "the address of the Azure resource, such as \"https://NAME.openai.azure.com\"",
        );
    }
    if let Some(path) = p
        .dialect
        .appended_paths()
        .iter()
        .find(|path| p.base_url.ends_with(**path))
    {
        t.add_warning(
            "base_url",
            format!(
                "ends in {path}, which the {} dialect adds by itself; most likely it should end before that",
                p.dialect
            ),
        );
    }
}
