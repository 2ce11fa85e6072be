//! Reloads of the configuration, one at a time. A reload applies every setting that can change at
//! run time, or nothing.
//!
//! The fallible steps come first and have no effect: parsing the file, building the HTTP clients,
//! reading the reply rules. After them nothing can fail: providers are started and reconfigured,
//! the new configuration is published, and removed providers are retired.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::roster::{Changes, Roster};
use super::{sharing, simulated};
use crate::chat::At;
use crate::degradation::{DegradationActor, Reload as ReadRules};
use crate::ops::audit::{Audit, Entry, Outcome, Peer};
use crate::ops::reload::{Asked, Changed, NotReloaded, Reloaded, Reloads, Told};
use crate::provider::backend::Whereabouts;
use crate::router::table::Table;
use crate::session::lobby::Lobby;
use crate::settings::{
    DegradationSettings, LimitSettings, Loaded, Problems, ServerSettings, Settings, StoreSettings,
    TelemetrySettings,
};
use crate::simulator::Simulator;
use crate::store::{Store, Terms};
use crate::turn::outbox::Pace;
use crate::web::Connections;

/// The time limit for reading the configuration with the files and secrets that it names.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The time to wait for the reply rules, slightly longer than their own time limit.
const RULES_LIMIT: Duration = Duration::from_secs(6);

pub type Read = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

pub(super) struct Changing {
    pub(super) read: Read,
    pub(super) roster: Roster,
    pub(super) table: watch::Sender<Arc<Table>>,
    pub(super) lobby: Arc<Lobby>,
    pub(super) connections: Arc<Connections>,
    pub(super) degradation: Whereabouts<DegradationActor>,
    pub(super) simulators: Arc<[Arc<Simulator>]>,
    pub(super) store: Arc<dyn Store>,
    pub(super) terms: watch::Sender<Terms>,
}

/// Facts about the start that a reload cannot change.
#[derive(Clone, Copy, Debug)]
struct Started {
    demo: bool,
    connections: usize,
}

impl Changing {
    /// Carries out reload requests until all senders are gone. New provider actors run on the
    /// calling thread.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        while let Some(reply) = asked.recv().await {
            let result = self.reload().await;
            match &result {
                Ok(Reloaded {
                    providers:
                        Changed {
                            added,
                            changed,
                            removed,
                        },
                    needs_restart,
                    warnings,
                }) => {
                    tracing::info!(
                        ?added,
                        ?changed,
                        ?removed,
                        ?needs_restart,
                        "configuration reloaded"
                    );
                    for Told {
                        line, key, what, ..
                    } in warnings
                    {
                        tracing::warn!(line, key, "{what}");
                    }
                }
                Err(NotReloaded::Wrong(problems)) => {
                    for Told {
                        file,
                        line,
                        key,
                        what,
                    } in problems
                    {
                        tracing::warn!(file, line, key, "not reloaded: {what}");
                    }
                }
                Err(NotReloaded::Failed(why)) => tracing::warn!(why, "not reloaded"),
            }
            // The requester may have given up.
            let _ = reply.send(result);
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, NotReloaded> {
        let load = Arc::clone(&self.read);
        let loading = tokio::task::spawn_blocking(move || load());
        let Loaded {
            mut settings,
            warnings,
            ..
        } = match tokio::time::timeout(READ_LIMIT, loading).await {
            Ok(Ok(loaded)) => loaded?,
            Ok(Err(_)) | Err(_) => {
                return Err(NotReloaded::Failed(
                    "the configuration could not be read in time; try again",
                ));
            }
        };
        let before = Arc::clone(&self.table.borrow().settings);
        let started = Started {
            demo: !self.simulators.is_empty(),
            connections: self.connections.ceiling(),
        };
        let needs_restart = hold(&mut settings, &before, started);
        let providers = simulated::providers(&settings, &self.simulators);
        let plan = self.roster.plan(&providers).map_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "cannot create the HTTP client of a provider"
            );
            NotReloaded::Failed("a provider's HTTP client cannot be created; see the log")
        })?;
        let remembered = super::remembered(&*self.store).await;
        self.read_rules(settings.degradation.clone()).await?;
        // From here on nothing can fail.
        let (changes, leaving) = self.roster.carry_out(plan, &remembered).await;
        let settings = Arc::new(settings);
        let backends = self.roster.backends();
        let turn_service = &self.lobby.desk;
        turn_service
            .tally
            .follow(backends.iter().map(|backend| &backend.name));
        let next = self.table.borrow().next(Arc::clone(&settings), backends);
        self.table.send_replace(Arc::new(next));
        // Only now does no new turn see the removed providers.
        self.roster.dismiss(leaving).await;
        self.lobby.rates.set_per_minute(
            quota(settings.limits.messages_per_minute),
            quota(settings.limits.messages_per_minute_per_ip),
        );
        self.connections.set_most(
            settings.limits.connections,
            settings.limits.connections_per_ip,
        );
        self.terms.send_replace(sharing::terms(&settings));
        turn_service
            .outbox
            .set(settings.degradation.outbox, pace(&settings));
        let turn_service = Arc::clone(turn_service);
        let prompt = Arc::clone(&settings.chat.system_prompt);
        // Changing the cache policy may wait for the store, so it runs in the background.
        actix::spawn(async move {
            turn_service
                .shelf
                .set_terms(settings.cache.clone(), prompt)
                .await
        });
        let Changes {
            added,
            changed,
            removed,
        } = changes;
        Ok(Reloaded {
            providers: Changed {
                added,
                changed,
                removed,
            },
            needs_restart,
            warnings: warnings.iter().map(Told::from).collect(),
        })
    }

    async fn read_rules(&self, settings: DegradationSettings) -> Result<(), NotReloaded> {
        let timed_out = NotReloaded::Failed("the reply rules were not read in time; try again");
        let Some(actor) = self.degradation.borrow().clone() else {
            return Err(timed_out);
        };
        match tokio::time::timeout(RULES_LIMIT, actor.send(ReadRules(settings))).await {
            Ok(Ok(read)) => Ok(read?),
            Ok(Err(_)) | Err(_) => Err(timed_out),
        }
    }
}

/// Reverts the keys that need a restart and returns their names.
///
/// Each section with such keys is destructured completely, so that a new key must be classified
/// here. The other keys are read from the published configuration or applied by the reload.
fn hold(settings: &mut Settings, before: &Settings, started: Started) -> Vec<&'static str> {
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
    held_back("server.listen", listen, &before.server.listen, &mut held);
    held_back("server.workers", workers, &before.server.workers, &mut held);
    held_back(
        "server.data_dir",
        data_dir,
        &before.server.data_dir,
        &mut held,
    );
    let StoreSettings { backend, redis_url } = &mut settings.store;
    held_back("store.backend", backend, &before.store.backend, &mut held);
    if redis_url.expose() != before.store.redis_url.expose() {
        redis_url.clone_from(&before.store.redis_url);
        held.push("store.redis_url");
    }
    let TelemetrySettings { otlp_endpoint } = &mut settings.telemetry;
    held_back(
        "telemetry.otlp_endpoint",
        otlp_endpoint,
        &before.telemetry.otlp_endpoint,
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
    if *connections > started.connections {
        *connections = started.connections;
        held.push("limits.connections");
    }
    // Simulated providers exist only if the service was started in demo mode. Otherwise, a
    // configuration without providers keeps the current ones.
    if settings.demo && !started.demo {
        settings.demo = false;
        settings.providers = before.providers.clone();
        settings.chat.visitor_options = before.chat.visitor_options;
        settings.timeouts.call.stall = before.timeouts.call.stall;
        held.push("providers");
    }
    held
}

fn held_back<T: PartialEq + Clone>(
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

pub(super) fn quota(messages: u32) -> NonZeroU32 {
    NonZeroU32::new(messages).unwrap_or(NonZeroU32::MIN)
}

/// Follow-ups are spaced like retries, and after a failure like the probes of a breaker.
pub(super) fn pace(settings: &Settings) -> Pace {
    let retry = &settings.retry.call;
    let breaker = &settings.breaker;
    Pace {
        least: retry.base,
        most: retry.max,
        rest: breaker.open_for,
        longest_rest: breaker.open_max,
    }
}

pub struct Reloader {
    pub(super) reloads: Reloads,
    pub(super) audit: Arc<Audit>,
}

impl Reloader {
    /// Loads the configuration again. Errors are logged and change nothing.
    pub async fn reload(&self) {
        let result = self.reloads.reload().await;
        let outcome = match result {
            Ok(_) => Outcome::Done,
            Err(NotReloaded::Wrong(_)) => Outcome::Invalid,
            Err(NotReloaded::Failed(_)) => Outcome::Failed,
        };
        let at = At::from_system(std::time::SystemTime::now());
        self.audit.note(Entry {
            at,
            action: "reload",
            subject: None,
            outcome,
            peer: Peer::Signal,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Dialect, Secret, StoreBackend};

    const STARTED: Started = Started {
        demo: false,
        connections: 20_000,
    };

    #[test]
    fn keys_that_need_a_restart_are_reverted_and_named() {
        let before = Settings::default();
        let mut settings = before.clone();
        assert!(hold(&mut settings, &before, STARTED).is_empty());
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
        let held = hold(&mut settings, &before, STARTED);
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
            let held = hold(&mut settings, &before, STARTED);
            assert_eq!(
                (!held.is_empty(), settings.limits.connections),
                (is_held, new.min(20_000))
            );
        }
    }

    #[test]
    fn demo_mode_needs_simulators_from_the_start() {
        let mut before = Settings::default();
        before.providers.push(before.provider("a", Dialect::Ollama));
        let mut settings = Settings::demo();
        assert_eq!(hold(&mut settings, &before, STARTED), ["providers"]);
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
            hold(
                &mut settings,
                &before,
                Started {
                    demo: true,
                    ..STARTED
                }
            )
            .is_empty()
                && settings.demo
        );
    }
}
