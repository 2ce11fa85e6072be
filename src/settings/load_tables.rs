//! The keys of every section except providers, with their valid values.

use super::address::{base_url, listen_address, origin, redis_url};
use super::choice::Fault;
use super::cron::Cron;
use super::policy::{BreakerSettings, CallRetry, CallTimeouts, HealthSettings, RoutingSettings};
use super::problem::{either, quoted};
use super::read::Table;
use super::secret::Secret;
use super::tables::{
    AlertSettings, CacheSettings, ChatSettings, DegradationSettings, DrillSettings, LimitSettings,
    QualitySettings, ServerSettings, StoreSettings,
};
use super::value::{
    self, Parsed, choice, duration, flag, from_text, hours, line, maybe, network, number, rate,
    span, text, whole,
};
use super::webhook::{webhook_secret, webhook_url};
use toml::de::DeValue;

/// The upper bound of counts without a natural limit: far above any use, and safe from overflow.
pub(super) const MANY: u64 = 1_000_000_000;

pub(super) fn server(t: &mut Table, s: &mut ServerSettings) {
    t.read(
        "listen",
        &mut s.listen,
        from_text("an address such as \"127.0.0.1:8080\"", listen_address),
    );
    t.read(
        "public_url",
        &mut s.public_url,
        maybe(from_text("a URL in quotes", origin)),
    );
    t.read("workers", &mut s.workers, whole(0..=1024));
    t.read("data_dir", &mut s.data_dir, value::path);
    t.list(
        "allowed_origins",
        &mut s.allowed_origins,
        from_text("an origin in quotes", origin),
    );
    t.list("trusted_proxies", &mut s.trusted_proxies, network);
    t.secret("admin_token", &mut s.admin_token);
    t.secrets("api_keys", &mut s.api_keys);
    t.read("drain", &mut s.drain, duration);
}

pub(super) fn chat(t: &mut Table, s: &mut ChatSettings) {
    t.read("title", &mut s.title, line);
    t.read("greeting", &mut s.greeting, text);
    t.read("system_prompt", &mut s.system_prompt, |value| {
        text(value).map(Into::into)
    });
    t.read(
        "max_message_chars",
        &mut s.max_message_chars,
        whole(1..=1_000_000),
    );
    t.read("history_turns", &mut s.history_turns, whole(0..=10_000));
    t.read("max_tokens", &mut s.max_tokens, whole(1..=10_000_000));
    t.read("visitor_options", &mut s.visitor_options, flag);
    t.read("retention", &mut s.retention, span);
}

pub(super) fn routing(t: &mut Table, s: &mut RoutingSettings) {
    t.read("strategy", &mut s.strategy, choice);
    t.read("max_attempts", &mut s.max_attempts, whole(1..=100));
    t.read("mid_stream", &mut s.mid_stream, choice);
    t.read("hedge_after", &mut s.hedge_after, duration);
}

pub(super) fn call_timeouts(t: &mut Table, s: &mut CallTimeouts) {
    t.read("connect", &mut s.connect, span);
    t.one_or_more("first_token", &mut s.first_token, span);
    t.read("stall", &mut s.stall, span);
    t.read("attempt", &mut s.attempt, span);
}

pub(super) fn breaker(t: &mut Table, s: &mut BreakerSettings) {
    t.read(
        "consecutive_failures",
        &mut s.consecutive_failures,
        whole(1..=MANY),
    );
    t.read("failure_rate", &mut s.failure_rate, rate);
    t.read("min_calls", &mut s.min_calls, whole(1..=MANY));
    t.read("window", &mut s.window, span);
    t.read(
        "slow_factor",
        &mut s.slow_factor,
        number(1.0..=f64::INFINITY),
    );
    t.read("slow_rate", &mut s.slow_rate, rate);
    t.read("stream_failure_rate", &mut s.stream_failure_rate, rate);
    t.bounded(("open_for", &mut s.open_for), ("open_max", &mut s.open_max));
    t.read("blocked_for", &mut s.blocked_for, span);
    t.read("probes", &mut s.probes, whole(1..=MANY));
}

pub(super) fn call_retry(t: &mut Table, s: &mut CallRetry) {
    t.read("same_provider", &mut s.same_provider, whole(0..=100));
    t.bounded(("base", &mut s.base), ("max", &mut s.max));
    t.read("max_retry_after", &mut s.max_retry_after, duration);
}

pub(super) fn health(t: &mut Table, s: &mut HealthSettings) {
    t.read("interval", &mut s.interval, span);
    t.read("timeout", &mut s.timeout, span);
    t.read("probe", &mut s.probe, choice);
    t.read("recovery_probe", &mut s.recovery_probe, flag);
    t.read("expire", &mut s.expire, span);
}

pub(super) fn cache(t: &mut Table, s: &mut CacheSettings) {
    t.read("enabled", &mut s.enabled, flag);
    t.read("ttl", &mut s.ttl, duration);
    t.read("revalidate", &mut s.revalidate, duration);
    t.read("stale_for", &mut s.stale_for, duration);
    t.read("share", &mut s.share, choice);
    t.read("repeated_min", &mut s.repeated_min, whole(1..=MANY));
    t.read("max_entries", &mut s.max_entries, whole(1..=MANY));
    t.list("warm", &mut s.warm, line);
    t.read("warm_interval", &mut s.warm_interval, span);
    t.read("warm_hours", &mut s.warm_hours, maybe(hours));
}

pub(super) fn degradation(t: &mut Table, s: &mut DegradationSettings) {
    t.read("replies", &mut s.replies, maybe(value::path));
    t.read("knowledge", &mut s.knowledge, maybe(value::path));
    t.read("fallback", &mut s.fallback, not_blank);
    t.read("outbox", &mut s.outbox, flag);
}

/// The fallback text must not be blank: it is the answer when every other step fails.
fn not_blank(value: &DeValue<'_>) -> Parsed<String> {
    let fallback = text(value)?;
    if fallback.trim().is_empty() {
        return Err(
            "empty; a text is needed, since it is the answer when there is no other".to_owned(),
        );
    }
    Ok(fallback)
}

pub(super) fn quality(t: &mut Table, s: &mut QualitySettings) {
    t.read("min_chars", &mut s.min_chars, whole(0..=1_000_000));
    t.list("keywords", &mut s.keywords, line);
}

pub(super) fn alerts(t: &mut Table, s: &mut AlertSettings) {
    t.checked_secret("slack_webhook", &mut s.slack_webhook, webhook_url);
    t.checked_secret("webhook", &mut s.webhook, webhook_url);
    t.checked_secret("webhook_secret", &mut s.webhook_secret, webhook_secret);
    t.read("min_interval", &mut s.min_interval, duration);
}

/// Parses one of `[[drills]]`. `names` are the configured providers, or `None` if not known yet.
///
/// Returns `None` if a required key is missing or invalid. The problem is then already reported.
pub(super) fn drill(t: &mut Table, names: Option<&[String]>) -> Option<DrillSettings> {
    let mut at = None;
    let mut provider = None;
    let mut fault = None;
    let mut duration = DrillSettings::USUAL;
    t.needs(
        "at",
        "when, as a cron expression in UTC, such as \"0 3 * * 1\"",
    );
    t.read("at", &mut at, |value| {
        from_text("a cron expression in quotes", Cron::parse)(value).map(Some)
    });
    t.needs("provider", "the name of a provider");
    t.read("provider", &mut provider, |value| {
        let name = line(value)?;
        match names {
            Some(names) if !names.contains(&name) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Err(format!(
                    "{} is not the name of a provider; use {}",
                    quoted(&name),
                    either(&names)
                ))
            }
            _ => Ok(Some(name)),
        }
    });
    t.needs("fault", "the fault to inject, such as \"down\"");
    t.read("fault", &mut fault, |value| {
        choice::<Fault>(value).map(Some)
    });
    t.read("for", &mut duration, |value| {
        let duration = span(value)?;
        if duration > DrillSettings::LONGEST {
            return Err("a drill lasts at most 15m".to_owned());
        }
        Ok(duration)
    });
    Some(DrillSettings {
        at: at?,
        provider: provider?,
        fault: fault?,
        duration,
    })
}

pub(super) fn store(t: &mut Table, s: &mut StoreSettings) {
    t.read("backend", &mut s.backend, choice);
    let mut url: Option<Secret> = None;
    t.checked_secret("redis_url", &mut url, redis_url);
    if let Some(url) = url {
        s.redis_url = url;
    }
}

pub(super) fn limits(t: &mut Table, s: &mut LimitSettings) {
    t.read("connections", &mut s.connections, whole(1..=MANY));
    t.read(
        "connections_per_ip",
        &mut s.connections_per_ip,
        whole(1..=MANY),
    );
    t.read("turns", &mut s.turns, whole(1..=MANY));
    t.read(
        "messages_per_minute",
        &mut s.messages_per_minute,
        whole(1..=MANY),
    );
    t.read(
        "messages_per_minute_per_ip",
        &mut s.messages_per_minute_per_ip,
        whole(1..=MANY),
    );
    t.read(
        "frame_bytes",
        &mut s.frame_bytes,
        whole(1024..=16 * 1024 * 1024),
    );
    t.read("idle", &mut s.idle, span);
}

pub(super) fn endpoint(value: &DeValue<'_>) -> Parsed<Option<String>> {
    maybe(from_text("a URL in quotes", base_url))(value)
}
