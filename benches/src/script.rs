//! What the provider is to do, told in the question itself, so that it reaches it through whatever stands between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ends each token's text; it stands nowhere else in what is sent, so counting it counts tokens.
pub const TOKEN_END: u8 = b'~';

/// How many tokens come before a fault in mid-answer.
pub const BEFORE_CUT: usize = 10;

/// How the provider's first port breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// 503 at once.
    Refuse,
    /// The connection is reset after [`BEFORE_CUT`] tokens.
    Cut,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    pub tokens: usize,
    /// From one token to the next; zero: as fast as they are taken.
    pub every: Duration,
    pub fault: Fault,
}

impl Script {
    pub fn paced(tokens: usize, every: Duration) -> Self {
        Self {
            tokens,
            every,
            fault: Fault::None,
        }
    }

    pub fn fast(tokens: usize) -> Self {
        Self::paced(tokens, Duration::ZERO)
    }

    pub fn lasts(self) -> Duration {
        self.every * u32::try_from(self.tokens).unwrap_or(u32::MAX)
    }

    /// As a question. No two are alike, so that no saved answer is told.
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
            self.every.as_micros()
        )
    }

    /// The last script in a request's body, which may hold a history.
    pub fn of(body: &str) -> Option<Self> {
        let (_, last) = body.rsplit_once("bench:")?;
        let mut parts = last.split(':');
        let tokens = parts.next()?.parse().ok()?;
        let every = Duration::from_micros(parts.next()?.parse().ok()?);
        let fault = match parts.next()? {
            "none" => Fault::None,
            "refuse" => Fault::Refuse,
            "cut" => Fault::Cut,
            _ => return None,
        };
        Some(Self {
            tokens,
            every,
            fault,
        })
    }
}

/// A request's body as OpenAI's clients send it.
pub fn body(script: Script, stream: bool) -> String {
    let question = script.question();
    format!(
        r#"{{"model":"auto","messages":[{{"role":"user","content":"{question}"}}],"stream":{stream}}}"#
    )
}
