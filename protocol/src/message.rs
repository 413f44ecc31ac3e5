//! Reads messages as brokers store and return them: the bodies of 11, 12, 33 and 39.
//!
//! Big-endian, one message directly after the other:
//!
//! ```text
//! 4       size, itself included        8       store time
//! 4       magic                        8 / 20  store host, as born host
//! 4       body CRC                     4       reconsume times
//! 4       queue id                     8       prepared transaction offset
//! 4       flag                         4 + n   body
//! 8       queue offset                 1 + n   topic (2 + n after the second magic)
//! 8       physical offset              2 + n   properties
//! 4       sysFlag
//! 8       born time
//! 8 / 20  born host: 4 or 16 bytes of address, 4 of port
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use thiserror::Error;

use crate::message_id::OffsetMessageId;
use crate::properties;

/// Magic of a message whose topic length has one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a message whose topic length has two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;

/// Bits of a stored message's `sysFlag`.
pub mod sys_flags {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 1;
    /// The subscription may name several tags.
    pub const MULTI_TAGS: i32 = 2;
    /// Mask of the transaction state.
    pub const TRANSACTION_MASK: i32 = 12;
    /// Transaction state: prepared, not yet visible.
    pub const TRANSACTION_PREPARED: i32 = 4;
    /// Transaction state: committed.
    pub const TRANSACTION_COMMIT: i32 = 8;
    /// Transaction state: rolled back.
    pub const TRANSACTION_ROLLBACK: i32 = 12;
    /// The born host is an IPv6 address.
    pub const BORN_HOST_V6: i32 = 16;
    /// The store host is an IPv6 address.
    pub const STORE_HOST_V6: i32 = 32;
    /// Shift of the compression kind.
    pub const COMPRESSION_SHIFT: i32 = 8;
    /// Mask of the compression kind: 0 and 3 zlib, 1 LZ4, 2 ZSTD.
    pub const COMPRESSION_MASK: i32 = 0x700;
}

/// A message as it is returned to consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Queue of the topic.
    pub queue_id: i32,
    /// Position in its queue, in messages.
    pub queue_offset: i64,
    /// Position in the log, in bytes.
    pub physical_offset: i64,
    /// The application's flag.
    pub flag: i32,
    /// See [`sys_flags`].
    pub sys_flag: i32,
    /// Sender's time, milliseconds since 1970.
    pub born_timestamp: i64,
    /// Address of the sender.
    pub born_host: SocketAddr,
    /// Broker's time, milliseconds since 1970.
    pub store_timestamp: i64,
    /// Address to ask for this message by id.
    pub store_host: SocketAddr,
    /// How often it was delivered before.
    pub reconsume_times: i32,
    /// Physical offset of the half message, of a committed one.
    pub prepared_transaction_offset: i64,
    /// CRC-32 of the body without its top bit. Not verified here.
    pub body_crc: u32,
    /// The body as stored: compressed if the flag says so. A slice, not a copy.
    pub body: Bytes,
    /// Properties text, see [`crate::properties`].
    pub properties: String,
    /// Bytes it occupies.
    pub stored_bytes: usize,
}

/// Bytes that are not a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The input ends within the message.
    #[error("message ends early")]
    Truncated,
    /// Not a magic of a message.
    #[error("unknown message magic {0:#010x}")]
    BadMagic(u32),
    /// A length is negative, or the parts do not fill exactly the announced size.
    #[error("message sizes do not add up")]
    BadSize,
    /// A port is above 65535.
    #[error("port {0} of a message's host")]
    BadPort(u32),
    /// Topic or properties are not UTF-8.
    #[error("message text is not UTF-8")]
    NotUtf8,
}

impl Message {
    /// Reads one message and takes its bytes off the front of `input`; `None` at its end.
    ///
    /// # Errors
    /// [`MessageError`]; `input` is then as it was.
    pub fn decode(input: &mut Bytes) -> Result<Option<Self>, MessageError> {
        if input.is_empty() {
            return Ok(None);
        }
        let size = input.first_chunk().ok_or(MessageError::Truncated)?;
        let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| MessageError::BadSize)?;
        if input.len() < size {
            return Err(MessageError::Truncated);
        }
        let message = decode_whole(&input.slice(..size))?;
        drop(input.split_to(size));
        Ok(Some(message))
    }

    /// Reads a body of messages.
    ///
    /// # Errors
    /// [`MessageError`] of the first message that cannot be read.
    pub fn decode_all(mut body: Bytes) -> Result<Vec<Self>, MessageError> {
        let mut messages = Vec::new();
        while let Some(message) = Message::decode(&mut body)? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&str> {
        properties::get(&self.properties, name)
    }

    /// The id by which the broker finds it.
    pub fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId {
            host: self.store_host,
            physical_offset: self.physical_offset,
        }
    }
}

fn decode_whole(whole: &Bytes) -> Result<Message, MessageError> {
    let mut rest: &[u8] = whole;
    int(&mut rest)?;
    let magic = int(&mut rest)? as u32;
    if magic != MAGIC_V1 && magic != MAGIC_V2 {
        return Err(MessageError::BadMagic(magic));
    }
    let body_crc = int(&mut rest)? as u32;
    let queue_id = int(&mut rest)?;
    let flag = int(&mut rest)?;
    let queue_offset = long(&mut rest)?;
    let physical_offset = long(&mut rest)?;
    let sys_flag = int(&mut rest)?;
    let born_timestamp = long(&mut rest)?;
    let born_host = host(&mut rest, sys_flag & sys_flags::BORN_HOST_V6 != 0)?;
    let store_timestamp = long(&mut rest)?;
    let store_host = host(&mut rest, sys_flag & sys_flags::STORE_HOST_V6 != 0)?;
    let reconsume_times = int(&mut rest)?;
    let prepared_transaction_offset = long(&mut rest)?;
    let body_bytes = int(&mut rest)?;
    let body = whole.slice_ref(bytes(&mut rest, body_bytes)?);
    let topic_bytes = match magic {
        MAGIC_V1 => i32::from(take::<1>(&mut rest)?[0]),
        _ => i32::from(i16::from_be_bytes(take(&mut rest)?)),
    };
    let topic = text(bytes(&mut rest, topic_bytes)?)?;
    let properties_bytes = i16::from_be_bytes(take(&mut rest)?);
    let properties = text(bytes(&mut rest, i32::from(properties_bytes))?)?;
    if !rest.is_empty() {
        return Err(MessageError::BadSize);
    }
    Ok(Message {
        topic,
        queue_id,
        queue_offset,
        physical_offset,
        flag,
        sys_flag,
        born_timestamp,
        born_host,
        store_timestamp,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body_crc,
        body,
        properties,
        stored_bytes: whole.len(),
    })
}

/// Within the announced size, running out of bytes means that the sizes contradict each other.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MessageError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(MessageError::BadSize)?;
    *rest = tail;
    Ok(*head)
}

fn bytes<'a>(rest: &mut &'a [u8], length: i32) -> Result<&'a [u8], MessageError> {
    let length = usize::try_from(length).map_err(|_| MessageError::BadSize)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(MessageError::BadSize)?;
    *rest = tail;
    Ok(head)
}

fn int(rest: &mut &[u8]) -> Result<i32, MessageError> {
    Ok(i32::from_be_bytes(take(rest)?))
}

fn long(rest: &mut &[u8]) -> Result<i64, MessageError> {
    Ok(i64::from_be_bytes(take(rest)?))
}

fn host(rest: &mut &[u8], is_v6: bool) -> Result<SocketAddr, MessageError> {
    let ip = if is_v6 {
        IpAddr::V6(Ipv6Addr::from(take::<16>(rest)?))
    } else {
        IpAddr::V4(Ipv4Addr::from(take::<4>(rest)?))
    };
    let port = int(rest)? as u32;
    let port = u16::try_from(port).map_err(|_| MessageError::BadPort(port))?;
    Ok(SocketAddr::new(ip, port))
}

fn text(bytes: &[u8]) -> Result<String, MessageError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| MessageError::NotUtf8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const V4: [u8; 8] = [10, 0, 0, 1, 0, 0, 0x2A, 0x9F];

    fn stored(magic: u32, sys_flag: i32, host: &[u8], topic: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.extend(magic.to_be_bytes());
        out.extend(0x1234_5678_u32.to_be_bytes());
        out.extend(3_i32.to_be_bytes());
        out.extend(9_i32.to_be_bytes());
        out.extend(41_i64.to_be_bytes());
        out.extend(4096_i64.to_be_bytes());
        out.extend(sys_flag.to_be_bytes());
        out.extend(1_000_i64.to_be_bytes());
        out.extend(host);
        out.extend(2_000_i64.to_be_bytes());
        out.extend(host);
        out.extend(1_i32.to_be_bytes());
        out.extend(77_i64.to_be_bytes());
        out.extend(5_i32.to_be_bytes());
        out.extend(b"hello");
        if magic == MAGIC_V1 {
            out.push(topic.len() as u8);
        } else {
            out.extend((topic.len() as u16).to_be_bytes());
        }
        out.extend(topic);
        out.extend(7_i16.to_be_bytes());
        out.extend(b"TAGS\x01A\x02");
        let size = out.len() as u32;
        out[..4].copy_from_slice(&size.to_be_bytes());
        out
    }

    #[test]
    fn both_magics_follow_each_other() {
        let long_topic = "t".repeat(200);
        let v1 = stored(MAGIC_V1, 0, &V4, b"T");
        assert_eq!(v1.len(), 91 + 5 + 1 + 7);
        let v2 = stored(MAGIC_V2, 1, &V4, long_topic.as_bytes());
        let messages = Message::decode_all([v1, v2].concat().into()).unwrap();
        let first = &messages[0];
        assert_eq!(
            (first.topic.as_str(), first.queue_id, first.flag),
            ("T", 3, 9)
        );
        assert_eq!((first.queue_offset, first.physical_offset), (41, 4096));
        assert_eq!(
            (first.born_timestamp, first.store_timestamp),
            (1_000, 2_000)
        );
        assert_eq!(
            (first.reconsume_times, first.prepared_transaction_offset),
            (1, 77)
        );
        assert_eq!(first.born_host, "10.0.0.1:10911".parse().unwrap());
        assert_eq!(
            (&first.body[..], first.body_crc),
            (&b"hello"[..], 0x1234_5678)
        );
        assert_eq!(
            (first.property("TAGS"), first.stored_bytes),
            (Some("A"), 104)
        );
        assert_eq!(messages[1].topic, long_topic);
        assert_eq!(messages[1].sys_flag, sys_flags::COMPRESSED);
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn ipv6_hosts() {
        let host = [[0; 15].as_slice(), &[1, 0, 0, 0, 80]].concat();
        let flag = sys_flags::BORN_HOST_V6 | sys_flags::STORE_HOST_V6;
        let mut input = Bytes::from(stored(MAGIC_V1, flag, &host, b"T"));
        let message = Message::decode(&mut input).unwrap().unwrap();
        assert_eq!(message.store_host, "[::1]:80".parse().unwrap());
        assert_eq!(message.offset_message_id().to_string().len(), 56);
        assert_eq!(Message::decode(&mut input).unwrap(), None);
    }

    #[test]
    fn damage_is_named() {
        let good = stored(MAGIC_V1, 0, &V4, b"T");
        for cut in 1..good.len() {
            let outcome = Message::decode_all(Bytes::copy_from_slice(&good[..cut]));
            assert_eq!(
                outcome.unwrap_err(),
                MessageError::Truncated,
                "cut at {cut}"
            );
        }
        let changed = |position: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[position] = value;
            let mut input = Bytes::from(bytes);
            let before = input.len();
            let error = Message::decode(&mut input).unwrap_err();
            assert_eq!(input.len(), before);
            error
        };
        assert_eq!(changed(7, 0), MessageError::BadMagic(0xDAA3_2000));
        assert_eq!(changed(0, 0x80), MessageError::BadSize);
        assert_eq!(changed(3, 100), MessageError::BadSize);
        assert_eq!(changed(3, 0), MessageError::BadSize);
        assert_eq!(changed(52, 1), MessageError::BadPort(0x0100_2A9F));
        assert_eq!(changed(84, 0x80), MessageError::BadSize);
        assert_eq!(changed(94, 0xFF), MessageError::NotUtf8);
    }
}
