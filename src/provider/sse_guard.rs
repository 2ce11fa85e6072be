//! Sanitizes the body of a provider's answer for the SSE parser: bounded size, whole lines, valid
//! UTF-8, known fields only.
//!
//! The parser has no limits, fails on invalid UTF-8 and on events that consist of unknown fields,
//! and drops an event that is not followed by a blank line. It therefore only gets lines of
//! `event: …` and `data: …`, closed by blank lines, which fault injection relies on too. Bare JSON
//! becomes `data:` lines: some servers append errors that way, send a complete object instead of a
//! stream, or one object per line. The result does not depend on where the body is cut into chunks.

use std::mem;

use memchr::{memchr, memchr2};

use super::dialect::Framing;

/// The maximum size of one event with its field names, and of one line. It bounds the buffer.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The maximum size of one body, far above any answer: around 60,000 tokens in the most verbose
/// dialect, including thinking and keep-alives.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// A line buffer with a larger capacity is shrunk after its line.
const MAX_RETAINED_LINE_BYTES: usize = 4096;

/// A violated limit. The rest of the body is not worth reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    #[error("event larger than 256 KiB")]
    Event,
    #[error("stream larger than 16 MiB")]
    Body,
}

#[derive(Debug, Default)]
pub struct SseSanitizer {
    framing: Framing,
    line_buffer: Vec<u8>,
    /// The last line ended in CR, so a directly following LF belongs to it.
    after_cr: bool,
    /// A line has ended. Before the first one there may be a byte order mark.
    has_lines: bool,
    /// The size of the output without its closing blank line; 0 between events.
    event_bytes: usize,
    /// The bare JSON value that has begun, if any.
    json: JsonDepth,
    body_bytes: usize,
}

impl SseSanitizer {
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            ..Self::default()
        }
    }

    /// Consumes the next bytes of the body and appends the sanitized lines to `out`.
    ///
    /// # Errors
    /// The violated limit. `out` then has all valid output before it. Do not use `self` afterwards.
    pub fn feed(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), LimitExceeded> {
        let remaining = MAX_BODY_BYTES - self.body_bytes;
        let within = chunk.get(..remaining).unwrap_or(chunk);
        self.body_bytes += within.len();
        self.split_lines(within, out)?;
        if within.len() < chunk.len() {
            return Err(LimitExceeded::Body);
        }
        Ok(())
    }

    /// Ends the body: completes its last line and its last event, which may be an error.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line_buffer.is_empty() {
            self.flush_line(out);
        }
        self.end_event(out);
    }

    /// Splits bytes into lines, ended by CR, LF or CRLF. A CR ends its line at once: waiting for an
    /// LF would delay the event.
    fn split_lines(&mut self, mut rest: &[u8], out: &mut Vec<u8>) -> Result<(), LimitExceeded> {
        loop {
            if self.after_cr && !rest.is_empty() {
                self.after_cr = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(at) = memchr2(b'\n', b'\r', rest) else {
                return self.buffer_line(rest);
            };
            let (part, tail) = rest.split_at(at);
            if self.line_buffer.is_empty() {
                self.check_event_limit(part)?;
                self.process_line(part, out);
            } else {
                self.buffer_line(part)?;
                self.flush_line(out);
            }
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
        }
    }

    fn buffer_line(&mut self, part: &[u8]) -> Result<(), LimitExceeded> {
        self.check_event_limit(part)?;
        self.line_buffer.extend_from_slice(part);
        Ok(())
    }

    fn check_event_limit(&self, part: &[u8]) -> Result<(), LimitExceeded> {
        let bytes = self.event_bytes + self.line_buffer.len() + part.len();
        if bytes > MAX_EVENT_BYTES {
            return Err(LimitExceeded::Event);
        }
        Ok(())
    }

    fn flush_line(&mut self, out: &mut Vec<u8>) {
        let mut buffer = mem::take(&mut self.line_buffer);
        self.process_line(&buffer, out);
        buffer.clear();
        buffer.shrink_to(MAX_RETAINED_LINE_BYTES);
        self.line_buffer = buffer;
    }

    fn process_line(&mut self, mut line: &[u8], out: &mut Vec<u8>) {
        if !mem::replace(&mut self.has_lines, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        match self.framing {
            Framing::Sse => self.process_sse_line(line, out),
            Framing::Lines => self.process_json_line(line, out),
        }
    }

    /// Every line is one event. Lines that are not JSON are left to the dialect to reject.
    fn process_json_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if !line.trim_ascii().is_empty() {
            self.push_field(b"data", line, out);
            self.end_event(out);
        }
    }

    fn process_sse_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if line.is_empty() {
            // Inside a bare JSON value a blank line is formatting.
            if self.json.depth == 0 {
                self.end_event(out);
            }
            return;
        }
        let colon = memchr(b':', line);
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            // A comment proves that the connection is alive, not that the model makes progress.
            b"" => {}
            b"data" | b"event" => {
                self.abandon_json(out);
                let is_unnamed = name == b"event" && value.is_empty();
                self.push_field(name, if is_unnamed { b"message" } else { value }, out);
            }
            // Old llama.cpp servers send errors in a field of this name.
            b"error" if colon.is_some() => {
                self.json = JsonDepth::default();
                self.end_event(out);
                self.push_field(b"event", b"error", out);
                self.push_field(b"data", value, out);
                self.end_event(out);
            }
            _ => self.process_unprefixed_line(line, out),
        }
    }

    /// Handles a line without a known field: part of a bare JSON value, or dropped (`id`, `retry`
    /// and unknown fields).
    fn process_unprefixed_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.json.depth == 0 {
            if !matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
                return;
            }
            self.end_event(out);
        }
        self.push_field(b"data", line, out);
        if self.json.ends_after(line) {
            self.json = JsonDepth::default();
            self.end_event(out);
        }
    }

    /// Ends a bare JSON value that a field interrupts. The dialect rejects it as malformed.
    fn abandon_json(&mut self, out: &mut Vec<u8>) {
        if mem::take(&mut self.json).depth > 0 {
            self.end_event(out);
        }
    }

    fn push_field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        // The line is complete, so no code point is split here.
        out.extend_from_slice(String::from_utf8_lossy(value).as_bytes());
        out.push(b'\n');
        self.event_bytes += out.len() - before;
    }

    fn end_event(&mut self, out: &mut Vec<u8>) {
        if mem::take(&mut self.event_bytes) > 0 {
            out.push(b'\n');
        }
    }
}

/// Tracks the nesting of a JSON value over several lines.
#[derive(Debug, Default)]
struct JsonDepth {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonDepth {
    /// Returns `true` if the value ends with this line: its brackets are balanced, or they never
    /// will be because a string is still open at the end of a line.
    fn ends_after(&mut self, line: &[u8]) -> bool {
        for byte in line {
            match byte {
                _ if mem::take(&mut self.escaped) => {}
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.depth == 0 || self.in_string
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
