//! A unit: where one message of a queue is.
//!
//! 20 bytes, big-endian: physical offset u64, size u32, tags code i64.

use crate::position::PhysicalOffset;

/// Bytes of a unit on disk.
pub(crate) const UNIT_BYTES: usize = 20;

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
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.get().to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.tags_code.to_be_bytes());
    }

    pub(crate) fn decode(bytes: &[u8; UNIT_BYTES]) -> Self {
        let offset = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
        Self {
            offset: PhysicalOffset::new(offset),
            size: u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")),
            tags_code: i64::from_be_bytes(bytes[12..].try_into().expect("eight bytes")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_known_layout() {
        let unit = Unit {
            offset: PhysicalOffset::new(0x0102),
            size: 3,
            tags_code: -1,
        };
        let mut bytes = Vec::new();
        unit.encode(&mut bytes);
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert_eq!(bytes[12..], [0xFF; 8]);
        assert_eq!(Unit::decode(&bytes.try_into().unwrap()), unit);
    }
}
