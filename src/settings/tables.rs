//! The tables of the service itself: what it serves, keeps, says and limits.

use super::choice::{Fault, Share, StoreBackend};
use super::cron::Cron;
use super::secret::Secret;
use ipnet::IpNet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `[server]`: where it listens and who is let in.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address and port; port 0 takes a free one.
    pub listen: String,
    /// The origin browsers reach it by, when a proxy stands before it; without a slash at its end.
    pub public_url: Option<String>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Folder of the store, relative to the working directory.
    pub data_dir: PathBuf,
    /// Origins, besides its own, that may open the WebSocket or embed the widget.
    pub allowed_origins: Vec<String>,
    /// Networks whose Forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bearer token of the admin API; without one it answers 404.
    pub admin_token: Option<Secret>,
    /// Keys for `/v1` and `/api`; without any, only direct loopback peers are let in.
    pub api_keys: Vec<Secret>,
    /// How long running turns may go on at the end.
    pub drain: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            public_url: None,
            workers: 0,
            data_dir: PathBuf::from("failsoft-data"),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            admin_token: None,
            api_keys: Vec::new(),
            drain: Duration::from_secs(30),
        }
    }
}

/// `[chat]`: what visitors and models are told.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatSettings {
    /// Title of page and widget.
    pub title: String,
    /// The first words a visitor sees.
    pub greeting: String,
    /// What the model is told first.
    pub system_prompt: Arc<str>,
    /// Longest message, in characters; at least 1.
    pub max_message_chars: usize,
    /// Turns of the conversation that go to the model.
    pub history_turns: usize,
    /// Longest answer, in tokens; at least 1.
    pub max_tokens: u32,
    /// Whether a page's visitor may set options; always true in demo mode.
    pub visitor_options: bool,
    /// How long conversations are kept.
    pub retention: Duration,
}

impl Default for ChatSettings {
    fn default() -> Self {
        Self {
            title: "Chat".to_owned(),
            greeting: "Hello! How can I help?".to_owned(),
            system_prompt: "You are a helpful assistant.".into(),
            max_message_chars: 8000,
            history_turns: 20,
            max_tokens: 1024,
            visitor_options: false,
            retention: Duration::from_secs(30 * DAY),
        }
    }
}

/// `[cache]`: saved answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// Whether answers are saved at all.
    pub enabled: bool,
    /// How long one answers without asking a provider.
    pub ttl: Duration,
    /// How long past `ttl` one still answers while it is renewed.
    pub revalidate: Duration,
    /// How old one may be when no provider can answer.
    pub stale_for: Duration,
    /// Who may get another visitor's.
    pub share: Share,
    /// Conversations that must have asked alike before one is shared; the last of them is served; at least 1.
    pub repeated_min: u32,
    /// Most answers kept; at least 1.
    pub max_entries: usize,
    /// Questions answered ahead of time.
    pub warm: Vec<String>,
    /// Time between two such rounds.
    pub warm_interval: Duration,
    /// The only hours of the day for them; none: any.
    pub warm_hours: Option<Hours>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(HOUR),
            revalidate: Duration::ZERO,
            stale_for: Duration::from_secs(24 * HOUR),
            share: Share::Repeated,
            repeated_min: 3,
            max_entries: 10_000,
            warm: Vec::new(),
            warm_interval: Duration::from_secs(6 * HOUR),
            warm_hours: None,
        }
    }
}

/// A part of each day in UTC; past midnight when it ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// First minute of the day, 0 to 1439.
    pub from: u16,
    /// First minute no longer in it, 0 to 1439.
    pub to: u16,
}

impl Hours {
    /// Whether a minute of the day, 0 to 1439, lies within.
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// `[degradation]`: what is said when no provider can answer.
#[derive(Debug, Clone, PartialEq)]
pub struct DegradationSettings {
    /// TOML file of template replies; none: the built-in ones.
    pub replies: Option<PathBuf>,
    /// Folder of texts whose passages answer.
    pub knowledge: Option<PathBuf>,
    /// The last resort.
    pub fallback: String,
    /// Whether what an outage left without an AI answer is answered later.
    pub outbox: bool,
}

impl DegradationSettings {
    /// The last resort of those who wrote none.
    pub const FALLBACK: &str = "Thanks for your message. Our AI assistant is temporarily unavailable. Please try again in a few minutes.";
}

impl Default for DegradationSettings {
    fn default() -> Self {
        Self {
            replies: None,
            knowledge: None,
            fallback: Self::FALLBACK.to_owned(),
            outbox: true,
        }
    }
}

/// `[quality]`: what is expected of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct QualitySettings {
    /// Fewest characters; a shorter answer is a failed attempt.
    pub min_chars: usize,
    /// Words of good answers, for the score only.
    pub keywords: Vec<String>,
}

impl Default for QualitySettings {
    fn default() -> Self {
        Self {
            min_chars: 1,
            keywords: Vec::new(),
        }
    }
}

/// `[alerts]`: who is told of changes.
#[derive(Debug, Clone)]
pub struct AlertSettings {
    /// Slack's incoming webhook, an http or https URL that is itself a secret.
    pub slack_webhook: Option<Secret>,
    /// Where signed JSON goes; an http or https URL.
    pub webhook: Option<Secret>,
    /// What that JSON is signed with.
    pub webhook_secret: Option<Secret>,
    /// Least time between two alerts of one cause.
    pub min_interval: Duration,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            slack_webhook: None,
            webhook: None,
            webhook_secret: None,
            min_interval: Duration::from_secs(5 * MINUTE),
        }
    }
}

/// One of `[[drills]]`: an outage that is staged again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct DrillSettings {
    /// When, in UTC.
    pub at: Cron,
    /// Name of the provider.
    pub provider: String,
    /// What befalls it.
    pub fault: Fault,
    /// For how long (the key is `for`); at most [`DrillSettings::LONGEST`].
    pub duration: Duration,
}

impl DrillSettings {
    /// The longest any drill may last.
    pub const LONGEST: Duration = Duration::from_secs(15 * MINUTE);
    /// How long one lasts when nothing is said.
    pub const USUAL: Duration = Duration::from_secs(30);
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TelemetrySettings {
    /// Where traces go; an http or https URL.
    pub otlp_endpoint: Option<String>,
}

/// `[store]`: where conversations are kept.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Which kind.
    pub backend: StoreBackend,
    /// Address of Redis; it may carry a password.
    pub redis_url: Secret,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            backend: StoreBackend::Sled,
            redis_url: Secret::new("redis://127.0.0.1:6379"),
        }
    }
}

/// `[limits]`: all at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitSettings {
    /// Open connections.
    pub connections: usize,
    /// Open connections of one address.
    pub connections_per_ip: usize,
    /// Turns running at once.
    pub turns: usize,
    /// Messages a minute in one conversation.
    pub messages_per_minute: u32,
    /// Messages a minute from one address.
    pub messages_per_minute_per_ip: u32,
    /// Longest WebSocket message, in bytes.
    pub frame_bytes: usize,
    /// How long a connection may stay without a frame or a pong.
    pub idle: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_ip: 100,
            turns: 2000,
            messages_per_minute: 20,
            messages_per_minute_per_ip: 120,
            frame_bytes: 65_536,
            idle: Duration::from_secs(10 * MINUTE),
        }
    }
}

/// `[widget]`.
#[derive(Debug, Clone, Default)]
pub struct WidgetSettings {
    /// HS256 secret of the host site's visitor tokens; without one visitors are anonymous.
    pub identity_secret: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_run_past_midnight() {
        let night = Hours {
            from: 22 * 60,
            to: 5 * 60,
        };
        let day = Hours {
            from: 9 * 60,
            to: 17 * 60,
        };
        for (hours, minute, expected) in [
            (night, 23 * 60, true),
            (night, 0, true),
            (night, 5 * 60, false),
            (day, 9 * 60, true),
            (day, 17 * 60, false),
        ] {
            assert_eq!(hours.contains(minute), expected, "{hours:?} {minute}");
        }
    }
}
