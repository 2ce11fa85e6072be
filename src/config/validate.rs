//! Validation across several sections, and of the files that keys name.

use super::Settings;
use super::diagnostics::{Diagnostics, quoted};
use std::path::Path;

pub(super) fn validate(reader: &mut Diagnostics<'_>, settings: &Settings) {
    let degradation = &settings.degradation;
    check_path(
        reader,
        "degradation.replies",
        degradation.replies.as_deref(),
        Path::is_file,
        "a file",
    );
    check_path(
        reader,
        "degradation.knowledge",
        degradation.knowledge.as_deref(),
        Path::is_dir,
        "a folder",
    );
    check_message_size(reader, settings);
    let alerts = &settings.alerts;
    if alerts.webhook.is_some() && alerts.webhook_secret.is_none() {
        let what = "alerts are not signed without alerts.webhook_secret, and their receiver cannot tell them from forged ones";
        reader.warn_about("alerts.webhook", what);
    }
    if alerts.webhook.is_none() && alerts.webhook_secret.is_some() {
        let what = "has no effect: there is no alerts.webhook whose alerts it could sign";
        reader.warn_about("alerts.webhook_secret", what);
    }
    // By convention, collectors accept gRPC on port 4317. Traces use HTTP (4318).
    let endpoint = settings.telemetry.otlp_endpoint.as_deref();
    if endpoint.is_some_and(|endpoint| endpoint.ends_with(":4317")) {
        let what = "collectors take gRPC on port 4317; traces go over HTTP, for which it is 4318";
        reader.warn_about("telemetry.otlp_endpoint", what);
    }
}

fn check_path(
    reader: &mut Diagnostics<'_>,
    key: &str,
    path: Option<&Path>,
    is_valid: impl Fn(&Path) -> bool,
    expected: &str,
) {
    if let Some(path) = path.filter(|path| !is_valid(path)) {
        let path = quoted(&path.display().to_string());
        let what = format!("{path} is not {expected} that can be read");
        reader.add_problem(reader.line_of_key(key), key, what);
    }
}

/// Warns if a message within the character limit could exceed the byte limit of a frame.
fn check_message_size(reader: &mut Diagnostics<'_>, settings: &Settings) {
    /// The longest UTF-8 encoding of a character, and the JSON around a message.
    const BYTES_PER_CHAR: usize = 4;
    const OVERHEAD_BYTES: usize = 1024;
    let chars = settings.chat.max_message_chars;
    let needed = chars * BYTES_PER_CHAR + OVERHEAD_BYTES;
    let mut keys = ["limits.frame_bytes", "chat.max_message_chars"].into_iter();
    let written = keys.find(|key| reader.line_of_key(key).is_some());
    if let Some(key) = written.filter(|_| needed > settings.limits.frame_bytes) {
        let what = format!(
            "messages of chat.max_message_chars = {chars} may need limits.frame_bytes = {needed}"
        );
        reader.warn_about(key, what);
    }
}
