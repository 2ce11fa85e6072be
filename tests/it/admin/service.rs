//! A service with a configuration file that a test may write anew, and orders to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failsoft::config::Settings;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, ScriptedProvider, TestApp};

/// The admin token of each service here.
pub const TOKEN: &str = "admin-canary";

/// The key that providers are asked with where a test says nothing else.
pub const KEY: &str = "sk-canary-key";

/// A running service and its configuration file.
pub struct Configured {
    /// It.
    pub app: TestApp,
    file: PathBuf,
}

/// A provider in the words of a configuration file, with the lines that come after its own.
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

/// A configuration with an admin token, without saved or late answers, with these tables after its own.
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

impl Configured {
    /// A service that is configured so.
    pub async fn start(text: &str) -> Self {
        let data = Arc::new(TempDir::new().unwrap());
        let file = data.path().join("failsoft.toml");
        std::fs::write(&file, text).unwrap();
        let settings = read(&file).unwrap().settings;
        let app = TestApp::reading(settings, data, file.clone()).await;
        Self { app, file }
    }

    /// Writes the file anew. Nothing happens before a reload.
    pub fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// Where files lie that the configuration may name.
    pub fn folder(&self) -> &Path {
        self.app.data()
    }

    /// Gives an order with the admin token.
    pub async fn order(&self, method: &str, path: &str) -> Answer {
        self.order_with(method, path, None).await
    }

    /// The same, with a body.
    pub async fn order_with(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let request = self
            .app
            .request(method, path)
            .header("authorization", &format!("Bearer {TOKEN}"));
        match body {
            Some(body) => request.json(body).send().await,
            None => request.send().await,
        }
    }

    /// Writes the file anew and has it read; it must be taken over.
    #[track_caller]
    pub fn reload(&self, text: &str) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        self.write(text);
        async move {
            let answer = self.order("POST", "/admin/reload").await;
            assert_eq!(answer.status, 200, "{place}: {}", answer.body);
            answer.json()
        }
    }

    /// The entries of the audit log, as `action subject outcome`, the newest first.
    pub async fn audit(&self) -> Vec<String> {
        let list = self.order("GET", "/admin/audit").await.json();
        let of = |entry: &Value| {
            let words = ["action", "subject", "outcome", "peer"]
                .map(|key| entry[key].as_str().unwrap_or("-"));
            words.join(" ")
        };
        list["entries"].as_array().unwrap().iter().map(of).collect()
    }
}
