//! The processes that are measured: started on a core of their own, looked at through /proc, gone when their handle is.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::oneshot;

/// How long one may take until it says where it listens.
const READY: Duration = Duration::from_secs(20);

/// Clock ticks a second, as /proc counts them. It is the same on every Linux.
const TICKS: f64 = 100.0;

/// A running process. Dropping it kills it.
pub struct Process {
    child: Child,
    /// The first line that it printed.
    pub said: String,
    /// From its start until it said so.
    pub ready_after: Duration,
}

/// Where a process runs.
#[derive(Clone, Copy, Debug)]
pub enum Core {
    /// The one of the load.
    Load,
    /// The one that is measured.
    Measured,
}

impl Core {
    fn number(self) -> &'static str {
        match self {
            Self::Load => "0",
            Self::Measured => "1",
        }
    }
}

impl Process {
    /// Starts a program and waits for its first line.
    pub async fn start(core: Core, program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        // Also where this program is killed, nothing is left over.
        command.args(["--pdeathsig", "KILL", "taskset", "-c", core.number()]);
        command.arg(program).args(arguments).env_remove("RUST_LOG");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command
            .spawn()
            .context("needs setpriv and taskset (util-linux)")?;
        let output = child.stdout.take().context("its output")?;
        let mut process = Self {
            child,
            said: String::new(),
            ready_after: Duration::ZERO,
        };
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            let line = lines.next().and_then(Result::ok);
            let _ = tell.send(line.map(|line| (line, begun.elapsed())));
            // It may print more.
            lines.for_each(drop);
        });
        let line = tokio::time::timeout(READY, told)
            .await
            .context("it is not ready in time")?;
        let line = line?.with_context(|| format!("{} did not start", program.display()))?;
        (process.said, process.ready_after) = line;
        Ok(process)
    }

    /// The port in its first line: the digits at the end.
    pub fn port(&self) -> anyhow::Result<u16> {
        let digits = self
            .said
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        digits
            .parse()
            .with_context(|| format!("no port in: {}", self.said))
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
            .context("the process is gone")
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        ensure!(fields.len() > 12, "/proc/PID/stat");
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS)
    }

    /// Bytes of memory in use.
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
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when its input does: when whoever started it is gone.
pub fn end_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}
