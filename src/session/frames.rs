//! The WebSocket protocol, version 1: every frame that is not part of a turn, in both directions.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::chat::{
    ClientMsgId, ConversationId, Feedback, Followup, StatusView, TurnId, TurnRecord,
};
use crate::degradation::cache::CacheUse;
use crate::settings::MidStream;
use crate::turn::log::encode;

/// The protocol's version.
pub const PROTOCOL: u32 = 1;

/// Seconds between heartbeats, and between the server's Pings.
pub const HEARTBEAT_S: u64 = 15;

/// What a client sends.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame.
    Hello {
        /// The conversation to open; a new one where there is none.
        conversation: Option<ConversationId>,
        /// Where the client stands in a turn.
        resume: Option<Resume>,
        /// A visitor's token of the host site.
        token: Option<String>,
    },
    /// Asks.
    Send {
        /// What the client calls the message.
        client_msg_id: ClientMsgId,
        /// The question.
        text: String,
        /// The visitor's wishes.
        #[serde(default, deserialize_with = "options")]
        options: Option<Options>,
    },
    /// Ends an answer.
    Stop {
        /// The turn.
        turn: TurnId,
    },
    /// Answers a turn's message again.
    Retry {
        /// The turn.
        turn: TurnId,
        /// What the client calls the new turn's message.
        client_msg_id: ClientMsgId,
    },
    /// A thumb.
    Feedback {
        /// The turn.
        turn: TurnId,
        /// Up or down.
        value: Feedback,
    },
    /// Asks for older turns.
    History {
        /// Those before this one.
        before: TurnId,
    },
    /// Answered by `pong`.
    Ping,
}

/// Where a client stands in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Resume {
    /// The turn.
    pub turn: TurnId,
    /// The last frame that it applied; 0 for none.
    pub seq: u64,
}

/// A visitor's wishes for one message.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Options {
    /// Ask this provider first.
    pub provider: Option<String>,
    /// False: only that one.
    pub failover: Option<bool>,
    /// How saved answers are used.
    pub cache: Option<CacheUse>,
    /// What to do when a provider fails in mid-answer.
    #[serde(default, deserialize_with = "mid_stream")]
    pub mid_stream: Option<MidStream>,
}

/// Options as an object: an array would else be read as the fields in their order.
///
/// # Errors
/// What is wrong, in serde's words.
pub fn options<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Options>, D::Error> {
    let fields = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(from)?;
    fields
        .map(|fields| Options::deserialize(serde_json::Value::Object(fields)))
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// The mode by its name in the configuration.
fn mid_stream<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<MidStream>, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    name.map(|name| name.parse().map_err(serde::de::Error::custom))
        .transpose()
}

/// Why a frame was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The frame is not of the protocol.
    BadRequest,
    /// The text is longer than `max_message_chars`.
    MessageTooLong,
    /// Another turn runs, or the service is full.
    Busy,
    /// Too many messages.
    RateLimited,
    /// No such turn.
    NotFound,
    /// The conversation is another visitor's.
    Unauthorized,
    /// The service is going down; another instance, or this one soon, takes the message.
    ShuttingDown,
    /// Our own fault.
    Internal,
}

/// A frame that was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Why, in a word.
    pub code: ErrorCode,
    /// Why, and what to do.
    pub message: String,
    /// When it may be tried again, in seconds.
    pub retry_after_s: Option<u64>,
    /// The message that it is about.
    pub client_msg_id: Option<String>,
}

impl Refusal {
    /// A refusal about no message in particular.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_s: None,
            client_msg_id: None,
        }
    }

    /// The same, about this message.
    pub fn about(self, message: &ClientMsgId) -> Self {
        Self {
            client_msg_id: Some(message.to_string()),
            ..self
        }
    }

    /// The same, to be tried again after so many seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }
}

/// What the server sends besides the frames of turns.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// Answers `hello`.
    Welcome(Box<Welcome<'a>>),
    /// A message is accepted: it will be answered.
    Accepted {
        /// What the client called it.
        client_msg_id: &'a ClientMsgId,
        /// Its turn.
        turn: TurnId,
        /// Whether it had a turn already.
        duplicate: bool,
        /// Whether it is on disk.
        durable: bool,
    },
    /// The late AI answer to a turn that got a degraded one or none.
    Followup {
        /// Which one.
        turn: TurnId,
        /// The answer.
        #[serde(flatten)]
        late: &'a Followup,
    },
    /// Older turns.
    History {
        /// Oldest first.
        turns: &'a [TurnRecord],
    },
    /// The service's state changed.
    Status(&'a StatusView),
    /// The server lives.
    Heartbeat,
    /// Answers `ping`.
    Pong,
    /// A frame was not carried out.
    Error {
        /// Why, in a word.
        code: ErrorCode,
        /// Why, and what to do.
        message: &'a str,
        /// When it may be tried again.
        retry_after_s: Option<u64>,
        /// The message that it is about.
        client_msg_id: Option<&'a str>,
    },
}

/// The fields of `welcome`.
#[derive(Debug, Serialize)]
pub struct Welcome<'a> {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The conversation that is open now.
    pub conversation: ConversationId,
    /// Its last turns.
    pub history: &'a [TurnRecord],
    /// The service's state.
    pub status: &'a StatusView,
    /// Bounds that a client should keep.
    pub limits: ClientLimits,
    /// [`HEARTBEAT_S`].
    pub heartbeat_s: u64,
    /// The chat's title.
    pub title: &'a str,
    /// What to greet with.
    pub greeting: &'a str,
    /// Whether the providers are simulated.
    pub demo: bool,
}

/// Bounds that a client should keep.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientLimits {
    /// The longest message, in characters.
    pub max_message_chars: usize,
}

impl ServerFrame<'_> {
    /// The frame as it goes over the wire.
    pub fn encode(&self) -> ByteString {
        encode(self)
    }
}

impl From<&Refusal> for ByteString {
    fn from(refusal: &Refusal) -> ByteString {
        let Refusal {
            code,
            message,
            retry_after_s,
            client_msg_id,
        } = refusal;
        let (code, retry_after_s) = (*code, *retry_after_s);
        ServerFrame::Error {
            code,
            message,
            retry_after_s,
            client_msg_id: client_msg_id.as_deref(),
        }
        .encode()
    }
}

/// Reads a client's frame.
///
/// # Errors
/// `bad_request` with what is wrong, and the message that it is about where the frame names one.
pub fn decode(text: &str) -> Result<ClientFrame, Refusal> {
    let bad = |what: String| Refusal::new(ErrorCode::BadRequest, what);
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| bad(format!("the frame is not JSON: {error}")))?;
    if !value.is_object() {
        return Err(bad("the frame is not a JSON object".into()));
    }
    let about = value
        .get("client_msg_id")
        .and_then(|id| id.as_str())
        .map(|id| id.chars().take(64).collect());
    serde_json::from_value(value).map_err(|error| Refusal {
        client_msg_id: about,
        ..bad(format!("the frame is not of the protocol: {error}"))
    })
}

/// The message that a frame is about, if it names one.
pub fn message_of(text: &str) -> Option<ClientMsgId> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("client_msg_id")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_frame() {
        let id = "000000000001000000000000000a";
        for text in [
            r#"{"type":"hello"}"#.to_owned(),
            r#"{"type":"hello","conversation":null,"resume":null,"later":1}"#.to_owned(),
            format!(
                r#"{{"type":"hello","conversation":"AAAAAAAAAAAAAAAAAAAAAA","resume":{{"turn":"{id}","seq":3}}}}"#
            ),
            r#"{"type":"send","client_msg_id":"a","text":"hi","options":{"cache":"off","failover":false}}"#
                .to_owned(),
            format!(r#"{{"type":"stop","turn":"{id}"}}"#),
            format!(r#"{{"type":"retry","turn":"{id}","client_msg_id":"b"}}"#),
            format!(r#"{{"type":"feedback","turn":"{id}","value":"up"}}"#),
            format!(r#"{{"type":"history","before":"{id}"}}"#),
            r#"{"type":"ping","extra":true}"#.to_owned(),
        ] {
            assert!(decode(&text).is_ok(), "{text}: {:?}", decode(&text));
        }
    }

    #[test]
    fn says_what_is_wrong_and_with_which_message() {
        for (text, part) in [
            ("", "not JSON"),
            ("[1]", "not a JSON object"),
            ("{}", "type"),
            (r#"{"type":"shout"}"#, "shout"),
            (
                r#"{"type":"send","client_msg_id":"","text":"x"}"#,
                "1 to 64",
            ),
            (r#"{"type":"send","client_msg_id":"a"}"#, "text"),
            (
                r#"{"type":"send","client_msg_id":"a","text":"x","options":["alpha",false,"off",null]}"#,
                "expected a map",
            ),
            (r#"{"type":"stop","turn":"x"}"#, "28 hexadecimal"),
            (
                r#"{"type":"hello","conversation":"../../etc"}"#,
                "22 characters",
            ),
        ] {
            let refusal = decode(text).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::BadRequest);
            assert!(
                refusal.message.contains(part),
                "{text}: {}",
                refusal.message
            );
        }
        let refusal = decode(r#"{"type":"send","client_msg_id":"m7"}"#).unwrap_err();
        assert_eq!(refusal.client_msg_id.as_deref(), Some("m7"));
    }

    #[test]
    fn errors_have_all_their_fields() {
        let text =
            ByteString::from(&Refusal::new(ErrorCode::MessageTooLong, "cut it").retry_after(3));
        assert_eq!(
            &*text,
            r#"{"type":"error","code":"message_too_long","message":"cut it","retry_after_s":3,"client_msg_id":null}"#
        );
    }
}
