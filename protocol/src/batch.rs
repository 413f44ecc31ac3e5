//! The body of a batch send (320): messages without topic, one after the other.
//!
//! ```text
//! 4      size of this message, itself included
//! 4      magic, 0, not looked at
//! 4      body CRC, 0, not looked at
//! 4      flag
//! 4 + n  body
//! 2 + n  properties
//! ```

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use crate::properties::PROPERTIES_BYTES_MAX;

/// Bytes of a message without body and properties.
const FIXED_BYTES: usize = 22;

/// One message of a batch, borrowed from the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The application's flag.
    pub flag: i32,
    /// The message's body; `Bytes::slice_ref` makes it an owned slice without copying.
    pub body: &'a [u8],
    /// Properties text, see [`crate::properties`].
    pub properties: &'a str,
}

/// A batch that cannot be taken apart: the client's fault, nothing of it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The body ends within a message.
    #[error("batch ends within the message at byte {at}")]
    Truncated {
        /// Where that message begins.
        at: usize,
    },
    /// A message's parts do not fill exactly the size it announces.
    #[error("sizes of the message at byte {at} of the batch do not add up")]
    BadSize {
        /// Where that message begins.
        at: usize,
    },
    /// The properties are not UTF-8.
    #[error("properties of the message at byte {at} of the batch are not UTF-8")]
    NotUtf8 {
        /// Where that message begins.
        at: usize,
    },
}

/// Takes a batch apart. Ends after the first error. An empty body has no messages.
pub fn decode(body: &[u8]) -> impl Iterator<Item = Result<BatchMessage<'_>, BatchError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= body.len() {
            return None;
        }
        match decode_at(body, at) {
            Ok((message, end)) => {
                at = end;
                Some(Ok(message))
            }
            Err(error) => {
                at = body.len();
                Some(Err(error))
            }
        }
    })
}

/// Appends a message to a batch.
///
/// # Panics
/// If body or properties do not fit their length fields.
pub fn encode(message: &BatchMessage<'_>, out: &mut BytesMut) {
    let properties = message.properties.len();
    assert!(
        properties <= PROPERTIES_BYTES_MAX,
        "properties of {properties} bytes"
    );
    let size = i32::try_from(FIXED_BYTES + message.body.len() + properties)
        .expect("a batch message is below 2 GiB");
    out.reserve(FIXED_BYTES + message.body.len() + properties);
    out.put_i32(size);
    out.put_i32(0);
    out.put_i32(0);
    out.put_i32(message.flag);
    out.put_i32(message.body.len() as i32);
    out.put_slice(message.body);
    out.put_i16(properties as i16);
    out.put_slice(message.properties.as_bytes());
}

fn decode_at(whole: &[u8], at: usize) -> Result<(BatchMessage<'_>, usize), BatchError> {
    let truncated = BatchError::Truncated { at };
    let bad_size = BatchError::BadSize { at };
    let rest = &whole[at..];
    let size = rest.first_chunk().ok_or(truncated)?;
    let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| bad_size)?;
    if size < FIXED_BYTES {
        return Err(bad_size);
    }
    let message = rest.get(..size).ok_or(truncated)?;
    let flag = int_at(message, 12).ok_or(bad_size)?;
    let body_bytes = int_at(message, 16).and_then(|bytes| usize::try_from(bytes).ok());
    let body_end = 20 + body_bytes.ok_or(bad_size)?;
    let body = message.get(20..body_end).ok_or(bad_size)?;
    let properties = &message[body_end..];
    let (length, properties) = properties.split_first_chunk().ok_or(bad_size)?;
    if usize::try_from(i16::from_be_bytes(*length)) != Ok(properties.len()) {
        return Err(bad_size);
    }
    let properties = std::str::from_utf8(properties).map_err(|_| BatchError::NotUtf8 { at })?;
    Ok((
        BatchMessage {
            flag,
            body,
            properties,
        },
        at + size,
    ))
}

fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn two() -> BytesMut {
        let mut body = BytesMut::new();
        encode(
            &BatchMessage {
                flag: 7,
                body: b"hi",
                properties: "K\u{1}v",
            },
            &mut body,
        );
        encode(
            &BatchMessage {
                flag: -1,
                body: b"",
                properties: "",
            },
            &mut body,
        );
        body
    }

    #[test]
    fn golden_bytes_and_back() {
        let body = two();
        let golden = [
            0, 0, 0, 27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, b'h', b'i', 0, 3, b'K', 1,
            b'v', 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(&body[..], &golden[..]);
        let messages: Vec<_> = decode(&body).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            messages[0],
            BatchMessage {
                flag: 7,
                body: b"hi",
                properties: "K\u{1}v"
            }
        );
        assert_eq!(
            messages[1],
            BatchMessage {
                flag: -1,
                body: b"",
                properties: ""
            }
        );
    }

    #[test]
    fn every_cut_is_an_error_except_between_messages() {
        let body = two();
        for cut in 0..body.len() {
            let outcome: Result<Vec<_>, _> = decode(&body[..cut]).collect();
            if [0, 27].contains(&cut) {
                assert_eq!(outcome.unwrap().len(), cut / 27);
            } else {
                let at = if cut < 27 { 0 } else { 27 };
                assert_eq!(
                    outcome.unwrap_err(),
                    BatchError::Truncated { at },
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn lying_lengths_are_errors() {
        for (position, value) in [
            (3, 26),
            (3, 21),
            (3, 0),
            (0, 255),
            (19, 1),
            (16, 255),
            (23, 2),
        ] {
            let mut body = two();
            body[position] = value;
            let first = decode(&body).next().unwrap();
            assert_eq!(
                first,
                Err(BatchError::BadSize { at: 0 }),
                "byte {position} = {value}"
            );
            assert_eq!(decode(&body).count(), 1, "nothing follows an error");
        }
        let mut body = two();
        body[26] = 0xFF;
        assert_eq!(
            decode(&body).next().unwrap(),
            Err(BatchError::NotUtf8 { at: 0 })
        );
    }
}
