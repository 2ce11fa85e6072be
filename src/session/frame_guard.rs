//! The size limit of client frames, enforced on the bytes before they reach the WebSocket decoder.
//!
//! The decoder buffers a complete frame before it checks the size, so a client could fill the
//! memory.

use std::future::ready;
use std::io;

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

/// A frame of up to this multiple of the limit is read to its end and discarded, so that a
/// well-meaning client finishes sending and reads the close frame. A larger frame ends the
/// connection at once.
const DISCARD_FACTOR: u64 = 16;

/// Passes a client's bytes through, up to its first frame with a payload of more than `max_bytes`.
/// The stream then ends with [`PayloadError::Overflow`].
pub fn limit_frames(
    bytes: impl Stream<Item = Result<Bytes, PayloadError>>,
    max_bytes: usize,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    bytes.scan(
        FrameLimiter {
            max_bytes,
            state: FrameState::Head(Vec::new()),
        },
        |limiter, chunk| ready(limiter.on_chunk(chunk)),
    )
}

/// Returns `true` if the decoder's error stems from [`limit_frames`]. The decoder only
/// keeps the text of the error.
pub fn is_frame_too_large(error: &io::Error) -> bool {
    error.to_string() == PayloadError::Overflow.to_string()
}

struct FrameLimiter {
    max_bytes: u64,
    state: FrameState,
}

enum FrameState {
    /// The bytes of the header received so far.
    Head(Vec<u8>),
    /// The number of payload bytes that follow.
    Payload(u64),
    /// The number of payload bytes of an oversized frame that are still to be discarded.
    Oversized(u64),
    /// After an oversized frame, when nothing more is read.
    Ended,
}

impl FrameLimiter {
    fn on_chunk(
        &mut self,
        chunk: Result<Bytes, PayloadError>,
    ) -> Option<Result<Bytes, PayloadError>> {
        if matches!(self.state, FrameState::Ended) {
            return None;
        }
        Some(chunk.and_then(|chunk| {
            let passed = self.advance(&chunk);
            match self.state {
                FrameState::Ended => Err(PayloadError::Overflow),
                _ => Ok(chunk.slice(..passed)),
            }
        }))
    }

    /// Advances over the chunk and returns how many of its bytes the decoder may see.
    fn advance(&mut self, chunk: &[u8]) -> usize {
        let mut rest = chunk;
        let mut passed = chunk.len();
        while let Some((first, tail)) = rest.split_first() {
            match &mut self.state {
                FrameState::Head(head) => {
                    head.push(*first);
                    rest = tail;
                    match payload_length(head) {
                        None => continue,
                        Some(length) if length <= self.max_bytes => {
                            self.state = FrameState::Payload(length)
                        }
                        Some(length) => {
                            passed = chunk.len() - rest.len();
                            let max_discarded = self.max_bytes.saturating_mul(DISCARD_FACTOR);
                            self.state = if length <= max_discarded {
                                FrameState::Oversized(length)
                            } else {
                                FrameState::Ended
                            };
                        }
                    }
                }
                FrameState::Payload(left) => rest = skip_payload(rest, left),
                FrameState::Oversized(left) => {
                    passed = passed.min(chunk.len() - rest.len());
                    rest = skip_payload(rest, left);
                }
                FrameState::Ended => break,
            }
            match self.state {
                FrameState::Payload(0) => self.state = FrameState::Head(Vec::new()),
                FrameState::Oversized(0) => self.state = FrameState::Ended,
                _ => {}
            }
        }
        passed
    }
}

/// Skips up to `left` bytes and returns the rest of the chunk.
fn skip_payload<'a>(rest: &'a [u8], left: &mut u64) -> &'a [u8] {
    let skipped = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= skipped as u64;
    rest.get(skipped..).unwrap_or_default()
}

/// Returns the payload length of a frame header (RFC 6455, section 5.2), or `None` if the header is
/// not complete yet.
fn payload_length(head: &[u8]) -> Option<u64> {
    let (second, extended) = head.get(1..)?.split_first()?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (bytes, short) = match second & 0x7f {
        126 => (2, None),
        127 => (8, None),
        short => (0, Some(u64::from(short))),
    };
    if extended.len() < bytes + mask {
        return None;
    }
    let long = extended
        .iter()
        .take(bytes)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some(short.unwrap_or(long))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = vec![0x81];
        match length {
            0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + length, 0xff);
        bytes
    }

    /// Returns the number of bytes that pass, and whether the stream ends with an error. Both must
    /// not depend on how the bytes are split into chunks.
    fn pass(bytes: &[u8], max_bytes: usize) -> (usize, bool) {
        let mut results = Vec::new();
        for size in [1, 2, 3, 7, 1000, bytes.len()] {
            let chunks = bytes
                .chunks(size)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            let stream = limit_frames(stream::iter(chunks.collect::<Vec<_>>()), max_bytes);
            let items: Vec<_> = collected(stream);
            let passed = items.iter().flatten().map(Bytes::len).sum::<usize>();
            let errors = items.iter().filter(|item| item.is_err()).count();
            assert!(
                errors <= 1 && items.iter().rev().skip(1).all(Result::is_ok),
                "nothing follows the error"
            );
            results.push((passed, errors == 1));
        }
        // The error replaces its chunk, so the number of passed bytes depends on the chunk size.
        assert!(
            results.iter().all(|result| result.1 == results[0].1),
            "{results:?}"
        );
        results[0]
    }

    fn collected<T>(stream: impl Stream<Item = T>) -> Vec<T> {
        use futures_util::FutureExt as _;
        stream.collect::<Vec<_>>().now_or_never().unwrap()
    }

    #[test]
    fn frames_within_the_limit_pass_unchanged() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let bytes = [frame(length), frame(0), frame(3)].concat();
            assert_eq!(pass(&bytes, 65_536), (bytes.len(), false), "{length}");
        }
    }

    #[test]
    fn slightly_oversized_frame_is_discarded_then_reported() {
        for length in [101, 126, 1600] {
            let bytes = [frame(100), frame(length), frame(3)].concat();
            let head = frame(length).len() - length;
            assert_eq!(
                pass(&bytes, 100),
                (frame(100).len() + head, true),
                "{length}"
            );
            let unfinished = &bytes[..frame(100).len() + head + length - 1];
            assert_eq!(
                pass(unfinished, 100),
                (frame(100).len() + head, false),
                "{length}"
            );
        }
    }

    #[test]
    fn far_oversized_frame_is_reported_at_once() {
        for length in [1601_u64, 100_000_000, u64::MAX] {
            let mut bytes = vec![0x81, 0xff];
            bytes.extend(length.to_be_bytes());
            bytes.extend([1, 2, 3, 4]);
            assert_eq!(pass(&bytes, 100), (13, true), "{length}");
        }
    }
}
