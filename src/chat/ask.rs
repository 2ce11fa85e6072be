//! What a provider is asked, and what it says it used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Who speaks a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The visitor, or the program that calls.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation as a model sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; never empty.
    pub text: Arc<str>,
}

/// What a provider is asked. Cheap to clone: attempts share one history.
///
/// A chat's messages alternate, begin with the user and end with it, but for an answer that is to be gone on with. Those of a program may
/// stand in any order: each dialect sends them as its servers take them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The system prompt; empty for none.
    pub system: Arc<str>,
    /// The conversation, oldest first, the question last.
    pub messages: Arc<[Message]>,
    /// The most tokens to answer with.
    pub max_tokens: u32,
    /// Whether the last message is the beginning of the answer, to be gone on with in the provider's own way (prefill).
    pub goes_on: bool,
    /// The temperature that the caller wants; none for the provider's configured one.
    pub temperature: Option<f64>,
    /// Texts that end the answer.
    pub stop: Arc<[String]>,
}

/// Tokens that an attempt used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// True where the provider reported none and these are estimated.
    #[serde(default)]
    pub estimated: bool,
}
