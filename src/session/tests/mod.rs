//! Sessions without sockets: frames in, frames out, on a paused clock.

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

use super::drive::{Out, drive};
use super::identity::sign;
use super::limits::Rates;
use super::lobby::Lobby;
use crate::chat::{Fault, Mode, StatusView};
use crate::provider::paused::{Paused, pass, settled};
use crate::provider::scripted::{Act, Script, breaks, fails, says, says_slowly};
use crate::settings::Secret;
use crate::store::flaky::Trouble;
use crate::turn::stage::{FALLBACK, House, Stage, conversation};

/// What visitors' tokens are signed with.
const SECRET: &str = "a secret of at least thirty-two bytes";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A stage with a door for visitors.
struct Hall {
    stage: Stage,
    lobby: Arc<Lobby>,
    status: watch::Sender<Arc<StatusView>>,
}

fn view(message: &str) -> Arc<StatusView> {
    Arc::new(StatusView {
        mode: Mode::Normal,
        since: crate::chat::At(0),
        incident: None,
        message: message.to_owned(),
        active: None,
        providers: Vec::new(),
        drill: None,
    })
}

impl Hall {
    fn of(mut house: House) -> Self {
        let settings = &mut house.settings;
        settings.chat.greeting = "Hello!".to_owned();
        settings.chat.max_message_chars = 100;
        settings.chat.visitor_options = true;
        settings.widget.identity_secret = Some(Secret::new(SECRET));
        let stage = house.open();
        let (status, watched) = watch::channel(view(""));
        let many = NonZeroU32::new(1_000_000).unwrap();
        let lobby = Lobby {
            desk: Arc::clone(&stage.desk),
            status: watched,
            rates: Rates::per_minute(many, many),
        };
        Self {
            stage,
            lobby: Arc::new(lobby),
            status,
        }
    }

    /// With backends `a`, `b` … that follow these scripts.
    fn following<const N: usize>(scripts: [Vec<Script>; N]) -> Self {
        Self::of(House::following(scripts))
    }

    /// A tab that has not said hello.
    fn tab(&self) -> Tab {
        let (say, from) = mpsc::channel(64);
        let (to, hear) = mpsc::channel(2);
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        actix::spawn(drive(Arc::clone(&self.lobby), peer, from, to));
        Tab {
            say,
            hear,
            heard: Vec::new().into_iter(),
        }
    }

    /// A tab in conversation 1, and its welcome.
    async fn enter(&self) -> (Tab, Value) {
        self.enter_at(Value::Null).await
    }

    /// The same, with a turn to resume.
    async fn enter_at(&self, resume: Value) -> (Tab, Value) {
        let mut tab = self.tab();
        tab.say(json!({"type": "hello", "conversation": conversation(1), "resume": resume}))
            .await;
        let welcome = tab.hear().await;
        assert_eq!(welcome["type"], "welcome");
        (tab, welcome)
    }
}

/// A client's end of a session.
struct Tab {
    say: mpsc::Sender<bytestring::ByteString>,
    hear: mpsc::Receiver<Out>,
    heard: std::vec::IntoIter<bytestring::ByteString>,
}

impl Tab {
    async fn say(&self, frame: Value) {
        self.say_text(&frame.to_string()).await;
    }

    async fn say_text(&self, text: &str) {
        assert!(self.say.send(text.into()).await.is_ok());
    }

    async fn send(&self, id: &str, text: &str) {
        self.say(json!({"type": "send", "client_msg_id": id, "text": text}))
            .await;
    }

    /// The next frame, heartbeats included; or the Close, as `{"close": code}`; null where the session just ends.
    async fn next(&mut self) -> Value {
        loop {
            if let Some(frame) = self.heard.next() {
                return serde_json::from_str(&frame).unwrap();
            }
            match tokio::time::timeout(s(3_600), self.hear.recv())
                .await
                .unwrap()
            {
                Some(Out::Frames(frames)) => self.heard = frames.into_iter(),
                Some(Out::Close(code, _)) => return json!({ "close": code }),
                None => return Value::Null,
            }
        }
    }

    /// The next frame that is no heartbeat.
    async fn hear(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] != "heartbeat" {
                return frame;
            }
        }
    }

    /// The next frame of this type.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.hear().await;
            assert!(
                !frame.is_null() && frame.get("close").is_none(),
                "{frame} instead of {kind}"
            );
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The code of the next `error`.
    async fn refused(&mut self) -> String {
        let error = self.hear().await;
        assert_eq!(error["type"], "error", "{error}");
        error["code"].as_str().unwrap().to_owned()
    }

    /// Nothing more than heartbeats for a while.
    async fn silent(&mut self) {
        let more = tokio::time::timeout(s(60), self.hear()).await;
        assert!(more.is_err(), "{more:?}");
    }
}
