//! The settings of the service itself, section by section.

use super::enums::{CacheSharing, InjectedFault, StoreBackend};
use super::parse::cron::Cron;
use super::secret::Secret;
use ipnet::IpNet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `[server]`: the listener, access and shutdown.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The address and port to listen on. Port 0 picks a free port.
    pub listen: String,
    /// The origin under which browsers reach the service behind a proxy, without trailing slash.
    pub public_url: Option<String>,
    /// The number of worker threads. 0 starts one per core.
    pub workers: usize,
    /// The folder of the store. A relative path starts at the working directory.
    pub data_dir: PathBuf,
    /// Origins besides the service's own that may open the WebSocket or embed the widget.
    pub allowed_origins: Vec<String>,
    /// Networks of reverse proxies whose `Forwarded` headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The bearer token of the admin API. `None` disables the API: it answers 404.
    pub admin_token: Option<Secret>,
    /// Keys for `/v1` and `/api`. If empty, only direct connections from loopback are accepted.
    pub api_keys: Vec<Secret>,
    /// How long running turns may continue after SIGTERM before they are interrupted.
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

/// `[chat]`: the texts and limits of conversations.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatSettings {
    /// The title of the page and the widget.
    pub title: String,
    /// The message shown at the start of a conversation.
    pub greeting: String,
    /// The system prompt for the model.
    pub system_prompt: Arc<str>,
    /// The maximum length of a message in characters. At least 1.
    pub max_message_chars: usize,
    /// The number of earlier turns sent to the model.
    pub history_turns: usize,
    /// The maximum length of an answer in tokens. At least 1.
    pub max_tokens: u32,
    /// Visitors of the page may set options. Always `true` in demo mode.
    pub visitor_options: bool,
    /// The age at which conversations are deleted.
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

/// `[cache]`: the cache of answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// Answers are cached and served from the cache.
    pub enabled: bool,
    /// How long a cached answer is served without contacting a provider.
    pub ttl: Duration,
    /// The time after `ttl` in which a cached answer is still served while it is refreshed.
    pub revalidate: Duration,
    /// The maximum age of a cached answer that is served during an outage.
    pub stale_for: Duration,
    /// The condition for serving a cached answer to other conversations.
    pub share: CacheSharing,
    /// The number of conversations that must ask a question before its answer is shared, including
    /// the one that is served. At least 1.
    pub repeated_min: u32,
    /// The maximum number of cached answers. At least 1.
    pub max_entries: usize,
    /// Questions whose answers are cached in advance.
    pub warm: Vec<String>,
    /// The time between two rounds of warming.
    pub warm_interval: Duration,
    /// The daily UTC window in which answers are warmed. `None` allows any time.
    pub warm_hours: Option<DailyWindow>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(HOUR),
            revalidate: Duration::ZERO,
            stale_for: Duration::from_secs(24 * HOUR),
            share: CacheSharing::Repeated,
            repeated_min: 3,
            max_entries: 10_000,
            warm: Vec::new(),
            warm_interval: Duration::from_secs(6 * HOUR),
            warm_hours: None,
        }
    }
}

/// A daily time window in UTC. Crosses midnight if it ends before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DailyWindow {
    /// The first minute of the window, 0 to 1439.
    pub start_minute: u16,
    /// The first minute after the window, 0 to 1439.
    pub end_minute: u16,
}

impl DailyWindow {
    /// Returns `true` if a minute of the day, 0 to 1439, is in the window.
    pub fn contains(self, minute: u16) -> bool {
        if self.start_minute < self.end_minute {
            (self.start_minute..self.end_minute).contains(&minute)
        } else {
            minute >= self.start_minute || minute < self.end_minute
        }
    }
}

/// `[degradation]`: answers without a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct DegradationSettings {
    /// A TOML file with template replies. `None` uses the built-in ones.
    pub replies: Option<PathBuf>,
    /// A folder of texts whose passages are used as answers.
    pub knowledge: Option<PathBuf>,
    /// The last resort, used when no other fallback has an answer. Never blank.
    pub fallback: String,
    /// Answer turns that got no AI answer during an outage once a provider is available again.
    pub outbox: bool,
}

impl DegradationSettings {
    pub const DEFAULT_FALLBACK_TEXT: &str = "Thanks for your message. Our AI assistant is temporarily unavailable. Please try again in a few minutes.";
}

impl Default for DegradationSettings {
    fn default() -> Self {
        Self {
            replies: None,
            knowledge: None,
            fallback: Self::DEFAULT_FALLBACK_TEXT.to_owned(),
            outbox: true,
        }
    }
}

/// `[quality]`: expectations of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct QualitySettings {
    /// The minimum length of an answer in characters. A shorter answer is a failed attempt.
    pub min_chars: usize,
    /// Words expected in good answers. They only affect the quality score.
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

/// `[alerts]`: the receivers of alerts.
#[derive(Debug, Clone)]
pub struct AlertSettings {
    /// The URL of a Slack incoming webhook, http or https. The URL itself is a secret.
    pub slack_webhook: Option<Secret>,
    /// The http or https URL that receives alerts as JSON.
    pub webhook: Option<Secret>,
    /// The secret that signs the JSON of `webhook`.
    pub webhook_secret: Option<Secret>,
    /// The minimum time between two alerts with the same cause.
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

/// One of `[[drills]]`: a scheduled outage drill.
#[derive(Debug, Clone, PartialEq)]
pub struct DrillSettings {
    /// The schedule, in UTC.
    pub at: Cron,
    /// The name of the provider.
    pub provider: String,
    /// The fault to inject.
    pub fault: InjectedFault,
    /// The duration (the key is `for`), at most [`DrillSettings::MAX_DURATION`].
    pub duration: Duration,
}

impl DrillSettings {
    pub const MAX_DURATION: Duration = Duration::from_secs(15 * MINUTE);
    pub const DEFAULT_DURATION: Duration = Duration::from_secs(30);
}

/// `[telemetry]`: the export of traces.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TelemetrySettings {
    /// The http or https URL of an OTLP collector. `None` exports no traces.
    pub otlp_endpoint: Option<String>,
}

/// `[store]`: the storage of conversations.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub backend: StoreBackend,
    /// The URL of Redis. It may contain a password.
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

/// `[limits]`: limits of the service, all at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitSettings {
    /// The maximum number of open connections.
    pub connections: usize,
    /// The maximum number of open connections per client address.
    pub connections_per_ip: usize,
    /// The maximum number of concurrent turns.
    pub turns: usize,
    /// The maximum number of messages per minute in a conversation.
    pub messages_per_minute: u32,
    /// The maximum number of messages per minute from a client address.
    pub messages_per_minute_per_ip: u32,
    /// The maximum size of a WebSocket message in bytes.
    pub frame_bytes: usize,
    /// The time after which a connection without a frame or pong from the client is closed.
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

/// `[widget]`: the embedded chat.
#[derive(Debug, Clone, Default)]
pub struct WidgetSettings {
    /// The HS256 secret of the host site's visitor tokens. `None` makes all visitors anonymous.
    pub identity_secret: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_may_cross_midnight() {
        let night = DailyWindow {
            start_minute: 22 * 60,
            end_minute: 5 * 60,
        };
        let day = DailyWindow {
            start_minute: 9 * 60,
            end_minute: 17 * 60,
        };
        for (window, minute, expected) in [
            (night, 23 * 60, true),
            (night, 0, true),
            (night, 5 * 60, false),
            (day, 9 * 60, true),
            (day, 17 * 60, false),
        ] {
            assert_eq!(window.contains(minute), expected, "{window:?} {minute}");
        }
    }
}
