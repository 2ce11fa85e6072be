//! The service binary as a process with a folder of its own, in which it can be restarted.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::http::Answer;
use crate::binary::service::Service;
use crate::binary::ws_client::Visitor;

/// The service. Dropping it kills the process, and prints its log if the test failed.
pub struct Site {
    folder: TempDir,
    tables: String,
    /// `None` while the service is killed.
    running: Option<Service>,
}

impl Site {
    /// Starts the demo, which needs no configuration.
    pub async fn demo() -> Self {
        Self::configured("").await
    }

    /// Starts a service with these TOML tables in its configuration.
    pub async fn configured(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(folder.path(), tables).await;
        Self {
            folder,
            tables: tables.to_owned(),
            running: Some(service),
        }
    }

    fn service(&self) -> &Service {
        self.running.as_ref().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.service().port
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port())
    }

    /// Kills the process, as a crash would.
    pub async fn kill(&mut self) {
        self.running.take().unwrap().kill().await;
    }

    /// Starts the service again after [`Self::kill`], on another port.
    pub async fn start_again(&mut self) {
        self.running = Some(Service::start(self.folder.path(), &self.tables).await);
    }

    /// Injects a fault into a demo provider, as the demo panel does. `none` ends it.
    pub async fn fault(&self, provider: &str, fault: &str) {
        self.command(provider, json!({ "fault": fault })).await;
    }

    /// Injects a fault into a demo provider for a limited time.
    pub async fn fault_for(&self, provider: &str, fault: &str, time: &str) {
        self.command(provider, json!({ "fault": fault, "for": time }))
            .await;
    }

    async fn command(&self, provider: &str, command: Value) {
        let response = self
            .service()
            .post(&format!("/demo/providers/{provider}"), command.clone())
            .await;
        assert_eq!(response.status, 200, "{provider}: {command}");
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.service().get(path).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.service().post(path, body.clone()).await
    }

    /// Returns the turns of a conversation as another client receives them.
    pub async fn history(&self, conversation: &str) -> Vec<Value> {
        Visitor::back(self.port(), conversation)
            .await
            .history()
            .to_vec()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(service) = self.running.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!("the service's log:\n{}", service.logged());
        }
    }
}
