//! The part of decoding that is the same in all dialects.

use std::sync::Arc;

use serde_json::Value;

use super::StreamDecoder;
use super::config::ModelConfig;
use super::decoder_state::DecoderState;
use super::errors::body::ProviderErrorBody;
use super::errors::classify::{self, Classifier};
use crate::domain::{Failure, FaultKind, FinishReason};
use crate::provider::stream_event::StreamEvent;

/// The events of one dialect.
pub(super) trait EventFormat: Default + Send {
    /// Events named "error" are errors, whatever their data.
    const HAS_ERROR_EVENTS: bool = true;

    /// Decodes data without parsing it into a tree. Returns `false` if that is not possible.
    fn decode_quickly(_: &str, _: &mut DecoderState, _: &mut Vec<StreamEvent>) -> bool {
        false
    }

    /// Decodes an object that is not an error.
    fn decode_event(
        &mut self,
        name: &str,
        event: &Value,
        state: &mut DecoderState,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure>;
}

pub(super) struct Decoder<F> {
    model: Arc<ModelConfig>,
    classify: Classifier,
    state: DecoderState,
    format: F,
}

impl<F: EventFormat + 'static> Decoder<F> {
    pub(super) fn boxed(
        model: &Arc<ModelConfig>,
        classify: Classifier,
    ) -> Box<dyn StreamDecoder + Send> {
        Box::new(Self {
            model: Arc::clone(model),
            classify,
            state: DecoderState::default(),
            format: F::default(),
        })
    }

    fn failure(&self, error_body: &ProviderErrorBody) -> Failure {
        classify::stream_error(error_body, &self.model, self.classify)
    }
}

impl<F: EventFormat + 'static> StreamDecoder for Decoder<F> {
    fn decode(
        &mut self,
        name: &str,
        data: &str,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        if self.is_finished() {
            return Ok(());
        }
        if name == "error" && F::HAS_ERROR_EVENTS {
            return Err(self.failure(&ProviderErrorBody::from_body(data.as_bytes())));
        }
        if F::decode_quickly(data, &mut self.state, out) {
            return Ok(());
        }
        for event in parse_objects(data)? {
            if self.is_finished() {
                break;
            }
            // Check for an error first: it may also have the members of an answer.
            if let Some(error_body) = ProviderErrorBody::from_event(&event) {
                return Err(self.failure(&error_body));
            }
            self.format
                .decode_event(name, &event, &mut self.state, out)?;
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.state.has_ended()
    }

    fn finish_result(&self) -> Result<FinishReason, Failure> {
        self.state.finish_result()
    }
}

/// Parses the JSON objects of an event: none in a blank one or in another dialect's end mark,
/// several in an array.
///
/// # Errors
/// `Malformed` for anything else. The detail does not repeat the data, which may be message text.
fn parse_objects(data: &str) -> Result<Vec<Value>, Failure> {
    let data = data.trim();
    if data.is_empty() || data.starts_with("[DONE]") {
        return Ok(Vec::new());
    }
    let malformed = |detail| Failure::with_detail(FaultKind::Malformed, detail);
    let objects = match serde_json::from_str(data) {
        Ok(Value::Array(elements)) => elements,
        Ok(value) => vec![value],
        Err(_) => return Err(malformed("an event that is not JSON")),
    };
    if !objects.iter().all(Value::is_object) {
        return Err(malformed("an event that is not a JSON object"));
    }
    Ok(objects)
}
