//! The service as it is built, on an actix system of its own thread, with what tests look at.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use failsoft::app::App;
use failsoft::config::{ConfigErrors, Dialect, LoadedConfig, ProviderSource, Secret, Settings};
use failsoft::degradation::{DegradationActor, SelfCheckConfig};
use failsoft::provider::handle::{AddrWatch, Provider, ProviderStatus};
use failsoft::session::service::ChatService;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::http::Request;
use super::provider::ScriptedProvider;
use super::soon;

/// A running service. Dropping it stops it in the background.
pub struct TestApp {
    /// The port of loopback that it listens on.
    pub port: u16,
    /// What sessions are served with.
    pub lobby: Arc<ChatService>,
    /// Where the DegradationActor is.
    pub degradation: AddrWatch<DegradationActor>,
    data: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Settings with these providers, in order of preference, without saved answers, so that every question asks a provider: small waits before retries and after trips, but time enough for answers on a
/// busy machine. A test that wants a provider given up quickly says so of that provider.
pub fn settings(providers: &[(&str, &ScriptedProvider)]) -> Settings {
    let mut settings = Settings::default();
    settings.server.drain = Duration::from_millis(200);
    settings.server.workers = 2;
    settings.cache.enabled = false;
    settings.retry.call.base = Duration::from_millis(5);
    settings.retry.call.max = Duration::from_millis(20);
    settings.breaker.open_for = Duration::from_millis(200);
    settings.breaker.open_max = Duration::from_millis(400);
    // What is asked late would be counted with what a test asks.
    settings.degradation.outbox = false;
    settings.limits.messages_per_minute = 10_000;
    settings.limits.messages_per_minute_per_ip = 10_000;
    for (name, scripted) in providers {
        let mut provider = settings.new_provider(name, Dialect::OpenAi);
        provider.base_url = scripted.base_url();
        provider.model = format!("{name}-model");
        provider.api_key = Some(Secret::new("sk-canary-key"));
        settings.providers.push(provider);
    }
    settings
}

/// Reads the same again and again.
fn as_it_is(
    settings: &Settings,
) -> impl Fn() -> Result<LoadedConfig, ConfigErrors> + Send + Sync + 'static {
    let (settings, warnings, source, file) =
        (settings.clone(), Vec::new(), ProviderSource::File, None);
    let loaded = LoadedConfig {
        settings,
        warnings,
        source,
        file,
    };
    move || Ok(loaded.clone())
}

impl TestApp {
    /// A service with these providers.
    pub async fn of(providers: &[(&str, &ScriptedProvider)]) -> Self {
        Self::start(settings(providers)).await
    }

    /// A service with these settings, in a data folder of its own.
    pub async fn start(settings: Settings) -> Self {
        Self::in_folder(settings, Arc::new(TempDir::new().unwrap())).await
    }

    /// A service whose data folder is `data` within this one.
    pub async fn in_folder(settings: Settings, data: Arc<TempDir>) -> Self {
        let read = as_it_is(&settings);
        Self::built(settings, data, SelfCheckConfig::DEFAULT_INTERVAL, read).await
    }

    /// A service that looks so often after what answers without a provider.
    pub async fn checking(settings: Settings, every: Duration) -> Self {
        let read = as_it_is(&settings);
        Self::built(settings, Arc::new(TempDir::new().unwrap()), every, read).await
    }

    /// A service that reads this file at a reload.
    pub async fn reading(settings: Settings, data: Arc<TempDir>, file: PathBuf) -> Self {
        Self::built(
            settings,
            data,
            SelfCheckConfig::DEFAULT_INTERVAL,
            move || Settings::load(Some(&file), &|_| None),
        )
        .await
    }

    async fn built(
        mut settings: Settings,
        data: Arc<TempDir>,
        self_check: Duration,
        read: impl Fn() -> Result<LoadedConfig, ConfigErrors> + Send + Sync + 'static,
    ) -> Self {
        let folder = data.path().join("data");
        // A test says nothing of these, so no reload finds them changed.
        let placed = move |settings: &mut Settings| {
            settings.server.listen = "127.0.0.1:0".into();
            settings.server.data_dir.clone_from(&folder);
        };
        placed(&mut settings);
        let read = Arc::new(move || {
            let mut loaded = read()?;
            placed(&mut loaded.settings);
            Ok(loaded)
        });
        let (stop, stopped) = oneshot::channel();
        let (built, building) = oneshot::channel();
        let folder = Arc::clone(&data);
        let thread = std::thread::spawn(move || {
            let ran = actix::System::new().block_on(async {
                let app = App::build_with_self_check(settings, read, self_check).await?;
                let parts = (app.port(), app.chat_service(), app.degradation());
                assert!(built.send(parts).is_ok(), "the test is gone");
                app.run_until_stopped(async { drop(stopped.await) }).await
            });
            drop(folder);
            ran
        });
        let Ok((port, lobby, degradation)) = soon("the service to start", building).await else {
            panic!("the service did not start: {:?}", thread.join());
        };
        Self {
            port,
            lobby,
            degradation,
            data,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Asks it to stop, as a signal would.
    pub fn stop(&mut self) {
        self.stop.take();
    }

    /// Stops it and waits until it has stopped. Gives its folder, for the next one.
    pub async fn stopped(mut self) -> Arc<TempDir> {
        self.stop();
        let thread = self.thread.take().unwrap();
        let joined = tokio::task::spawn_blocking(move || thread.join());
        soon("the service to stop", joined)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let data = Arc::clone(&self.data);
        drop(self);
        // Its store is closed on a thread of its own, which lets go of the lock at last.
        let lock = File::open(data.path().join("data").join("lock")).unwrap();
        let locked = tokio::task::spawn_blocking(move || lock.lock());
        soon("the folder to be let go", locked)
            .await
            .unwrap()
            .unwrap();
        data
    }

    /// A request to it.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.port, method, path)
    }

    /// `GET /status.json`.
    pub async fn status(&self) -> Value {
        self.request("GET", "/status.json").send().await.json()
    }

    /// One provider's part of `/status.json`.
    pub async fn provider(&self, name: &str) -> Value {
        let status = self.status().await;
        let providers = status["providers"].as_array().unwrap().clone();
        providers
            .into_iter()
            .find(|one| one["name"] == name)
            .unwrap()
    }

    /// A backend.
    pub fn backend(&self, name: &str) -> Arc<Provider> {
        Arc::clone(self.lobby.turns.config().provider(name).unwrap())
    }

    /// Waits until a provider's vitals are so.
    #[track_caller]
    pub fn vitals(
        &self,
        name: &str,
        so: impl FnMut(&ProviderStatus) -> bool,
    ) -> impl Future<Output = ProviderStatus> {
        let mut vitals = self.backend(name).status.clone();
        soon("a provider's vitals", async move {
            vitals.wait_for(so).await.unwrap().clone()
        })
    }

    /// Waits until no turn runs and every permit is back; within 5 s, as after every fault.
    #[track_caller]
    pub fn at_rest(&self) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        let lobby = Arc::clone(&self.lobby);
        let rest = async move {
            lobby.turns.turn_limit.wait_idle().await;
            for backend in lobby.turns.config().providers.iter() {
                let mut vitals = backend.status.clone();
                drop(
                    vitals
                        .wait_for(|vitals| vitals.in_flight == 0)
                        .await
                        .unwrap(),
                );
            }
        };
        async move {
            let rested = tokio::time::timeout(Duration::from_secs(5), rest).await;
            assert!(rested.is_ok(), "{place}: something is still under way");
        }
    }
}
