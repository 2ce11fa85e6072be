//! The binary as a child process.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::http::{Answer, request};
use super::within;

/// What the first line on stdout begins with.
const READY: &str = "failsoft listening on http://";

/// A command line of the binary: in `folder`, with nothing of this process's environment.
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

/// The same for a process none of whose files may have more than so many blocks of 512 bytes. What it writes beyond fails, as on a full disk.
pub fn confined(folder: &Path, arguments: &[&str], blocks: u32) -> Command {
    let mut command = Command::new("/bin/sh");
    // The signal that a write beyond the limit brings would end the process; a full disk sends none.
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

/// How a process ended.
pub struct Ended {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// All it said on stdout.
    pub out: String,
    /// All it said on stderr.
    pub err: String,
}

/// Runs a command line that ends by itself.
pub async fn run(mut command: Command) -> Ended {
    let ended = within("the end of the command", command.output())
        .await
        .unwrap();
    let [out, err] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ended {
        code: ended.status.code(),
        out,
        err,
    }
}

/// What a process says on one of its outputs, as it comes.
#[derive(Clone)]
struct Said(watch::Receiver<Vec<u8>>);

impl Said {
    fn follow(mut output: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (said, heard) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = output.read(&mut bytes).await {
                said.send_modify(|text| text.extend_from_slice(&bytes[..read]));
            }
        });
        Self(heard)
    }

    fn nothing() -> Self {
        Self(watch::channel(Vec::new()).1)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }

    /// Waits for the first line; none where the output ends without one.
    async fn first_line(&mut self) -> Option<String> {
        let whole = |text: &Vec<u8>| text.contains(&b'\n');
        drop(self.0.wait_for(whole).await.ok()?);
        self.text().lines().next().map(str::to_owned)
    }

    /// Waits for the output's end and gives all of it.
    async fn end(mut self) -> String {
        while self.0.changed().await.is_ok() {}
        self.text()
    }
}

/// A running service. It is killed where the test is done with it before its end.
pub struct Service {
    /// The port it says it listens on.
    pub port: u16,
    child: Child,
    out: Said,
    err: Said,
}

impl Service {
    /// Starts the service in `folder`, with this configuration, on a free port. Without saved answers, unless the configuration speaks of them:
    /// every question asks a provider.
    pub async fn start(folder: &Path, config: &str) -> Self {
        Self::start_on(folder, config, 0).await
    }

    /// Starts it on this port.
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

    /// Starts it by this command line, and waits until it says that it is ready.
    pub async fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut out = Said::follow(child.stdout.take().unwrap());
        let err = child.stderr.take().map_or_else(Said::nothing, Said::follow);
        let line = within("the ready line", out.first_line()).await;
        let Some(line) = line else {
            panic!("it ended instead of starting:\n{}", err.end().await)
        };
        let address = line
            .strip_prefix(READY)
            .unwrap_or_else(|| panic!("not the ready line: {line}"));
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self {
            port,
            child,
            out,
            err,
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What it logged so far.
    pub fn logged(&self) -> String {
        self.err.text()
    }

    /// Sends it a signal by name.
    pub async fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &line]).status().await;
        assert!(sent.unwrap().success(), "{line}");
    }

    /// Ends it as a crash does, and gives what it logged.
    pub async fn kill(mut self) -> String {
        within("its death", self.child.kill()).await.unwrap();
        self.err.end().await
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(self) -> Ended {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let status: ExitStatus = within("its end", self.child.wait()).await.unwrap();
        Ended {
            code: status.code(),
            out: self.out.end().await,
            err: self.err.end().await,
        }
    }

    /// Whether it ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Asks for a page.
    pub async fn get(&self, path: &str) -> Answer {
        request(self.port, &format!("GET {path} HTTP/1.1\r\n"), "")
            .await
            .unwrap()
    }

    /// Sends JSON.
    pub async fn post(&self, path: &str, body: serde_json::Value) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
        request(self.port, &head, &body.to_string()).await.unwrap()
    }

    /// `/status.json` as it is now.
    pub async fn status(&self) -> serde_json::Value {
        self.get("/status.json").await.json()
    }

    /// `/status.json`, as soon as it is as wanted.
    pub async fn status_when(
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
                // Everything else in this test waits for events; the status is a view that has none to wait for.
                tokio::task::yield_now().await;
            }
        };
        within(what, asking).await
    }
}

/// A duration in words, for the figures that tests print.
pub fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
