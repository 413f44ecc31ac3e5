//! A unit: where one message of a queue is.
//!
//! 24 bytes, big-endian: physical offset u64, size u32, tags code i64, CRC u32. The CRC is of the queue
//! (topic id u32, number u16), the queue offset u64, and the fields before it: a unit that changed, or that
//! belongs elsewhere, is not believed.

use crate::position::{PhysicalOffset, QueueOffset};
use crate::queue_offsets::QueueKey;

/// Bytes of a unit on disk.
pub(crate) const UNIT_BYTES: usize = 24;

const CRC_AT: usize = UNIT_BYTES - 4;

/// Units in a file; the file's first unit has a multiple of this as its queue offset.
pub(crate) const UNITS_PER_FILE: u64 = 300_000;

/// Where one message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// First byte of the message in the log.
    pub offset: PhysicalOffset,
    /// Size of the message; bytes.
    pub size: u32,
    /// Hash of its tag, 0 for none.
    pub tags_code: i64,
}

impl Unit {
    /// Appends the bytes of the unit that is at `offset` of the queue `key`.
    pub(crate) fn encode(&self, key: QueueKey, offset: QueueOffset, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.offset.get().to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.tags_code.to_be_bytes());
        let crc = crc(key, offset, &out[start..]);
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// The unit at `offset` of the queue `key`; `None` if these bytes are not that.
    pub(crate) fn decode(
        bytes: &[u8; UNIT_BYTES],
        key: QueueKey,
        offset: QueueOffset,
    ) -> Option<Self> {
        let (fields, stored) = bytes.split_at(CRC_AT);
        if crc(key, offset, fields).to_be_bytes() != stored {
            return None;
        }
        let at = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
        Some(Self {
            offset: PhysicalOffset::new(at),
            size: u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")),
            tags_code: i64::from_be_bytes(bytes[12..CRC_AT].try_into().expect("eight bytes")),
        })
    }
}

fn crc(key: QueueKey, offset: QueueOffset, fields: &[u8]) -> u32 {
    let mut bytes = [0; 14 + CRC_AT];
    bytes[..4].copy_from_slice(&key.topic_id.to_be_bytes());
    bytes[4..6].copy_from_slice(&key.queue.to_be_bytes());
    bytes[6..14].copy_from_slice(&offset.get().to_be_bytes());
    bytes[14..].copy_from_slice(fields);
    crc32fast::hash(&bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: QueueKey = QueueKey {
        topic_id: 7,
        queue: 2,
    };

    #[test]
    fn a_unit_has_the_known_layout_and_is_believed_at_its_place_only() {
        let unit = Unit {
            offset: PhysicalOffset::new(0x0102),
            size: 3,
            tags_code: -1,
        };
        let at = QueueOffset::new(5);
        let mut bytes = Vec::new();
        unit.encode(KEY, at, &mut bytes);
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert_eq!(bytes[12..20], [0xFF; 8]);
        let bytes: [u8; UNIT_BYTES] = bytes.try_into().unwrap();
        assert_eq!(Unit::decode(&bytes, KEY, at), Some(unit));
        assert_eq!(Unit::decode(&bytes, KEY, at.next()), None);
        let other = QueueKey { queue: 3, ..KEY };
        assert_eq!(Unit::decode(&bytes, other, at), None);
        assert_eq!(Unit::decode(&[0; UNIT_BYTES], KEY, at), None);
        for bit in 0..UNIT_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Unit::decode(&bad, KEY, at), None, "bit {bit}");
        }
    }
}
