//! A Redis server for one test, on a Unix socket in a temporary folder.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A Redis server. Dropping it kills the server.
pub struct RedisServer {
    folder: TempDir,
    server: Option<Child>,
    extra_args: Vec<String>,
    /// The number of connections since the start which this test opened itself.
    own_connections: AtomicUsize,
}

impl RedisServer {
    /// Starts a server and waits until it accepts connections. `more` are extra arguments.
    pub fn start(more: &[&str]) -> Self {
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        let mut redis = Self {
            folder: TempDir::new().unwrap(),
            server: None,
            extra_args: more,
            own_connections: AtomicUsize::new(0),
        };
        redis.restart();
        redis
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts the server again with its files, and waits until it accepts connections.
    pub fn restart(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.socket());
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ]);
        command
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.extra_args);
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.expect("redis-server is installed by tests/run.sh"));
        // The connection below which succeeds.
        self.own_connections.store(1, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(
                Instant::now() < deadline,
                "redis-server does not accept connections"
            );
            std::thread::yield_now();
        }
    }

    /// Kills the server. Data which is only in memory is lost.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Stops the process, with its connections left open, until [`Redis::go_on`].
    pub fn pause(&self) {
        self.send_signal("-STOP");
    }

    pub fn resume(&self) {
        self.send_signal("-CONT");
    }

    fn send_signal(&self, signal: &str) {
        let id = self.server.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Runs a command with `redis-cli` and returns its output.
    pub fn command(&self, words: &[&str]) -> String {
        self.own_connections.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new("redis-cli");
        let output = command
            .arg("-s")
            .arg(self.socket())
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Returns the number of connections since the start which others opened.
    pub fn client_connections(&self) -> usize {
        let stats = self.command(&["INFO", "stats"]);
        let total = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"))
            .unwrap();
        total.trim().parse::<usize>().unwrap() - self.own_connections.load(Ordering::Relaxed)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
