//! Bytes of one stored message, in the layout that clients receive.
//!
//! All integers are big-endian; `h` is 8 bytes, or 20 when the sender's address is IPv6:
//!
//! ```text
//!  0 size u32 (all of it)   4 magic u32      8 body CRC u32   12 queue id u32   16 flag u32
//! 20 queue offset u64      28 physical offset u64             36 sys flag u32   40 born time u64 (ms)
//! 48 born host h           48+h store time u64 (ms)           56+h store host 8
//! 64+h reconsume times u32 68+h prepared offset u64
//! 76+h body u32 + n        topic u8 + n (magic v2: u16 + n)   properties u16 + n
//! ```
//!
//! Three fields are zero in the log and filled in by [`patch`] when a message is read: the queue offset is
//! only known after apply, the physical offset only after the record was placed, and the store host is
//! whatever address of a live node the reader should ask for this message later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use crate::position::{PhysicalOffset, QueueOffset};

/// Magic of a message whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a message whose topic length is two bytes. Old clients cannot read it.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Longest topic that [`MAGIC_V1`] is used for; bytes.
pub const TOPIC_BYTES_V1_MAX: usize = 127;
/// Longest topic; bytes.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Longest properties text; bytes.
pub const PROPERTIES_BYTES_MAX: usize = 32_767;
/// Size of a message without body, topic and properties whose sender has an IPv4 address; bytes.
pub const MESSAGE_BYTES_MIN: usize = 91;
/// Largest message, so that a record with one message always fits into its length fields; bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Bit of the sys flag: the born host is IPv6.
pub const FLAG_BORN_HOST_V6: i32 = 1 << 4;
/// Bit of the sys flag: the store host is IPv6. Never set here.
pub const FLAG_STORE_HOST_V6: i32 = 1 << 5;
/// Bits of the sys flag that tell the state of a transaction.
pub const FLAG_TRANSACTION_MASK: i32 = 3 << 2;
/// Transaction state: rolled back. Such a message is not indexed by key.
pub const FLAG_TRANSACTION_ROLLBACK: i32 = 3 << 2;

/// Property that holds the tag.
pub const PROPERTY_TAGS: &str = "TAGS";
/// Property that holds the application's keys, separated by spaces.
pub const PROPERTY_KEYS: &str = "KEYS";
/// Property that holds the id that the producer gave the message.
pub const PROPERTY_UNIQUE_KEY: &str = "UNIQ_KEY";

const NAME_END: u8 = 1;
const PROPERTY_END: u8 = 2;

const AT_MAGIC: usize = 4;
const AT_BODY_CRC: usize = 8;
const AT_QUEUE_ID: usize = 12;
const AT_FLAG: usize = 16;
const AT_QUEUE_OFFSET: usize = 20;
const AT_PHYSICAL_OFFSET: usize = 28;
const AT_SYS_FLAG: usize = 36;
const AT_BORN_TIME: usize = 40;
const AT_BORN_HOST: usize = 48;
/// Bytes of a host that is IPv4; the offsets after it are for this case.
const HOST_V4_BYTES: usize = 8;
const HOST_V6_BYTES: usize = 20;
/// Bytes between the end of the born host and the body's length.
const AFTER_BORN_HOST_BYTES: usize = 28;

/// Why a message cannot be stored. The client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The topic is empty or longer than [`TOPIC_BYTES_MAX`].
    #[error("a topic of {0} bytes, allowed are 1 to {TOPIC_BYTES_MAX}")]
    TopicLength(usize),
    /// The properties are longer than [`PROPERTIES_BYTES_MAX`].
    #[error("properties of {0} bytes, allowed are {PROPERTIES_BYTES_MAX}")]
    PropertiesLength(usize),
    /// The whole message is larger than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes, allowed are {MESSAGE_BYTES_MAX}")]
    Size(usize),
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a stored message: {0}")]
pub struct NotAMessage(pub &'static str);

/// A message about to be stored, borrowed from the request that brought it.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// Topic, 1 to [`TOPIC_BYTES_MAX`] bytes.
    pub topic: &'a str,
    /// Queue of the topic.
    pub queue_id: u16,
    /// The application's flag.
    pub flag: i32,
    /// The sender's sys flag; the two address bits are set here, as the addresses are.
    pub sys_flag: i32,
    /// The sender's clock, milliseconds since 1970.
    pub born_timestamp: i64,
    /// Where the sender is connected from. An IPv4 address in IPv6 clothes is stored as IPv4.
    pub born_host: SocketAddr,
    /// How often the message was sent back by consumers.
    pub reconsume_times: i32,
    /// Of a committed transaction: where its half message is, 0 otherwise.
    pub prepared_offset: i64,
    /// The body as the sender compressed it, or not.
    pub body: &'a [u8],
    /// Properties text, at most [`PROPERTIES_BYTES_MAX`] bytes.
    pub properties: &'a [u8],
}

impl NewMessage<'_> {
    /// Bytes that [`encode`](Self::encode) appends, or why it would refuse.
    pub fn encoded_len(&self) -> Result<usize, MessageError> {
        if self.topic.is_empty() || self.topic.len() > TOPIC_BYTES_MAX {
            return Err(MessageError::TopicLength(self.topic.len()));
        }
        if self.properties.len() > PROPERTIES_BYTES_MAX {
            return Err(MessageError::PropertiesLength(self.properties.len()));
        }
        let v2 = usize::from(self.topic.len() > TOPIC_BYTES_V1_MAX);
        let v6 = if self.born_ip().is_ipv6() {
            HOST_V6_BYTES - HOST_V4_BYTES
        } else {
            0
        };
        let texts = self.topic.len() + self.properties.len();
        let size = (MESSAGE_BYTES_MIN + v2 + v6 + texts).saturating_add(self.body.len());
        if size > MESSAGE_BYTES_MAX {
            return Err(MessageError::Size(size));
        }
        Ok(size)
    }

    fn born_ip(&self) -> IpAddr {
        self.born_host.ip().to_canonical()
    }

    /// Appends the message to `out`, with zero store time, store host, queue and physical offset.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), MessageError> {
        let size = self.encoded_len()?;
        let start = out.len();
        out.reserve(size);
        let long_topic = self.topic.len() > TOPIC_BYTES_V1_MAX;
        let born_ip = self.born_ip();
        out.put_u32(size as u32);
        out.put_u32(if long_topic { MAGIC_V2 } else { MAGIC_V1 });
        out.put_u32(crc32fast::hash(self.body) & 0x7FFF_FFFF);
        out.put_u32(u32::from(self.queue_id));
        out.put_i32(self.flag);
        out.put_bytes(0, 16);
        let hosts = FLAG_BORN_HOST_V6 | FLAG_STORE_HOST_V6;
        let born_v6 = if born_ip.is_ipv6() {
            FLAG_BORN_HOST_V6
        } else {
            0
        };
        out.put_i32(self.sys_flag & !hosts | born_v6);
        out.put_i64(self.born_timestamp);
        match born_ip {
            IpAddr::V4(ip) => out.put_slice(&ip.octets()),
            IpAddr::V6(ip) => out.put_slice(&ip.octets()),
        }
        out.put_u32(u32::from(self.born_host.port()));
        out.put_bytes(0, 16);
        out.put_i32(self.reconsume_times);
        out.put_i64(self.prepared_offset);
        out.put_u32(self.body.len() as u32);
        out.put_slice(self.body);
        if long_topic {
            out.put_u16(self.topic.len() as u16);
        } else {
            out.put_u8(self.topic.len() as u8);
        }
        out.put_slice(self.topic.as_bytes());
        out.put_u16(self.properties.len() as u16);
        out.put_slice(self.properties);
        assert_eq!(out.len() - start, size, "the announced size is the size");
        Ok(())
    }
}

/// A stored message, checked as a whole once; the fields are then cheap to read.
#[derive(Debug, Clone, Copy)]
pub struct MessageView<'a> {
    bytes: &'a [u8],
    body_at: usize,
    topic: &'a str,
    properties: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// Checks that `bytes` are exactly one message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NotAMessage> {
        check_fixed(bytes)?;
        let truncated = NotAMessage("it ends within a field");
        let body_len_at = AT_BORN_HOST + born_host_bytes(bytes) + AFTER_BORN_HOST_BYTES;
        let mut rest = bytes.get(body_len_at..).ok_or(truncated)?;
        let body_len = take_length(&mut rest, 4).ok_or(truncated)?;
        rest = rest.get(body_len..).ok_or(truncated)?;
        let topic_width = if u32_at(bytes, AT_MAGIC) == MAGIC_V2 {
            2
        } else {
            1
        };
        let topic_len = take_length(&mut rest, topic_width).ok_or(truncated)?;
        let (topic, after) = rest.split_at_checked(topic_len).ok_or(truncated)?;
        rest = after;
        let properties_len = take_length(&mut rest, 2).ok_or(truncated)?;
        if rest.len() != properties_len {
            return Err(NotAMessage("its parts do not add up to its size"));
        }
        let topic = str::from_utf8(topic).map_err(|_| NotAMessage("the topic is not UTF-8"))?;
        Ok(Self {
            bytes,
            body_at: body_len_at + 4,
            topic,
            properties: rest,
        })
    }

    /// All bytes of the message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Queue of the topic.
    pub fn queue_id(&self) -> u32 {
        u32_at(self.bytes, AT_QUEUE_ID)
    }

    /// CRC-32 of the body without the top bit.
    pub fn body_crc(&self) -> u32 {
        u32_at(self.bytes, AT_BODY_CRC)
    }

    /// The application's flag.
    pub fn flag(&self) -> i32 {
        u32_at(self.bytes, AT_FLAG) as i32
    }

    /// Place in the queue; zero unless patched.
    pub fn queue_offset(&self) -> QueueOffset {
        QueueOffset::new(u64_at(self.bytes, AT_QUEUE_OFFSET))
    }

    /// Place in the log; zero unless patched.
    pub fn physical_offset(&self) -> PhysicalOffset {
        PhysicalOffset::new(u64_at(self.bytes, AT_PHYSICAL_OFFSET))
    }

    /// Compression, transaction state, kinds of addresses.
    pub fn sys_flag(&self) -> i32 {
        u32_at(self.bytes, AT_SYS_FLAG) as i32
    }

    /// The sender's clock, milliseconds since 1970.
    pub fn born_timestamp(&self) -> i64 {
        u64_at(self.bytes, AT_BORN_TIME) as i64
    }

    /// Where the sender was connected from.
    pub fn born_host(&self) -> SocketAddr {
        let host = &self.bytes[AT_BORN_HOST..];
        let ip_len = born_host_bytes(self.bytes) - 4;
        let port = u32_at(host, ip_len) as u16;
        let ip = match <[u8; 16]>::try_from(&host[..ip_len]) {
            Ok(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
            Err(_) => IpAddr::V4(Ipv4Addr::new(host[0], host[1], host[2], host[3])),
        };
        SocketAddr::new(ip, port)
    }

    /// When the leader stored it, milliseconds since 1970.
    pub fn store_timestamp(&self) -> u64 {
        u64_at(self.bytes, AT_BORN_HOST + born_host_bytes(self.bytes))
    }

    /// Address of a node that knows the message; zero unless patched.
    pub fn store_host(&self) -> SocketAddrV4 {
        let at = AT_BORN_HOST + born_host_bytes(self.bytes) + 8;
        SocketAddrV4::new(
            Ipv4Addr::from(u32_at(self.bytes, at)),
            u32_at(self.bytes, at + 4) as u16,
        )
    }

    /// How often consumers sent it back.
    pub fn reconsume_times(&self) -> i32 {
        u32_at(self.bytes, self.body_at - 16) as i32
    }

    /// Of a committed transaction: where its half message is.
    pub fn prepared_offset(&self) -> i64 {
        u64_at(self.bytes, self.body_at - 12) as i64
    }

    /// The body as stored.
    pub fn body(&self) -> &'a [u8] {
        let len = u32_at(self.bytes, self.body_at - 4) as usize;
        &self.bytes[self.body_at..self.body_at + len]
    }

    /// The properties text.
    pub fn properties(&self) -> &'a [u8] {
        self.properties
    }

    /// Value of one property.
    pub fn property(&self, name: &str) -> Option<&'a str> {
        property(self.properties, name)
    }
}

/// Fills in the fields that the log leaves at zero.
///
/// Fails without touching anything when `message` does not look like a message of its length.
pub fn patch(
    message: &mut [u8],
    queue_offset: QueueOffset,
    physical_offset: PhysicalOffset,
    store_host: SocketAddrV4,
) -> Result<(), NotAMessage> {
    check_fixed(message)?;
    let host_at = AT_BORN_HOST + born_host_bytes(message) + 8;
    message[AT_QUEUE_OFFSET..AT_QUEUE_OFFSET + 8]
        .copy_from_slice(&queue_offset.get().to_be_bytes());
    message[AT_PHYSICAL_OFFSET..AT_PHYSICAL_OFFSET + 8]
        .copy_from_slice(&physical_offset.get().to_be_bytes());
    message[host_at..host_at + 4].copy_from_slice(&store_host.ip().octets());
    message[host_at + 4..host_at + 8].copy_from_slice(&u32::from(store_host.port()).to_be_bytes());
    Ok(())
}

/// Writes the store time (milliseconds since 1970) into a message that [`NewMessage::encode`] made.
pub fn patch_store_time(message: &mut [u8], store_time_ms: u64) {
    let at = AT_BORN_HOST + born_host_bytes(message);
    message[at..at + 8].copy_from_slice(&store_time_ms.to_be_bytes());
}

/// Says that a checksum stands in front of it.
const CHECK_MARK: u32 = 1;

/// Writes a checksum into a message that [`NewMessage::encode`] made, where its store host will be: so it
/// can be read alone, without the record that it is a part of. Covers what is not filled in later.
pub(crate) fn put_check(message: &mut [u8]) {
    let check = check_of(message).expect("an encoded message has all its fields");
    let at = AT_BORN_HOST + born_host_bytes(message) + 8;
    message[at..at + 4].copy_from_slice(&check.to_be_bytes());
    message[at + 4..at + 8].copy_from_slice(&CHECK_MARK.to_be_bytes());
}

/// Whether `bytes` are exactly one message with a checksum by [`put_check`], and nothing of it has changed.
pub(crate) fn is_intact(bytes: &[u8]) -> bool {
    if check_fixed(bytes).is_err() {
        return false;
    }
    let at = AT_BORN_HOST + born_host_bytes(bytes) + 8;
    let is_marked = u32_at(bytes, at + 4) == CHECK_MARK;
    is_marked && check_of(bytes) == Some(u32_at(bytes, at))
}

fn check_of(message: &[u8]) -> Option<u32> {
    let host_end = AT_BORN_HOST + born_host_bytes(message);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(message.get(..AT_QUEUE_OFFSET)?);
    hasher.update(message.get(AT_SYS_FLAG..host_end)?);
    // Store time and store host lie in between.
    hasher.update(message.get(host_end + 16..)?);
    Some(hasher.finalize())
}

/// Bytes from the start of a message that hold everything up to the store time.
pub(crate) const STORE_TIME_PREFIX_BYTES: usize = AT_BORN_HOST + HOST_V6_BYTES + 8;

/// The store time from the first [`STORE_TIME_PREFIX_BYTES`] of a message.
pub(crate) fn store_time_of_prefix(prefix: &[u8]) -> Result<u64, NotAMessage> {
    if prefix.len() < STORE_TIME_PREFIX_BYTES {
        return Err(NotAMessage("it is too short"));
    }
    check_magic(prefix)?;
    Ok(u64_at(prefix, AT_BORN_HOST + born_host_bytes(prefix)))
}

/// Bytes from the start of a message that hold everything up to the length of the body.
pub(crate) const BODY_PREFIX_BYTES: usize =
    AT_BORN_HOST + HOST_V6_BYTES + AFTER_BORN_HOST_BYTES + 4;

/// Where the body ends, from the first [`BODY_PREFIX_BYTES`] of a message, or all of a smaller one.
pub(crate) fn body_end_of_prefix(prefix: &[u8]) -> Result<usize, NotAMessage> {
    if prefix.len() < MESSAGE_BYTES_MIN {
        return Err(NotAMessage("it is too short"));
    }
    check_magic(prefix)?;
    let at = AT_BORN_HOST + born_host_bytes(prefix) + AFTER_BORN_HOST_BYTES;
    let length = prefix
        .get(at..at + 4)
        .ok_or(NotAMessage("it is too short"))?;
    Ok(at + 4 + u32_at(length, 0) as usize)
}

/// The properties in `texts`, which is everything behind the body of the message that begins with `prefix`.
pub(crate) fn properties_behind_body<'a>(
    prefix: &[u8],
    texts: &'a [u8],
) -> Result<&'a [u8], NotAMessage> {
    let truncated = NotAMessage("it ends within a field");
    let width = if u32_at(prefix, AT_MAGIC) == MAGIC_V2 {
        2
    } else {
        1
    };
    let mut rest = texts;
    let topic = take_length(&mut rest, width).ok_or(truncated)?;
    rest = rest.get(topic..).ok_or(truncated)?;
    let properties = take_length(&mut rest, 2).ok_or(truncated)?;
    rest.get(..properties).ok_or(truncated)
}

fn check_magic(bytes: &[u8]) -> Result<(), NotAMessage> {
    let magic = u32_at(bytes, AT_MAGIC);
    if magic != MAGIC_V1 && magic != MAGIC_V2 {
        return Err(NotAMessage("unknown magic"));
    }
    Ok(())
}

/// Size, magic and address kinds are right, and the fixed fields lie inside.
fn check_fixed(bytes: &[u8]) -> Result<(), NotAMessage> {
    if bytes.len() < MESSAGE_BYTES_MIN || u32_at(bytes, 0) as usize != bytes.len() {
        return Err(NotAMessage("its size is another one"));
    }
    check_magic(bytes)?;
    if u32_at(bytes, AT_SYS_FLAG) as i32 & FLAG_STORE_HOST_V6 != 0 {
        return Err(NotAMessage("an IPv6 store host"));
    }
    let fixed = MESSAGE_BYTES_MIN - HOST_V4_BYTES + born_host_bytes(bytes);
    if bytes.len() < fixed {
        return Err(NotAMessage("it ends within a field"));
    }
    Ok(())
}

fn born_host_bytes(message: &[u8]) -> usize {
    let v6 = u32_at(message, AT_SYS_FLAG) as i32 & FLAG_BORN_HOST_V6 != 0;
    if v6 { HOST_V6_BYTES } else { HOST_V4_BYTES }
}

/// Takes a big-endian length of `width` bytes off the front.
fn take_length(rest: &mut &[u8], width: usize) -> Option<usize> {
    let (length, after) = rest.split_at_checked(width)?;
    *rest = after;
    Some(
        length
            .iter()
            .fold(0, |value, byte| value << 8 | usize::from(*byte)),
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The properties in a text, as they are, in order. Pieces without a name are skipped.
pub fn properties(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == PROPERTY_END)
        .filter_map(|piece| {
            let end = piece.iter().position(|byte| *byte == NAME_END)?;
            Some((&piece[..end], &piece[end + 1..]))
        })
}

/// The value of a property, of the last one if there are several of the name, as clients read it; `None` also
/// if it is not UTF-8.
pub fn property<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let named = properties(text).filter(|(found, _)| *found == name.as_bytes());
    let (_, value) = named.last()?;
    str::from_utf8(value).ok()
}

/// Appends one property to a text. Neither part may contain the bytes 1 and 2.
pub fn push_property(text: &mut Vec<u8>, name: &str, value: &str) {
    if text.last().is_some_and(|byte| *byte != PROPERTY_END) {
        text.push(PROPERTY_END);
    }
    text.extend_from_slice(name.as_bytes());
    text.push(NAME_END);
    text.extend_from_slice(value.as_bytes());
    text.push(PROPERTY_END);
}

/// Java's string hash: over UTF-16 units, wrapping at 32 bits.
pub fn java_hash(text: &str) -> i32 {
    extend_hash(0, text)
}

/// Java's string hash of `topic#key`, under which messages are indexed.
pub fn key_hash(topic: &str, key: &str) -> u32 {
    KeyHasher::new(topic).hash(key)
}

/// [`key_hash`] of several keys of one topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher {
    topic: i32,
}

impl KeyHasher {
    pub(crate) fn new(topic: &str) -> Self {
        let topic = extend_hash(java_hash(topic), "#");
        Self { topic }
    }

    pub(crate) fn hash(self, key: &str) -> u32 {
        extend_hash(self.topic, key) as u32
    }
}

fn extend_hash(start: i32, text: &str) -> i32 {
    let extend = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(unit.into());
    if text.is_ascii() {
        return text.bytes().map(u16::from).fold(start, extend);
    }
    text.encode_utf16().fold(start, extend)
}

/// What a message is found by, from one pass over its properties.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    tag: Option<&'a str>,
    unique_key: &'a str,
    key_words: &'a str,
}

impl<'a> Terms<'a> {
    /// As with [`property`], the last of a name counts, and is none if it is not UTF-8.
    pub fn of(properties_text: &'a [u8]) -> Self {
        let (mut tag, mut unique_key, mut key_words) = (None, None, None);
        for (name, value) in properties(properties_text) {
            let found = if name == PROPERTY_TAGS.as_bytes() {
                &mut tag
            } else if name == PROPERTY_UNIQUE_KEY.as_bytes() {
                &mut unique_key
            } else if name == PROPERTY_KEYS.as_bytes() {
                &mut key_words
            } else {
                continue;
            };
            *found = Some(value);
        }
        let text = |value: Option<&'a [u8]>| value.and_then(|value| str::from_utf8(value).ok());
        Self {
            tag: text(tag),
            unique_key: text(unique_key).unwrap_or_default(),
            key_words: text(key_words).unwrap_or_default(),
        }
    }

    /// The tag's hash as consume queues hold it: sign-extended, 0 without a tag.
    pub fn tags_code(&self) -> i64 {
        self.tag.map_or(0, |tag| i64::from(java_hash(tag)))
    }

    /// All keys: the producer's id first, then the application's words.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.unique_key)
            .chain(self.key_words.split(' '))
            .filter(|key| !key.is_empty())
    }
}

/// All keys of a message: the producer's id first, then the application's words.
pub fn keys(properties_text: &[u8]) -> impl Iterator<Item = &str> {
    Terms::of(properties_text).keys()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 7), 10_911);

    #[test]
    fn a_checksum_covers_all_that_is_not_filled_in_later() {
        for host in ["10.0.0.1:5", "[2001:db8::1]:5"] {
            let mut bytes = BytesMut::new();
            sample("topic", host).encode(&mut bytes).unwrap();
            assert!(!is_intact(&bytes), "it has none yet");
            put_check(&mut bytes);
            patch_store_time(&mut bytes, 99);
            assert!(is_intact(&bytes) && !is_intact(&bytes[..bytes.len() - 1]));
            let host_end = AT_BORN_HOST + born_host_bytes(&bytes);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                let is_filled_in = (AT_QUEUE_OFFSET..AT_SYS_FLAG).contains(&at)
                    || (host_end..host_end + 8).contains(&at);
                assert_eq!(is_intact(&damaged), is_filled_in, "byte {at}");
            }
        }
    }

    fn sample<'a>(topic: &'a str, born_host: &str) -> NewMessage<'a> {
        NewMessage {
            topic,
            queue_id: 3,
            flag: -2,
            sys_flag: 1 | FLAG_STORE_HOST_V6,
            born_timestamp: 1_700_000_000_000,
            born_host: born_host.parse().unwrap(),
            reconsume_times: 4,
            prepared_offset: 77,
            body: b"hello",
            properties: b"TAGS\x01TagA\x02KEYS\x01a  b\x02UNIQ_KEY\x01U1",
        }
    }

    fn encoded(message: &NewMessage<'_>) -> BytesMut {
        let mut out = BytesMut::from(&b"in front"[..]);
        message.encode(&mut out).unwrap();
        out.split_off(8)
    }

    #[test]
    fn fields_come_back_for_both_address_kinds_and_topic_lengths() {
        let long = "t".repeat(128);
        for topic in ["T", long.as_str()] {
            for host in ["1.2.3.4:5", "[2001:db8::1]:6"] {
                let mut bytes = encoded(&sample(topic, host));
                patch_store_time(&mut bytes, 99);
                patch(
                    &mut bytes,
                    QueueOffset::new(8),
                    PhysicalOffset::new(9),
                    HOST,
                )
                .unwrap();
                let view = MessageView::parse(&bytes).unwrap();
                assert_eq!((view.topic(), view.queue_id(), view.flag()), (topic, 3, -2));
                assert_eq!(view.born_host().to_string(), host);
                assert_eq!(
                    view.sys_flag() & !FLAG_BORN_HOST_V6,
                    1,
                    "the v6 bits are ours"
                );
                assert_eq!((view.store_timestamp(), view.store_host()), (99, HOST));
                assert_eq!(view.queue_offset().get(), 8);
                assert_eq!(view.physical_offset().get(), 9);
                assert_eq!((view.reconsume_times(), view.prepared_offset()), (4, 77));
                assert_eq!(view.born_timestamp(), 1_700_000_000_000);
                assert_eq!((view.body(), view.body_crc()), (&b"hello"[..], 0x3610_a686));
                assert_eq!(view.property("TAGS"), Some("TagA"));
                assert_eq!(
                    store_time_of_prefix(&bytes[..STORE_TIME_PREFIX_BYTES]).unwrap(),
                    99
                );
            }
        }
    }

    #[test]
    fn the_layout_is_pinned() {
        let bytes = encoded(&sample("T", "1.2.3.4:5"));
        assert_eq!(bytes.len(), 91 + 5 + 1 + 31);
        assert_eq!(&bytes[..8], [0, 0, 0, 128, 0xDA, 0xA3, 0x20, 0xA7]);
        assert_eq!(&bytes[48..56], [1, 2, 3, 4, 0, 0, 0, 5]);
        assert_eq!(&bytes[84..93], b"\0\0\0\x05hello");
        assert_eq!(&bytes[93..97], b"\x01T\0\x1f");
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_ipv4() {
        let bytes = encoded(&sample("T", "[::ffff:1.2.3.4]:5"));
        assert_eq!(
            MessageView::parse(&bytes).unwrap().born_host().to_string(),
            "1.2.3.4:5"
        );
    }

    #[test]
    fn cut_and_twisted_bytes_are_refused() {
        let good = encoded(&sample("T", "[2001:db8::1]:6"));
        for len in 0..good.len() {
            assert!(MessageView::parse(&good[..len]).is_err(), "cut at {len}");
            let mut resized = good[..len].to_vec();
            if len >= 4 {
                resized[..4].copy_from_slice(&(len as u32).to_be_bytes());
            }
            assert!(
                MessageView::parse(&resized).is_err(),
                "cut at {len} with that size"
            );
        }
        let mut other_magic = good.to_vec();
        other_magic[7] ^= 1;
        assert!(MessageView::parse(&other_magic).is_err());
        let host = PhysicalOffset::ZERO;
        assert!(patch(&mut other_magic, QueueOffset::ZERO, host, HOST).is_err());
        let mut long_body = good.to_vec();
        long_body[96..100].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(MessageView::parse(&long_body).is_err());
    }

    #[test]
    fn limits_are_refused_with_their_reason() {
        let mut message = sample("", "1.2.3.4:5");
        assert_eq!(message.encoded_len(), Err(MessageError::TopicLength(0)));
        let long = "t".repeat(256);
        message.topic = &long;
        assert_eq!(message.encoded_len(), Err(MessageError::TopicLength(256)));
        message.topic = "T";
        let properties = vec![b'x'; PROPERTIES_BYTES_MAX + 1];
        message.properties = &properties;
        assert_eq!(
            message.encoded_len(),
            Err(MessageError::PropertiesLength(32_768))
        );
    }

    #[test]
    fn keys_and_tags_are_found_and_hashed_as_java_does() {
        let text = sample("T", "1.2.3.4:5").properties;
        assert_eq!(keys(text).collect::<Vec<_>>(), ["U1", "a", "b"]);
        assert_eq!(Terms::of(text).tags_code(), i64::from(java_hash("TagA")));
        assert_eq!(Terms::of(b"").tags_code(), 0);
        let twice = b"UNIQ_KEY\x01U\x02TAGS\x01A\x02KEYS\x01k\x02UNIQ_KEY\x01\xFF\x02TAGS\x01B";
        assert_eq!(Terms::of(twice).tags_code(), 66, "the last one counts");
        assert_eq!(keys(twice).collect::<Vec<_>>(), ["k"]);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(java_hash("\u{1F600}"), 0xD83D * 31 + 0xDE00);
        assert_eq!(key_hash("T", "k"), java_hash("T#k") as u32);
        let mut built = b"A\x01b".to_vec();
        push_property(&mut built, "C", "d");
        assert_eq!(built, b"A\x01b\x02C\x01d\x02");
        assert_eq!(property(&built, "C"), Some("d"));
    }
}
