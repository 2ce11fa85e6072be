//! Instructions to the provider. They are part of the question, so that any proxy passes them on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ends each token's text and occurs nowhere else in a response, so counting it counts tokens.
pub const TOKEN_END: u8 = b'~';

/// The number of tokens before a mid-stream fault.
pub const TOKENS_BEFORE_CUT: usize = 10;

/// The fault of the provider's first port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// Responds with 503 at once.
    Refuse,
    /// The connection is reset after [`TOKENS_BEFORE_CUT`] tokens.
    Cut,
}

/// The instructions for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    pub tokens: usize,
    /// The time between two tokens. Zero sends them as fast as they are read.
    pub interval: Duration,
    pub fault: Fault,
}

impl Script {
    pub fn paced(tokens: usize, interval: Duration) -> Self {
        Self {
            tokens,
            interval,
            fault: Fault::None,
        }
    }

    pub fn fast(tokens: usize) -> Self {
        Self::paced(tokens, Duration::ZERO)
    }

    pub fn duration(self) -> Duration {
        self.interval * u32::try_from(self.tokens).unwrap_or(u32::MAX)
    }

    /// Encodes the script as a question. Each is unique, so that no cached answer applies.
    pub fn question(self) -> String {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let fault = match self.fault {
            Fault::None => "none",
            Fault::Refuse => "refuse",
            Fault::Cut => "cut",
        };
        format!(
            "bench:{}:{}:{fault}:{number}",
            self.tokens,
            self.interval.as_micros()
        )
    }

    /// Parses the last script in a request body, which may contain a history.
    pub fn parse(body: &str) -> Option<Self> {
        let (_, last) = body.rsplit_once("bench:")?;
        let mut parts = last.split(':');
        let tokens = parts.next()?.parse().ok()?;
        let interval = Duration::from_micros(parts.next()?.parse().ok()?);
        let fault = match parts.next()? {
            "none" => Fault::None,
            "refuse" => Fault::Refuse,
            "cut" => Fault::Cut,
            _ => return None,
        };
        Some(Self {
            tokens,
            interval,
            fault,
        })
    }
}

/// The request body of a chat completion.
pub fn body(script: Script, stream: bool) -> String {
    let question = script.question();
    format!(
        r#"{{"model":"auto","messages":[{{"role":"user","content":"{question}"}}],"stream":{stream}}}"#
    )
}
