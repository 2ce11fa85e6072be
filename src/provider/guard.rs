//! What comes of a provider's body before the SSE parser sees a byte: bounded, whole lines, clean UTF-8, fields that mean something.
//!
//! The parser has no limits, fails on bad UTF-8 and on events of unknown fields alone, and forgets an event that the end of the body
//! cut short of its blank line. So it is given lines of `event: …` and `data: …`, closed by blank lines, and nothing else. JSON that
//! stands bare in the stream becomes `data:` lines: some servers append their error so, answer a whole object instead of a stream,
//! or speak one object a line. Pure, and indifferent to how the bytes are cut into chunks.

use std::mem;

use memchr::{memchr, memchr2};

use super::dialect::Framing;

/// The most bytes of one event, its field names included; also of one line, so that no more than this is ever held back.
pub const EVENT_BYTES: usize = 256 * 1024;

/// The most bytes of one body. Around 60,000 tokens as the wordiest dialects frame them: far beyond any answer that may be
/// shown, thinking and keep-alives included.
pub const BODY_BYTES: usize = 16 * 1024 * 1024;

/// A line buffer that grew beyond this is given back after its line.
const LINE_KEPT: usize = 4096;

/// A limit was broken: nothing more of this body is worth reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// More than [`EVENT_BYTES`] without an end of the event.
    #[error("an event beyond 256 KiB")]
    Event,
    /// More than [`BODY_BYTES`] in all.
    #[error("a stream beyond 16 MiB")]
    Body,
}

/// The state between two chunks of one body.
#[derive(Debug)]
pub struct Guard {
    framing: Framing,
    /// The line under way.
    line: Vec<u8>,
    /// The last line ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    /// No line has ended yet: a byte order mark may stand before the first.
    first: bool,
    /// Bytes of the open event that were handed on.
    event: usize,
    /// An event is open: something of it was handed on, its blank line was not.
    open: bool,
    /// The bare JSON value under way.
    json: Option<Braces>,
    /// Bytes of the body so far.
    body: usize,
}

impl Guard {
    /// A guard for one body.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            line: Vec::new(),
            after_cr: false,
            first: true,
            event: 0,
            open: false,
            json: None,
            body: 0,
        }
    }

    /// Takes the next bytes of the body, appends to `out` what is ready for the parser.
    ///
    /// # Errors
    /// A broken limit; `out` then has what came in good order before it, and this guard is not to be used again.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Breach> {
        let room = BODY_BYTES - self.body;
        let within = chunk.get(..room).unwrap_or(chunk);
        self.body += within.len();
        self.cut(within, out)?;
        if within.len() < chunk.len() {
            return Err(Breach::Body);
        }
        Ok(())
    }

    /// The body ended: completes its last line and its last event, which may be the error that ended it.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.end_line(out);
        }
        self.close(out);
    }

    /// Cuts bytes into lines. CR, LF and CRLF end one; a CR does at once, or a lone one would hold its event back.
    fn cut(&mut self, mut rest: &[u8], out: &mut Vec<u8>) -> Result<(), Breach> {
        loop {
            if self.after_cr && !rest.is_empty() {
                self.after_cr = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(at) = memchr2(b'\n', b'\r', rest) else {
                return self.keep(rest);
            };
            let (part, tail) = rest.split_at(at);
            if self.line.is_empty() {
                self.room(part)?;
                self.line(part, out);
            } else {
                self.keep(part)?;
                self.end_line(out);
            }
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
        }
    }

    /// More of the line under way.
    fn keep(&mut self, part: &[u8]) -> Result<(), Breach> {
        self.room(part)?;
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// Whether the line may be so much longer.
    fn room(&self, part: &[u8]) -> Result<(), Breach> {
        let room = self.event + self.line.len() + part.len() <= EVENT_BYTES;
        if room { Ok(()) } else { Err(Breach::Event) }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        let mut buffer = mem::take(&mut self.line);
        self.line(&buffer, out);
        buffer.clear();
        buffer.shrink_to(LINE_KEPT);
        self.line = buffer;
    }

    /// A whole line, without its end.
    fn line(&mut self, mut line: &[u8], out: &mut Vec<u8>) {
        if mem::take(&mut self.first) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        match self.framing {
            Framing::Sse => self.sse_line(line, out),
            Framing::Lines => self.json_line(line, out),
        }
    }

    /// One line of one JSON value; rubbish too, for the dialect to refuse.
    fn json_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if !line.trim_ascii().is_empty() {
            self.field("data", line, out);
            self.close(out);
        }
    }

    fn sse_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if line.is_empty() {
            // Inside a bare value a blank line is its layout.
            if self.json.is_none() {
                self.close(out);
            }
            return;
        }
        let colon = memchr(b':', line);
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            // A comment: it shows that the connection lives, not that the model gets on.
            b"" => {}
            b"data" => {
                self.leave_json(out);
                self.field("data", value, out);
            }
            b"event" => {
                self.leave_json(out);
                let name: &[u8] = if value.is_empty() { b"message" } else { value };
                self.field("event", name, out);
            }
            // Old llama.cpp servers have a field of this name, with the error as its value.
            b"error" if colon.is_some() => {
                self.leave_json(out);
                self.close(out);
                self.field("event", b"error", out);
                self.field("data", value, out);
                self.close(out);
            }
            _ => self.bare_line(line, out),
        }
    }

    /// A line that is no field we read: part of a bare JSON value, or to be dropped (`id`, `retry` and the unknown).
    fn bare_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.json.is_none() {
            if !matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
                return;
            }
            self.close(out);
        }
        self.field("data", line, out);
        let mut braces = self.json.take().unwrap_or_default();
        if braces.end_after(line) {
            self.close(out);
        } else {
            self.json = Some(braces);
        }
    }

    /// A bare value that a field interrupts will never be whole: it goes on as it is, for the dialect to refuse.
    fn leave_json(&mut self, out: &mut Vec<u8>) {
        if self.json.take().is_some() {
            self.close(out);
        }
    }

    fn field(&mut self, name: &str, value: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        self.open = true;
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        // The line is whole, so no code point is cut here, however the chunks were.
        out.extend_from_slice(String::from_utf8_lossy(value).as_bytes());
        out.push(b'\n');
        self.event += out.len() - before;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.event = 0;
        if mem::take(&mut self.open) {
            out.push(b'\n');
        }
    }
}

/// How deep in a JSON value we are.
#[derive(Debug, Default)]
struct Braces {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Braces {
    /// Whether the value ends with this line: its braces balance, or they never will, because a string crosses the end of a line.
    fn end_after(&mut self, line: &[u8]) -> bool {
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
