//! A Redis of a test's own: the real server, on a socket in a folder that goes with it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A Redis server. It is killed when this is dropped.
pub struct Redis {
    folder: TempDir,
    server: Option<Child>,
    more: Vec<String>,
    /// Connections that this test made itself since the start.
    own: AtomicUsize,
}

impl Redis {
    /// Starts one that takes commands; `more` are arguments for it besides the usual ones.
    pub fn start(more: &[&str]) -> Self {
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        let mut redis = Self {
            folder: TempDir::new().unwrap(),
            server: None,
            more,
            own: AtomicUsize::new(0),
        };
        redis.restart();
        redis
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts it again over what it has on disk, and waits until it takes connections.
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
            .args(&self.more);
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.expect("redis-server is installed by tests/run.sh"));
        // The one that finds it ready.
        self.own.store(1, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(
                Instant::now() < until,
                "redis-server does not take connections"
            );
            std::thread::yield_now();
        }
    }

    /// Kills it: what it had in memory alone is lost.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Stops its process, connections and all, until [`Redis::go_on`].
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.server.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Gives it a command by its own client, and returns what it says.
    pub fn tell(&self, words: &[&str]) -> String {
        self.own.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new("redis-cli");
        let told = command
            .arg("-s")
            .arg(self.socket())
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }

    /// How many connections others made since it started.
    pub fn connections(&self) -> usize {
        let stats = self.tell(&["INFO", "stats"]);
        let all = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"))
            .unwrap();
        all.trim().parse::<usize>().unwrap() - self.own.load(Ordering::Relaxed)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
