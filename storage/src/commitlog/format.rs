//! Bytes of one record in the log.
//!
//! A record is a header of [`RECORD_HEADER_BYTES`] and a payload, padded with zeros to a multiple of
//! [`RECORD_ALIGN`]. All integers are little-endian:
//!
//! ```text
//!  0 magic u32        4 version u8   5 kind u8     6 reserved u16 (0)
//!  8 term u64        16 leader u64  24 index u64  32 physical offset u64  40 store time u64 (ms)
//! 48 previous record's term u64     56 previous record's leader u64
//! 64 payload length u32  68 payload CRC u32  72 reserved u32 (0)  76 header CRC u32 (of bytes 0..76)
//! ```
//!
//! Nothing in it belongs to one replica: bytes and offsets are equal on all replicas of a group.
//! The physical offset keeps the stale bytes of a reused file from being taken for records. The tag of
//! the previous record chains the log: a valid record whose predecessor is another one than it was written
//! after is left over from a truncated history and ends the log.
//!
//! A record never crosses a multiple of the segment size. When the next one does not fit into the rest of
//! a segment it starts at the next multiple, and, if the rest can hold a header, a *filler* header
//! (kind 255, no payload, index and tag of the record that follows) says that the log goes on in the next
//! segment. A rest smaller than a header is always skipped.

use bytes::Bytes;

use crate::position::{LogIndex, PhysicalOffset};

/// Size of a record header in bytes. The payload follows at once.
pub const RECORD_HEADER_BYTES: usize = 80;

/// Records start at multiples of this many bytes.
pub const RECORD_ALIGN: u64 = 8;

/// `GLOG`, little-endian.
const MAGIC: u32 = 0x474f_4c47;
const VERSION: u8 = 1;
const KIND_FILLER: u8 = 255;
const HEADER_CRC_AT: usize = RECORD_HEADER_BYTES - 4;

/// What a record holds. The log itself treats all kinds alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// Nothing; marks the start of a term.
    Blank = 0,
    /// The members of the group, opaque here.
    Membership = 1,
    /// Messages and control commands, see `batch`.
    Batch = 2,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Membership),
            2 => Some(Self::Batch),
            _ => None,
        }
    }
}

/// Who wrote a record: opaque to this crate, compared for equality, and by term to refuse going back.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct LeaderTag {
    /// Term of the leader.
    pub term: u64,
    /// Node id of the leader.
    pub leader: u64,
}

/// One entry of the log as its writer makes it. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Leader that created the record.
    pub tag: LeaderTag,
    /// Its number; consecutive.
    pub index: LogIndex,
    /// What the payload is.
    pub kind: RecordKind,
    /// Clock of the leader when it created the record, milliseconds since 1970.
    pub store_time_ms: u64,
    /// The contents.
    pub payload: Bytes,
    /// CRC-32 (IEEE) of the payload, computed once by the leader.
    pub payload_crc: u32,
}

impl Record {
    /// A record with the CRC computed here, for callers that have not got it already.
    pub fn new(tag: LeaderTag, index: LogIndex, kind: RecordKind, payload: Bytes) -> Self {
        let payload_crc = crc32fast::hash(&payload);
        Self {
            tag,
            index,
            kind,
            store_time_ms: 0,
            payload,
            payload_crc,
        }
    }

    /// The same record with another store time.
    pub fn at(mut self, store_time_ms: u64) -> Self {
        self.store_time_ms = store_time_ms;
        self
    }

    /// Bytes that the record takes in the log, with header and padding.
    pub fn encoded_len(&self) -> u64 {
        encoded_len(self.payload.len())
    }
}

/// A record and where it is. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The record.
    pub record: Record,
    /// First byte of its header.
    pub offset: PhysicalOffset,
}

impl Located {
    /// First byte of the payload.
    pub fn payload_offset(&self) -> PhysicalOffset {
        self.offset.plus(RECORD_HEADER_BYTES as u64)
    }

    /// First byte after the record and its padding.
    pub fn end_offset(&self) -> PhysicalOffset {
        self.offset.plus(self.record.encoded_len())
    }
}

/// Bytes that a record with a payload of `payload_len` bytes takes in the log.
pub const fn encoded_len(payload_len: usize) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload_len as u64).next_multiple_of(RECORD_ALIGN)
}

/// Where a record of `len` bytes goes when the log ends at `end`: there, or at the start of the next
/// segment if it would cross the boundary.
pub(crate) fn place(end: PhysicalOffset, len: u64, segment_bytes: u64) -> PhysicalOffset {
    let used = end.get() % segment_bytes;
    // An end exactly on the boundary is already the start of the next segment.
    if used + len <= segment_bytes {
        end
    } else {
        end.plus(segment_bytes - used)
    }
}

/// First byte of the segment that holds `offset`.
pub(crate) fn segment_base(offset: PhysicalOffset, segment_bytes: u64) -> PhysicalOffset {
    PhysicalOffset::new(offset.get() / segment_bytes * segment_bytes)
}

/// A record's header, read back from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// `None` for a filler.
    pub kind: Option<RecordKind>,
    pub tag: LeaderTag,
    pub index: LogIndex,
    pub offset: PhysicalOffset,
    pub store_time_ms: u64,
    pub previous: LeaderTag,
    pub payload_len: u32,
    pub payload_crc: u32,
}

impl Header {
    /// Header of `located`, whose predecessor was written by `previous`.
    pub(crate) fn of(located: &Located, previous: LeaderTag) -> Self {
        let record = &located.record;
        Self {
            kind: Some(record.kind),
            tag: record.tag,
            index: record.index,
            offset: located.offset,
            store_time_ms: record.store_time_ms,
            previous,
            payload_len: u32::try_from(record.payload.len()).expect("append checked the size"),
            payload_crc: record.payload_crc,
        }
    }

    /// Filler at `offset`, in front of the record `next` that starts the next segment.
    pub(crate) fn filler(offset: PhysicalOffset, next: &Record, previous: LeaderTag) -> Self {
        Self {
            kind: None,
            tag: next.tag,
            index: next.index,
            offset,
            store_time_ms: 0,
            previous,
            payload_len: 0,
            payload_crc: 0,
        }
    }

    /// The bytes as they go to disk.
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = self.kind.map_or(KIND_FILLER, |kind| kind as u8);
        let longs = [
            self.tag.term,
            self.tag.leader,
            self.index.get(),
            self.offset.get(),
            self.store_time_ms,
            self.previous.term,
            self.previous.leader,
        ];
        for (slot, value) in bytes[8..64].chunks_exact_mut(8).zip(longs) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        bytes[64..68].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether the bytes begin as a header does; cheap.
    pub(crate) fn begins(bytes: &[u8; RECORD_HEADER_BYTES]) -> bool {
        read_u32(bytes, 0) == MAGIC
    }

    /// Reads a header; `Err` says what is wrong with the bytes.
    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Self, &'static str> {
        if read_u32(bytes, 0) != MAGIC {
            return Err("no record magic");
        }
        if crc32fast::hash(&bytes[..HEADER_CRC_AT]) != read_u32(bytes, HEADER_CRC_AT) {
            return Err("header CRC mismatch");
        }
        if bytes[4] != VERSION {
            return Err("unknown record version");
        }
        let kind = match bytes[5] {
            KIND_FILLER => None,
            byte => Some(RecordKind::from_byte(byte).ok_or("unknown record kind")?),
        };
        Ok(Self {
            kind,
            tag: LeaderTag {
                term: read_u64(bytes, 8),
                leader: read_u64(bytes, 16),
            },
            index: LogIndex::new(read_u64(bytes, 24)),
            offset: PhysicalOffset::new(read_u64(bytes, 32)),
            store_time_ms: read_u64(bytes, 40),
            previous: LeaderTag {
                term: read_u64(bytes, 48),
                leader: read_u64(bytes, 56),
            },
            payload_len: read_u32(bytes, 64),
            payload_crc: read_u32(bytes, 68),
        })
    }

    /// First byte after the record and its padding; meaningless for a filler.
    pub(crate) fn end_offset(&self) -> PhysicalOffset {
        self.offset.plus(encoded_len(self.payload_len as usize))
    }

    /// The record with its payload; `kind` must not be a filler.
    pub(crate) fn with_payload(&self, payload: Bytes) -> Located {
        let record = Record {
            tag: self.tag,
            index: self.index,
            kind: self.kind.expect("a filler has no payload"),
            store_time_ms: self.store_time_ms,
            payload,
            payload_crc: self.payload_crc,
        };
        Located {
            record,
            offset: self.offset,
        }
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample() -> Header {
        let tag = LeaderTag { term: 3, leader: 2 };
        let payload = Bytes::from_static(b"hello");
        let record = Record::new(tag, LogIndex::new(9), RecordKind::Batch, payload).at(1_700);
        let located = Located {
            record,
            offset: PhysicalOffset::new(4096),
        };
        Header::of(&located, LeaderTag { term: 2, leader: 1 })
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        let header = sample();
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        assert_eq!(header.end_offset().get(), 4096 + 88);
    }

    #[test]
    fn the_bytes_are_pinned() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..8], b"GLOG\x01\x02\x00\x00");
        assert_eq!(bytes[24], 9);
        assert_eq!(&bytes[32..40], &4096u64.to_le_bytes());
        assert_eq!(read_u32(&bytes, 64), 5);
        assert_eq!(read_u32(&bytes, 68), 0x3610_a686);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample().encode();
        for bit in 0..RECORD_HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_filler_has_no_kind() {
        let header = sample();
        let next = header.with_payload(Bytes::from_static(b"hello")).record;
        let filler = Header::filler(PhysicalOffset::new(512), &next, header.tag);
        let back = Header::decode(&filler.encode()).unwrap();
        assert_eq!(back.kind, None);
        assert_eq!(back.index, next.index);
    }

    #[test]
    fn a_record_that_does_not_fit_starts_the_next_segment() {
        let at = |end, len| place(PhysicalOffset::new(end), len, 1000).get();
        assert_eq!(at(0, 1000), 0);
        assert_eq!(at(8, 992), 8);
        assert_eq!(at(8, 1000), 1000);
        assert_eq!(at(1000, 88), 1000);
        assert_eq!(at(1992, 88), 2000);
        assert_eq!(segment_base(PhysicalOffset::new(1992), 1000).get(), 1000);
    }
}
