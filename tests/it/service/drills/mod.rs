//! Outage drills as clients see them: faults, cleanup, invalid orders and reports.

mod cleanup;
mod faults;
mod invalid_requests;
mod reports;

use std::time::Duration;

use failsoft::config::{Secret, Settings};
use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, TestResponse, WsClient, eventually, full_answer,
    test_settings,
};

const TOKEN: &str = "admin-canary";

const BETA: &str = "The whole answer of beta.";

fn alpha_words() -> Vec<String> {
    (1..=20).map(|n| format!("{n}, ")).collect()
}

fn alpha_text(tokens: usize) -> String {
    alpha_words().into_iter().take(tokens).collect()
}

struct Drills {
    alpha: ScriptedProvider,
    beta: ScriptedProvider,
    app: TestApp,
}

async fn send_order(app: &TestApp, method: &str, path: &str, body: Option<&Value>) -> TestResponse {
    let request = app
        .request(method, path)
        .header("authorization", &format!("Bearer {TOKEN}"));
    match body {
        Some(body) => request.json(body).send().await,
        None => request.send().await,
    }
}

impl Drills {
    /// Starts alpha with the given script and short timeouts, and beta, which answers.
    async fn with_alpha(alpha: Vec<ScriptStep>, change: impl FnOnce(&mut Settings)) -> Self {
        let alpha = ScriptedProvider::start(alpha).await;
        let beta = ScriptedProvider::answering(BETA).await;
        let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
        settings.server.admin_token = Some(Secret::new(TOKEN));
        settings.providers[0].timeouts.first_token = vec![Duration::from_millis(500)];
        settings.providers[0].timeouts.stall = Duration::from_millis(500);
        change(&mut settings);
        Self {
            alpha,
            beta,
            app: TestApp::start(settings).await,
        }
    }

    async fn start(&self, fault: &str) -> Value {
        self.start_with(&json!({ "provider": "alpha", "fault": fault, "for": "10m" }))
            .await
    }

    async fn start_with(&self, body: &Value) -> Value {
        let answer = send_order(&self.app, "POST", "/admin/drills", Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    async fn end(&self) -> Value {
        send_order(&self.app, "DELETE", "/admin/drills", None)
            .await
            .json()["ended"]
            .clone()
    }

    async fn list(&self) -> Value {
        send_order(&self.app, "GET", "/admin/drills", None)
            .await
            .json()
    }

    /// The newest report, once all of its turns have ended.
    async fn report(&self) -> Value {
        eventually("the report", async {
            loop {
                let report = self.list().await["reports"][0].clone();
                if report["turns"]["under_way"] == 0 {
                    return report;
                }
            }
        })
        .await
    }

    /// Asserts that nothing is left of the drill: alpha answers again.
    async fn assert_no_trace(&self) {
        let state = self.app.provider_status("alpha").await;
        assert_eq!(
            (&state["state"], &state["retry_at"], &state["drill"]),
            (&json!("closed"), &json!(null), &json!(null))
        );
        self.alpha.script_default(full_answer("alpha is back"));
        assert_eq!(
            WsClient::open(&self.app)
                .await
                .ask_and_wait("Who?")
                .await
                .text,
            "alpha is back"
        );
    }
}

/// A script that says alpha's whole answer.
fn alpha_script() -> Vec<ScriptStep> {
    full_answer(&alpha_text(20))
}
