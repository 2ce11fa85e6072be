//! The WebSocket protocol, version 1: all frames in both directions, except the frames of turns.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::answer_cache::policy::CacheMode;
use crate::config::MidStream;
use crate::domain::{
    ClientMsgId, ConversationId, Feedback, Followup, StatusView, TurnId, TurnRecord,
};
use crate::turn::log::encode_frame;

pub const PROTOCOL_VERSION: u32 = 1;

/// Seconds between `heartbeat` frames, and between the server's WebSocket pings.
pub const HEARTBEAT_S: u64 = 15;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame of a session.
    Hello {
        /// The conversation to open. `None` opens the visitor's latest one, or a new one.
        conversation: Option<ConversationId>,
        resume: Option<ResumePoint>,
        /// A visitor token, signed by the host site.
        token: Option<String>,
    },
    Send {
        client_msg_id: ClientMsgId,
        text: String,
        #[serde(default, deserialize_with = "deserialize_options")]
        options: Option<MessageOptions>,
    },
    Stop {
        turn: TurnId,
    },
    /// Asks the question of a turn again, in a new turn.
    Retry {
        turn: TurnId,
        /// The id of the new turn's message.
        client_msg_id: ClientMsgId,
    },
    Feedback {
        turn: TurnId,
        value: Feedback,
    },
    /// Requests the turns before this one.
    History {
        before: TurnId,
    },
    Ping,
}

/// The position in a turn from which a reconnecting client continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ResumePoint {
    pub turn: TurnId,
    /// The sequence number of the last frame that the client applied, or 0.
    pub seq: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct MessageOptions {
    /// The provider to try first.
    pub provider: Option<String>,
    /// `Some(false)` tries no provider other than `provider`.
    pub failover: Option<bool>,
    pub cache: Option<CacheMode>,
    /// The way to continue after a provider failed in mid-answer.
    #[serde(default, deserialize_with = "deserialize_mid_stream")]
    pub mid_stream: Option<MidStream>,
}

/// Accepts options as a JSON object only. By itself serde would also take an array of the fields.
pub fn deserialize_options<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<MessageOptions>, D::Error> {
    let fields = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(deserializer)?;
    fields
        .map(|fields| MessageOptions::deserialize(serde_json::Value::Object(fields)))
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// Reads the mode by its name in the configuration.
fn deserialize_mid_stream<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<MidStream>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    name.map(|name| name.parse().map_err(serde::de::Error::custom))
        .transpose()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    BadRequest,
    /// The text is longer than `max_message_chars`.
    MessageTooLong,
    /// Another turn of the conversation runs, or the service is full.
    Busy,
    RateLimited,
    NotFound,
    /// The visitor token is invalid, or the conversation belongs to another visitor.
    Unauthorized,
    /// This instance shuts down. After a reconnect the message can be sent again.
    ShuttingDown,
    Internal,
}

/// The reason for rejecting a client's frame, sent as an `error` frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientError {
    pub code: ErrorCode,
    /// The reason in a sentence, and what to do about it.
    pub message: String,
    pub retry_after_s: Option<u64>,
    /// The message that the rejected frame was about. The text is the client's and may be no valid
    /// id.
    pub client_msg_id: Option<String>,
}

impl ClientError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_s: None,
            client_msg_id: None,
        }
    }

    pub fn with_message_id(mut self, message: &ClientMsgId) -> Self {
        self.client_msg_id = Some(message.to_string());
        self
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// A frame of the server that is not part of a turn.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    Welcome(Box<Welcome<'a>>),
    /// A message was accepted and will be answered.
    Accepted {
        client_msg_id: &'a ClientMsgId,
        turn: TurnId,
        /// An earlier delivery of the message already started the turn.
        duplicate: bool,
        /// The message is on disk.
        durable: bool,
    },
    /// The late AI answer to a turn that got a degraded answer or none.
    Followup {
        turn: TurnId,
        #[serde(flatten)]
        followup: &'a Followup,
    },
    History {
        /// Oldest first.
        turns: &'a [TurnRecord],
    },
    Status(&'a StatusView),
    Heartbeat,
    Pong,
    Error(&'a ClientError),
}

#[derive(Debug, Serialize)]
pub struct Welcome<'a> {
    pub protocol: u32,
    pub conversation: ConversationId,
    /// The last turns, oldest first.
    pub history: &'a [TurnRecord],
    pub status: &'a StatusView,
    pub limits: ClientLimits,
    pub heartbeat_s: u64,
    pub title: &'a str,
    pub greeting: &'a str,
    /// The providers are simulated, and the page offers to break them.
    pub demo: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientLimits {
    pub max_message_chars: usize,
}

impl ServerFrame<'_> {
    pub fn encode(&self) -> ByteString {
        encode_frame(self)
    }
}

impl From<&ClientError> for ByteString {
    fn from(error: &ClientError) -> ByteString {
        ServerFrame::Error(error).encode()
    }
}

/// Parses a client's frame.
///
/// Fails with `bad_request`. The error names the message that the frame is about, if there is one.
pub fn decode(text: &str) -> Result<ClientFrame, ClientError> {
    let bad_request = |problem: String| ClientError::new(ErrorCode::BadRequest, problem);
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| bad_request(format!("the frame is not JSON: {error}")))?;
    if !value.is_object() {
        return Err(bad_request("the frame is not a JSON object".into()));
    }
    let client_msg_id = value
        .get("client_msg_id")
        .and_then(|id| id.as_str())
        .map(|id| id.chars().take(64).collect());
    serde_json::from_value(value).map_err(|error| ClientError {
        client_msg_id,
        ..bad_request(format!("the frame does not follow the protocol: {error}"))
    })
}

/// Returns the valid `client_msg_id` of a frame, if it has one.
pub fn client_msg_id(text: &str) -> Option<ClientMsgId> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("client_msg_id")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_accepts_every_frame() {
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
    fn decode_errors_name_the_problem_and_the_message() {
        for (text, expected) in [
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
            let error = decode(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(
                error.message.contains(expected),
                "{text}: {}",
                error.message
            );
        }
        let error = decode(r#"{"type":"send","client_msg_id":"m7"}"#).unwrap_err();
        assert_eq!(error.client_msg_id.as_deref(), Some("m7"));
    }

    #[test]
    fn error_frames_have_all_fields() {
        let text =
            ByteString::from(&ClientError::new(ErrorCode::MessageTooLong, "cut it").retry_after(3));
        assert_eq!(
            &*text,
            r#"{"type":"error","code":"message_too_long","message":"cut it","retry_after_s":3,"client_msg_id":null}"#
        );
    }
}
