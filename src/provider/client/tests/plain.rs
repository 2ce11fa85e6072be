//! A minimal dialect for these tests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::*;

/// Its events are words: `text …`, `think`, `end`.
pub struct PlainDialect {
    pub framing: Framing,
    pub key: &'static str,
    /// Changes the next request after each 400. Otherwise it only claims to.
    pub adapts: bool,
    pub adapted: AtomicU32,
}

impl Default for PlainDialect {
    fn default() -> Self {
        Self {
            framing: Framing::Sse,
            key: "secret",
            adapts: false,
            adapted: AtomicU32::new(0),
        }
    }
}

impl Dialect for PlainDialect {
    fn chat_request(&self, request: &ChatRequest) -> ProviderRequest {
        let question = request
            .messages
            .last()
            .map(|message| message.text.to_string());
        let mut body = question.unwrap_or_default();
        body.push_str(&" adapted".repeat(self.adapted.load(Ordering::Relaxed) as usize));
        ProviderRequest {
            path: "/ask?x=1".into(),
            headers: vec![("x-key".into(), self.key.into())],
            body,
            framing: self.framing,
        }
    }

    fn list_models_request(&self) -> ProviderRequest {
        ProviderRequest {
            path: "/list".into(),
            headers: vec![("x-key".into(), self.key.into())],
            body: String::new(),
            framing: self.framing,
        }
    }

    fn decoder(&self) -> Box<dyn StreamDecoder + Send> {
        Box::new(PlainDecoder(None))
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        let fault = match response.status {
            401 => FaultKind::Unauthorized,
            429 => FaultKind::RateLimited,
            400 => FaultKind::BadRequest,
            _ => FaultKind::ServerError,
        };
        let seconds = (response.header)("retry-after").and_then(|text| text.parse().ok());
        Failure {
            retry_after: seconds.map(Duration::from_secs),
            ..Failure::with_detail(fault, &format!("{} bytes", response.body.len()))
        }
    }

    fn adapt_to_rejection(&self, _sent: &ProviderRequest, response: &ErrorResponse<'_>) -> bool {
        if response.status != 400 {
            return false;
        }
        self.adapted
            .fetch_add(u32::from(self.adapts), Ordering::Relaxed);
        true
    }
}

struct PlainDecoder(Option<FinishReason>);

impl StreamDecoder for PlainDecoder {
    fn decode(&mut self, _: &str, data: &str, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if let Some(text) = data.strip_prefix("text ") {
            out.push(StreamEvent::Text(text.into()));
        } else if data == "think" {
            out.push(StreamEvent::Thinking);
        } else if data == "{\"whole\":true}" {
            out.push(StreamEvent::Text("whole".into()));
            self.0 = Some(FinishReason::Stop);
        } else if data == "end" {
            out.extend([
                StreamEvent::Text(String::new()),
                StreamEvent::Finished(FinishReason::Length),
            ]);
            self.0 = Some(FinishReason::Stop);
        } else {
            return Err(Failure::with_detail(FaultKind::Overloaded, data));
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.0.is_some()
    }

    fn finish_result(&self) -> Result<FinishReason, Failure> {
        self.0.ok_or_else(|| Failure::new(FaultKind::Truncated))
    }
}
