//! Measured processes: pinned to a core, observed through /proc, killed with their handle.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::oneshot;

/// The longest wait for a process's first line.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Clock ticks per second in /proc. The same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process. Dropping it kills it.
pub struct Process {
    child: Child,
    /// The first line of its output.
    pub first_line: String,
    /// The time from its start to its first line.
    pub ready_after: Duration,
}

/// The core on which a process runs.
#[derive(Clone, Copy, Debug)]
pub enum CpuCore {
    /// Shared by load and provider.
    Load,
    /// Only for the measured process.
    Measured,
}

impl CpuCore {
    fn number(self) -> &'static str {
        match self {
            Self::Load => "0",
            Self::Measured => "1",
        }
    }
}

impl Process {
    /// Starts a program and waits for its first line.
    pub async fn start(core: CpuCore, program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        // The kernel kills the process even if this program is killed.
        command.args(["--pdeathsig", "KILL", "taskset", "-c", core.number()]);
        command.arg(program).args(arguments).env_remove("RUST_LOG");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .context("needs setpriv and taskset (util-linux)")?;
        let output = child.stdout.take().context("its output")?;
        let mut process = Self {
            child,
            first_line: String::new(),
            ready_after: Duration::ZERO,
        };
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            let line = lines.next().and_then(Result::ok);
            let _ = sender.send(line.map(|line| (line, started.elapsed())));
            // Drain the rest, so that the process never blocks on a full pipe.
            lines.for_each(drop);
        });
        let line = tokio::time::timeout(READY_TIMEOUT, receiver)
            .await
            .context("not ready in time")?;
        let line = line?.with_context(|| format!("{} did not start", program.display()))?;
        (process.first_line, process.ready_after) = line;
        Ok(process)
    }

    /// Returns the port in its first line: the digits at the end.
    pub fn port(&self) -> anyhow::Result<u16> {
        let digits = self
            .first_line
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        digits
            .parse()
            .with_context(|| format!("no port in: {}", self.first_line))
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
            .context("the process is gone")
    }

    /// Returns the CPU time so far in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        ensure!(fields.len() > 12, "/proc/PID/stat");
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS_PER_SECOND)
    }

    /// Returns the resident memory in bytes.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? * 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exits when standard input ends, which happens when the parent process is gone.
pub fn end_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}
