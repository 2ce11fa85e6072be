//! Sessions without sockets, on a paused clock.

mod asking;
mod hello;
mod pages;
mod visitors;
mod watching;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::rate_limit::RateLimiter;
use super::run::run_session;
use super::service::ChatService;
use super::visitor_token::sign_token;
use crate::config::Secret;
use crate::domain::{FaultKind, ServiceMode, StatusView};
use crate::provider::paused_system::{Paused, advance, run_until_idle};
use crate::provider::scripted_client::{
    Script, ScriptStep, break_after, fail_with, reply, reply_slowly,
};
use crate::store::flaky::StoreFault;
use crate::turn::test_service::{FALLBACK_TEXT, TestService, TestServiceBuilder, conversation_id};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A turn harness that accepts sessions.
struct TestChat {
    harness: TestService,
    service: Arc<ChatService>,
    status: watch::Sender<Arc<StatusView>>,
}

fn view(message: &str) -> Arc<StatusView> {
    Arc::new(StatusView {
        mode: ServiceMode::Normal,
        since: crate::domain::Timestamp(0),
        incident: None,
        message: message.to_owned(),
        active: None,
        providers: Vec::new(),
        drill: None,
    })
}

impl TestChat {
    fn with_harness(mut harness: TestServiceBuilder) -> Self {
        let settings = &mut harness.settings;
        settings.chat.greeting = "Hello!".to_owned();
        settings.chat.max_message_chars = 100;
        settings.chat.visitor_options = true;
        settings.widget.identity_secret = Some(Secret::new(SECRET));
        let harness = harness.start();
        let (status, watched) = watch::channel(view(""));
        let many = NonZeroU32::new(1_000_000).unwrap();
        let service = ChatService {
            turns: Arc::clone(&harness.turns),
            status: watched,
            rate_limiter: RateLimiter::per_minute(many, many),
        };
        Self {
            harness,
            service: Arc::new(service),
            status,
        }
    }

    /// Starts a service whose providers `a`, `b`, … follow these scripts.
    fn with_providers<const N: usize>(scripts: [Vec<Script>; N]) -> Self {
        Self::with_harness(TestServiceBuilder::with_scripts(scripts))
    }

    /// Opens a session that has not sent its `hello`.
    fn client(&self) -> TestClient {
        let (to_session, client_frames) = mpsc::channel(64);
        let (outgoing, from_session) = mpsc::channel(2);
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        actix::spawn(run_session(
            Arc::clone(&self.service),
            peer,
            client_frames,
            outgoing,
        ));
        TestClient {
            to_session,
            from_session,
            pending: Vec::new().into_iter(),
        }
    }

    /// Opens conversation 1 and returns the `welcome` frame too.
    async fn connect(&self) -> (TestClient, Value) {
        self.connect_resuming(Value::Null).await
    }

    async fn connect_resuming(&self, resume: Value) -> (TestClient, Value) {
        let mut client = self.client();
        client
            .send_frame(
                json!({"type": "hello", "conversation": conversation_id(1), "resume": resume}),
            )
            .await;
        let welcome = client.recv().await;
        assert_eq!(welcome["type"], "welcome");
        (client, welcome)
    }
}

struct TestClient {
    to_session: mpsc::Sender<bytestring::ByteString>,
    from_session: mpsc::Receiver<Outgoing>,
    pending: std::vec::IntoIter<bytestring::ByteString>,
}

impl TestClient {
    async fn send_frame(&self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    async fn send_text(&self, text: &str) {
        assert!(self.to_session.send(text.into()).await.is_ok());
    }

    async fn send(&self, id: &str, text: &str) {
        self.send_frame(json!({"type": "send", "client_msg_id": id, "text": text}))
            .await;
    }

    /// Returns the next frame, including heartbeats, `{"close": code}` for a close, or null if the
    /// session ended without one.
    async fn recv_any(&mut self) -> Value {
        loop {
            if let Some(frame) = self.pending.next() {
                return serde_json::from_str(&frame).unwrap();
            }
            match tokio::time::timeout(s(3_600), self.from_session.recv())
                .await
                .unwrap()
            {
                Some(Outgoing::Frames(frames)) => self.pending = frames.into_iter(),
                Some(Outgoing::Close(code, _)) => return json!({ "close": code }),
                None => return Value::Null,
            }
        }
    }

    /// Returns the next frame that is not a heartbeat.
    async fn recv(&mut self) -> Value {
        loop {
            let frame = self.recv_any().await;
            if frame["type"] != "heartbeat" {
                return frame;
            }
        }
    }

    /// Skips frames up to the next one of this type.
    async fn recv_type(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.recv().await;
            assert!(
                !frame.is_null() && frame.get("close").is_none(),
                "{frame} instead of {kind}"
            );
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Expects an `error` frame and returns its code.
    async fn recv_error_code(&mut self) -> String {
        let error = self.recv().await;
        assert_eq!(error["type"], "error", "{error}");
        error["code"].as_str().unwrap().to_owned()
    }

    /// Expects nothing but heartbeats for a minute.
    async fn expect_silence(&mut self) {
        let frame = tokio::time::timeout(s(60), self.recv()).await;
        assert!(frame.is_err(), "{frame:?}");
    }
}
