//! The service as built for production, on an actix system in a thread of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use failsoft::actor_exit::AddrWatch;
use failsoft::app::App;
use failsoft::config::{ConfigErrors, Dialect, LoadedConfig, ProviderSource, Secret, Settings};
use failsoft::degradation::{DegradationActor, SelfCheckConfig};
use failsoft::provider::handle::Provider;
use failsoft::provider::status::ProviderStatus;
use failsoft::session::service::ChatService;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::eventually;
use super::http::TestRequest;
use super::provider::ScriptedProvider;

/// A running service. Dropping it stops the service in the background.
pub struct TestApp {
    /// The loopback port on which the service listens.
    pub port: u16,
    pub chat_service: Arc<ChatService>,
    pub degradation: AddrWatch<DegradationActor>,
    root_dir: Arc<TempDir>,
    request_stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Settings with these providers, in order of preference.
///
/// The cache is off, so that every question reaches a provider. Waits before retries and after
/// trips are short, but time limits are long enough for a busy machine: a test which needs a
/// provider to be given up quickly sets that provider's limits itself.
pub fn test_settings(providers: &[(&str, &ScriptedProvider)]) -> Settings {
    let mut settings = Settings::default();
    settings.server.drain = Duration::from_millis(200);
    settings.server.workers = 2;
    settings.cache.enabled = false;
    settings.retry.call.base = Duration::from_millis(5);
    settings.retry.call.max = Duration::from_millis(20);
    settings.breaker.open_for = Duration::from_millis(200);
    settings.breaker.open_max = Duration::from_millis(400);
    // Follow-up answers would be counted together with the questions which a test asks.
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

/// Returns a loader which yields the same settings at every reload.
fn constant_loader(
    settings: &Settings,
) -> impl Fn() -> Result<LoadedConfig, ConfigErrors> + Send + Sync + 'static {
    let loaded = LoadedConfig {
        settings: settings.clone(),
        warnings: Vec::new(),
        source: ProviderSource::File,
        file: None,
    };
    move || Ok(loaded.clone())
}

impl TestApp {
    /// Starts a service with these providers and otherwise default test settings.
    pub async fn with_providers(providers: &[(&str, &ScriptedProvider)]) -> Self {
        Self::start(test_settings(providers)).await
    }

    /// Starts a service with these settings and a data folder of its own.
    pub async fn start(settings: Settings) -> Self {
        Self::start_in(settings, Arc::new(TempDir::new().unwrap())).await
    }

    /// Starts a service whose data folder is `data` within this folder.
    pub async fn start_in(settings: Settings, data: Arc<TempDir>) -> Self {
        let read = constant_loader(&settings);
        Self::build(settings, data, SelfCheckConfig::DEFAULT_INTERVAL, read).await
    }

    /// Starts a service which runs its fallback self-check at this interval.
    pub async fn start_with_self_check_interval(settings: Settings, every: Duration) -> Self {
        let read = constant_loader(&settings);
        Self::build(settings, Arc::new(TempDir::new().unwrap()), every, read).await
    }

    /// Starts a service which reads this file at each reload.
    pub async fn start_with_config_file(
        settings: Settings,
        data: Arc<TempDir>,
        file: PathBuf,
    ) -> Self {
        Self::build(
            settings,
            data,
            SelfCheckConfig::DEFAULT_INTERVAL,
            move || Settings::load(Some(&file), &|_| None),
        )
        .await
    }

    async fn build(
        mut settings: Settings,
        data: Arc<TempDir>,
        self_check: Duration,
        read: impl Fn() -> Result<LoadedConfig, ConfigErrors> + Send + Sync + 'static,
    ) -> Self {
        let folder = data.path().join("data");
        // Set on every load, so that no reload finds these values changed.
        let set_listen_and_data_dir = move |settings: &mut Settings| {
            settings.server.listen = "127.0.0.1:0".into();
            settings.server.data_dir.clone_from(&folder);
        };
        set_listen_and_data_dir(&mut settings);
        let read = Arc::new(move || {
            let mut loaded = read()?;
            set_listen_and_data_dir(&mut loaded.settings);
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
        let Ok((port, chat_service, degradation)) =
            eventually("the service to start", building).await
        else {
            panic!("the service did not start: {:?}", thread.join());
        };
        Self {
            port,
            chat_service,
            degradation,
            root_dir: data,
            request_stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns the folder which contains the data folder `data`.
    pub fn root_dir(&self) -> &Path {
        self.root_dir.path()
    }

    /// Requests a shutdown, as a signal would.
    pub fn request_stop(&mut self) {
        self.request_stop.take();
    }

    /// Stops the service and waits for its end. Returns its folder for a successor.
    pub async fn shut_down(mut self) -> Arc<TempDir> {
        self.request_stop();
        let thread = self.thread.take().unwrap();
        let join = tokio::task::spawn_blocking(move || thread.join());
        eventually("the service to stop", join)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let data = Arc::clone(&self.root_dir);
        drop(self);
        // The store closes on a thread of its own, which releases the lock last.
        let lock = File::open(data.path().join("data").join("lock")).unwrap();
        let acquired = tokio::task::spawn_blocking(move || lock.lock());
        eventually("the data folder's lock to be released", acquired)
            .await
            .unwrap()
            .unwrap();
        data
    }

    pub fn request(&self, method: &str, path: &str) -> TestRequest {
        TestRequest::new(self.port, method, path)
    }

    /// Returns `GET /status.json`.
    pub async fn status(&self) -> Value {
        self.request("GET", "/status.json").send().await.json()
    }

    /// Returns one provider's part of `/status.json`.
    pub async fn provider_status(&self, name: &str) -> Value {
        let status = self.status().await;
        let providers = status["providers"].as_array().unwrap().clone();
        providers
            .into_iter()
            .find(|provider| provider["name"] == name)
            .unwrap()
    }

    pub fn provider(&self, name: &str) -> Arc<Provider> {
        Arc::clone(self.chat_service.turns.config().provider(name).unwrap())
    }

    /// Waits until a provider's status satisfies the predicate.
    #[track_caller]
    pub fn wait_for_status(
        &self,
        name: &str,
        predicate: impl FnMut(&ProviderStatus) -> bool,
    ) -> impl Future<Output = ProviderStatus> {
        let mut provider_status = self.provider(name).status.clone();
        eventually("a provider's status", async move {
            provider_status.wait_for(predicate).await.unwrap().clone()
        })
    }

    /// Waits until no turn runs and every permit is released. Panics after 5 s.
    #[track_caller]
    pub fn wait_until_idle(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let chat_service = Arc::clone(&self.chat_service);
        let idle = async move {
            chat_service.turns.turn_limit.wait_idle().await;
            for provider in chat_service.turns.config().providers.iter() {
                let mut provider_status = provider.status.clone();
                drop(
                    provider_status
                        .wait_for(|provider_status| provider_status.in_flight == 0)
                        .await
                        .unwrap(),
                );
            }
        };
        async move {
            let result = tokio::time::timeout(Duration::from_secs(5), idle).await;
            assert!(result.is_ok(), "{caller}: a turn or a call still runs");
        }
    }
}
