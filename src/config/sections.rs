//! The keys of every section except providers, with their valid values.

use super::diagnostics::{join_with_or, quoted};
use super::model::{
    AlertSettings, CacheSettings, ChatSettings, DegradationSettings, DrillSettings, LimitSettings,
    QualitySettings, ServerSettings, StoreSettings,
};
use super::parse::address::{check_redis_url, parse_listen_address, parse_origin};
use super::parse::cron::Cron;
use super::parse::value::{
    self, ParseResult, boolean, config_enum, count, daily_window, duration, float, from_text,
    integer, network, optional, positive_duration, ratio, single_line, text,
};
use super::parse::webhook::{check_webhook_secret, check_webhook_url};
use super::policy::{BreakerSettings, CallRetry, CallTimeouts, HealthSettings, RoutingSettings};
use super::secret::Secret;
use super::table_reader::TableReader;
use toml::de::DeValue;

pub(super) fn read_server(t: &mut TableReader, s: &mut ServerSettings) {
    let listen = from_text(
        "an address such as \"127.0.0.1:8080\"",
        parse_listen_address,
    );
    let public_url = from_text("a URL in quotes", parse_origin);
    let origin = from_text("an origin in quotes", parse_origin);
    t.read("listen", &mut s.listen, listen);
    t.read("public_url", &mut s.public_url, optional(public_url));
    t.read("workers", &mut s.workers, integer(0..=1024));
    t.read("data_dir", &mut s.data_dir, value::path);
    t.read_list("allowed_origins", &mut s.allowed_origins, origin);
    t.read_list("trusted_proxies", &mut s.trusted_proxies, network);
    t.read_secret("admin_token", &mut s.admin_token);
    t.read_secrets("api_keys", &mut s.api_keys);
    t.read("drain", &mut s.drain, duration);
}

pub(super) fn read_chat(t: &mut TableReader, s: &mut ChatSettings) {
    t.read("title", &mut s.title, single_line);
    t.read("greeting", &mut s.greeting, text);
    let prompt = |value: &DeValue| text(value).map(Into::into);
    t.read("system_prompt", &mut s.system_prompt, prompt);
    let chars = integer(1..=1_000_000);
    t.read("max_message_chars", &mut s.max_message_chars, chars);
    t.read("history_turns", &mut s.history_turns, integer(0..=10_000));
    t.read("max_tokens", &mut s.max_tokens, integer(1..=10_000_000));
    t.read("visitor_options", &mut s.visitor_options, boolean);
    t.read("retention", &mut s.retention, positive_duration);
}

pub(super) fn read_routing(t: &mut TableReader, s: &mut RoutingSettings) {
    t.read("strategy", &mut s.strategy, config_enum);
    t.read("max_attempts", &mut s.max_attempts, integer(1..=100));
    t.read("mid_stream", &mut s.mid_stream, config_enum);
    t.read("hedge_after", &mut s.hedge_after, duration);
}

pub(super) fn read_call_timeouts(t: &mut TableReader, s: &mut CallTimeouts) {
    t.read("connect", &mut s.connect, positive_duration);
    t.read_one_or_many("first_token", &mut s.first_token, positive_duration);
    t.read("stall", &mut s.stall, positive_duration);
    t.read("attempt", &mut s.attempt, positive_duration);
}

pub(super) fn read_breaker(t: &mut TableReader, s: &mut BreakerSettings) {
    t.read("consecutive_failures", &mut s.consecutive_failures, count);
    t.read("failure_rate", &mut s.failure_rate, ratio);
    t.read("min_calls", &mut s.min_calls, count);
    t.read("window", &mut s.window, positive_duration);
    let factor = float(1.0..=f64::INFINITY);
    t.read("slow_factor", &mut s.slow_factor, factor);
    t.read("slow_rate", &mut s.slow_rate, ratio);
    t.read("stream_failure_rate", &mut s.stream_failure_rate, ratio);
    t.read_min_max(("open_for", &mut s.open_for), ("open_max", &mut s.open_max));
    t.read("blocked_for", &mut s.blocked_for, positive_duration);
    t.read("probes", &mut s.probes, count);
}

pub(super) fn read_call_retry(t: &mut TableReader, s: &mut CallRetry) {
    t.read("same_provider", &mut s.same_provider, integer(0..=100));
    t.read_min_max(("base", &mut s.base), ("max", &mut s.max));
    t.read("max_retry_after", &mut s.max_retry_after, duration);
}

pub(super) fn read_health(t: &mut TableReader, s: &mut HealthSettings) {
    t.read("interval", &mut s.interval, positive_duration);
    t.read("timeout", &mut s.timeout, positive_duration);
    t.read("probe", &mut s.probe, config_enum);
    t.read("recovery_probe", &mut s.recovery_probe, boolean);
    t.read("expire", &mut s.expire, positive_duration);
}

pub(super) fn read_cache(t: &mut TableReader, s: &mut CacheSettings) {
    t.read("enabled", &mut s.enabled, boolean);
    t.read("ttl", &mut s.ttl, duration);
    t.read("revalidate", &mut s.revalidate, duration);
    t.read("stale_for", &mut s.stale_for, duration);
    t.read("share", &mut s.share, config_enum);
    t.read("repeated_min", &mut s.repeated_min, count);
    t.read("max_entries", &mut s.max_entries, count);
    t.read_list("warm", &mut s.warm, single_line);
    t.read("warm_interval", &mut s.warm_interval, positive_duration);
    t.read("warm_hours", &mut s.warm_hours, optional(daily_window));
}

pub(super) fn read_degradation(t: &mut TableReader, s: &mut DegradationSettings) {
    t.read("replies", &mut s.replies, optional(value::path));
    t.read("knowledge", &mut s.knowledge, optional(value::path));
    t.read("fallback", &mut s.fallback, parse_fallback_text);
    t.read("outbox", &mut s.outbox, boolean);
}

/// The fallback text must not be blank: it is the answer when every other step fails.
fn parse_fallback_text(value: &DeValue<'_>) -> ParseResult<String> {
    let fallback = text(value)?;
    if fallback.trim().is_empty() {
        let what = "empty; a text is needed, since it is the answer when there is no other";
        return Err(what.to_owned());
    }
    Ok(fallback)
}

pub(super) fn read_quality(t: &mut TableReader, s: &mut QualitySettings) {
    t.read("min_chars", &mut s.min_chars, integer(0..=1_000_000));
    t.read_list("keywords", &mut s.keywords, single_line);
}

pub(super) fn read_alerts(t: &mut TableReader, s: &mut AlertSettings) {
    t.read_checked_secret("slack_webhook", &mut s.slack_webhook, check_webhook_url);
    t.read_checked_secret("webhook", &mut s.webhook, check_webhook_url);
    let secret = &mut s.webhook_secret;
    t.read_checked_secret("webhook_secret", secret, check_webhook_secret);
    t.read("min_interval", &mut s.min_interval, duration);
}

/// Parses one of `[[drills]]`. `names` are the configured providers, or `None` if not known yet.
///
/// Returns `None` if a required key is missing or invalid. The problem is then already reported.
pub(super) fn read_drill(t: &mut TableReader, names: Option<&[&str]>) -> Option<DrillSettings> {
    let cron = from_text("a cron expression in quotes", Cron::parse);
    let hint = "when, as a cron expression in UTC, such as \"0 3 * * 1\"";
    let at = t.read_required("at", hint, cron);
    let provider = t.read_required("provider", "the name of a provider", |value| {
        let name = single_line(value)?;
        match names {
            Some(names) if !names.contains(&name.as_str()) => Err(format!(
                "{} is not the name of a provider; use {}",
                quoted(&name),
                join_with_or(names)
            )),
            _ => Ok(name),
        }
    });
    let hint = "the fault to inject, such as \"down\"";
    let fault = t.read_required("fault", hint, config_enum);
    let mut duration = DrillSettings::DEFAULT_DURATION;
    t.read("for", &mut duration, |value| {
        let duration = positive_duration(value)?;
        if duration > DrillSettings::MAX_DURATION {
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

pub(super) fn read_store(t: &mut TableReader, s: &mut StoreSettings) {
    t.read("backend", &mut s.backend, config_enum);
    let mut url: Option<Secret> = None;
    t.read_checked_secret("redis_url", &mut url, check_redis_url);
    if let Some(url) = url {
        s.redis_url = url;
    }
}

pub(super) fn read_limits(t: &mut TableReader, s: &mut LimitSettings) {
    t.read("connections", &mut s.connections, count);
    t.read("connections_per_ip", &mut s.connections_per_ip, count);
    t.read("turns", &mut s.turns, count);
    t.read("messages_per_minute", &mut s.messages_per_minute, count);
    let per_ip = &mut s.messages_per_minute_per_ip;
    t.read("messages_per_minute_per_ip", per_ip, count);
    let frame_bytes = integer(1024..=16 * 1024 * 1024);
    t.read("frame_bytes", &mut s.frame_bytes, frame_bytes);
    t.read("idle", &mut s.idle, positive_duration);
}
