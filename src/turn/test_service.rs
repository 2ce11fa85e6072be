//! A service without sockets for tests on a paused clock: real actors, router and turns over
//! scripted providers and a store that can be made to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor as _, Addr};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::conversations::{ConversationRegistry, LiveConversation, NewMessage};
use super::deps::{ShutdownPhase, TurnDeps, TurnOptions};
use super::followups::{FollowupQueue, RetryPacing};
use super::log::TurnLog;
use super::metrics::TurnMetrics;
use super::observer::TurnObserver;
use super::service::{OpenTurnError, TurnService};
use crate::actor_exit::{ActorExited, CrashForTest, ExitGuard};
use crate::config::{CacheSettings, ChatSettings, LimitSettings, Settings};
use crate::degradation::{AnswerCache, FallbackChain, Replies};
use crate::domain::{ConversationId, TurnRecord};
use crate::provider::clock::Clock;
use crate::provider::paused_system::run_until_idle;
use crate::provider::scripted_client::{RecordedCall, Script};
use crate::provider::test_bench::{BenchOptions, ProviderBench};
use crate::router::actor::{RouterActor, RouterParts};
use crate::router::runtime_config::RuntimeConfig;
use crate::store::ConversationStore as _;
use crate::store::flaky::FlakyStore;

pub const FALLBACK_TEXT: &str = "Sorry, later.";

pub const MAX_TURNS: usize = 8;

#[derive(Clone)]
pub struct TestServiceBuilder {
    /// The providers in order of preference.
    pub providers: Vec<BenchOptions>,
    pub settings: Settings,
    pub followup_pacing: RetryPacing,
}

impl TestServiceBuilder {
    /// A service with these providers and the default settings.
    pub fn with_providers(plans: impl IntoIterator<Item = BenchOptions>) -> Self {
        Self {
            providers: plans.into_iter().collect(),
            settings: Settings {
                chat: ChatSettings {
                    system_prompt: "Be kind.".into(),
                    ..ChatSettings::default()
                },
                cache: CacheSettings {
                    enabled: false,
                    ..CacheSettings::default()
                },
                limits: LimitSettings {
                    turns: MAX_TURNS,
                    ..LimitSettings::default()
                },
                ..Settings::default()
            },
            followup_pacing: RetryPacing {
                min_interval: Duration::from_millis(200),
                max_interval: Duration::from_secs(2),
                base_backoff: Duration::from_secs(10),
                max_backoff: Duration::from_secs(25),
            },
        }
    }

    /// A service with providers `a`, `b`, `c` … that follow these scripts.
    pub fn with_scripts<const N: usize>(scripts: [Vec<Script>; N]) -> Self {
        let names = ["a", "b", "c", "d"];
        Self::with_providers(
            names
                .into_iter()
                .zip(scripts)
                .map(|(name, scripts)| BenchOptions::new(name).with_scripts(scripts)),
        )
    }

    /// Starts the service. The clock must be paused already.
    pub fn start(self) -> TestService {
        let store = Arc::new(FlakyStore::default());
        let clock = Clock::start();
        let start = |plan| ProviderBench::start(plan, clock, Arc::clone(&store) as _);
        let benches: Vec<_> = self.providers.into_iter().map(start).collect();
        let providers: Arc<[_]> = benches
            .iter()
            .map(|bench| Arc::clone(&bench.provider))
            .collect();
        let metrics = TurnMetrics::new(providers.iter().map(|provider| &provider.name)).unwrap();
        let cache = AnswerCache::new(
            Arc::clone(&store) as _,
            self.settings.cache.clone(),
            Arc::clone(&self.settings.chat.system_prompt),
        );
        let config = watch::Sender::new(Arc::new(RuntimeConfig::new(
            self.settings.into(),
            providers,
        )));
        let seed = RouterParts {
            config: config.subscribe(),
            clock,
            random_unit: || 0.5,
        };
        let (addr, router) = watch::channel(None);
        let (exits_tx, exits) = mpsc::channel(16);
        let (phase_tx, phase) = watch::channel(ShutdownPhase::Running);
        let chain = watch::Sender::new(Arc::new(FallbackChain::new(
            Replies::default(),
            FALLBACK_TEXT,
        )));
        let deps = TurnDeps {
            conversations: Arc::new(ConversationRegistry::default()),
            store: Arc::clone(&store) as _,
            router,
            config_watch: config.subscribe(),
            router_queue: Arc::default(),
            fallback_chain: chain.subscribe(),
            answer_cache: Arc::new(cache),
            warm_now: Notify::new(),
            single_flight: Arc::default(),
            turn_limit: Arc::default(),
            followup_queue: FollowupQueue::new(true, self.followup_pacing, || 0.5),
            replication: None,
            phase,
            store_healthy: watch::Sender::new(true),
            observer: TurnObserver::new(metrics),
            tracer: None,
            clock,
            random_u64: next_random,
        };
        let stage = TestService {
            turns: Arc::new(TurnService::new(deps)),
            providers: benches,
            store,
            phase: phase_tx,
            config,
            router: RouterHandle {
                seed,
                addr,
                exits_tx,
                exits,
            },
            fallback_chain: chain,
        };
        stage.router.restart();
        stage
    }
}

/// Returns a different number at each call.
fn next_random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// The router's actor, which a test can crash and restart.
pub struct RouterHandle {
    seed: RouterParts,
    addr: watch::Sender<Option<Addr<RouterActor>>>,
    exits_tx: mpsc::Sender<ActorExited>,
    exits: mpsc::Receiver<ActorExited>,
}

impl RouterHandle {
    /// Starts a new actor with the same state as the first.
    pub fn restart(&self) {
        let guard = ExitGuard::new("router".into(), self.exits_tx.clone());
        self.addr
            .send_replace(Some(RouterActor::new(self.seed.clone(), guard).start()));
    }

    /// Makes the actor panic and waits until it is gone. It is not restarted.
    pub async fn crash(&mut self) {
        self.addr().do_send(CrashForTest);
        self.exits.recv().await.unwrap();
    }

    pub fn addr(&self) -> Addr<RouterActor> {
        self.addr.borrow().clone().unwrap()
    }
}

pub struct TestService {
    pub turns: Arc<TurnService>,
    pub providers: Vec<ProviderBench>,
    pub store: Arc<FlakyStore>,
    pub phase: watch::Sender<ShutdownPhase>,
    pub config: watch::Sender<Arc<RuntimeConfig>>,
    pub router: RouterHandle,
    pub fallback_chain: watch::Sender<Arc<FallbackChain>>,
}

pub fn conversation_id(number: u8) -> ConversationId {
    ConversationId::from_random([number; 16])
}

pub fn message(name: &str, text: &str) -> NewMessage {
    NewMessage {
        client_msg_id: name.parse().unwrap(),
        text: text.to_owned(),
        retry_of: None,
    }
}

impl TestService {
    /// The conversation that `ask` uses.
    pub fn conversation(&self) -> Arc<LiveConversation> {
        self.turns.conversations.get_or_create(conversation_id(1))
    }

    /// Starts a turn in conversation 1.
    pub fn ask(&self, name: &str) -> Arc<TurnLog> {
        self.ask_with_options(name, self.turns.default_options())
    }

    pub fn ask_with_options(&self, name: &str, options: TurnOptions) -> Arc<TurnLog> {
        match self.try_ask(name, options) {
            Ok(log) => log,
            Err(_) => panic!("refused"),
        }
    }

    pub fn try_ask(&self, name: &str, options: TurnOptions) -> Result<Arc<TurnLog>, OpenTurnError> {
        self.turns
            .start_turn(&self.conversation(), message(name, "What is new?"), options)
    }

    /// Stores finished turns in conversation 1, answered by an AI in 1970.
    pub async fn store_old_turns(&self, turns: u64) {
        for number in 1..=turns {
            let turn = crate::domain::TurnId::next_after(None, number, 0);
            let name = format!("old{number}").parse().unwrap();
            let mut record = TurnRecord::new(
                turn,
                name,
                crate::domain::Timestamp(number),
                format!("q{number}"),
                None,
            );
            record.text = format!("a{number}");
            record.state = crate::domain::TurnState::Done;
            record.source = Some(crate::domain::AnswerSource::Ai);
            record.finish = Some(crate::domain::FinishReason::Stop);
            self.store
                .write_turn(conversation_id(1), record)
                .await
                .unwrap();
        }
    }

    pub fn reload(&self, change: impl FnOnce(&mut Settings)) {
        self.config.send_modify(|table| {
            let mut settings = Settings::clone(&table.settings);
            change(&mut settings);
            *table = Arc::new(RuntimeConfig {
                settings: settings.into(),
                ..RuntimeConfig::clone(table)
            });
        });
    }

    pub fn calls(&self, bench: usize) -> Vec<RecordedCall> {
        self.providers[bench].client.calls()
    }

    pub async fn stored_turn(&self, log: &TurnLog) -> Option<TurnRecord> {
        self.store
            .turn(conversation_id(1), log.turn())
            .await
            .unwrap()
    }

    /// Waits for the turn's `done` and returns the time it was written.
    pub async fn wait_until_done(&self, log: &Arc<TurnLog>) -> Instant {
        let mut follower = log.follow();
        while follower.next().await.is_some() {}
        Instant::now()
    }

    /// Asserts that finished turns have left nothing behind: no permit, no call, no connection.
    pub async fn assert_idle(&self) {
        run_until_idle().await;
        assert_eq!(self.turns.turn_limit.in_use(), 0, "turn permits");
        for bench in &self.providers {
            let name = &bench.provider.name;
            assert_eq!(bench.free_slots(), bench.total_slots(), "permits of {name}");
            assert_eq!(
                bench.provider.status.borrow().in_flight,
                0,
                "in flight at {name}"
            );
            assert_eq!(bench.client.open_connections(), 0, "connections to {name}");
        }
    }
}

impl Drop for TestService {
    /// Stops the actors. They hold a watch of their own address and would live as long as the
    /// thread.
    fn drop(&mut self) {
        self.router.addr.send_replace(None);
        self.providers.iter().for_each(ProviderBench::remove_actor);
    }
}
