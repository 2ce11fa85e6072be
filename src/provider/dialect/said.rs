//! The conversation in the form that most dialects share: roles and texts, in an order that the
//! server accepts.

use std::borrow::Cow;

use serde::Serialize;

use crate::chat::{Ask, Role};

/// Inserted as a user message before a conversation that starts with the model, for servers that
/// reject one.
const OPENING: &str = "Please begin.";

/// Appended as a user message to continue a partial answer, for servers without prefill support.
const GO_ON: &str = "Go on with your answer from where it ends. Do not repeat any of it.";

pub(super) const ASSISTANT: &str = "assistant";

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

pub(super) fn mark_prefix(messages: &mut [Said<'_>]) {
    if let Some(last) = messages.last_mut() {
        last.prefix = true;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Free,
    /// The user's message first and, unless a partial answer is continued, last.
    Strict,
}

/// The conversation without the system prompt.
///
/// Blank texts, which some providers reject, are dropped. Neighbours of one role are joined into
/// one message for the same reason. A partial answer to continue is trimmed at its end, because no
/// provider accepts trailing white space there.
pub(super) fn conversation(request: &Ask, order: Order) -> Vec<Said<'_>> {
    let mut messages: Vec<Said<'_>> = Vec::with_capacity(request.messages.len() + 2);
    for message in request
        .messages
        .iter()
        .filter(|message| !message.text.trim().is_empty())
    {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => ASSISTANT,
        };
        match messages.last_mut().filter(|last| last.role == role) {
            Some(last) => last.content = format!("{}\n\n{}", last.content, message.text).into(),
            None => messages.push(Said::new(role, &*message.text)),
        }
    }
    let partial = messages.last_mut().filter(|last| last.role == ASSISTANT);
    match partial {
        Some(partial) if request.goes_on => {
            partial.content = partial.content.trim_end().to_owned().into()
        }
        Some(_) if order == Order::Strict => messages.push(Said::new("user", GO_ON)),
        _ => {}
    }
    if order == Order::Strict
        && messages
            .first()
            .is_some_and(|first| first.role == ASSISTANT)
    {
        messages.insert(0, Said::new("user", OPENING));
    }
    messages
}

pub(super) fn system(request: &Ask) -> Option<&str> {
    Some(request.system.as_ref()).filter(|text| !text.trim().is_empty())
}

/// The system prompt, if any, as the first message, then the conversation.
pub(super) fn with_system(request: &Ask, order: Order) -> Vec<Said<'_>> {
    let prompt = system(request).map(|content| Said::new("system", content));
    prompt
        .into_iter()
        .chain(conversation(request, order))
        .collect()
}

pub(super) fn json(body: &impl Serialize) -> String {
    // Serialising plain structs to memory cannot fail. A server would reject an empty body.
    serde_json::to_string(body).unwrap_or_default()
}
