//! The service as its users start it: the binary, with a configuration file and a data folder of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

/// A running service. It is killed when the test is done with it.
pub struct Service {
    folder: TempDir,
    process: Child,
    port: u16,
}

impl Service {
    /// The demo, as it is without any configuration but for where its data lie.
    pub fn demo() -> Self {
        Self::configured("")
    }

    /// A service with these tables in its configuration.
    pub fn configured(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let server = format!("[server]\ndata_dir = {data:?}\n\n{tables}");
        fs::write(folder.path().join("failsoft.toml"), server).unwrap();
        let (process, port) = start(&folder);
        Self { folder, process, port }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Ends the process as a crash does.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after [`Self::kill`], on another port.
    pub fn start_again(&mut self) {
        (self.process, self.port) = start(&self.folder);
    }

    /// Breaks a provider of the demo, or mends it with `none`, as the page's panel does.
    pub async fn fault(&self, provider: &str, fault: &str) {
        self.command(provider, json!({ "fault": fault })).await;
    }

    /// Breaks a provider of the demo for some time.
    pub async fn fault_for(&self, provider: &str, fault: &str, time: &str) {
        self.command(provider, json!({ "fault": fault, "for": time })).await;
    }

    async fn command(&self, provider: &str, command: Value) {
        failsoft::provider::transport::install_tls();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let post = http.post(format!("{}demo/providers/{provider}", self.address()));
        let answer = post.json(&command).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{provider}: {command}");
    }

    /// The turns of a conversation, as another of its pages is told them.
    pub async fn history(&self, conversation: &str) -> Vec<Value> {
        let address = format!("ws://127.0.0.1:{}/ws", self.port);
        let (mut line, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let hello = json!({ "type": "hello", "conversation": conversation, "resume": null });
        line.send(Message::text(hello.to_string())).await.unwrap();
        while let Some(message) = line.next().await {
            let frame: Value = serde_json::from_str(message.unwrap().to_text().unwrap()).unwrap();
            if frame["type"] == "welcome" {
                return frame["history"].as_array().unwrap().clone();
            }
        }
        panic!("no welcome came")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("the service's log:\n{log}");
        }
    }
}

/// Starts the binary, without any key of the machine's own, and waits until it is ready.
fn start(folder: &TempDir) -> (Child, u16) {
    let log = File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_failsoft"));
    command.env_clear().current_dir(folder.path()).args(["--listen", "127.0.0.1:0"]);
    let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let port = ready.trim_end().strip_prefix("failsoft listening on http://127.0.0.1:");
    let port = port.unwrap_or_else(|| panic!("not ready, but {ready:?}")).parse().unwrap();
    (process, port)
}
