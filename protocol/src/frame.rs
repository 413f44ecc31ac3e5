//! Cuts frames out of the bytes of a connection.
//!
//! ```text
//! 4  length of what follows = 4 + header + body
//! 4  top byte: encoding of the header, low 3 bytes: header length
//! n  header
//! m  body, may be absent
//! ```
//!
//! The buffer is the caller's and grows only by what really arrived; an announced length never
//! causes an allocation.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::command::Encoding;

/// Largest frame in bytes, its length field included: 16 MiB, the limit of every stock client.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes before the header.
pub const PREFIX_BYTES: usize = 8;

const LENGTH_BYTES: usize = 4;
const HEADER_LENGTH_MASK: u32 = 0x00FF_FFFF;

/// One frame: slices of the connection's buffer, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How the header is encoded.
    pub encoding: Encoding,
    /// The header, still encoded.
    pub header: Bytes,
    /// The body; empty if there is none.
    pub body: Bytes,
}

/// Bytes that cannot be a frame. The stream has lost its place: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The frame is larger than [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Announced size, length field included.
        bytes: u64,
    },
    /// The frame has no room for its header length.
    #[error("frame length {length} is too small")]
    TooSmall {
        /// Announced length.
        length: u32,
    },
    /// The header does not fit in its frame.
    #[error("header of {header} bytes in a frame with {available} bytes for it")]
    HeaderBeyondFrame {
        /// Announced header length.
        header: u32,
        /// Bytes of the frame after its prefix.
        available: u32,
    },
    /// Neither JSON nor the compact encoding.
    #[error("unknown header encoding {0}")]
    UnknownEncoding(u8),
}

/// Takes one whole frame from the front of `buffer`; `None` means more bytes are needed.
///
/// What is wrong is reported as soon as its bytes are there, not when the frame is complete. After
/// an error the buffer is as it was.
///
/// # Errors
/// [`FrameError`]: the connection must be closed.
pub fn cut(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(length) = word(buffer, 0) else {
        return Ok(None);
    };
    let total = u64::from(length) + LENGTH_BYTES as u64;
    if total > FRAME_BYTES_MAX as u64 {
        return Err(FrameError::TooLarge { bytes: total });
    }
    if length < LENGTH_BYTES as u32 {
        return Err(FrameError::TooSmall { length });
    }
    let Some(header_word) = word(buffer, LENGTH_BYTES) else {
        return Ok(None);
    };
    let encoding = encoding_of((header_word >> 24) as u8)?;
    let header = header_word & HEADER_LENGTH_MASK;
    let available = length - LENGTH_BYTES as u32;
    if header > available {
        return Err(FrameError::HeaderBeyondFrame { header, available });
    }
    if (buffer.len() as u64) < total {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    let mut take = |bytes: usize| match bytes {
        0 => Bytes::new(),
        bytes => buffer.split_to(bytes).freeze(),
    };
    Ok(Some(Frame {
        encoding,
        header: take(header as usize),
        body: take((available - header) as usize),
    }))
}

/// The eight bytes in front of a header.
///
/// The caller has checked that the frame is at most [`FRAME_BYTES_MAX`].
pub(crate) fn prefix(encoding: Encoding, header: usize, body: usize) -> [u8; PREFIX_BYTES] {
    assert!(
        PREFIX_BYTES + header + body <= FRAME_BYTES_MAX,
        "frame {header} + {body} too large"
    );
    let length = (LENGTH_BYTES + header + body) as u32;
    let header_word = (u32::from(encoding as u8) << 24) | header as u32;
    let mut bytes = [0; PREFIX_BYTES];
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    bytes[LENGTH_BYTES..].copy_from_slice(&header_word.to_be_bytes());
    bytes
}

fn encoding_of(byte: u8) -> Result<Encoding, FrameError> {
    match byte {
        0 => Ok(Encoding::Json),
        1 => Ok(Encoding::RocketMq),
        other => Err(FrameError::UnknownEncoding(other)),
    }
}

fn word(buffer: &[u8], at: usize) -> Option<u32> {
    let bytes = buffer.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
