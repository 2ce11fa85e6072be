//! The defaults, and the example file that must show exactly these.

use super::super::{Cron, Dialect, DrillSettings, InjectedFault, Prices, ProviderSource, Settings};
use super::{CANARY, empty, load, settings};
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../failsoft.example.toml");

fn uncommented() -> String {
    let is_key = |line: &str| {
        line.starts_with('[')
            || line
                .split_once(" = ")
                .is_some_and(|(key, _)| !key.contains(' '))
    };
    let lines = EXAMPLE.lines().map(|line| {
        line.strip_prefix("# ")
            .filter(|rest| is_key(rest))
            .unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The `Debug` text shows every field except secrets. The defaults contain one secret.
fn debug_text(mut settings: Settings) -> String {
    settings.providers.clear();
    settings.drills.clear();
    format!("{settings:#?}")
}

#[test]
fn example_contains_exactly_the_defaults() {
    let loaded = load(EXAMPLE).unwrap();
    assert_eq!(loaded.source, ProviderSource::File);
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        debug_text(loaded.settings.clone()),
        debug_text(Settings::default())
    );
    assert_eq!(
        loaded.settings.store.redis_url.expose(),
        "redis://127.0.0.1:6379"
    );
    let [openai] = loaded.settings.providers.as_slice() else {
        panic!("one provider")
    };
    let mut plain = Settings::default().new_provider("openai", Dialect::OpenAi);
    plain.api_key = openai.api_key.clone();
    plain.prices = Some(Prices {
        input: 0.15,
        output: 0.6,
    });
    assert_eq!(format!("{openai:?}"), format!("{plain:?}"));
    assert_eq!(
        openai.api_key.as_ref().unwrap().expose(),
        format!("sk-{CANARY}")
    );
}

#[test]
fn example_contains_every_key() {
    let text = uncommented();
    let known = format!(
        "{:#?}",
        (
            Settings::default(),
            Settings::default().new_provider("", Dialect::OpenAi)
        )
    );
    // Fields without a key of the same name.
    let not_keys = ["call", "demo"];
    for field in known
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(field, _)| field)
    {
        let named = [
            format!("\n{field} = "),
            format!("\n[{field}]"),
            format!("\n[[{field}]]"),
        ];
        assert!(
            not_keys.contains(&field) || named.iter().any(|named| text.contains(named)),
            "{field} is not in the example"
        );
    }
}

#[test]
fn commented_keys_of_the_example_are_valid() {
    let env = |_: &str| Some("key".to_owned());
    let loaded = Settings::from_text("failsoft.example.toml", &uncommented(), &env).unwrap();
    let names: Vec<&str> = loaded
        .settings
        .providers
        .iter()
        .map(|provider| provider.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["openai", "anthropic", "gemini", "azure", "local", "vllm"]
    );
    let openai = &loaded.settings.providers[0];
    assert_eq!(
        (openai.temperature, openai.breaker.open_for.as_secs()),
        (Some(0.7), 60)
    );
    assert_eq!(
        loaded.settings.providers[4].timeouts.first_token,
        [Duration::from_secs(60)]
    );
    assert!(loaded.settings.providers[5].api_key.is_none());
    let drill = DrillSettings {
        at: Cron::parse("0 3 * * 1").unwrap(),
        provider: "openai".to_owned(),
        fault: InjectedFault::Down,
        duration: Duration::from_secs(120),
    };
    assert_eq!(loaded.settings.drills, [drill]);
}

#[test]
fn empty_file_gives_the_defaults() {
    let mut loaded = Settings::from_text("failsoft.toml", "", &empty)
        .unwrap()
        .settings;
    assert!(loaded.demo && loaded.chat.visitor_options);
    let demo = Settings::demo();
    assert_eq!(debug_text(loaded.clone()), debug_text(demo));
    let plain = Settings::default();
    loaded.demo = false;
    loaded.chat = plain.chat.clone();
    loaded.timeouts = plain.timeouts.clone();
    assert_eq!(debug_text(loaded), debug_text(plain));
}

#[test]
fn every_form_of_a_value_is_accepted() {
    let s = settings(
        "[server]\nlisten = \"[::1]:0\"\npublic_url = \"https://Chat.example.com/\"\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n\
         allowed_origins = [\"https://a.example:443\"]\napi_keys = [\"one\", \"env:OPENAI_API_KEY\"]\n\
         [timeouts]\nfirst_token = \"7s\"\n[breaker]\nslow_factor = 3\nmin_calls = 0x10\n[cache]\nwarm_hours = \"22:30-05:00\"\n\
         [limits]\nconnections = 1_000\n[retry]\nbudget = 1e-1\n",
    );
    assert_eq!(
        s.server.public_url.as_deref(),
        Some("https://chat.example.com")
    );
    assert_eq!(
        s.server
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    assert_eq!(s.server.allowed_origins, ["https://a.example"]);
    assert_eq!(s.server.api_keys[1].expose(), format!("sk-{CANARY}"));
    assert_eq!(s.timeouts.call.first_token, [Duration::from_secs(7)]);
    assert_eq!((s.breaker.slow_factor, s.breaker.min_calls), (3.0, 16));
    assert_eq!(
        s.cache
            .warm_hours
            .map(|hours| (hours.start_minute, hours.end_minute)),
        Some((1350, 300))
    );
    assert_eq!((s.limits.connections, s.retry.budget), (1000, 0.1));
}

#[test]
fn unwritten_bound_is_adjusted_to_the_written_one() {
    let pair = |text: &str| {
        let breaker = settings(&format!("[breaker]\n{text}")).breaker;
        (breaker.open_for.as_secs(), breaker.open_max.as_secs())
    };
    assert_eq!(pair("open_for = \"60s\""), (60, 60));
    assert_eq!(pair("open_max = \"5s\""), (5, 5));
    assert_eq!(pair("open_for = \"20s\""), (20, 25));
    assert_eq!(pair("open_for = \"1s\"\nopen_max = \"1s\""), (1, 1));
}
