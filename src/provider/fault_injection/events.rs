//! Splits a guarded body into complete events, and parses them. Pure.

use bytes::{Bytes, BytesMut};

const EVENT_END: &[u8] = b"\n\n";

/// Bytes of a guarded body, held back until their event is complete. Holds at most the guard's
/// limit for one event plus one chunk.
#[derive(Debug, Default)]
pub struct EventBuffer {
    buffer: BytesMut,
    /// The bytes up to here contain no end of an event.
    scanned: usize,
}

impl EventBuffer {
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Returns the next complete event, including the blank line at its end.
    pub fn next_event(&mut self) -> Option<Bytes> {
        let rest = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = rest
            .windows(EVENT_END.len())
            .position(|pair| pair == EVENT_END)
        else {
            self.scanned = self.buffer.len().saturating_sub(EVENT_END.len() - 1);
            return None;
        };
        let end = self.scanned + at + EVENT_END.len();
        self.scanned = 0;
        Some(self.buffer.split_to(end).freeze())
    }

    /// Returns all held bytes, even an incomplete event.
    pub fn take_rest(&mut self) -> Option<Bytes> {
        self.scanned = 0;
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

pub fn parse_event(event: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(event);
    let fields = |name: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        lines.collect::<Vec<_>>()
    };
    let data = fields("data").join("\n");
    let name = fields("event")
        .last()
        .map_or("message", |name| *name)
        .to_owned();
    (name, data)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_events() {
        let body = b"event: a\ndata: 1\ndata: 2\n\ndata: 3\n\ndata: half";
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            let mut events = EventBuffer::default();
            let mut whole_events = Vec::new();
            for part in [head, tail] {
                events.push(part);
                whole_events.extend(std::iter::from_fn(|| events.next_event()));
            }
            let read: Vec<_> = whole_events
                .iter()
                .map(|event| parse_event(event))
                .collect();
            let expected = [
                ("a".to_owned(), "1\n2".to_owned()),
                ("message".to_owned(), "3".to_owned()),
            ];
            assert_eq!(read, expected, "at {at}");
            assert_eq!(events.take_rest().unwrap(), &b"data: half"[..]);
            assert_eq!((events.next_event(), events.take_rest()), (None, None));
        }
    }
}
