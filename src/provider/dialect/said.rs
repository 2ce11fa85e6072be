//! The conversation in the form that most dialects share: a list of roles and texts.

use serde::Serialize;

use crate::chat::{Ask, Role};

/// One message as it is sent.
#[derive(Serialize)]
pub(super) struct Said<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

/// Marks the last message, the beginning of an answer, as a prefix to be gone on with.
pub(super) fn mark_prefix(messages: &mut [Said<'_>]) {
    if let Some(last) = messages.last_mut() {
        last.prefix = true;
    }
}

/// The conversation without the system prompt. Empty texts, which some providers refuse, are left out.
pub(super) fn conversation(ask: &Ask) -> impl Iterator<Item = Said<'_>> {
    let told = ask.messages.iter().filter(|message| !message.text.is_empty());
    told.map(|message| Said {
        role: match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        content: &message.text,
        prefix: false,
    })
}

/// The system prompt, where there is one.
pub(super) fn system(ask: &Ask) -> Option<&str> {
    Some(ask.system.as_ref()).filter(|text| !text.is_empty())
}

/// The system prompt as the first message, then the conversation.
pub(super) fn with_system(ask: &Ask) -> Vec<Said<'_>> {
    let first = system(ask).map(|content| Said { role: "system", content, prefix: false });
    first.into_iter().chain(conversation(ask)).collect()
}

/// A body as JSON text.
pub(super) fn json(body: &impl Serialize) -> String {
    // Writing plain structs to memory cannot fail; an empty body would be refused as such.
    serde_json::to_string(body).unwrap_or_default()
}
