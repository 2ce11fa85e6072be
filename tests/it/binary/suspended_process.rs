//! The whole process stops for three seconds, as on a suspended machine. Every answer continues, and
//! no breaker counts a failure.
#![cfg(target_os = "linux")]

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::blocked_thread::{STOPPED_FOR, Setup};
use super::provider::{ANSWER_END, Behavior, Provider};
use super::service::Service;
use super::ws_client::{ShownTurn, Visitor};
use super::{exclusive, wait_for};

#[tokio::test]
async fn a_suspended_process_continues_every_answer() {
    let _exclusive = exclusive().await;
    let mut setup = Setup::start().await;
    setup.service.signal("STOP").await;
    // The bytes that were already sent arrive, and then nothing more.
    let started = tokio::time::Instant::now();
    let silence = setup.reading.iter_mut().map(async |(_, visitor, shown)| {
        tokio::time::timeout_at(started + STOPPED_FOR, visitor.read_to_end(shown))
            .await
            .is_err()
    });
    assert!(join_all(silence).await.into_iter().all(|silent| silent));
    setup.service.signal("CONT").await;
    setup.assert_all_answers_complete().await;
    assert_eq!(setup.service.stop().await.code, Some(0));
}

/// A connect timeout that expires while the process is stopped is not the provider's failure.
#[tokio::test]
async fn a_connect_timeout_during_a_suspension_is_not_counted_as_a_failure() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    // It accepts connections and never completes a TLS handshake.
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[[providers]]\nname = \"stuck\"\ndialect = \"openai\"\nbase_url = \"https://127.0.0.1:{}/v1\"\nmodel = \"stuck-1\"\n\
         api_key = \"a-key\"\ntimeouts = {{ connect = \"2s\" }}\n{}",
        stuck.local_addr().unwrap().port(),
        provider.config()
    );
    let service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    for (is_suspended, failures) in [(true, 0), (false, 1)] {
        let mut shown = ShownTurn::default();
        visitor.send_message("who answers?").await;
        let _connection = wait_for("the connect", stuck.accept()).await.unwrap();
        if is_suspended {
            service.signal("STOP").await;
            let silence = tokio::time::timeout(STOPPED_FOR, visitor.read_to_end(&mut shown));
            assert!(silence.await.is_err(), "it answered while it was stopped");
            service.signal("CONT").await;
        }
        visitor.read_to_end(&mut shown).await;
        let outcome = &shown.done_field("tried")[0]["outcome"];
        assert_eq!(
            (outcome, shown.text.ends_with(ANSWER_END)),
            (&json!("timeout"), true),
            "{shown:?}"
        );
        let is_idle = |status: &Value| status["providers"][0]["in_flight"] == 0;
        let status = service.wait_for_status("no running call", is_idle).await;
        assert_eq!(
            status["providers"][0]["counts"]["failure"], failures,
            "{status}"
        );
    }
}
