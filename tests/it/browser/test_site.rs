//! What the browser visits: the binary as a process, with a folder of its own, in which it can be started again.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::http::Answer;
use crate::binary::service::Service;
use crate::binary::ws_client::Visitor;

/// The service. It is killed when the test is done with it; if the test failed, its log is told.
pub struct Site {
    folder: TempDir,
    tables: String,
    /// None while it is killed.
    running: Option<Service>,
}

impl Site {
    /// The demo, as it is without any configuration.
    pub async fn demo() -> Self {
        Self::configured("").await
    }

    /// A service with these tables in its configuration.
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

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.service().port
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port())
    }

    /// Ends the process as a crash does.
    pub async fn kill(&mut self) {
        self.running.take().unwrap().kill().await;
    }

    /// Starts it again after [`Self::kill`], on another port.
    pub async fn start_again(&mut self) {
        self.running = Some(Service::start(self.folder.path(), &self.tables).await);
    }

    /// Breaks a provider of the demo, or mends it with `none`, as the page's panel does.
    pub async fn fault(&self, provider: &str, fault: &str) {
        self.command(provider, json!({ "fault": fault })).await;
    }

    /// Breaks a provider of the demo for some time.
    pub async fn fault_for(&self, provider: &str, fault: &str, time: &str) {
        self.command(provider, json!({ "fault": fault, "for": time }))
            .await;
    }

    async fn command(&self, provider: &str, command: Value) {
        let answer = self
            .service()
            .post(&format!("/demo/providers/{provider}"), command.clone())
            .await;
        assert_eq!(answer.status, 200, "{provider}: {command}");
    }

    /// Asks for an address of it.
    pub async fn get(&self, path: &str) -> Answer {
        self.service().get(path).await
    }

    /// Sends JSON to an address of it.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.service().post(path, body.clone()).await
    }

    /// The turns of a conversation, as another of its pages is told them.
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
