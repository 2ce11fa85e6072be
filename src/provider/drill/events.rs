//! Cuts what the guard hands on into whole events, and reads one. Pure.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// What ends an event.
const BLANK: &[u8] = b"\n\n";

/// Bytes of a guarded body that are held back until their event is whole: at most what the guard lets one event have, and one chunk.
#[derive(Debug, Default)]
pub struct Events {
    held: BytesMut,
    /// So much of it is known to hold no end.
    looked: usize,
}

impl Events {
    /// Takes more of the body.
    pub fn push(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
    }

    /// The next whole event, with the blank line that ends it.
    pub fn whole(&mut self) -> Option<Bytes> {
        let rest = self.held.get(self.looked..).unwrap_or_default();
        let Some(at) = rest.windows(BLANK.len()).position(|two| two == BLANK) else {
            self.looked = self.held.len().saturating_sub(BLANK.len() - 1);
            return None;
        };
        let end = self.looked + at + BLANK.len();
        self.looked = 0;
        Some(self.held.split_to(end).freeze())
    }

    /// All that is held, whole or not.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.looked = 0;
        (!self.held.is_empty()).then(|| self.held.split().freeze())
    }
}

/// An event's name and data, as a reader is told them.
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
    fn any_cut_gives_the_same_events() {
        let body = b"event: a\ndata: 1\ndata: 2\n\ndata: 3\n\ndata: half";
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            let mut events = Events::default();
            let mut all = Vec::new();
            for part in [head, tail] {
                events.push(part);
                all.extend(std::iter::from_fn(|| events.whole()));
            }
            let read: Vec<_> = all.iter().map(|event| read(event)).collect();
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
