//! A service with a configuration file that a test can rewrite, and admin requests to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failsoft::config::Settings;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{ScriptedProvider, TestApp, TestResponse};

pub const TOKEN: &str = "admin-canary";

/// The API key of providers whose configuration sets no other.
pub const KEY: &str = "sk-canary-key";

/// A running service and its configuration file.
pub struct ConfiguredService {
    pub app: TestApp,
    file: PathBuf,
}

/// A provider's table for the configuration file, with additional lines.
pub fn provider(name: &str, scripted: &ScriptedProvider, more: &str) -> String {
    let url = scripted.base_url();
    let key = if more.contains("api_key") {
        String::new()
    } else {
        format!("api_key = \"{KEY}\"\n")
    };
    format!(
        "[[providers]]\nname = \"{name}\"\ndialect = \"openai\"\nbase_url = \"{url}\"\nmodel = \"{name}-model\"\n{key}{more}\n"
    )
}

/// A configuration with an admin token, without the answer cache and follow-ups, and with these
/// additional tables.
pub fn configuration(tables: &[String]) -> String {
    let mut text = format!(
        "[server]\nadmin_token = \"{TOKEN}\"\ndrain = \"200ms\"\nworkers = 2\n[cache]\nenabled = false\n\
         [degradation]\noutbox = false\n[limits]\nmessages_per_minute = 10000\nmessages_per_minute_per_ip = 10000\n\
         connections_per_ip = 10000\n"
    );
    for table in tables {
        let _ = writeln!(text, "{table}");
    }
    text
}

fn read(file: &Path) -> Result<failsoft::config::LoadedConfig, failsoft::config::ConfigErrors> {
    Settings::load(Some(file), &|_| None)
}

impl ConfiguredService {
    pub async fn start(text: &str) -> Self {
        let data = Arc::new(TempDir::new().unwrap());
        let file = data.path().join("failsoft.toml");
        std::fs::write(&file, text).unwrap();
        let settings = read(&file).unwrap().settings;
        let app = TestApp::start_with_config_file(settings, data, file.clone()).await;
        Self { app, file }
    }

    /// Rewrites the file. It takes effect at the next reload.
    pub fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// The folder for files that the configuration names.
    pub fn folder(&self) -> &Path {
        self.app.root_dir()
    }

    /// Sends an admin request with the token.
    pub async fn admin_request(&self, method: &str, path: &str) -> TestResponse {
        self.admin_request_with(method, path, None).await
    }

    pub async fn admin_request_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> TestResponse {
        let request = self
            .app
            .request(method, path)
            .header("authorization", &format!("Bearer {TOKEN}"));
        match body {
            Some(body) => request.json(body).send().await,
            None => request.send().await,
        }
    }

    /// Rewrites the file and reloads it; panics unless the reload succeeds. Returns the report.
    #[track_caller]
    pub fn reload(&self, text: &str) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        self.write(text);
        async move {
            let answer = self.admin_request("POST", "/admin/reload").await;
            assert_eq!(answer.status, 200, "{place}: {}", answer.body);
            answer.json()
        }
    }

    /// The entries of the audit log as `action subject outcome peer`, newest first.
    pub async fn audit_entries(&self) -> Vec<String> {
        let list = self.admin_request("GET", "/admin/audit").await.json();
        let describe = |entry: &Value| {
            let words = ["action", "subject", "outcome", "peer"]
                .map(|key| entry[key].as_str().unwrap_or("-"));
            words.join(" ")
        };
        list["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(describe)
            .collect()
    }
}
