//! Splits a guarded body into complete events, and parses them. Pure.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

const BLANK: &[u8] = b"\n\n";

/// Bytes of a guarded body, held back until their event is complete. Holds at most the guard's
/// limit for one event plus one chunk.
#[derive(Debug, Default)]
pub struct Events {
    held: BytesMut,
    /// The bytes up to here contain no end of an event.
    looked: usize,
}

impl Events {
    pub fn push(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
    }

    /// Returns the next complete event, including the blank line at its end.
    pub fn whole(&mut self) -> Option<Bytes> {
        let rest = self.held.get(self.looked..).unwrap_or_default();
        let Some(at) = rest.windows(BLANK.len()).position(|pair| pair == BLANK) else {
            self.looked = self.held.len().saturating_sub(BLANK.len() - 1);
            return None;
        };
        let end = self.looked + at + BLANK.len();
        self.looked = 0;
        Some(self.held.split_to(end).freeze())
    }

    /// Returns all held bytes, even an incomplete event.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.looked = 0;
        (!self.held.is_empty()).then(|| self.held.split().freeze())
    }
}

pub fn read(event: &[u8]) -> (Cow<'_, str>, String) {
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
    (name.into(), data)
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
            let mut events = Events::default();
            let mut whole_events = Vec::new();
            for part in [head, tail] {
                events.push(part);
                whole_events.extend(std::iter::from_fn(|| events.whole()));
            }
            let read: Vec<_> = whole_events.iter().map(|event| read(event)).collect();
            let expected = [
                ("a".into(), "1\n2".to_owned()),
                ("message".into(), "3".to_owned()),
            ];
            assert_eq!(read, expected, "at {at}");
            assert_eq!(events.rest().unwrap(), &b"data: half"[..]);
            assert_eq!((events.whole(), events.rest()), (None, None));
        }
    }
}
