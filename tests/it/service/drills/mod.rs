//! Outage drills as real clients see them: every fault for a new call and for an answer under way, over both doors; their end; what is kept of them.

mod cleanup;
mod faults;
mod invalid_requests;
mod reports;

use std::time::Duration;

use failsoft::config::{Secret, Settings};
use serde_json::{Value, json};

use crate::harness::{Act, Answer, ScriptedProvider, TestApp, WsClient, answer, settings, soon};

const TOKEN: &str = "admin-canary";

const BETA: &str = "The whole answer of beta.";

fn twenty() -> Vec<String> {
    (1..=20).map(|n| format!("{n}, ")).collect()
}

fn told(tokens: usize) -> String {
    twenty().into_iter().take(tokens).collect()
}

struct Ground {
    alpha: ScriptedProvider,
    beta: ScriptedProvider,
    app: TestApp,
}

async fn order(app: &TestApp, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let request = app
        .request(method, path)
        .header("authorization", &format!("Bearer {TOKEN}"));
    match body {
        Some(body) => request.json(body).send().await,
        None => request.send().await,
    }
}

impl Ground {
    /// Alpha does this, and is given up soon; beta answers.
    async fn of(alpha: Vec<Act>, change: impl FnOnce(&mut Settings)) -> Self {
        let (alpha, beta) = (
            ScriptedProvider::start(alpha).await,
            ScriptedProvider::answering(BETA).await,
        );
        let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
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

    async fn begin(&self, fault: &str) -> Value {
        self.begin_with(&json!({ "provider": "alpha", "fault": fault, "for": "10m" }))
            .await
    }

    async fn begin_with(&self, body: &Value) -> Value {
        let begun = order(&self.app, "POST", "/admin/drills", Some(body)).await;
        assert_eq!(begun.status, 200, "{}", begun.body);
        begun.json()
    }

    async fn end(&self) -> Value {
        order(&self.app, "DELETE", "/admin/drills", None)
            .await
            .json()["ended"]
            .clone()
    }

    async fn list(&self) -> Value {
        order(&self.app, "GET", "/admin/drills", None).await.json()
    }

    /// The newest report, once all of its turns have ended.
    async fn report(&self) -> Value {
        soon("the report", async {
            loop {
                let report = self.list().await["reports"][0].clone();
                if report["turns"]["under_way"] == 0 {
                    return report;
                }
            }
        })
        .await
    }

    /// Nothing is left of the drill: alpha answers again.
    async fn is_lifted(&self) {
        let state = self.app.provider("alpha").await;
        assert_eq!(
            (&state["state"], &state["retry_at"], &state["drill"]),
            (&json!("closed"), &json!(null), &json!(null))
        );
        self.alpha.usually(answer("alpha is back"));
        assert_eq!(
            WsClient::open(&self.app).await.answered("Who?").await.text,
            "alpha is back"
        );
    }
}

/// The whole answer of alpha, word by word.
fn counts() -> Vec<Act> {
    answer(&told(20))
}
