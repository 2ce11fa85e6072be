//! Parsing of completion requests. Unknown fields are ignored; features that do not exist here are
//! rejected by name.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::errors::ApiError;
use crate::domain::{ChatMessage, ChatRequest, MessageRole};

#[derive(Debug)]
pub struct CompletionRequest {
    /// `auto`, a provider's name, or a model.
    pub model: String,
    pub chat_request: ChatRequest,
    pub stream: bool,
    /// A streamed response ends with a chunk that has the usage.
    pub include_usage: bool,
}

/// The answer's token limit if the caller sets none.
const DEFAULT_MAX_TOKENS: u32 = 4096;

const MAX_MESSAGES: usize = 2048;

/// The maximum number of stop sequences, as at OpenAI.
const MAX_STOP_SEQUENCES: usize = 4;

/// Parses a body. The error names the first field that is invalid or not supported.
pub fn parse(body: &[u8]) -> Result<CompletionRequest, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::new(400, None, format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(ApiError::new(400, None, "the body is not a JSON object"));
    };
    reject_unsupported(&fields)?;
    let Some(Value::String(model)) = present(&fields, "model") else {
        let message = "model must be a string: auto, a provider's name or a model";
        return Err(ApiError::invalid_field("model", message));
    };
    let stream = parse_bool(&fields, "stream")?;
    let include_usage = match present(&fields, "stream_options") {
        Some(Value::Object(options)) => parse_bool(options, "include_usage")?,
        _ => false,
    };
    let (system, messages) = parse_messages(&fields)?;
    let max_tokens = parse_token_limit(&fields, "max_completion_tokens")?
        .or(parse_token_limit(&fields, "max_tokens")?);
    let chat_request = ChatRequest {
        system,
        messages,
        max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        ends_with_prefill: false,
        temperature: parse_temperature(&fields)?,
        stop: parse_stop(&fields)?,
    };
    Ok(CompletionRequest {
        model: model.clone(),
        chat_request,
        stream,
        include_usage,
    })
}

/// Returns a field that is present and not null.
fn present<'f>(fields: &'f Map<String, Value>, name: &str) -> Option<&'f Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn reject_unsupported(fields: &Map<String, Value>) -> Result<(), ApiError> {
    for name in ["tools", "functions"] {
        if present(fields, name).is_some_and(|list| list.as_array().is_none_or(|l| !l.is_empty())) {
            let message = format!("{name} are not supported; leave the field out");
            return Err(ApiError::unsupported_field(name, &message));
        }
    }
    if present(fields, "n").is_some_and(|n| n.as_u64() != Some(1)) {
        let message = "n must be 1: one answer per request";
        return Err(ApiError::unsupported_field("n", message));
    }
    let text = |format: &Value| format.get("type").and_then(Value::as_str) == Some("text");
    if present(fields, "response_format").is_some_and(|format| !text(format)) {
        let message = "only the response_format text is supported; leave the field out";
        return Err(ApiError::unsupported_field("response_format", message));
    }
    Ok(())
}

fn parse_bool(fields: &Map<String, Value>, name: &str) -> Result<bool, ApiError> {
    match present(fields, name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ApiError::invalid_field(
            name,
            format!("{name} must be true or false"),
        )),
    }
}

fn parse_token_limit(fields: &Map<String, Value>, name: &str) -> Result<Option<u32>, ApiError> {
    let Some(value) = present(fields, name) else {
        return Ok(None);
    };
    match value.as_u64().and_then(|tokens| u32::try_from(tokens).ok()) {
        Some(tokens) if tokens > 0 => Ok(Some(tokens)),
        _ => {
            let message = format!("{name} must be a whole number above 0");
            Err(ApiError::invalid_field(name, message))
        }
    }
}

fn parse_temperature(fields: &Map<String, Value>) -> Result<Option<f64>, ApiError> {
    match present(fields, "temperature").map(Value::as_f64) {
        None => Ok(None),
        Some(Some(temperature)) if (0.0..=2.0).contains(&temperature) => Ok(Some(temperature)),
        Some(_) => {
            let message = "temperature must be a number from 0 to 2";
            Err(ApiError::invalid_field("temperature", message))
        }
    }
}

fn parse_stop(fields: &Map<String, Value>) -> Result<Arc<[String]>, ApiError> {
    let invalid = || {
        ApiError::invalid_field(
            "stop",
            format!("stop must be a string, or an array of at most {MAX_STOP_SEQUENCES} strings"),
        )
    };
    match present(fields, "stop") {
        None => Ok(Arc::default()),
        Some(Value::String(stop)) => Ok(Arc::new([stop.clone()])),
        Some(Value::Array(list)) if list.len() <= MAX_STOP_SEQUENCES => list
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(invalid))
            .collect(),
        Some(_) => Err(invalid()),
    }
}

/// Returns the system texts joined into one, and the other messages with alternating roles.
fn parse_messages(fields: &Map<String, Value>) -> Result<(Arc<str>, Arc<[ChatMessage]>), ApiError> {
    let invalid = |problem: &str| ApiError::invalid_field("messages", problem);
    let list = match present(fields, "messages") {
        Some(Value::Array(list)) if list.is_empty() => {
            return Err(invalid("messages must have at least one message"));
        }
        Some(Value::Array(list)) if list.len() <= MAX_MESSAGES => list,
        _ => {
            let problem = format!("messages must be an array of 1 to {MAX_MESSAGES} messages");
            return Err(invalid(&problem));
        }
    };
    let mut system: Vec<String> = Vec::new();
    let mut merged: Vec<(MessageRole, String)> = Vec::new();
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let text = parse_content(message.get("content"), &at)?;
        reject_tool_calls(message, &at)?;
        let role = match message.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => {
                system.push(text);
                continue;
            }
            Some("user") => MessageRole::User,
            // Without tools there are no results, and as a user message they would mean something else.
            Some(role @ ("tool" | "function")) => {
                let name = format!("{at}.role");
                let message = format!(
                    "{name} is {role}, and tools are not supported; leave such messages out"
                );
                return Err(ApiError::unsupported_field(&name, &message));
            }
            Some("assistant") => MessageRole::Assistant,
            _ => {
                let name = format!("{at}.role");
                let message = format!("{name} must be system, developer, user or assistant");
                return Err(ApiError::invalid_field(name, message));
            }
        };
        match merged.last_mut() {
            _ if text.is_empty() => {}
            Some((last, before)) if *last == role => {
                before.push_str("\n\n");
                before.push_str(&text);
            }
            _ => merged.push((role, text)),
        }
    }
    if merged.is_empty() {
        // Some providers reject a conversation of system texts only.
        merged.push((MessageRole::User, system.join("\n\n")));
        system.clear();
    }
    if merged.iter().all(|(_, text)| text.trim().is_empty()) {
        return Err(invalid("messages must have a message with text"));
    }
    let messages = merged
        .into_iter()
        .map(|(role, text)| ChatMessage {
            role,
            text: text.into(),
        })
        .collect();
    Ok((system.join("\n\n").into(), messages))
}

/// Rejects tool calls. Without its calls a message would have another meaning.
fn reject_tool_calls(message: &Value, at: &str) -> Result<(), ApiError> {
    let is_empty = |calls: &Value| calls.is_null() || calls.as_array().is_some_and(Vec::is_empty);
    for name in ["tool_calls", "function_call"] {
        if message.get(name).is_some_and(|calls| !is_empty(calls)) {
            let name = format!("{at}.{name}");
            let problem =
                format!("{name} is a tool call, and tools are not supported; leave it out");
            return Err(ApiError::unsupported_field(&name, &problem));
        }
    }
    Ok(())
}

fn parse_content(value: Option<&Value>, at: &str) -> Result<String, ApiError> {
    let name = format!("{at}.content");
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let text =
                |part: &Value| match (part.get("type").and_then(Value::as_str), part.get("text")) {
                    (Some("text"), Some(Value::String(text))) => Ok(text.clone()),
                    _ => Err(ApiError::unsupported_field(
                        &name,
                        &format!("{name} may have parts of type text only"),
                    )),
                };
            parts.iter().map(text).collect()
        }
        Some(_) => Err(ApiError::invalid_field(
            &name,
            format!("{name} must be a string or an array of text parts"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roles_and_texts(ask: &ChatRequest) -> Vec<(MessageRole, &str)> {
        ask.messages
            .iter()
            .map(|message| (message.role, &*message.text))
            .collect()
    }

    #[test]
    fn typical_client_request_is_accepted() {
        let request = parse(
            br#"{"model":"auto","messages":[{"role":"system","content":"S"},{"role":"developer","content":"D"},
                {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"x"},
                {"role":"user","content":"c"},{"role":"assistant","content":null},{"role":"assistant","content":"d"},
                {"role":"user","content":"e"}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":7,
                "tools":null,"n":1,"response_format":{"type":"text"},"stop":"X","temperature":0.5,"seed":4,"later":{}}"#,
        );
        let request = request.unwrap();
        assert_eq!(&*request.chat_request.system, "S\n\nD");
        let expected = [
            (MessageRole::User, "ab\n\nc"),
            (MessageRole::Assistant, "d"),
            (MessageRole::User, "e"),
        ];
        assert_eq!(roles_and_texts(&request.chat_request), expected);
        assert_eq!(
            (
                request.chat_request.max_tokens,
                request.stream,
                request.include_usage
            ),
            (7, true, true)
        );
        assert_eq!(
            (
                request.chat_request.temperature,
                request.chat_request.stop.as_ref()
            ),
            (Some(0.5), &["X".to_owned()][..])
        );
    }

    #[test]
    fn system_texts_without_other_messages_become_a_user_message() {
        let request =
            parse(br#"{"model":"auto","messages":[{"role":"system","content":"S"}]}"#).unwrap();
        assert_eq!(
            (
                &*request.chat_request.system,
                roles_and_texts(&request.chat_request)
            ),
            ("", vec![(MessageRole::User, "S")])
        );
    }

    #[test]
    fn invalid_fields_are_named() {
        let user = r#"[{"role":"user","content":"x"}]"#;
        for (body, field) in [
            ("{".to_owned(), None),
            ("[]".to_owned(), None),
            (format!(r#"{{"messages":{user}}}"#), Some("model")),
            (r#"{"model":"a"}"#.to_owned(), Some("messages")),
            (
                r#"{"model":"a","messages":[]}"#.to_owned(),
                Some("messages"),
            ),
            (
                r#"{"model":"a","messages":[{"role":"user","content":" "}]}"#.to_owned(),
                Some("messages"),
            ),
            (
                r#"{"model":"a","messages":[{"role":"robot","content":"x"}]}"#.to_owned(),
                Some("messages[0].role"),
            ),
            (
                r#"{"model":"a","messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#
                    .to_owned(),
                Some("messages[0].content"),
            ),
            (
                format!(r#"{{"model":"a","messages":{user},"tools":[{{}}]}}"#),
                Some("tools"),
            ),
            (
                format!(r#"{{"model":"a","messages":{user},"n":2}}"#),
                Some("n"),
            ),
            (
                format!(
                    r#"{{"model":"a","messages":{user},"response_format":{{"type":"json_object"}}}}"#
                ),
                Some("response_format"),
            ),
            (
                format!(r#"{{"model":"a","messages":{user},"max_tokens":0}}"#),
                Some("max_tokens"),
            ),
            (
                format!(r#"{{"model":"a","messages":{user},"temperature":9}}"#),
                Some("temperature"),
            ),
            (
                format!(r#"{{"model":"a","messages":{user},"stream":"yes"}}"#),
                Some("stream"),
            ),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            let expected = match field {
                Some(field) => format!("param: Some(\"{field}\")"),
                None => "param: None".to_owned(),
            };
            assert!(
                format!("{error:?}").contains(&expected),
                "{body}: {error:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            let _ = parse(&body);
            let _ = parse(format!(r#"{{"model":"a","messages":[{text}]}}"#).as_bytes());
        }
    }
}
