//! The byte stream cut into frames: tag, length, body.
//!
//! Lengths are judged here, before anything is reserved or decoded: a length under four or over what Postgres itself
//! allows ends the connection. Of a frame over [`limits::FRAME_BYTES`] the head is kept and the rest is thrown away
//! as it comes, so that no row, however large, costs more memory than the limit.

use bytes::{Buf, Bytes, BytesMut};

use crate::domain::limits;

/// Tag and length.
const HEADER: usize = 5;
/// What is asked of the socket at once.
const READ: usize = 64 * 1024;

/// One message of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its type.
    pub(super) tag: u8,
    /// Its body, or the body's head.
    pub(super) body: Bytes,
    /// The body's full length, where only the head was kept.
    pub(super) cut: Option<usize>,
}

/// A length that no message can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message '{}' announces an impossible length of {length} bytes", tag.escape_ascii())]
pub struct FrameError {
    /// The message's type.
    pub tag: u8,
    /// The length as announced.
    pub length: u32,
}

/// Bytes in, frames out. It may be left at any byte.
#[derive(Debug)]
pub(super) struct Splitter {
    buffer: BytesMut,
    skipping: Option<Skipping>,
    keep: usize,
    head: usize,
}

#[derive(Debug)]
struct Skipping {
    frame: Frame,
    left: usize,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self::with_limits(limits::FRAME_BYTES, limits::FRAME_HEAD_BYTES)
    }

    fn with_limits(keep: usize, head: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(READ), skipping: None, keep, head }
    }

    /// Where the next bytes go, with room for them.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < READ / 4 {
            self.buffer.reserve(READ);
        }
        &mut self.buffer
    }

    /// The next whole frame (or head of an over-large one, once all of it has passed).
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(mut skipping) = self.skipping.take() {
            let passed = skipping.left.min(self.buffer.len());
            self.buffer.advance(passed);
            skipping.left -= passed;
            if skipping.left > 0 {
                self.skipping = Some(skipping);
                return Ok(None);
            }
            return Ok(Some(skipping.frame));
        }
        let Some((&[tag, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let body = usize::try_from(length).ok().and_then(|l| l.checked_sub(4));
        let body = body.filter(|l| *l <= limits::FRAME_BYTES_POSSIBLE).ok_or(FrameError { tag, length })?;
        let kept = if body > self.keep { self.head.min(body) } else { body };
        let missing = (HEADER + kept).saturating_sub(self.buffer.len());
        if missing > 0 {
            self.buffer.reserve(missing);
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let head = self.buffer.split_to(kept).freeze();
        if kept == body {
            return Ok(Some(Frame { tag, body: head, cut: None }));
        }
        // A copy, so that the head does not hold on to a large buffer.
        let frame = Frame { tag, body: Bytes::copy_from_slice(&head), cut: Some(body) };
        self.skipping = Some(Skipping { frame, left: body - kept });
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, body) in frames {
            bytes.push(*tag);
            bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_arrive(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..12),
            cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let bytes = encoded(&frames);
            let mut splitter = Splitter::with_limits(40, 10);
            let (mut rest, mut got, mut cut) = (bytes.as_slice(), Vec::new(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                splitter.room().extend_from_slice(now);
                rest = later;
                while let Some(frame) = splitter.next().unwrap() {
                    got.push(frame);
                }
            }
            let expect: Vec<_> = frames.iter().map(|(tag, body)| match body.len() {
                0..=40 => Frame { tag: *tag, body: body.clone().into(), cut: None },
                n => Frame { tag: *tag, body: body[..10].to_vec().into(), cut: Some(n) },
            }).collect();
            prop_assert_eq!(got, expect);
        }
    }

    #[test]
    fn impossible_lengths_name_the_message() {
        for length in [0_u32, 3, 0x4000_0004, u32::MAX] {
            let mut splitter = Splitter::new();
            splitter.room().extend_from_slice(b"d");
            splitter.room().extend_from_slice(&length.to_be_bytes());
            assert_eq!(splitter.next(), Err(FrameError { tag: b'd', length }));
        }
    }
}
