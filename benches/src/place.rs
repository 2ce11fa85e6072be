//! What the load goes through: the provider, the relay and the service, each its own process.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::load::{Line, Way};
use crate::process::{Core, Process};

/// All that is measured. What it wrote is deleted with it.
pub struct Place {
    service_program: PathBuf,
    folder: TempDir,
    _provider: Process,
    /// Breaks where it is told to.
    pub faulty: u16,
    /// Never breaks.
    pub sound: u16,
    pub relay: Process,
    services: u32,
}

/// Who stands behind a service.
#[derive(Clone, Copy, Debug)]
pub enum Behind {
    /// The provider.
    One,
    /// The port that breaks, and behind it the one that does not.
    Two,
    /// Nobody who answers.
    Nobody,
}

impl Place {
    pub async fn open(service: &Path) -> anyhow::Result<Self> {
        let service_program = std::path::absolute(service)?;
        let own = std::env::current_exe()?;
        let provider = Process::start(Core::Load, &own, &["provider"])
            .await
            .context("the provider")?;
        let (faulty, sound) = provider
            .said
            .split_once(' ')
            .context("the provider's ports")?;
        let (faulty, sound) = (faulty.parse()?, sound.parse()?);
        let relay = start_relay(sound).await?;
        // Beside the program, which lies on a disk: the store is to be measured too.
        let folder = TempDir::with_prefix_in("bench-", own.parent().context("no folder")?)?;
        Ok(Self {
            service_program,
            folder,
            _provider: provider,
            faulty,
            sound,
            relay,
            services: 0,
        })
    }

    /// Starts a new service with an empty store. Its limits are the defaults but for those that count who comes.
    pub async fn service(&mut self, behind: Behind) -> anyhow::Result<Process> {
        self.services += 1;
        let folder = self.folder.path().join(self.services.to_string());
        std::fs::create_dir(&folder)?;
        let (faulty, sound) = (self.faulty, self.sound);
        let providers = match behind {
            Behind::One => provider("only", sound),
            Behind::Two => provider("first", faulty) + &provider("second", sound),
            Behind::Nobody => provider("gone", 9),
        };
        let many = "1000000000";
        // Whoever fails here is to be asked again at the next turn, and a fail-over is to be one, not a retry.
        let settings = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"{}\"\n\n\
            [limits]\nconnections_per_ip = 20000\nturns = 10000\n\
            messages_per_minute = {many}\nmessages_per_minute_per_ip = {many}\n\n\
            [retry]\nsame_provider = 0\n\n\
            [breaker]\nfailure_rate = 1.0\nstream_failure_rate = 1.0\n{providers}",
            folder.join("data").display()
        );
        let file = folder.join("failsoft.toml");
        std::fs::write(&file, settings)?;
        let file = file.to_str().context("a path that is no text")?;
        Process::start(Core::Measured, &self.service_program, &["--config", file])
            .await
            .context("the service")
    }

    /// Starts another relay, that did nothing so far.
    pub async fn relay(&self) -> anyhow::Result<Process> {
        start_relay(self.sound).await
    }

    /// All ways to the provider, through this service.
    pub fn ways(&self, service: &Process) -> anyhow::Result<[Line; 4]> {
        let port = service.port()?;
        Ok([
            Line {
                way: Way::Straight,
                port: self.sound,
            },
            Line {
                way: Way::Relay,
                port: self.relay.port()?,
            },
            Line { way: Way::V1, port },
            Line { way: Way::Ws, port },
        ])
    }
}

async fn start_relay(provider: u16) -> anyhow::Result<Process> {
    let url = format!("http://127.0.0.1:{provider}");
    let own = std::env::current_exe()?;
    Process::start(Core::Measured, &own, &["relay", "--provider", &url])
        .await
        .context("the relay")
}

fn provider(name: &str, port: u16) -> String {
    format!(
        "\n[[providers]]\nname = \"{name}\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
        model = \"m\"\napi_key = \"\"\nmax_concurrent = 10000\n"
    )
}
