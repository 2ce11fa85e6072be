//! Carries reloads out, one after the other: reads the configuration again, looks at all of it, and takes over all that can be changed while the
//! service runs, or nothing.
//!
//! What can fail comes first, and touches nothing: the file, the providers' clients, the reply rules. From there on nothing can fail: providers are
//! started and changed, the new table is published, and those that are not in it are let go.

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

/// How long the configuration may take to read, with the secrets and files that it names.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How long the reply rules are waited for: a little longer than they may take to read.
const RULES_LIMIT: Duration = Duration::from_secs(6);

/// Reads the configuration, as it was read at the start.
pub type Read = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// All that a reload has to do with.
pub(super) struct Changing {
    pub(super) read: Read,
    pub(super) roster: Roster,
    pub(super) table: watch::Sender<Arc<Table>>,
    pub(super) lobby: Arc<Lobby>,
    pub(super) connections: Arc<Connections>,
    pub(super) degradation: Whereabouts<DegradationActor>,
    pub(super) simulators: Arc<[Arc<Simulator>]>,
    pub(super) store: Arc<dyn Store>,
    /// How long others keep what is shared.
    pub(super) terms: watch::Sender<Terms>,
}

/// What the service was started with, beside its settings.
#[derive(Clone, Copy, Debug)]
struct Started {
    /// Simulated providers.
    demo: bool,
    /// Room for so many connections.
    connections: usize,
}

impl Changing {
    /// Carries out what is asked for, for ever. Must run where the providers' actors are to live.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        while let Some(tell) = asked.recv().await {
            let end = self.reload().await;
            match &end {
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
            // Who asked may not wait any more.
            let _ = tell.send(end);
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, NotReloaded> {
        let read = Arc::clone(&self.read);
        let reading = tokio::task::spawn_blocking(move || read());
        let Loaded {
            mut settings,
            warnings,
            ..
        } = match tokio::time::timeout(READ_LIMIT, reading).await {
            Ok(Ok(read)) => read?,
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
                "a provider's client cannot be made"
            );
            NotReloaded::Failed("a provider's HTTP client cannot be made; the log says why")
        })?;
        let remembered = super::remembered(&*self.store).await;
        self.read_rules(settings.degradation.clone()).await?;

        let (changes, leaving) = self.roster.carry_out(plan, &remembered).await;
        let (settings, backends) = (Arc::new(settings), self.roster.backends());
        let desk = &self.lobby.desk;
        desk.tally.follow(backends.iter().map(|one| &one.name));
        let next = self.table.borrow().next(Arc::clone(&settings), backends);
        self.table.send_replace(Arc::new(next));
        self.roster.dismiss(leaving).await;
        self.lobby
            .rates
            .set_per_minute(quota(settings.limits.messages_per_minute), {
                quota(settings.limits.messages_per_minute_per_ip)
            });
        self.connections.set_most(
            settings.limits.connections,
            settings.limits.connections_per_ip,
        );
        self.terms.send_replace(sharing::terms(&settings));
        desk.outbox
            .set(settings.degradation.outbox, pace(&settings));
        let (desk, prompt) = (Arc::clone(desk), Arc::clone(&settings.chat.system_prompt));
        // May take as long as the store, and holds nobody up.
        actix::spawn(async move { desk.shelf.set_terms(settings.cache.clone(), prompt).await });
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

    /// Has the reply rules, and the knowledge beside them, read again and taken over.
    async fn read_rules(&self, settings: DegradationSettings) -> Result<(), NotReloaded> {
        let late = NotReloaded::Failed("the reply rules were not read in time; try again");
        let Some(actor) = self.degradation.borrow().clone() else {
            return Err(late);
        };
        match tokio::time::timeout(RULES_LIMIT, actor.send(ReadRules(settings))).await {
            Ok(Ok(read)) => Ok(read?),
            Ok(Err(_)) | Err(_) => Err(late),
        }
    }
}

/// Puts back what counts after a restart only, and names it. Of the tables that hold such keys every key is named here, so that nobody can add one
/// without a word of where it counts; all that is not put back is read from the published table by who goes by it, or is set by the reload.
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
    // Fewer are no matter of the server's.
    if *connections > started.connections {
        *connections = started.connections;
        held.push("limits.connections");
    }
    // Simulated providers are started with the service: without any, those that there are stay.
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

/// So many messages a minute; at least one.
pub(super) fn quota(messages: u32) -> NonZeroU32 {
    NonZeroU32::new(messages).unwrap_or(NonZeroU32::MIN)
}

/// Late answers keep the distance of retries, and after a failure that of a breaker's probes.
pub(super) fn pace(settings: &Settings) -> Pace {
    let (retry, breaker) = (&settings.retry.call, &settings.breaker);
    Pace {
        least: retry.base,
        most: retry.max,
        rest: breaker.open_for,
        longest_rest: breaker.open_max,
    }
}

/// Asks for reloads in the name of a signal.
pub struct Reloader {
    pub(super) reloads: Reloads,
    pub(super) audit: Arc<Audit>,
}

impl Reloader {
    /// Reads the configuration again. A bad one changes nothing, and is said in the log.
    pub async fn reload(&self) {
        let end = self.reloads.reload().await;
        let outcome = match end {
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
    fn what_needs_a_restart_is_held_back_and_named_and_the_rest_is_not() {
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
    fn fewer_connections_count_at_once_and_more_up_to_what_there_was_at_the_start() {
        let mut before = Settings::default();
        for (before_it, now, held) in [(20_000, 7, false), (7, 20_000, false), (7, 20_001, true)] {
            before.limits.connections = before_it;
            let mut settings = before.clone();
            settings.limits.connections = now;
            let told = hold(&mut settings, &before, STARTED);
            assert_eq!(
                (!told.is_empty(), settings.limits.connections),
                (held, now.min(20_000))
            );
        }
    }

    #[test]
    fn without_simulators_a_demo_is_not_entered() {
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
