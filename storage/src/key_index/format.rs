//! Bytes of an index file: sorted runs, one after the other.
//!
//! All integers are little-endian:
//!
//! ```text
//! header   0 magic u32  4 count u32  8 from u32  12 through u32  16 entries CRC u32  20 header CRC u32
//! entries  count x { hash u32, position u32 }, ordered by both
//! ```
//!
//! A run has all entries of the segment's messages from position `from` up to but not including `through`;
//! `u32::MAX` means up to the end of the segment. A run begins where the previous one ends.

/// Entries in a full run.
pub(crate) const RUN_ENTRIES: usize = 65_536;
/// Bytes of a run's header.
pub(crate) const RUN_HEADER_BYTES: usize = 24;
/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 8;

/// `GKEY`, little-endian.
const MAGIC: u32 = 0x5945_4b47;

/// One key of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyEntry {
    /// Hash of topic and key.
    pub hash: u32,
    /// First byte of the message, counted from the start of the segment.
    pub position: u32,
}

impl KeyEntry {
    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (hash, position) = bytes.split_at(4);
        Self {
            hash: word(hash, 0),
            position: word(position, 0),
        }
    }
}

/// Header of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunHeader {
    pub count: u32,
    pub from: u32,
    pub through: u32,
    pub entries_crc: u32,
}

impl RunHeader {
    /// Checks the header's own CRC.
    pub(crate) fn decode(bytes: &[u8; RUN_HEADER_BYTES]) -> Option<Self> {
        let intact = word(bytes, 0) == MAGIC && crc32fast::hash(&bytes[..20]) == word(bytes, 20);
        intact.then(|| Self {
            count: word(bytes, 4),
            from: word(bytes, 8),
            through: word(bytes, 12),
            entries_crc: word(bytes, 16),
        })
    }

    /// Bytes of the whole run.
    pub(crate) fn run_bytes(&self) -> u64 {
        RUN_HEADER_BYTES as u64 + u64::from(self.count) * ENTRY_BYTES as u64
    }
}

/// A run of `entries`, which need not be sorted.
pub(crate) fn encode_run(entries: &[KeyEntry], from: u32, through: u32) -> (RunHeader, Vec<u8>) {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable();
    let mut bytes = vec![0; RUN_HEADER_BYTES];
    for entry in &sorted {
        bytes.extend_from_slice(&entry.hash.to_le_bytes());
        bytes.extend_from_slice(&entry.position.to_le_bytes());
    }
    let count = u32::try_from(sorted.len()).expect("a run is far below 4 G entries");
    let entries_crc = crc32fast::hash(&bytes[RUN_HEADER_BYTES..]);
    let words = [MAGIC, count, from, through, entries_crc];
    for (slot, value) in bytes.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    let header_crc = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&header_crc.to_le_bytes());
    (
        RunHeader {
            count,
            from,
            through,
            entries_crc,
        },
        bytes,
    )
}

/// The entries of a run, or `None` if they are not what the header vouches for.
pub(crate) fn decode_entries(header: &RunHeader, bytes: &[u8]) -> Option<Vec<KeyEntry>> {
    if crc32fast::hash(bytes) != header.entries_crc {
        return None;
    }
    let (chunks, _) = bytes.as_chunks::<ENTRY_BYTES>();
    Some(chunks.iter().map(KeyEntry::decode).collect())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_run_comes_back_sorted_and_damage_is_noticed() {
        let entry = |hash, position| KeyEntry { hash, position };
        let (header, bytes) = encode_run(&[entry(9, 1), entry(2, 8), entry(2, 3)], 1, 50);
        assert_eq!(bytes.len() as u64, header.run_bytes());
        let head = bytes.first_chunk().unwrap();
        assert_eq!(RunHeader::decode(head), Some(header));
        let entries = decode_entries(&header, &bytes[RUN_HEADER_BYTES..]).unwrap();
        assert_eq!(entries, [entry(2, 3), entry(2, 8), entry(9, 1)]);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let read = RunHeader::decode(bad.first_chunk().unwrap())
                .and_then(|header| decode_entries(&header, &bad[RUN_HEADER_BYTES..]));
            assert_eq!(read, None, "byte {at}");
        }
    }
}
