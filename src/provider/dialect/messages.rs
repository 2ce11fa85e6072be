//! The conversation in the form that most dialects share: roles and texts, in an order that the
//! server accepts.

use std::borrow::Cow;

use serde::Serialize;

use crate::domain::{ChatRequest, MessageRole};

/// Inserted as a user message before a conversation that starts with the model, for servers that
/// reject one.
const OPENING_PROMPT: &str = "Please begin.";

/// Appended as a user message to continue a partial answer, for servers without prefill support.
const CONTINUE_PROMPT: &str = "Go on with your answer from where it ends. Do not repeat any of it.";

pub(super) const ASSISTANT_ROLE: &str = "assistant";

#[derive(Serialize)]
pub(super) struct WireMessage<'a> {
    pub(super) role: &'static str,
    pub(super) content: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

impl<'a> WireMessage<'a> {
    fn new(role: &'static str, content: impl Into<Cow<'a, str>>) -> Self {
        Self {
            role,
            content: content.into(),
            prefix: false,
        }
    }
}

pub(super) fn mark_prefix(messages: &mut [WireMessage<'_>]) {
    if let Some(last) = messages.last_mut() {
        last.prefix = true;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageOrder {
    Any,
    /// The user's message first and, unless a partial answer is continued, last.
    UserFirstAndLast,
}

/// The conversation without the system prompt.
///
/// Blank texts, which some providers reject, are dropped. Neighbours of one role are joined into
/// one message for the same reason. A partial answer to continue is trimmed at its end, because no
/// provider accepts trailing white space there.
pub(super) fn messages(request: &ChatRequest, order: MessageOrder) -> Vec<WireMessage<'_>> {
    let mut messages: Vec<WireMessage<'_>> = Vec::with_capacity(request.messages.len() + 2);
    for message in request
        .messages
        .iter()
        .filter(|message| !message.text.trim().is_empty())
    {
        let role = match message.role {
            MessageRole::User => "user",
            MessageRole::Assistant => ASSISTANT_ROLE,
        };
        match messages.last_mut().filter(|last| last.role == role) {
            Some(last) => last.content = format!("{}\n\n{}", last.content, message.text).into(),
            None => messages.push(WireMessage::new(role, &*message.text)),
        }
    }
    let partial = messages
        .last_mut()
        .filter(|last| last.role == ASSISTANT_ROLE);
    match partial {
        Some(partial) if request.ends_with_prefill => {
            partial.content = partial.content.trim_end().to_owned().into()
        }
        Some(_) if order == MessageOrder::UserFirstAndLast => {
            messages.push(WireMessage::new("user", CONTINUE_PROMPT))
        }
        _ => {}
    }
    if order == MessageOrder::UserFirstAndLast
        && messages
            .first()
            .is_some_and(|first| first.role == ASSISTANT_ROLE)
    {
        messages.insert(0, WireMessage::new("user", OPENING_PROMPT));
    }
    messages
}

pub(super) fn system_prompt(request: &ChatRequest) -> Option<&str> {
    Some(request.system.as_ref()).filter(|text| !text.trim().is_empty())
}

/// The system prompt, if any, as the first message, then the conversation.
pub(super) fn messages_with_system(
    request: &ChatRequest,
    order: MessageOrder,
) -> Vec<WireMessage<'_>> {
    let prompt = system_prompt(request).map(|content| WireMessage::new("system", content));
    prompt.into_iter().chain(messages(request, order)).collect()
}

pub(super) fn to_json(body: &impl Serialize) -> String {
    // Serialising plain structs to memory cannot fail. A server would reject an empty body.
    serde_json::to_string(body).unwrap_or_default()
}
