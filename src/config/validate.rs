//! Validation across several sections, and of the files that keys name.

use super::Settings;
use super::diagnostics::quoted;
use super::reader::Diagnostics;

pub(super) fn validate(reader: &mut Diagnostics<'_>, settings: &Settings) {
    check_files(reader, settings);
    check_message_size(reader, settings);
    check_alert_signing(reader, settings);
    check_otlp_port(reader, settings);
}

/// Warns about port 4317, where OTLP collectors accept gRPC by convention. Traces use HTTP (4318).
fn check_otlp_port(reader: &mut Diagnostics<'_>, settings: &Settings) {
    let endpoint = settings
        .telemetry
        .otlp_endpoint
        .as_deref()
        .unwrap_or_default();
    if endpoint.ends_with(":4317") {
        let what = "collectors take gRPC on port 4317; traces go over HTTP, for which it is 4318";
        reader.add_warning(
            reader.line_of_key("telemetry.otlp_endpoint"),
            "telemetry.otlp_endpoint",
            what.to_owned(),
        );
    }
}

/// Warns about unsigned alerts, and about a signing secret without a webhook.
fn check_alert_signing(reader: &mut Diagnostics<'_>, settings: &Settings) {
    let alerts = &settings.alerts;
    if alerts.webhook.is_some() && alerts.webhook_secret.is_none() {
        let what = "alerts are not signed without alerts.webhook_secret, and their receiver cannot tell them from forged ones";
        reader.add_warning(
            reader.line_of_key("alerts.webhook"),
            "alerts.webhook",
            what.to_owned(),
        );
    }
    if alerts.webhook.is_none() && alerts.webhook_secret.is_some() {
        let what = "has no effect: there is no alerts.webhook whose alerts it could sign";
        reader.add_warning(
            reader.line_of_key("alerts.webhook_secret"),
            "alerts.webhook_secret",
            what.to_owned(),
        );
    }
}

fn check_files(reader: &mut Diagnostics<'_>, settings: &Settings) {
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
    for (key, configured) in [
        ("degradation.replies", replies),
        ("degradation.knowledge", knowledge),
    ] {
        if let Some((path, false, expected)) = configured {
            let what = format!(
                "{} is not {expected} that can be read",
                quoted(&path.display().to_string())
            );
            reader.add_problem(reader.line_of_key(key), key, what);
        }
    }
}

/// Warns if a message within the character limit could exceed the byte limit of a frame.
fn check_message_size(reader: &mut Diagnostics<'_>, settings: &Settings) {
    /// The longest UTF-8 encoding of a character, and the JSON around a message.
    const BYTES_PER_CHAR: usize = 4;
    const OVERHEAD_BYTES: usize = 1024;
    let needed_bytes = settings.chat.max_message_chars * BYTES_PER_CHAR + OVERHEAD_BYTES;
    if needed_bytes <= settings.limits.frame_bytes {
        return;
    }
    for key in ["limits.frame_bytes", "chat.max_message_chars"] {
        if let Some(line) = reader.line_of_key(key) {
            let chars = settings.chat.max_message_chars;
            let what = format!(
                "messages of chat.max_message_chars = {chars} may need limits.frame_bytes = {needed_bytes}"
            );
            reader.add_warning(Some(line), key, what);
            return;
        }
    }
}
