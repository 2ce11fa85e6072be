//! The request to a provider and the token usage that it reports.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    User,
    Assistant,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: MessageRole,
    pub text: Arc<str>,
}

/// A request to a provider. Cheap to clone: attempts share one history.
///
/// In a chat the messages alternate, start with the user and end with the user, except when
/// `ends_with_prefill` is set. The messages of an API caller may come in any order; each dialect
/// adapts them to its servers.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    pub system: Arc<str>,
    /// Oldest first; the question is the last.
    pub messages: Arc<[ChatMessage]>,
    pub max_tokens: u32,
    /// The last message is the start of the answer, to be continued by the provider (prefill).
    pub ends_with_prefill: bool,
    /// `None` uses the temperature configured for the provider.
    pub temperature: Option<f64>,
    pub stop: Arc<[String]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    pub input_tokens: u64,
    /// Includes thinking.
    pub output_tokens: u64,
    /// The provider reported no usage, so the numbers are an estimate.
    #[serde(default)]
    pub estimated: bool,
}
