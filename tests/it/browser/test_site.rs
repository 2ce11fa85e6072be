//! The service binary as a process with a folder of its own, in which it can be restarted.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::http::Answer;
use crate::binary::service::Service;
use crate::binary::ws_client::Visitor;

/// The service. Dropping it kills the process, and prints its log if the test failed.
pub struct TestSite {
    folder: TempDir,
    config: String,
    /// `None` while the service is killed.
    service: Option<Service>,
}

impl TestSite {
    /// Starts the demo, which needs no configuration.
    pub async fn demo() -> Self {
        Self::with_config("").await
    }

    /// Starts a service with these TOML tables in its configuration.
    pub async fn with_config(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(folder.path(), tables).await;
        Self {
            folder,
            config: tables.to_owned(),
            service: Some(service),
        }
    }

    fn running_service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.running_service().port
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port())
    }

    /// Kills the process, as a crash would.
    pub async fn kill(&mut self) {
        self.service.take().unwrap().kill().await;
    }

    /// Starts the service again after [`Self::kill`], on another port.
    pub async fn restart(&mut self) {
        self.service = Some(Service::start(self.folder.path(), &self.config).await);
    }

    /// Injects a fault into a demo provider, as the demo panel does. `none` ends it.
    pub async fn set_fault(&self, provider: &str, fault: &str) {
        self.post_fault(provider, json!({ "fault": fault })).await;
    }

    /// Injects a fault into a demo provider for a limited time.
    pub async fn set_fault_for(&self, provider: &str, fault: &str, time: &str) {
        self.post_fault(provider, json!({ "fault": fault, "for": time }))
            .await;
    }

    async fn post_fault(&self, provider: &str, command: Value) {
        let response = self
            .running_service()
            .post(&format!("/demo/providers/{provider}"), command.clone())
            .await;
        assert_eq!(response.status, 200, "{provider}: {command}");
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.running_service().get(path).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.running_service().post(path, body.clone()).await
    }

    /// Returns the turns of a conversation as another client receives them.
    pub async fn history(&self, conversation: &str) -> Vec<Value> {
        Visitor::back(self.port(), conversation)
            .await
            .history()
            .to_vec()
    }
}

impl Drop for TestSite {
    fn drop(&mut self) {
        if let Some(service) = self.service.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!("the service's log:\n{}", service.logged());
        }
    }
}
