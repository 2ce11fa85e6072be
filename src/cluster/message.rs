//! The wire format of an event between instances. Pure.
//!
//! Versioned JSON of at most [`MAX_MESSAGE_BYTES`] bytes. Messages that are too long, invalid or of
//! another version are ignored: an instance also finds out by its own calls. Messages hold
//! durations instead of times, because the clocks of instances differ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::FaultKind;
use crate::provider::event::ProviderEvent;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Generous: our messages have about 170 bytes.
pub const MAX_MESSAGE_BYTES: usize = 1_024;

const MAX_NAME_BYTES: usize = 64;

/// An event of one account, and the instance that published it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterMessage {
    pub sender: String,
    /// Increases with each message of an instance, so that duplicates are recognized.
    pub number: u64,
    pub account: String,
    pub event: ProviderEvent,
}

#[derive(Serialize, Deserialize)]
struct WireMessage {
    v: u32,
    from: String,
    number: u64,
    account: String,
    #[serde(flatten)]
    payload: EventPayload,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
enum EventPayload {
    #[serde(rename = "tripped")]
    Opened {
        blocked: bool,
        fault: Option<FaultKind>,
        strikes: u32,
        lasts_ms: u64,
    },
    #[serde(rename = "limited")]
    RateLimited {
        lasts_ms: u64,
    },
    #[serde(rename = "well")]
    Recovered,
    Reset,
}

impl ClusterMessage {
    pub fn encode(&self) -> Vec<u8> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let payload = match self.event {
            ProviderEvent::Opened {
                is_blocked: blocked,
                fault,
                failed_probes: strikes,
                duration: lasts,
            } => EventPayload::Opened {
                blocked,
                fault,
                strikes,
                lasts_ms: ms(lasts),
            },
            ProviderEvent::RateLimited { duration: lasts } => EventPayload::RateLimited {
                lasts_ms: ms(lasts),
            },
            ProviderEvent::Recovered => EventPayload::Recovered,
            ProviderEvent::Reset => EventPayload::Reset,
        };
        let wire = WireMessage {
            v: VERSION,
            from: self.sender.clone(),
            number: self.number,
            account: self.account.clone(),
            payload,
        };
        // Serializing text and numbers cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Decodes a message. Durations are limited to what is plausible.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return None;
        }
        let WireMessage {
            v,
            from,
            number,
            account,
            payload,
        } = serde_json::from_slice(bytes).ok()?;
        if v != VERSION || from.len() > MAX_NAME_BYTES || account.len() > MAX_NAME_BYTES {
            return None;
        }
        let news = match payload {
            EventPayload::Opened {
                blocked,
                fault,
                strikes,
                lasts_ms,
            } => ProviderEvent::Opened {
                is_blocked: blocked,
                fault,
                failed_probes: strikes,
                duration: Duration::from_millis(lasts_ms),
            },
            EventPayload::RateLimited { lasts_ms } => ProviderEvent::RateLimited {
                duration: Duration::from_millis(lasts_ms),
            },
            EventPayload::Recovered => ProviderEvent::Recovered,
            EventPayload::Reset => ProviderEvent::Reset,
        };
        Some(Self {
            sender: from,
            number,
            account,
            event: news.clamped(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(news: ProviderEvent) -> ClusterMessage {
        ClusterMessage {
            sender: "0123456789abcdef".into(),
            number: 7,
            account: "fedcba9876543210".into(),
            event: news,
        }
    }

    #[test]
    fn an_encoded_message_is_decoded() {
        let lasts = Duration::from_millis(12_345);
        let tripped = |fault| ProviderEvent::Opened {
            is_blocked: true,
            fault,
            failed_probes: 3,
            duration: lasts,
        };
        let faults = FaultKind::ALL.into_iter().map(|fault| tripped(Some(fault)));
        let others = [
            tripped(None),
            ProviderEvent::RateLimited { duration: lasts },
            ProviderEvent::Recovered,
            ProviderEvent::Reset,
        ];
        for news in faults.chain(others) {
            let bytes = message(news).encode();
            assert!(bytes.len() < 200, "{}", bytes.len());
            assert_eq!(ClusterMessage::decode(&bytes), Some(message(news)));
        }
    }

    #[test]
    fn invalid_messages_are_ignored() {
        let good = String::from_utf8(message(ProviderEvent::Recovered).encode()).unwrap();
        assert!(ClusterMessage::decode(good.as_bytes()).is_some());
        let more = good.replacen('{', r#"{"later":[1],"#, 1);
        assert!(
            ClusterMessage::decode(more.as_bytes()).is_some(),
            "an unknown field is allowed"
        );
        for bad in [
            "",
            "null",
            "rubbish",
            &good.replace(r#""v":1"#, r#""v":2"#),
            &good.replace("well", "unwell"),
            &good.replace(r#""number":7"#, r#""number":-7"#),
            &good.replace("0123456789abcdef", &"x".repeat(65)),
            &format!("{good}{}", " ".repeat(MAX_MESSAGE_BYTES)),
        ] {
            assert_eq!(ClusterMessage::decode(bad.as_bytes()), None, "{bad}");
        }
        let unknown = message(ProviderEvent::Opened {
            is_blocked: false,
            fault: Some(FaultKind::Timeout),
            failed_probes: 0,
            duration: Duration::ZERO,
        });
        let unknown = String::from_utf8(unknown.encode())
            .unwrap()
            .replace("timeout", "struck_by_lightning");
        assert_eq!(
            ClusterMessage::decode(unknown.as_bytes()),
            None,
            "a fault of a later version"
        );
    }

    #[test]
    fn durations_are_limited() {
        let bytes = message(ProviderEvent::RateLimited {
            duration: Duration::MAX,
        })
        .encode();
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(
            ClusterMessage::decode(&bytes).unwrap().event,
            ProviderEvent::RateLimited { duration: day }
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            ClusterMessage::decode(&bytes);
        }
    }
}
