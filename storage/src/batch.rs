//! Payload of a batch record: messages and control commands that are applied as one.
//!
//! All integers of the frame are little-endian; the messages keep their own layout (`message`):
//!
//! ```text
//! header    u32 message count, u32 key hash count, u32 control bytes, u32 format (1)
//! messages  one after the other, without gaps
//! rows      one per message, 32 bytes:
//!           topic id u32, queue u16, kind u8 (`RowKind`), key count u8, position u32 (from the start of
//!           the payload), size u32, tags code i64, origin u64
//! hashes    u32 per key, in the order of the rows
//! control   the commands, `Vec<Command>` in bincode
//! ```
//!
//! The tables come last so that a message is copied exactly once on its way into a batch; where they begin
//! follows from the payload's length. Rows save everyone behind the leader from parsing messages. Commands
//! are applied before the messages of the same batch.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::codec;
use crate::message::{
    self, FLAG_TRANSACTION_MASK, FLAG_TRANSACTION_ROLLBACK, KeyHasher, MESSAGE_BYTES_MIN,
    MessageError, NewMessage, Terms,
};
use crate::tables::Command;

/// Bytes in front of the messages.
pub const BATCH_HEADER_BYTES: usize = 16;
/// Bytes of a row.
pub const ROW_BYTES: usize = 32;

const FORMAT: u32 = 1;
/// Where the kind is in a row.
const KIND_AT: usize = 6;
const HASH_BYTES: usize = 4;
/// The count that bincode puts in front of the commands.
const CONTROL_COUNT_BYTES: usize = 8;
/// Keys of one message beyond this many are not indexed: the count is a byte.
const KEYS_MAX: usize = 255;

/// A payload that is no batch. It passed its CRC, so whoever wrote it wrote something else or is newer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a batch: {0}")]
pub struct NotABatch(String);

impl NotABatch {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What a message is to the group. The numbers are in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RowKind {
    /// A message like any other.
    #[default]
    Ordinary = 0,
    /// It waits in its queue, until the time that is its tags code.
    Timer = 1,
    /// What a message that waited becomes: it takes the place of the one at `origin`, or is dropped if that
    /// does not wait any more.
    Resolves = 2,
    /// A copy that waits instead of the message at `origin`, until the time that is its tags code; dropped if
    /// that does not wait any more.
    Moves = 3,
    /// The half message of a transaction; its tags code is the time at which its producer is asked.
    Half = 4,
}

impl RowKind {
    /// All kinds, each at its number.
    pub const ALL: [RowKind; 5] = [
        RowKind::Ordinary,
        RowKind::Timer,
        RowKind::Resolves,
        RowKind::Moves,
        RowKind::Half,
    ];

    fn from_byte(byte: u8) -> Option<RowKind> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// What the writer of a message decides beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowHead {
    /// Topic, as numbered in this group.
    pub topic_id: u32,
    /// What it is to the group.
    pub kind: RowKind,
    /// Physical offset of the message whose place it takes; 0 for the kinds that take none.
    pub origin: u64,
}

/// One message of a batch, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Topic, kind and origin.
    pub head: RowHead,
    /// Queue of the topic.
    pub queue: u16,
    /// How many keys are indexed.
    pub key_count: u8,
    /// First byte of the message, from the start of the payload.
    pub position: u32,
    /// Size of the message; bytes.
    pub size: u32,
    /// Hash of its tag, sign-extended; 0 for none.
    pub tags_code: i64,
}

impl Row {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.head.topic_id);
        out.put_u16_le(self.queue);
        out.put_u8(self.head.kind as u8);
        out.put_u8(self.key_count);
        out.put_u32_le(self.position);
        out.put_u32_le(self.size);
        out.put_i64_le(self.tags_code);
        out.put_u64_le(self.head.origin);
    }

    fn decode(mut bytes: &[u8]) -> Self {
        let topic_id = bytes.get_u32_le();
        let queue = bytes.get_u16_le();
        let kind = RowKind::from_byte(bytes.get_u8()).unwrap_or_default();
        let key_count = bytes.get_u8();
        let position = bytes.get_u32_le();
        let size = bytes.get_u32_le();
        let tags_code = bytes.get_i64_le();
        let head = RowHead {
            topic_id,
            kind,
            origin: bytes.get_u64_le(),
        };
        Self {
            head,
            queue,
            key_count,
            position,
            size,
            tags_code,
        }
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.position as usize..self.position as usize + self.size as usize
    }
}

/// A batch in the making, on the leader.
///
/// Invariant: `buffer` is the header's room and then the messages of `rows`, without gaps.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: BytesMut,
    rows: Vec<Row>,
    hashes: Vec<u32>,
    control: Vec<u8>,
    command_count: u64,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::with_capacity(4096)
    }
}

impl BatchBuilder {
    /// An empty batch with room for `bytes` before it has to grow.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes.max(BATCH_HEADER_BYTES));
        buffer.put_bytes(0, BATCH_HEADER_BYTES);
        let (rows, hashes, control) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            buffer,
            rows,
            hashes,
            control,
            command_count: 0,
        }
    }

    /// Copies a message into the batch; returns the number of its row.
    ///
    /// The tag and the keys are taken from the properties; rolled back transactions get no keys. After an
    /// error the batch is as it was.
    pub fn push_message(
        &mut self,
        head: RowHead,
        new: &NewMessage<'_>,
    ) -> Result<usize, MessageError> {
        let terms = Terms::of(new.properties);
        self.push(head, new, terms, terms.tags_code())
    }

    /// As [`push_message`](Self::push_message), with a tags code that means something else to this topic
    /// (a due time, say). The message gets a checksum of its own: those that wait are read one by one.
    pub fn push_with_tags_code(
        &mut self,
        head: RowHead,
        new: &NewMessage<'_>,
        tags_code: i64,
    ) -> Result<usize, MessageError> {
        let start = self.buffer.len();
        let row = self.push(head, new, Terms::of(new.properties), tags_code)?;
        message::put_check(&mut self.buffer[start..]);
        Ok(row)
    }

    fn push(
        &mut self,
        head: RowHead,
        new: &NewMessage<'_>,
        terms: Terms<'_>,
        tags_code: i64,
    ) -> Result<usize, MessageError> {
        let position = self.buffer.len();
        let size = new.encoded_len()?;
        let end = position + size;
        let position = u32::try_from(position).map_err(|_| MessageError::Size(end))?;
        new.encode(&mut self.buffer)?;
        let hashes_before = self.hashes.len();
        if new.sys_flag & FLAG_TRANSACTION_MASK != FLAG_TRANSACTION_ROLLBACK {
            let hasher = KeyHasher::new(new.topic);
            let keys = terms.keys().take(KEYS_MAX);
            self.hashes.extend(keys.map(|key| hasher.hash(key)));
        }
        self.rows.push(Row {
            head,
            queue: new.queue_id,
            key_count: (self.hashes.len() - hashes_before) as u8,
            position,
            size: size as u32,
            tags_code,
        });
        Ok(self.rows.len() - 1)
    }

    /// Adds a command; returns its number among the commands.
    pub fn push_command(&mut self, command: &Command) -> usize {
        self.control.extend_from_slice(&codec::encode(command));
        self.command_count += 1;
        self.command_count as usize - 1
    }

    /// Whether there is neither a message nor a command.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.command_count == 0
    }

    /// Messages so far.
    pub fn message_count(&self) -> usize {
        self.rows.len()
    }

    /// Commands so far.
    pub fn command_count(&self) -> usize {
        self.command_count as usize
    }

    /// Size of the payload as it would be sealed now; bytes.
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
            + self.rows.len() * ROW_BYTES
            + self.hashes.len() * HASH_BYTES
            + CONTROL_COUNT_BYTES
            + self.control.len()
    }

    /// Stamps the messages with their store time (milliseconds since 1970) and returns the payload and its
    /// CRC.
    ///
    /// The caller gives times that never go back within a log: queues are searched by them.
    pub fn seal(mut self, store_time_ms: u64) -> (Bytes, u32) {
        for row in &self.rows {
            message::patch_store_time(&mut self.buffer[row.range()], store_time_ms);
        }
        let len = self.len_bytes();
        let control_len = CONTROL_COUNT_BYTES + self.control.len();
        self.buffer.reserve(len - self.buffer.len());
        for row in &self.rows {
            row.encode(&mut self.buffer);
        }
        for hash in &self.hashes {
            self.buffer.put_u32_le(*hash);
        }
        self.buffer.put_u64_le(self.command_count);
        self.buffer.put_slice(&self.control);
        let header = [
            self.rows.len(),
            self.hashes.len(),
            control_len,
            FORMAT as usize,
        ];
        for (slot, value) in self.buffer.chunks_exact_mut(4).zip(header) {
            let value = u32::try_from(value).expect("a batch stays far below 4 GiB");
            slot.copy_from_slice(&value.to_le_bytes());
        }
        assert_eq!(self.buffer.len(), len, "the announced size is the size");
        let payload = self.buffer.freeze();
        let crc = crc32fast::hash(&payload);
        (payload, crc)
    }
}

/// A batch read from the log, checked as a whole once. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct BatchView {
    payload: Bytes,
    rows_at: usize,
    hashes_at: usize,
    control_at: usize,
}

impl BatchView {
    /// Checks the frame: that all tables and messages lie where they may.
    pub fn parse(payload: &Bytes) -> Result<Self, NotABatch> {
        let mut header = payload
            .get(..BATCH_HEADER_BYTES)
            .ok_or_else(|| NotABatch::new("too short"))?;
        let counts = [(); 3].map(|()| u64::from(header.get_u32_le()));
        let [messages, hashes, control] = counts;
        let format = header.get_u32_le();
        if format != FORMAT {
            return Err(NotABatch::new(format!(
                "format {format}, known is {FORMAT}"
            )));
        }
        let tables = messages * ROW_BYTES as u64 + hashes * HASH_BYTES as u64 + control;
        let room = (payload.len() - BATCH_HEADER_BYTES) as u64;
        let Some(messages_len) = room.checked_sub(tables) else {
            return Err(NotABatch::new(format!(
                "tables of {tables} bytes in {room}"
            )));
        };
        let rows_at = BATCH_HEADER_BYTES + messages_len as usize;
        let hashes_at = rows_at + messages as usize * ROW_BYTES;
        let control_at = hashes_at + hashes as usize * HASH_BYTES;
        let view = Self {
            payload: payload.clone(),
            rows_at,
            hashes_at,
            control_at,
        };
        view.check_rows(hashes)?;
        Ok(view)
    }

    /// Messages follow each other without gaps, and the keys add up.
    fn check_rows(&self, hashes: u64) -> Result<(), NotABatch> {
        // A kind that is not known comes from a newer version: taking it for another would set replicas
        // apart.
        for row in self.payload[self.rows_at..self.hashes_at].chunks_exact(ROW_BYTES) {
            if RowKind::from_byte(row[KIND_AT]).is_none() {
                let kind = row[KIND_AT];
                return Err(NotABatch::new(format!("a message of unknown kind {kind}")));
            }
        }
        let (mut end, mut keys) = (BATCH_HEADER_BYTES, 0);
        for (row, _) in self.rows_unchecked() {
            if row.position as usize != end || (row.size as usize) < MESSAGE_BYTES_MIN {
                return Err(NotABatch::new(format!(
                    "a message of {row:?} after byte {end}"
                )));
            }
            end = row.range().end;
            keys += u64::from(row.key_count);
        }
        if end != self.rows_at || keys != hashes {
            return Err(NotABatch::new("the rows do not add up"));
        }
        Ok(())
    }

    /// Number of messages.
    pub fn message_count(&self) -> usize {
        (self.hashes_at - self.rows_at) / ROW_BYTES
    }

    /// One row by number.
    pub fn row(&self, number: usize) -> Option<Row> {
        let rows = &self.payload[self.rows_at..self.hashes_at];
        Some(Row::decode(rows.chunks_exact(ROW_BYTES).nth(number)?))
    }

    /// All rows with the hashes of their keys.
    pub fn rows(&self) -> impl Iterator<Item = (Row, KeyHashes<'_>)> {
        self.rows_unchecked()
    }

    fn rows_unchecked(&self) -> impl Iterator<Item = (Row, KeyHashes<'_>)> {
        let mut hashes = &self.payload[self.hashes_at..self.control_at];
        self.payload[self.rows_at..self.hashes_at]
            .chunks_exact(ROW_BYTES)
            .map(move |bytes| {
                let row = Row::decode(bytes);
                // Rows that claim too many keys are refused by the check that follows.
                let len = (usize::from(row.key_count) * HASH_BYTES).min(hashes.len());
                let (own, rest) = hashes.split_at(len);
                hashes = rest;
                (row, KeyHashes(own))
            })
    }

    /// The row whose message begins at byte `position` of the payload.
    pub fn row_at(&self, position: u32) -> Option<Row> {
        self.rows()
            .map(|(row, _)| row)
            .find(|row| row.position == position)
    }

    /// The bytes of a message, as they are in the log. No copy.
    pub fn message(&self, row: &Row) -> Bytes {
        self.payload.slice(row.range())
    }

    /// The commands, in order.
    pub fn commands(&self) -> Result<Vec<Command>, NotABatch> {
        codec::decode(&self.payload[self.control_at..])
            .map_err(|error| NotABatch::new(format!("commands: {error}")))
    }
}

/// Hashes of the keys of one message.
#[derive(Debug, Clone)]
pub struct KeyHashes<'a>(&'a [u8]);

impl Iterator for KeyHashes<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.try_get_u32_le().ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::message::MessageView;

    fn new_message<'a>(body: &'a [u8], properties: &'a [u8]) -> NewMessage<'a> {
        NewMessage {
            topic: "T",
            queue_id: 2,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: "1.2.3.4:5".parse().unwrap(),
            reconsume_times: 0,
            prepared_offset: 0,
            body,
            properties,
        }
    }

    fn sample() -> (Bytes, u32) {
        let mut builder = BatchBuilder::default();
        assert!(builder.is_empty());
        let head = RowHead {
            topic_id: 7,
            kind: RowKind::Resolves,
            origin: 42,
        };
        let text = b"TAGS\x01A\x02KEYS\x01x y\x02";
        assert_eq!(
            builder.push_message(head, &new_message(b"one", text)),
            Ok(0)
        );
        builder.push_command(&Command::DeleteTopic {
            name: "gone".into(),
        });
        let mut rolled_back = new_message(b"two", text);
        rolled_back.sys_flag = FLAG_TRANSACTION_ROLLBACK;
        assert_eq!(
            builder.push_message(RowHead::default(), &rolled_back),
            Ok(1)
        );
        let expected = builder.len_bytes();
        let (payload, crc) = builder.seal(555);
        assert_eq!(payload.len(), expected);
        (payload, crc)
    }

    #[test]
    fn messages_rows_keys_and_commands_come_back() {
        let (payload, crc) = sample();
        assert_eq!(crc, crc32fast::hash(&payload));
        let view = BatchView::parse(&payload).unwrap();
        let rows: Vec<_> = view
            .rows()
            .map(|(row, keys)| (row, keys.collect::<Vec<_>>()))
            .collect();
        assert_eq!(rows.len(), view.message_count());
        assert_eq!(
            rows[0].0.head,
            RowHead {
                topic_id: 7,
                kind: RowKind::Resolves,
                origin: 42
            }
        );
        assert_eq!((rows[0].0.queue, rows[0].0.tags_code), (2, 65));
        assert_eq!(
            rows[0].1,
            [message::key_hash("T", "x"), message::key_hash("T", "y")]
        );
        assert!(rows[1].1.is_empty(), "rolled back");
        assert_eq!(view.row(1), Some(rows[1].0));
        assert_eq!(view.row_at(rows[1].0.position), Some(rows[1].0));
        assert_eq!(view.row_at(17), None);
        for ((row, _), body) in rows.iter().zip(["one", "two"]) {
            let bytes = view.message(row);
            let message = MessageView::parse(&bytes).unwrap();
            assert_eq!(
                (message.body(), message.store_timestamp()),
                (body.as_bytes(), 555)
            );
        }
        assert_eq!(
            view.commands().unwrap(),
            [Command::DeleteTopic {
                name: "gone".into()
            }]
        );
    }

    #[test]
    fn no_cut_or_flipped_byte_panics() {
        let (payload, _) = sample();
        for len in 0..payload.len() {
            let _ = BatchView::parse(&payload.slice(..len)).map(|view| view.commands());
        }
        let mut refused = 0;
        for at in 0..payload.len() {
            let mut bytes = payload.to_vec();
            bytes[at] ^= 0x81;
            let twisted = Bytes::from(bytes);
            match BatchView::parse(&twisted) {
                Ok(view) => {
                    for (row, _) in view.rows() {
                        assert_eq!(view.message(&row).len(), row.size as usize);
                    }
                    let _ = view.commands();
                }
                Err(_) => refused += 1,
            }
        }
        assert!(
            refused > BATCH_HEADER_BYTES,
            "header and positions are checked: {refused}"
        );
    }

    #[test]
    fn a_refused_message_leaves_the_batch_as_it_was() {
        let mut builder = BatchBuilder::default();
        let before = builder.len_bytes();
        let mut bad = new_message(b"", b"KEYS\x01k\x02");
        bad.topic = "";
        assert!(builder.push_message(RowHead::default(), &bad).is_err());
        assert_eq!((builder.len_bytes(), builder.message_count()), (before, 0));
    }
}
