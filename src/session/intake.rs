//! The bound on a client's frames, held on the bytes before the WebSocket decoder sees them: that one takes a frame in whole before it looks
//! at its size, so that a client could fill the memory.

use std::future::ready;
use std::io;

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

/// A frame of up to so many times the bound is read to its end and thrown away, so that its sender, who meant no harm, is done and reads the
/// Close. A bigger one is not waited for.
const THROWN_AWAY: u64 = 16;

/// The bytes of a client, up to its first frame with more than `most` bytes; in that one's place comes [`PayloadError::Overflow`].
pub fn bounded(
    bytes: impl Stream<Item = Result<Bytes, PayloadError>>,
    most: usize,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    bytes.scan(
        Bound {
            most,
            at: At::Head(Vec::new()),
        },
        |bound, chunk| ready(bound.next(chunk)),
    )
}

/// Whether the decoder's error, which keeps the words alone, is the one of [`bounded`].
pub fn is_too_big(error: &io::Error) -> bool {
    error.to_string() == PayloadError::Overflow.to_string()
}

struct Bound {
    most: u64,
    at: At,
}

/// Where in a frame we are.
enum At {
    /// In its head, of which there is this much.
    Head(Vec<u8>),
    /// In its payload, with so many bytes to come.
    Payload(u64),
    /// In one that is too big, with so many bytes to throw away.
    TooBig(u64),
    /// Behind that.
    End,
}

impl Bound {
    fn next(&mut self, chunk: Result<Bytes, PayloadError>) -> Option<Result<Bytes, PayloadError>> {
        if matches!(self.at, At::End) {
            return None;
        }
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        let passed = self.pass(&chunk);
        Some(match self.at {
            At::End => Err(PayloadError::Overflow),
            _ => Ok(chunk.slice(..passed)),
        })
    }

    /// How many bytes the decoder may see.
    fn pass(&mut self, chunk: &[u8]) -> usize {
        let mut rest = chunk;
        let mut passed = chunk.len();
        while let Some((first, behind)) = rest.split_first() {
            match &mut self.at {
                At::Head(head) => {
                    head.push(*first);
                    rest = behind;
                    match length(head) {
                        None => continue,
                        Some(length) if length <= self.most => self.at = At::Payload(length),
                        Some(length) => {
                            passed = chunk.len() - rest.len();
                            let bearable = length <= self.most.saturating_mul(THROWN_AWAY);
                            self.at = if bearable {
                                At::TooBig(length)
                            } else {
                                At::End
                            };
                        }
                    }
                }
                At::Payload(left) => rest = skip(rest, left),
                At::TooBig(left) => {
                    passed = passed.min(chunk.len() - rest.len());
                    rest = skip(rest, left);
                }
                At::End => break,
            }
            match self.at {
                At::Payload(0) => self.at = At::Head(Vec::new()),
                At::TooBig(0) => self.at = At::End,
                _ => {}
            }
        }
        passed
    }
}

/// The rest behind the payload, as far as it goes.
fn skip<'a>(rest: &'a [u8], left: &mut u64) -> &'a [u8] {
    let skipped = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= skipped as u64;
    rest.get(skipped..).unwrap_or_default()
}

/// The length of the payload behind this head (RFC 6455, section 5.2); none where more of the head is to come.
fn length(head: &[u8]) -> Option<u64> {
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

    /// What passes, and whether the end was a frame that is too big, however the bytes are cut.
    fn pass(bytes: &[u8], most: usize) -> (usize, bool) {
        let mut found = Vec::new();
        for size in [1, 2, 3, 7, 1000, bytes.len()] {
            let chunks = bytes
                .chunks(size)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            let stream = bounded(stream::iter(chunks.collect::<Vec<_>>()), most);
            let all: Vec<_> = collected(stream);
            let passed = all.iter().flatten().map(Bytes::len).sum::<usize>();
            let over = all.iter().filter(|one| one.is_err()).count();
            assert!(
                over <= 1 && all.iter().rev().skip(1).all(Result::is_ok),
                "nothing follows the error"
            );
            found.push((passed, over == 1));
        }
        // Bytes of the chunk that the error takes the place of are lost with it.
        assert!(found.iter().all(|one| one.1 == found[0].1), "{found:?}");
        found[0]
    }

    fn collected<T>(stream: impl Stream<Item = T>) -> Vec<T> {
        use futures_util::FutureExt as _;
        stream.collect::<Vec<_>>().now_or_never().unwrap()
    }

    #[test]
    fn what_fits_passes_as_it_is() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let bytes = [frame(length), frame(0), frame(3)].concat();
            assert_eq!(pass(&bytes, 65_536), (bytes.len(), false), "{length}");
        }
    }

    #[test]
    fn a_frame_too_big_by_little_is_thrown_away_and_told() {
        for length in [101, 126, 1600] {
            let bytes = [frame(100), frame(length), frame(3)].concat();
            let head = frame(length).len() - length;
            assert_eq!(
                pass(&bytes, 100),
                (frame(100).len() + head, true),
                "{length}"
            );
            let not_yet = &bytes[..frame(100).len() + head + length - 1];
            assert_eq!(
                pass(not_yet, 100),
                (frame(100).len() + head, false),
                "{length}"
            );
        }
    }

    #[test]
    fn one_far_too_big_is_told_at_once() {
        for length in [1601_u64, 100_000_000, u64::MAX] {
            let mut bytes = vec![0x81, 0xff];
            bytes.extend(length.to_be_bytes());
            bytes.extend([1, 2, 3, 4]);
            assert_eq!(pass(&bytes, 100), (13, true), "{length}");
        }
    }
}
