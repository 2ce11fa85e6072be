//! The processes under load: provider, proxy and service.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::load::{Endpoint, Route};
use crate::process::{CpuCore, Process};

/// All processes and their files. Dropping it kills and deletes them.
pub struct Testbed {
    service_program: PathBuf,
    folder: TempDir,
    _provider: Process,
    /// The provider port which fails where the question says so.
    pub faulty: u16,
    /// The provider port which never fails.
    pub sound: u16,
    pub proxy: Process,
    services: u32,
}

/// The providers configured for a service.
#[derive(Clone, Copy, Debug)]
pub enum Providers {
    /// The provider's sound port.
    Sound,
    /// The faulty port first, then the sound one.
    FaultyThenSound,
    /// A port on which nobody listens.
    Unreachable,
}

impl Testbed {
    pub async fn open(service: &Path) -> anyhow::Result<Self> {
        let service_program = std::path::absolute(service)?;
        let program = std::env::current_exe()?;
        let provider = Process::start(CpuCore::Load, &program, &["provider"])
            .await
            .context("the provider")?;
        let (faulty, sound) = provider
            .first_line
            .split_once(' ')
            .context("the provider's ports")?;
        let faulty = faulty.parse()?;
        let sound = sound.parse()?;
        let proxy = start_proxy(sound).await?;
        // Beside the program, which is on a disk: the cost of the store is part of the measurement.
        let folder = TempDir::with_prefix_in("bench-", program.parent().context("no folder")?)?;
        Ok(Self {
            service_program,
            folder,
            _provider: provider,
            faulty,
            sound,
            proxy,
            services: 0,
        })
    }

    /// Starts a new service with an empty store and default limits, except those per client
    /// address.
    pub async fn service(&mut self, providers: Providers) -> anyhow::Result<Process> {
        self.services += 1;
        let folder = self.folder.path().join(self.services.to_string());
        std::fs::create_dir(&folder)?;
        let faulty = self.faulty;
        let sound = self.sound;
        let provider_tables = match providers {
            Providers::Sound => provider("only", sound),
            Providers::FaultyThenSound => provider("first", faulty) + &provider("second", sound),
            Providers::Unreachable => provider("gone", 9),
        };
        let many = "1000000000";
        // A failed provider must be tried again at the next turn, and a failover must not be a
        // retry.
        let settings = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"{}\"\n\n\
            [limits]\nconnections_per_ip = 20000\nturns = 10000\n\
            messages_per_minute = {many}\nmessages_per_minute_per_ip = {many}\n\n\
            [retry]\nsame_provider = 0\n\n\
            [breaker]\nfailure_rate = 1.0\nstream_failure_rate = 1.0\n{provider_tables}",
            folder.join("data").display()
        );
        let file = folder.join("failsoft.toml");
        std::fs::write(&file, settings)?;
        let file = file.to_str().context("a path which is not UTF-8")?;
        Process::start(
            CpuCore::Measured,
            &self.service_program,
            &["--config", file],
        )
        .await
        .context("the service")
    }

    /// Starts a fresh proxy.
    pub async fn proxy(&self) -> anyhow::Result<Process> {
        start_proxy(self.sound).await
    }

    /// Returns all routes to the provider, with this service.
    pub fn routes(&self, service: &Process) -> anyhow::Result<[Endpoint; 4]> {
        let port = service.port()?;
        Ok([
            Endpoint {
                route: Route::Direct,
                port: self.sound,
            },
            Endpoint {
                route: Route::Proxy,
                port: self.proxy.port()?,
            },
            Endpoint {
                route: Route::V1,
                port,
            },
            Endpoint {
                route: Route::Ws,
                port,
            },
        ])
    }
}

async fn start_proxy(provider: u16) -> anyhow::Result<Process> {
    let url = format!("http://127.0.0.1:{provider}");
    let program = std::env::current_exe()?;
    Process::start(CpuCore::Measured, &program, &["proxy", "--provider", &url])
        .await
        .context("the proxy")
}

fn provider(name: &str, port: u16) -> String {
    format!(
        "\n[[providers]]\nname = \"{name}\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
        model = \"m\"\napi_key = \"\"\nmax_concurrent = 10000\n"
    )
}
