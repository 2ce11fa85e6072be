//! The keys under which the latest events of an account are stored, as long as they matter.

use std::time::Duration;

use redis::Pipeline;

use super::redis_key;
use crate::provider::event::ProviderEvent;

/// The extra TTL of an "opened" key, so that an instance that joins during a probe waits for its
/// result.
const PROBE_GRACE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
pub enum EventKind {
    Opened,
    RateLimited,
    Warning,
}

impl EventKind {
    pub const ALL: [Self; 3] = [Self::Opened, Self::RateLimited, Self::Warning];

    pub fn key(self, account: &str) -> String {
        let name = match self {
            Self::Opened => "trip",
            Self::RateLimited => "hold",
            Self::Warning => "hint",
        };
        redis_key(name, account)
    }

    /// The extra TTL of the key, beyond the duration of the event.
    pub fn extra_ttl(self) -> Duration {
        match self {
            Self::Opened => PROBE_GRACE,
            Self::RateLimited | Self::Warning => Duration::ZERO,
        }
    }
}

/// Stores an event under its key, and deletes the keys of the events that it ends.
pub fn store_current(commands: &mut Pipeline, account: &str, event: ProviderEvent, message: &[u8]) {
    let (kind, ended): (_, &[EventKind]) = match event {
        ProviderEvent::Opened { .. } if event.is_authoritative() => (Some(EventKind::Opened), &[]),
        ProviderEvent::Opened { .. } => (Some(EventKind::Warning), &[]),
        ProviderEvent::RateLimited { .. } => (Some(EventKind::RateLimited), &[]),
        ProviderEvent::Recovered => (None, &[EventKind::Opened, EventKind::Warning]),
        ProviderEvent::Reset => (None, &EventKind::ALL),
    };
    if let Some(kind) = kind {
        let ttl_ms = (event.ttl() + kind.extra_ttl()).as_millis().max(1);
        let ttl_ms = u64::try_from(ttl_ms).unwrap_or(u64::MAX);
        commands
            .cmd("SET")
            .arg(kind.key(account))
            .arg(message)
            .arg("PX")
            .arg(ttl_ms)
            .ignore();
    }
    for kind in ended {
        commands.cmd("DEL").arg(kind.key(account)).ignore();
    }
}
