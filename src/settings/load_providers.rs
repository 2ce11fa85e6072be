//! Parses `[[providers]]`: the defaults of the dialect, then the global policies, then its own
//! keys.

use super::address::{base_url, is_loopback};
use super::choice::{Choice, Dialect};
use super::load_tables::{MANY, breaker, call_retry, call_timeouts, health};
use super::problem::{either, quoted};
use super::provider::{Prices, ProviderSettings};
use super::read::Table;
use super::value::{Parsed, choice, from_text, line, maybe, number, prefill, whole};
use super::{Secret, Settings};

/// Parses all providers. `settings` must already contain the global policies.
pub(super) fn providers(root: &mut Table, settings: &mut Settings) {
    let mut first_uses: Vec<(String, String)> = Vec::new();
    let mut providers = Vec::new();
    root.tables("providers", |t| {
        let provider = read_provider(t, settings);
        if let Some((_, first)) = first_uses.iter().find(|(name, _)| *name == provider.name) {
            let what = format!(
                "{} is already the name of {first}; every provider needs a name of its own",
                quoted(&provider.name)
            );
            t.problem("name", what);
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
fn read_provider(t: &mut Table, settings: &Settings) -> ProviderSettings {
    let mut dialect = None;
    let names: Vec<&str> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
    t.needs("dialect", &format!("use {}", either(&names)));
    t.read("dialect", &mut dialect, |value| choice(value).map(Some));
    let mut p = settings.provider("", dialect.unwrap_or(Dialect::OpenAi));

    t.needs("name", "a name of its own, such as \"openai\"");
    t.read("name", &mut p.name, from_text("a name in quotes", name));
    t.needs(
        "model",
        &p.dialect
            .default_model()
            .map_or("the deployment's name".to_owned(), |model| {
                format!("such as {model:?}")
            }),
    );
    t.read("model", &mut p.model, line);
    t.read(
        "base_url",
        &mut p.base_url,
        from_text("a URL in quotes", base_url),
    );
    t.read("weight", &mut p.weight, whole(1..=1_000_000));
    t.read(
        "max_concurrent",
        &mut p.max_concurrent,
        whole(1..=1_000_000),
    );
    t.read("prefill", &mut p.prefill, prefill);
    t.read("context_tokens", &mut p.context_tokens, |value| {
        whole(0..=MANY)(value).map(|tokens: u64| (tokens > 0).then_some(tokens))
    });
    t.read("temperature", &mut p.temperature, |value| {
        number(0.0..=2.0)(value).map(Some)
    });
    t.read(
        "api_version",
        &mut p.api_version,
        maybe(from_text("text in quotes", api_version)),
    );
    t.named_secrets("headers", &mut p.headers, header_name);
    prices(t, &mut p);
    t.read("daily_budget_usd", &mut p.daily_budget_usd, |value| {
        number(0.0..=f64::INFINITY)(value).map(|usd| (usd > 0.0).then_some(usd))
    });
    if dialect == Some(Dialect::Ollama) && p.context_tokens.is_none() {
        t.warning(
            "context_tokens",
            "without it the server cuts longer conversations, and does not say so; write how many tokens the model may hold, such as 8192",
        );
    }
    if p.daily_budget_usd.is_some() && p.prices.is_none() {
        t.warning(
            "daily_budget_usd",
            "without prices what is spent stays unknown; write prices = { input = …, output = … }",
        );
    }
    t.table("breaker", |t| breaker(t, &mut p.breaker));
    t.table("health", |t| health(t, &mut p.health));
    t.table("timeouts", |t| {
        call_timeouts(t, &mut p.timeouts);
        t.only_global("turn", "[timeouts]");
    });
    t.table("retry", |t| {
        call_retry(t, &mut p.retry);
        t.only_global("budget", "[retry]");
    });
    api_key(t, &mut p, dialect.is_some());
    if dialect.is_some() {
        look_at_address(t, &p);
    }
    p
}

fn name(text: &str) -> Parsed<String> {
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

fn api_version(text: &str) -> Parsed<String> {
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

fn header_name(name: &str) -> Parsed<String> {
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

fn prices(t: &mut Table, p: &mut ProviderSettings) {
    let mut prices = Prices {
        input: 0.0,
        output: 0.0,
    };
    t.table("prices", |t| {
        for (key, price) in [("input", &mut prices.input), ("output", &mut prices.output)] {
            t.needs(key, "US dollars per million tokens");
            t.read(key, price, number(0.0..=f64::INFINITY));
        }
    });
    p.prices = t.has("prices").then_some(prices);
}

/// Reads the API key of the file, else that of the dialect's environment variable.
///
/// A missing key is a problem only at the vendor's own address. Elsewhere it may be unnecessary.
fn api_key(t: &mut Table, p: &mut ProviderSettings, dialect_known: bool) {
    t.checked_secret("api_key", &mut p.api_key, |key| {
        if key.is_ascii() {
            return Ok(());
        }
        Err("the key has other characters than ASCII in it, which no key has".to_owned())
    });
    let (true, false, Some(variable)) = (dialect_known, t.has("api_key"), p.dialect.key_variable())
    else {
        return;
    };
    let has_custom_address = t.has("base_url") && p.dialect != Dialect::Azure;
    let is_local = is_loopback(&p.base_url);
    match (t.reader.env)(variable).filter(|key| !key.trim().is_empty()) {
        Some(key) => {
            p.api_key = Some(Secret::new(key.trim()));
            if has_custom_address && !is_local {
                t.warning("base_url", format!("api_key is not written, so the key in ${variable} is sent to this address; write api_key, or api_key = \"\" for none"));
            }
        }
        None if !has_custom_address => t.problem(
            "api_key",
            format!(
                "missing: the environment variable {variable} is not set; set it, or write api_key"
            ),
        ),
        None if !is_local => t.warning(
            "api_key",
            "no key is written; write api_key, or api_key = \"\" if none is needed",
        ),
        None => {}
    }
}

fn look_at_address(t: &mut Table, p: &ProviderSettings) {
    if p.dialect == Dialect::Azure {
        t.needs(
            "base_url",
            "the address of the Azure resource, such as \"https://NAME.openai.azure.com\"",
        );
    }
    if let Some(path) = p
        .dialect
        .added_paths()
        .iter()
        .find(|path| p.base_url.ends_with(**path))
    {
        t.warning(
            "base_url",
            format!(
                "ends in {path}, which the {} dialect adds by itself; most likely it should end before that",
                p.dialect
            ),
        );
    }
}
