//! The conversation in the form that most dialects share: a list of roles and texts, in the order that the server takes.

use std::borrow::Cow;

use serde::Serialize;

use crate::chat::{Ask, Role};

/// What the user says before a conversation that the model begins, where the server takes none such.
const OPENING: &str = "Please begin.";

/// What the user says after an answer that is to be gone on with, where the server takes no started answer.
const GO_ON: &str = "Go on with your answer from where it ends. Do not repeat any of it.";

/// The model's role.
pub(super) const ASSISTANT: &str = "assistant";

/// One message as it is sent.
#[derive(Serialize)]
pub(super) struct Said<'a> {
    pub(super) role: &'static str,
    pub(super) content: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

impl<'a> Said<'a> {
    fn new(role: &'static str, content: impl Into<Cow<'a, str>>) -> Self {
        Self {
            role,
            content: content.into(),
            prefix: false,
        }
    }
}

/// Marks the last message, the beginning of an answer, as a prefix to be gone on with.
pub(super) fn mark_prefix(messages: &mut [Said<'_>]) {
    if let Some(last) = messages.last_mut() {
        last.prefix = true;
    }
}

/// Which conversations a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Any.
    Free,
    /// Only those that begin with the user and, but for a started answer that it goes on with, end with it.
    Strict,
}

/// The conversation without the system prompt.
///
/// Texts of white space alone, which some providers refuse, are left out; neighbours of one role, likewise, are one message. No provider
/// takes a started answer that ends in white space.
pub(super) fn conversation(ask: &Ask, order: Order) -> Vec<Said<'_>> {
    let mut all: Vec<Said<'_>> = Vec::with_capacity(ask.messages.len() + 2);
    for message in ask
        .messages
        .iter()
        .filter(|message| !message.text.trim().is_empty())
    {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => ASSISTANT,
        };
        match all.last_mut().filter(|last| last.role == role) {
            Some(last) => last.content = format!("{}\n\n{}", last.content, message.text).into(),
            None => all.push(Said::new(role, &*message.text)),
        }
    }
    let begun = all.last_mut().filter(|last| last.role == ASSISTANT);
    match begun {
        Some(begun) if ask.goes_on => begun.content = begun.content.trim_end().to_owned().into(),
        Some(_) if order == Order::Strict => all.push(Said::new("user", GO_ON)),
        _ => {}
    }
    if order == Order::Strict && all.first().is_some_and(|first| first.role == ASSISTANT) {
        all.insert(0, Said::new("user", OPENING));
    }
    all
}

/// The system prompt, where there is one.
pub(super) fn system(ask: &Ask) -> Option<&str> {
    Some(ask.system.as_ref()).filter(|text| !text.trim().is_empty())
}

/// The system prompt as the first message, then the conversation.
pub(super) fn with_system(ask: &Ask, order: Order) -> Vec<Said<'_>> {
    let first = system(ask).map(|content| Said::new("system", content));
    first.into_iter().chain(conversation(ask, order)).collect()
}

/// A body as JSON text.
pub(super) fn json(body: &impl Serialize) -> String {
    // Writing plain structs to memory cannot fail; an empty body would be refused as such.
    serde_json::to_string(body).unwrap_or_default()
}
