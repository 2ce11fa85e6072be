//! The origin of providers, and the global settings that they inherit.

use super::super::{Dialect, LoadedConfig, Prefill, ProviderSource, Settings};
use super::{PROVIDER, load, settings};
use std::time::Duration;

fn from_environment(variables: &[(&str, &str)]) -> LoadedConfig {
    let env = |name: &str| {
        variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Settings::load(None, &env).unwrap()
}

#[test]
fn provider_overrides_the_global_policies() {
    let s = settings(&format!(
        "[breaker]\nprobes = 3\nopen_for = \"5s\"\n[timeouts]\nstall = \"4s\"\n[retry]\nsame_provider = 2\n[health]\ntimeout = \"1s\"\n\
         {PROVIDER}breaker = {{ open_for = \"60s\" }}\ntimeouts = {{ first_token = \"1s\" }}\nretry = {{ base = \"1s\" }}\n\
         health = {{ recovery_probe = false }}\n[[providers]]\nname = \"b\"\ndialect = \"ollama\"\nmodel = \"m\"\n"
    ));
    let [a, b] = s.providers.as_slice() else {
        panic!("two providers")
    };
    assert_eq!(
        (
            a.breaker.probes,
            a.breaker.open_for.as_secs(),
            a.breaker.open_max.as_secs()
        ),
        (3, 60, 60)
    );
    assert_eq!(
        (
            b.breaker.probes,
            b.breaker.open_for.as_secs(),
            b.breaker.open_max.as_secs()
        ),
        (3, 5, 25)
    );
    assert_eq!(
        (a.timeouts.stall, &a.timeouts.first_token),
        (Duration::from_secs(4), &vec![Duration::from_secs(1)])
    );
    assert_eq!(
        (b.timeouts.stall, b.timeouts.first_token.len()),
        (Duration::from_secs(4), 3)
    );
    assert_eq!((a.retry.same_provider, a.retry.base.as_secs()), (2, 1));
    assert_eq!(
        (
            a.health.timeout.as_secs(),
            a.health.recovery_probe,
            b.health.recovery_probe
        ),
        (1, false, true)
    );
}

#[test]
fn provider_keys_are_read() {
    let s = settings(&format!(
        "{PROVIDER}base_url = \"http://127.0.0.1:9/v1/\"\nprefill = true\ncontext_tokens = 4096\nweight = 3\nmax_concurrent = 2\n\
         temperature = 0\napi_version = \"v1\"\nheaders = {{ X-Team = \"env:OPENAI_API_KEY\" }}\nprices = {{ input = 1, output = 2.5 }}\n\
         daily_budget_usd = 5\n"
    ));
    let p = &s.providers[0];
    assert_eq!(
        (p.base_url.as_str(), p.prefill, p.context_tokens),
        ("http://127.0.0.1:9/v1", Prefill::Assistant, Some(4096))
    );
    assert_eq!(
        (p.weight, p.max_concurrent, p.temperature),
        (3, 2, Some(0.0))
    );
    assert_eq!(
        (p.api_version.as_deref(), p.daily_budget_usd),
        (Some("v1"), Some(5.0))
    );
    assert_eq!(
        (p.headers[0].0.as_str(), p.headers[0].1.expose()),
        ("x-team", "sk-canary")
    );
    assert_eq!(
        p.prices.map(|prices| (prices.input, prices.output)),
        Some((1.0, 2.5))
    );
    assert_eq!(
        settings(&format!("{PROVIDER}prefill = false")).providers[0].prefill,
        Prefill::Off
    );
}

#[test]
fn api_key_comes_from_the_file_or_the_environment() {
    for (extra, key) in [
        ("", Some("sk-canary")),
        ("api_key = \"own\"", Some("own")),
        ("api_key = \"\"", None),
        ("base_url = \"http://127.0.0.1:9/v1\"", Some("sk-canary")),
    ] {
        let s = settings(&format!("{PROVIDER}{extra}"));
        assert_eq!(
            s.providers[0].api_key.as_ref().map(|key| key.expose()),
            key,
            "{extra}"
        );
    }
    // At a custom address a key may be unnecessary.
    let s = settings(
        "[[providers]]\nname = \"a\"\ndialect = \"anthropic\"\nmodel = \"m\"\nbase_url = \"http://localhost:1\"",
    );
    assert!(s.providers[0].api_key.is_none());
}

#[test]
fn environment_providers_have_a_fixed_order() {
    let loaded = from_environment(&[
        ("OLLAMA_HOST", "box:1234"),
        ("GEMINI_API_KEY", "g"),
        ("ANTHROPIC_API_KEY", " a\n"),
        ("OPENAI_API_KEY", "o"),
    ]);
    assert_eq!(loaded.source, ProviderSource::Environment);
    let found: Vec<[&str; 4]> = loaded
        .settings
        .providers
        .iter()
        .map(|p| {
            let key = p.api_key.as_ref().map_or("", |key| key.expose());
            [p.name.as_str(), p.base_url.as_str(), p.model.as_str(), key]
        })
        .collect();
    assert_eq!(
        found,
        [
            ["openai", "https://api.openai.com/v1", "gpt-4o-mini", "o"],
            [
                "anthropic",
                "https://api.anthropic.com",
                "claude-haiku-4-5",
                "a"
            ],
            [
                "gemini",
                "https://generativelanguage.googleapis.com",
                "gemini-2.5-flash",
                "g"
            ],
            ["ollama", "http://box:1234", "llama3.2", ""],
        ]
    );
    assert!(!loaded.settings.demo && !loaded.settings.chat.visitor_options);
}

#[test]
fn blank_variables_are_ignored_and_no_provider_means_demo() {
    let loaded = from_environment(&[("OPENAI_API_KEY", " "), ("OLLAMA_HOST", "")]);
    assert_eq!(loaded.source, ProviderSource::Demo);
    assert!(
        loaded.settings.demo
            && loaded.settings.chat.visitor_options
            && loaded.settings.providers.is_empty()
    );
    let simulated = loaded.settings.new_provider("alpha", Dialect::Gemini);
    assert_eq!(simulated.timeouts.stall, Duration::from_secs(3));
}

#[test]
fn demo_keeps_a_configured_stall_timeout() {
    let demo = Settings::from_text("failsoft.toml", "[timeouts]\nstall = \"1s\"", &|_| None)
        .unwrap()
        .settings;
    assert!(demo.demo);
    assert_eq!(demo.timeouts.call.stall, Duration::from_secs(1));
}

#[test]
fn demo_accepts_drills_for_simulated_providers() {
    let text = "[[drills]]\nat = \"0 3 * * 1\"\nprovider = \"alpha\"\nfault = \"cut\"";
    let demo = Settings::from_text("failsoft.toml", text, &|_| None)
        .unwrap()
        .settings;
    assert_eq!(
        (
            demo.drills[0].provider.as_str(),
            demo.drills[0].duration.as_secs()
        ),
        ("alpha", 30)
    );
}

#[test]
fn invalid_variable_is_a_problem_of_the_environment() {
    let env = |name: &str| match name {
        "OLLAMA_HOST" => Some("http://user:canary@box".to_owned()),
        "GEMINI_API_KEY" => Some("canary\u{e9}".to_owned()),
        _ => None,
    };
    let message = Settings::load(None, &env).unwrap_err().to_string();
    assert!(
        message.contains("environment: OLLAMA_HOST: ")
            && message.contains("environment: GEMINI_API_KEY: "),
        "{message}"
    );
    assert!(!message.contains("canary"));
}

#[test]
fn each_dialect_has_its_own_defaults() {
    for (dialect, base_url, variable, model) in [
        (
            Dialect::OpenAi,
            Some("https://api.openai.com/v1"),
            Some("OPENAI_API_KEY"),
            Some("gpt-4o-mini"),
        ),
        (
            Dialect::Anthropic,
            Some("https://api.anthropic.com"),
            Some("ANTHROPIC_API_KEY"),
            Some("claude-haiku-4-5"),
        ),
        (
            Dialect::Gemini,
            Some("https://generativelanguage.googleapis.com"),
            Some("GEMINI_API_KEY"),
            Some("gemini-2.5-flash"),
        ),
        (Dialect::Azure, None, Some("AZURE_OPENAI_API_KEY"), None),
        (
            Dialect::Ollama,
            Some("http://127.0.0.1:11434"),
            None,
            Some("llama3.2"),
        ),
    ] {
        assert_eq!(
            (dialect.default_base_url(), dialect.key_env_var()),
            (base_url, variable),
            "{dialect:?}"
        );
        assert_eq!(dialect.default_model(), model, "{dialect:?}");
        let provider = Settings::default().new_provider("a", dialect);
        assert_eq!(provider.base_url, base_url.unwrap_or_default());
        // Optional parameters that some servers reject are only sent if configured.
        assert_eq!(
            (provider.prefill, provider.temperature, provider.api_version),
            (Prefill::Off, None, None)
        );
    }
}

#[test]
fn environment_is_ignored_if_the_file_has_providers() {
    let loaded = load("[[providers]]\nname = \"b\"\ndialect = \"ollama\"\nmodel = \"m\"").unwrap();
    assert_eq!(
        (loaded.source, loaded.settings.providers.len()),
        (ProviderSource::File, 1)
    );
}
