//! What can only be judged by looking at several tables together, or at the files that a key names.

use super::Settings;
use super::problem::quoted;
use super::reader::Reader;

/// Looks across all tables, after every one was read.
pub(super) fn across(reader: &mut Reader<'_>, settings: &Settings) {
    files(reader, settings);
    message_size(reader, settings);
    unsigned(reader, settings);
    grpc(reader, settings);
}

/// The port on which collectors speak OTLP over gRPC, by custom.
fn grpc(reader: &mut Reader<'_>, settings: &Settings) {
    let endpoint = settings
        .telemetry
        .otlp_endpoint
        .as_deref()
        .unwrap_or_default();
    if endpoint.ends_with(":4317") {
        let what = "collectors take gRPC on port 4317; traces go over HTTP, for which it is 4318";
        reader.warning(
            reader.line_of("telemetry.otlp_endpoint"),
            "telemetry.otlp_endpoint",
            what.to_owned(),
        );
    }
}

/// Who receives unsigned alerts cannot tell them from forged ones.
fn unsigned(reader: &mut Reader<'_>, settings: &Settings) {
    let alerts = &settings.alerts;
    if alerts.webhook.is_some() && alerts.webhook_secret.is_none() {
        let what = "without alerts.webhook_secret nothing is signed, and its receiver cannot tell an alert from a forged one";
        reader.warning(
            reader.line_of("alerts.webhook"),
            "alerts.webhook",
            what.to_owned(),
        );
    }
    if alerts.webhook.is_none() && alerts.webhook_secret.is_some() {
        let what = "there is no alerts.webhook, so nothing is sent that it could sign";
        reader.warning(
            reader.line_of("alerts.webhook_secret"),
            "alerts.webhook_secret",
            what.to_owned(),
        );
    }
}

fn files(reader: &mut Reader<'_>, settings: &Settings) {
    let replies = settings
        .degradation
        .replies
        .as_deref()
        .map(|path| (path, path.is_file(), "a file"));
    let knowledge = settings
        .degradation
        .knowledge
        .as_deref()
        .map(|path| (path, path.is_dir(), "a folder"));
    for (key, named) in [
        ("degradation.replies", replies),
        ("degradation.knowledge", knowledge),
    ] {
        if let Some((path, false, kind)) = named {
            let what = format!(
                "{} is not {kind} that can be read",
                quoted(&path.display().to_string())
            );
            reader.problem(reader.line_of(key), key, what);
        }
    }
}

/// A message that is allowed by its characters may still be refused by its bytes.
fn message_size(reader: &mut Reader<'_>, settings: &Settings) {
    /// Most bytes of a character, and what stands around a message.
    const PER_CHARACTER: usize = 4;
    const AROUND: usize = 1024;
    let longest = settings.chat.max_message_chars * PER_CHARACTER + AROUND;
    if longest <= settings.limits.frame_bytes {
        return;
    }
    for key in ["limits.frame_bytes", "chat.max_message_chars"] {
        if let Some(line) = reader.line_of(key) {
            let chars = settings.chat.max_message_chars;
            let what = format!(
                "messages of chat.max_message_chars = {chars} may need limits.frame_bytes = {longest}"
            );
            reader.warning(Some(line), key, what);
            return;
        }
    }
}
