//! A Chromium for one test, with a profile and a driver of its own.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::long_tasks::Effort;
use super::page_driver::Tab;

/// What Chromium may be called.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
];

/// Runs before each page's own scripts, and notes what the page does.
const WITNESS: &str = include_str!("mutation_recorder.js");

/// A browser. It ends with this value.
pub struct Chrome {
    client: Client,
    /// The window that a session begins with, until it is taken.
    first: Cell<Option<WindowHandle>>,
    session: String,
    driver: Child,
    port: u16,
    /// Removed after the browser has ended.
    _profile: TempDir,
}

impl Chrome {
    /// Starts a browser with an empty profile.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = start_driver(profile.path()).await;
        let mut flags = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({
            "goog:chromeOptions": { "binary": binary(&BROWSERS), "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
            // In a page one waits for conditions, each with a limit of its own.
            "timeouts": { "script": 300_000, "pageLoad": 30_000 },
        });
        let Value::Object(wanted) = wanted else {
            unreachable!()
        };
        let wanted: Capabilities = wanted.into_iter().collect();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let first = Cell::new(Some(client.window().await.unwrap()));
        let session = client.session_id().await.unwrap().unwrap();
        Self {
            client,
            first,
            session,
            driver,
            port,
            _profile: profile,
        }
    }

    /// Opens this address in a window of its own. All windows share the profile.
    pub async fn open(&self, address: &str) -> Tab {
        let window = match self.first.take() {
            Some(window) => window,
            None => self.client.new_window(false).await.unwrap().handle,
        };
        let tab = Tab::new(self.client.clone(), window);
        tab.cdp(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": WITNESS }),
        )
        .await;
        tab.go(address).await;
        tab
    }

    /// Watches from now on how long its pages' threads run.
    pub fn effort(&self) -> Effort {
        Effort::watch(self.driver.id().unwrap())
    }

    /// What the browser itself had to complain of since it was last asked: failed requests, refused resources, errors.
    pub async fn complaints(&self) -> Vec<String> {
        let log = Drive {
            path: "se/log",
            body: json!({ "type": "browser" }),
        };
        let entries = self.client.issue_cmd(log).await.unwrap();
        let entries = entries.as_array().unwrap().iter();
        let bad = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Chrome {
    /// A driver that is killed leaves its browser behind, so it is asked to end it; without a runtime, since a test may have failed.
    fn drop(&mut self) {
        if let Ok(mut driver) = TcpStream::connect(("127.0.0.1", self.port)) {
            let session = &self.session;
            let end = format!("DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
            let _ = driver.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = driver.write_all(end.as_bytes());
            // It answers when that is done, and keeps the connection.
            let _ = driver.read(&mut [0; 256]);
        }
        let _ = self.driver.start_kill();
    }
}

/// A command of ChromeDriver's own.
#[derive(Debug)]
pub struct Drive {
    /// What follows the session in its address.
    pub path: &'static str,
    /// Its arguments.
    pub body: Value,
}

impl WebDriverCompatibleCommand for Drive {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// Starts the driver on a free port, which it tells. All that it and the browser leave behind goes into this folder.
async fn start_driver(folder: &Path) -> (Child, u16) {
    // It takes a port that is free for IPv4, and ends where that is taken for IPv6.
    for _ in 0..5 {
        if let Some(started) = try_driver(folder).await {
            return started;
        }
    }
    panic!("chromedriver ended before it began");
}

async fn try_driver(folder: &Path) -> Option<(Child, u16)> {
    let mut command = Command::new(binary(&["chromedriver"]));
    command.env("HOME", folder).env("TMPDIR", folder);
    command
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut driver = command.kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        if let Some(port) = line.strip_prefix("ChromeDriver was started successfully on port ") {
            // What else it says has to go somewhere.
            tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
            return Some((driver, port.trim_end_matches('.').parse().unwrap()));
        }
    }
    None
}

/// The first of these programs that is installed.
fn binary(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let mut places = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = places.find(|place| Path::is_file(place));
    found.unwrap_or_else(|| {
        panic!(
            "the browser's tests need {}: tests/run.sh installs it",
            names.join(" or ")
        )
    })
}
