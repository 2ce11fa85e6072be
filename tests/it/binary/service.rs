//! The binary as a child process.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::http::{Answer, request};
use super::wait_for;

/// The start of the first line on stdout.
const READY_PREFIX: &str = "failsoft listening on http://";

/// A command line of the binary, in `folder` and with an empty environment.
pub fn failsoft(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_failsoft"));
    command
        .current_dir(folder)
        .env_clear()
        .args(arguments)
        .kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Like [`failsoft`], with each file limited to this many blocks of 512 bytes. Writes beyond the
/// limit fail, as on a full disk.
pub fn failsoft_with_file_limit(folder: &Path, arguments: &[&str], blocks: u32) -> Command {
    let mut command = Command::new("/bin/sh");
    // Ignore SIGXFSZ, which would end the process; a full disk sends no signal.
    let line = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
    command
        .args([
            "-c",
            line,
            "sh",
            &blocks.to_string(),
            env!("CARGO_BIN_EXE_failsoft"),
        ])
        .args(arguments);
    command.current_dir(folder).env_clear().kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The exit of a process and all of its output.
pub struct ProcessExit {
    /// The exit code, or `None` if a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> ProcessExit {
    let ended = wait_for("the end of the command", command.output())
        .await
        .unwrap();
    let [stdout, stderr] =
        [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    ProcessExit {
        code: ended.status.code(),
        stdout,
        stderr,
    }
}

/// One output of a process, collected as it arrives.
#[derive(Clone)]
struct CapturedOutput(watch::Receiver<Vec<u8>>);

impl CapturedOutput {
    fn follow(mut output: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = output.read(&mut bytes).await {
                sender.send_modify(|text| text.extend_from_slice(&bytes[..read]));
            }
        });
        Self(receiver)
    }

    fn empty() -> Self {
        Self(watch::channel(Vec::new()).1)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }

    /// Waits for the first line. Returns `None` if the output ends without one.
    async fn first_line(&mut self) -> Option<String> {
        let has_line = |text: &Vec<u8>| text.contains(&b'\n');
        drop(self.0.wait_for(has_line).await.ok()?);
        self.text().lines().next().map(str::to_owned)
    }

    /// Waits for the end of the output, and returns all of it.
    async fn end(mut self) -> String {
        while self.0.changed().await.is_ok() {}
        self.text()
    }
}

/// A running service. It is killed when it is dropped.
pub struct Service {
    /// The port of the ready line.
    pub port: u16,
    child: Child,
    stdout: CapturedOutput,
    stderr: CapturedOutput,
}

impl Service {
    /// Starts the service in `folder`, with this configuration, on a free port.
    ///
    /// The answer cache is off unless the configuration has a `[cache]` table, so that every
    /// question reaches a provider.
    pub async fn start(folder: &Path, config: &str) -> Self {
        Self::start_on(folder, config, 0).await
    }

    pub async fn start_on(folder: &Path, config: &str, port: u16) -> Self {
        let cache = if config.contains("[cache]") {
            ""
        } else {
            "\n[cache]\nenabled = false\n"
        };
        std::fs::write(folder.join("failsoft.toml"), format!("{config}{cache}")).unwrap();
        Self::of(failsoft(
            folder,
            &["--listen", &format!("127.0.0.1:{port}")],
        ))
        .await
    }

    /// Starts the service with this command line, and waits for the ready line.
    pub async fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = CapturedOutput::follow(child.stdout.take().unwrap());
        let stderr = child
            .stderr
            .take()
            .map_or_else(CapturedOutput::empty, CapturedOutput::follow);
        let line = wait_for("the ready line", stdout.first_line()).await;
        let Some(line) = line else {
            panic!("it ended instead of starting:\n{}", stderr.end().await)
        };
        let address = line
            .strip_prefix(READY_PREFIX)
            .unwrap_or_else(|| panic!("not the ready line: {line}"));
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self {
            port,
            child,
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The log so far.
    pub fn logged(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal, by its name without `SIG`.
    pub async fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &line]).status().await;
        assert!(sent.unwrap().success(), "{line}");
    }

    /// Kills the process with SIGKILL, and returns its log.
    pub async fn kill(mut self) -> String {
        wait_for("its death", self.child.kill()).await.unwrap();
        self.stderr.end().await
    }

    /// Sends SIGTERM, and waits for the exit.
    pub async fn stop(self) -> ProcessExit {
        self.signal("TERM").await;
        self.wait_for_exit().await
    }

    pub async fn wait_for_exit(mut self) -> ProcessExit {
        let status: ExitStatus = wait_for("its end", self.child.wait()).await.unwrap();
        ProcessExit {
            code: status.code(),
            stdout: self.stdout.end().await,
            stderr: self.stderr.end().await,
        }
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub async fn get(&self, path: &str) -> Answer {
        request(self.port, &format!("GET {path} HTTP/1.1\r\n"), "")
            .await
            .unwrap()
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
        request(self.port, &head, &body.to_string()).await.unwrap()
    }

    /// The current `/status.json`.
    pub async fn status(&self) -> serde_json::Value {
        self.get("/status.json").await.json()
    }

    /// Polls `/status.json` until it matches, and returns it.
    pub async fn wait_for_status(
        &self,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let asking = async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                // There is no event to wait for: the status can only be polled.
                tokio::task::yield_now().await;
            }
        };
        wait_for(what, asking).await
    }
}

/// A duration in milliseconds, for the figures that tests print.
pub fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
