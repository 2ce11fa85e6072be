//! A Chromium for one test, with its own profile and its own driver.

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

use super::long_tasks::CpuTimeWatch;
use super::page_driver::BrowserTab;

/// The names under which Chromium may be installed.
const BROWSER_NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

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

/// Runs before each page's own scripts and records what the page does.
const RECORDER_SCRIPT: &str = include_str!("mutation_recorder.js");

/// A browser. Dropping it closes the browser.
pub struct Chrome {
    client: Client,
    /// The window with which a session starts, until it is used.
    unused_window: Cell<Option<WindowHandle>>,
    session_id: String,
    driver: Child,
    driver_port: u16,
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
        let capabilities = json!({
            "goog:chromeOptions": { "binary": find_program(&BROWSER_NAMES), "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
            // Scripts wait for conditions, each with a time limit of its own.
            "timeouts": { "script": 300_000, "pageLoad": 30_000 },
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let capabilities: Capabilities = capabilities.into_iter().collect();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let first = Cell::new(Some(client.window().await.unwrap()));
        let session = client.session_id().await.unwrap().unwrap();
        Self {
            client,
            unused_window: first,
            session_id: session,
            driver,
            driver_port: port,
            _profile: profile,
        }
    }

    /// Opens this address in a new window. All windows share the profile.
    pub async fn open(&self, address: &str) -> BrowserTab {
        let window = match self.unused_window.take() {
            Some(window) => window,
            None => self.client.new_window(false).await.unwrap().handle,
        };
        let tab = BrowserTab::new(self.client.clone(), window);
        tab.cdp(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": RECORDER_SCRIPT }),
        )
        .await;
        tab.open(address).await;
        tab
    }

    /// Starts to record the CPU time of the pages' threads.
    pub fn watch_cpu_time(&self) -> CpuTimeWatch {
        CpuTimeWatch::start(self.driver.id().unwrap())
    }

    /// Returns the warnings and errors which the browser logged since the last call: failed
    /// requests, refused resources, script errors.
    pub async fn console_warnings(&self) -> Vec<String> {
        let log = DriverCommand {
            path: "se/log",
            body: json!({ "type": "browser" }),
        };
        let entries = self.client.issue_cmd(log).await.unwrap();
        let entries = entries.as_array().unwrap().iter();
        let complaints =
            entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        complaints
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Chrome {
    /// Ends the session over a plain socket, since a failed test may have no runtime. A killed
    /// driver would leave its browser running.
    fn drop(&mut self) {
        if let Ok(mut driver) = TcpStream::connect(("127.0.0.1", self.driver_port)) {
            let session = &self.session_id;
            let end = format!("DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
            let _ = driver.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = driver.write_all(end.as_bytes());
            // The driver responds once the browser has ended, and keeps the connection open.
            let _ = driver.read(&mut [0; 256]);
        }
        let _ = self.driver.start_kill();
    }
}

/// A ChromeDriver command outside the WebDriver standard.
#[derive(Debug)]
pub struct DriverCommand {
    /// The URL path after the session id.
    pub path: &'static str,
    pub body: Value,
}

impl WebDriverCompatibleCommand for DriverCommand {
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

/// Starts the driver on a free port, which it prints. The files of the driver and the browser go
/// into this folder.
async fn start_driver(folder: &Path) -> (Child, u16) {
    // The driver picks a port which is free for IPv4, and exits if that is taken for IPv6.
    for _ in 0..5 {
        if let Some(started) = try_start_driver(folder).await {
            return started;
        }
    }
    panic!("chromedriver exited before it listened");
}

async fn try_start_driver(folder: &Path) -> Option<(Child, u16)> {
    let mut command = Command::new(find_program(&["chromedriver"]));
    command.env("HOME", folder).env("TMPDIR", folder);
    command
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut driver = command.kill_on_drop(true).spawn().unwrap();
    let mut output = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = output.next_line().await.unwrap() {
        if let Some(port) = line.strip_prefix("ChromeDriver was started successfully on port ") {
            // Drain the rest of the output, so that the driver never blocks on a full pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = output.next_line().await {} });
            return Some((driver, port.trim_end_matches('.').parse().unwrap()));
        }
    }
    None
}

/// Returns the first of these programs which is installed.
fn find_program(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let mut candidates = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = candidates.find(|path| Path::is_file(path));
    found.unwrap_or_else(|| {
        panic!(
            "the browser tests need {}: tests/run.sh installs it",
            names.join(" or ")
        )
    })
}
