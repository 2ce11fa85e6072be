//! A minimal dialect for these tests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::*;

/// Its events are words: `text …`, `think`, `end`.
pub struct Plain {
    pub framing: Framing,
    pub key: &'static str,
    /// Changes the next request after each 400. Otherwise it only claims to.
    pub adapts: bool,
    pub adapted: AtomicU32,
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            framing: Framing::Sse,
            key: "secret",
            adapts: false,
            adapted: AtomicU32::new(0),
        }
    }
}

impl Dialect for Plain {
    fn request(&self, request: &Ask) -> Call {
        let question = request
            .messages
            .last()
            .map(|message| message.text.to_string());
        let mut body = question.unwrap_or_default();
        body.push_str(&" adapted".repeat(self.adapted.load(Ordering::Relaxed) as usize));
        Call {
            path: "/ask?x=1".into(),
            headers: vec![("x-key".into(), self.key.into())],
            body,
            framing: self.framing,
        }
    }

    fn listing(&self) -> Call {
        Call {
            path: "/list".into(),
            headers: vec![("x-key".into(), self.key.into())],
            body: String::new(),
            framing: self.framing,
        }
    }

    fn reader(&self) -> Box<dyn Reader + Send> {
        Box::new(Words(None))
    }

    fn refused(&self, response: &Refused<'_>) -> Failure {
        let fault = match response.status {
            401 => Fault::Unauthorized,
            429 => Fault::RateLimited,
            400 => Fault::BadRequest,
            _ => Fault::ServerError,
        };
        let seconds = (response.header)("retry-after").and_then(|text| text.parse().ok());
        Failure {
            retry_after: seconds.map(Duration::from_secs),
            ..Failure::with(fault, &format!("{} bytes", response.body.len()))
        }
    }

    fn adapt(&self, _sent: &Call, response: &Refused<'_>) -> bool {
        if response.status != 400 {
            return false;
        }
        self.adapted
            .fetch_add(u32::from(self.adapts), Ordering::Relaxed);
        true
    }
}

struct Words(Option<Finish>);

impl Reader for Words {
    fn event(&mut self, _: &str, data: &str, out: &mut Vec<Step>) -> Result<(), Failure> {
        if let Some(text) = data.strip_prefix("text ") {
            out.push(Step::Text(text.into()));
        } else if data == "think" {
            out.push(Step::Thinking);
        } else if data == "{\"whole\":true}" {
            out.push(Step::Text("whole".into()));
            self.0 = Some(Finish::Stop);
        } else if data == "end" {
            out.extend([Step::Text(String::new()), Step::End(Finish::Length)]);
            self.0 = Some(Finish::Stop);
        } else {
            return Err(Failure::with(Fault::Overloaded, data));
        }
        Ok(())
    }

    fn ended(&self) -> bool {
        self.0.is_some()
    }

    fn verdict(&self) -> Result<Finish, Failure> {
        self.0.ok_or_else(|| Failure::of(Fault::Truncated))
    }
}
