//! The keys of the configuration that take effect after a restart only.

use crate::config::{LimitSettings, ServerSettings, Settings, StoreSettings, TelemetrySettings};

/// Facts about the start that a reload cannot change.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartupFacts {
    pub(super) is_demo: bool,
    pub(super) max_connections: usize,
}

/// Reverts the keys that need a restart and returns their names.
///
/// Each section with such keys is destructured completely, so that a new key must be classified
/// here. The other keys are read from the published configuration or applied by the reload.
pub(super) fn keep_restart_only_keys(
    settings: &mut Settings,
    before: &Settings,
    started: StartupFacts,
) -> Vec<&'static str> {
    let mut held = Vec::new();
    let ServerSettings {
        listen,
        workers,
        data_dir,
        public_url: _,
        allowed_origins: _,
        trusted_proxies: _,
        admin_token: _,
        api_keys: _,
        drain: _,
    } = &mut settings.server;
    keep_if_changed("server.listen", listen, &before.server.listen, &mut held);
    keep_if_changed("server.workers", workers, &before.server.workers, &mut held);
    let before_dir = &before.server.data_dir;
    keep_if_changed("server.data_dir", data_dir, before_dir, &mut held);
    let StoreSettings { backend, redis_url } = &mut settings.store;
    keep_if_changed("store.backend", backend, &before.store.backend, &mut held);
    let before_url = &before.store.redis_url;
    keep_if_changed("store.redis_url", redis_url, before_url, &mut held);
    let TelemetrySettings { otlp_endpoint } = &mut settings.telemetry;
    let before_endpoint = &before.telemetry.otlp_endpoint;
    keep_if_changed(
        "telemetry.otlp_endpoint",
        otlp_endpoint,
        before_endpoint,
        &mut held,
    );
    let LimitSettings {
        connections,
        connections_per_ip: _,
        turns: _,
        messages_per_minute: _,
        messages_per_minute_per_ip: _,
        frame_bytes: _,
        idle: _,
    } = &mut settings.limits;
    // A smaller limit can be applied at run time, a larger one only up to the limit at the start.
    if *connections > started.max_connections {
        *connections = started.max_connections;
        held.push("limits.connections");
    }
    // Simulated providers exist only if the service was started in demo mode. Otherwise, a
    // configuration without providers keeps the current ones.
    if settings.demo && !started.is_demo {
        settings.demo = false;
        settings.providers = before.providers.clone();
        settings.chat.visitor_options = before.chat.visitor_options;
        settings.timeouts.call.stall = before.timeouts.call.stall;
        held.push("providers");
    }
    held
}

fn keep_if_changed<T: PartialEq + Clone>(
    name: &'static str,
    new: &mut T,
    before: &T,
    held: &mut Vec<&'static str>,
) {
    if new != before {
        new.clone_from(before);
        held.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dialect, Secret, StoreBackend};

    const STARTED: StartupFacts = StartupFacts {
        is_demo: false,
        max_connections: 20_000,
    };

    #[test]
    fn keys_that_need_a_restart_are_reverted_and_named() {
        let before = Settings::default();
        let mut settings = before.clone();
        assert!(keep_restart_only_keys(&mut settings, &before, STARTED).is_empty());
        settings.server.listen = "127.0.0.1:1".into();
        settings.server.workers = 3;
        settings.server.data_dir = "elsewhere".into();
        settings.store.backend = StoreBackend::Redis;
        settings.store.redis_url = Secret::new("redis://elsewhere");
        settings.telemetry.otlp_endpoint = Some("http://elsewhere:4318".into());
        settings.limits.connections = 20_001;
        settings.limits.turns = 7;
        settings.chat.title = "New".into();
        settings.server.admin_token = Some(Secret::new("new"));
        let held = keep_restart_only_keys(&mut settings, &before, STARTED);
        let expected = [
            "server.listen",
            "server.workers",
            "server.data_dir",
            "store.backend",
            "store.redis_url",
            "telemetry.otlp_endpoint",
            "limits.connections",
        ];
        assert_eq!(held, expected);
        assert_eq!(
            (&settings.server.listen, settings.limits.turns),
            (&before.server.listen, 7)
        );
        assert_eq!(settings.limits.connections, 20_000);
        assert_eq!(
            (
                settings.chat.title.as_str(),
                settings.server.admin_token.is_some()
            ),
            ("New", true)
        );
    }

    #[test]
    fn connection_limit_changes_up_to_the_limit_at_the_start() {
        let mut before = Settings::default();
        for (old, new, is_held) in [(20_000, 7, false), (7, 20_000, false), (7, 20_001, true)] {
            before.limits.connections = old;
            let mut settings = before.clone();
            settings.limits.connections = new;
            let held = keep_restart_only_keys(&mut settings, &before, STARTED);
            assert_eq!(
                (!held.is_empty(), settings.limits.connections),
                (is_held, new.min(20_000))
            );
        }
    }

    #[test]
    fn demo_mode_needs_simulators_from_the_start() {
        let mut before = Settings::default();
        before
            .providers
            .push(before.new_provider("a", Dialect::Ollama));
        let mut settings = Settings::demo();
        assert_eq!(
            keep_restart_only_keys(&mut settings, &before, STARTED),
            ["providers"]
        );
        assert_eq!(
            (
                settings.demo,
                settings.providers.len(),
                settings.chat.visitor_options
            ),
            (false, 1, false)
        );
        let mut settings = Settings::demo();
        assert!(
            keep_restart_only_keys(
                &mut settings,
                &before,
                StartupFacts {
                    is_demo: true,
                    ..STARTED
                }
            )
            .is_empty()
                && settings.demo
        );
    }
}
