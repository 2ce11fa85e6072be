//! A rejected request is the caller's own fault: `/v1` returns the error, a chat gets an answer.

use serde_json::json;

use super::fault_matrix::{INTERFACES, Interface, Outcome, WHOLE, ask, error, service};
use crate::harness::{ScriptedProvider, streaming_body};

#[tokio::test]
async fn a_rejected_request_is_returned_to_api_callers_only() {
    for interface in INTERFACES {
        let message = "messages: at least one is required";
        let body =
            json!({ "message": message, "type": "invalid_request_error", "param": "messages" });
        let alpha = ScriptedProvider::start(error(400, "", &body)).await;
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = service(&alpha, &beta).await;
        // Six turns are more than would open a breaker.
        for turn in 1..=6 {
            let (outcome, expected, beta_calls) = match interface {
                Interface::WebSocket => (
                    ask(&app, interface).await,
                    Outcome::Text(WHOLE.into()),
                    turn,
                ),
                Interface::NonStream => (
                    ask(&app, interface).await,
                    Outcome::Error(400, message.into()),
                    0,
                ),
                Interface::Stream => {
                    let answer = app
                        .completion_request(&streaming_body("What?"))
                        .send()
                        .await;
                    let text = answer.json()["error"]["message"]
                        .as_str()
                        .unwrap()
                        .to_owned();
                    (
                        Outcome::Error(answer.status, text),
                        Outcome::Error(400, message.into()),
                        0,
                    )
                }
            };
            assert_eq!(outcome, expected, "{interface:?}");
            assert_eq!(
                (alpha.question_count(), beta.question_count()),
                (turn, beta_calls),
                "{interface:?}"
            );
        }
        assert_eq!(
            app.provider_status("alpha").await["state"],
            "closed",
            "{interface:?}: the breaker does not count it"
        );
    }
}
