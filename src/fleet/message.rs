//! The wire format of an event between instances. Pure.
//!
//! Versioned JSON of at most [`MAX_MESSAGE_BYTES`] bytes. Messages that are too long, invalid or of
//! another version are ignored: an instance also finds out by its own calls. Messages hold
//! durations instead of times, because the clocks of instances differ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chat::Fault;
use crate::provider::news::News;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Generous: our messages have about 170 bytes.
pub const LONGEST: usize = 1_024;

const LONGEST_NAME: usize = 64;

/// An event of one account, and the instance that published it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub from: String,
    /// Increases with each message of an instance, so that duplicates are recognized.
    pub number: u64,
    pub account: String,
    pub news: News,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u32,
    from: String,
    number: u64,
    account: String,
    #[serde(flatten)]
    said: Said,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
enum Said {
    #[serde(rename = "tripped")]
    Tripped {
        blocked: bool,
        fault: Option<Fault>,
        strikes: u32,
        lasts_ms: u64,
    },
    #[serde(rename = "limited")]
    Limited {
        lasts_ms: u64,
    },
    #[serde(rename = "well")]
    Well,
    Reset,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let payload = match self.news {
            News::Tripped {
                blocked,
                fault,
                strikes,
                lasts,
            } => Said::Tripped {
                blocked,
                fault,
                strikes,
                lasts_ms: ms(lasts),
            },
            News::Limited { lasts } => Said::Limited {
                lasts_ms: ms(lasts),
            },
            News::Well => Said::Well,
            News::Reset => Said::Reset,
        };
        let wire = Wire {
            v: VERSION,
            from: self.from.clone(),
            number: self.number,
            account: self.account.clone(),
            said: payload,
        };
        // Serializing text and numbers cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Decodes a message. Durations are limited to what is plausible.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST {
            return None;
        }
        let Wire {
            v,
            from,
            number,
            account,
            said: payload,
        } = serde_json::from_slice(bytes).ok()?;
        if v != VERSION || from.len() > LONGEST_NAME || account.len() > LONGEST_NAME {
            return None;
        }
        let news = match payload {
            Said::Tripped {
                blocked,
                fault,
                strikes,
                lasts_ms,
            } => News::Tripped {
                blocked,
                fault,
                strikes,
                lasts: Duration::from_millis(lasts_ms),
            },
            Said::Limited { lasts_ms } => News::Limited {
                lasts: Duration::from_millis(lasts_ms),
            },
            Said::Well => News::Well,
            Said::Reset => News::Reset,
        };
        Some(Self {
            from,
            number,
            account,
            news: news.within_reason(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(news: News) -> Message {
        Message {
            from: "0123456789abcdef".into(),
            number: 7,
            account: "fedcba9876543210".into(),
            news,
        }
    }

    #[test]
    fn an_encoded_message_is_decoded() {
        let lasts = Duration::from_millis(12_345);
        let tripped = |fault| News::Tripped {
            blocked: true,
            fault,
            strikes: 3,
            lasts,
        };
        let faults = Fault::ALL.into_iter().map(|fault| tripped(Some(fault)));
        let others = [
            tripped(None),
            News::Limited { lasts },
            News::Well,
            News::Reset,
        ];
        for news in faults.chain(others) {
            let bytes = message(news).encode();
            assert!(bytes.len() < 200, "{}", bytes.len());
            assert_eq!(Message::decode(&bytes), Some(message(news)));
        }
    }

    #[test]
    fn invalid_messages_are_ignored() {
        let good = String::from_utf8(message(News::Well).encode()).unwrap();
        assert!(Message::decode(good.as_bytes()).is_some());
        let more = good.replacen('{', r#"{"later":[1],"#, 1);
        assert!(
            Message::decode(more.as_bytes()).is_some(),
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
            &format!("{good}{}", " ".repeat(LONGEST)),
        ] {
            assert_eq!(Message::decode(bad.as_bytes()), None, "{bad}");
        }
        let unknown = message(News::Tripped {
            blocked: false,
            fault: Some(Fault::Timeout),
            strikes: 0,
            lasts: Duration::ZERO,
        });
        let unknown = String::from_utf8(unknown.encode())
            .unwrap()
            .replace("timeout", "struck_by_lightning");
        assert_eq!(
            Message::decode(unknown.as_bytes()),
            None,
            "a fault of a later version"
        );
    }

    #[test]
    fn durations_are_limited() {
        let bytes = message(News::Limited {
            lasts: Duration::MAX,
        })
        .encode();
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(
            Message::decode(&bytes).unwrap().news,
            News::Limited { lasts: day }
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Message::decode(&bytes);
        }
    }
}
