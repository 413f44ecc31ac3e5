//! The sparse index of a segment on disk, beside it: `<base>.idx`.
//!
//! With it a segment of a gigabyte is opened by reading a file of a megabyte and one header, without it by
//! reading the segment. It is written now and then, never synced, and never needed:
//!
//! ```text
//! 0 magic u32   4 CRC u32 (of bytes 8..)   8 highest store time u64 (ms)
//! 16.. entries of 32 bytes: index u64, physical offset u64, term u64, leader u64
//! ```
//!
//! A file that is torn has the wrong CRC. One that is out of date, because the log was truncated since,
//! is found out by its last entry: where the log has a record with the same index and tag at the same offset,
//! it also has the same records before it.

use std::io;
use std::path::Path;

use super::format::LeaderTag;
use super::segment::{TEMPORARY_SUFFIX, index_path};
use super::sparse::{SparseEntry, SparseIndex};
use crate::error::LogError;
use crate::fs::FileSystem;
use crate::position::{LogIndex, PhysicalOffset};

const MAGIC: u32 = 0x474f_4c49;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 32;
/// More than the index of the largest segment takes; bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What the file of one segment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sidecar {
    pub entries: Vec<SparseEntry>,
    /// At least that of every record in front of the last entry; milliseconds since 1970.
    pub store_time_ms: u64,
}

impl Sidecar {
    pub(crate) fn of(index: &SparseIndex, store_time_ms: u64) -> Self {
        Self {
            entries: index.entries().to_vec(),
            store_time_ms,
        }
    }

    /// Replaces the file of the segment at `base`. Not durable, and whole or not there.
    pub(crate) fn save(
        &self,
        fs: &dyn FileSystem,
        dir: &Path,
        base: PhysicalOffset,
    ) -> Result<(), LogError> {
        let path = index_path(dir, base);
        let temporary = dir.join(format!("{:020}.idx{TEMPORARY_SUFFIX}", base.get()));
        let file = fs
            .create(&temporary)
            .map_err(LogError::allocating("create", &temporary))?;
        file.write_all_at(&self.encode(), 0)
            .map_err(LogError::allocating("write", &temporary))?;
        fs.rename(&temporary, &path)
            .map_err(LogError::poison("rename", &temporary))
    }

    /// The file of the segment at `base`; `None` if there is none, or none that can be used.
    pub(crate) fn load(
        fs: &dyn FileSystem,
        dir: &Path,
        base: PhysicalOffset,
    ) -> io::Result<Option<Self>> {
        let file = match fs.open(&index_path(dir, base)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.len()?;
        if len > FILE_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::decode(&bytes))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.store_time_ms.to_le_bytes());
        for entry in &self.entries {
            let fields = [
                entry.index.get(),
                entry.offset.get(),
                entry.tag.term,
                entry.tag.leader,
            ];
            for field in fields {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, entries) = bytes.split_at_checked(HEADER_BYTES)?;
        let whole = entries.len().is_multiple_of(ENTRY_BYTES)
            && header[0..4] == MAGIC.to_le_bytes()
            && header[4..8] == crc32fast::hash(&bytes[8..]).to_le_bytes();
        if !whole {
            return None;
        }
        let long = |bytes: &[u8], at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
        };
        let entry = |bytes: &[u8]| SparseEntry {
            index: LogIndex::new(long(bytes, 0)),
            offset: PhysicalOffset::new(long(bytes, 8)),
            tag: LeaderTag {
                term: long(bytes, 16),
                leader: long(bytes, 24),
            },
        };
        let entries: Vec<SparseEntry> = entries.chunks_exact(ENTRY_BYTES).map(entry).collect();
        let ordered = entries
            .windows(2)
            .all(|pair| pair[0].index < pair[1].index && pair[0].offset < pair[1].offset);
        ordered.then(|| Self {
            entries,
            store_time_ms: long(header, 8),
        })
    }
}

/// Removes the file of a segment that goes away. It would do no harm if it stayed.
pub(crate) fn remove(fs: &dyn FileSystem, dir: &Path, base: PhysicalOffset) {
    let path = index_path(dir, base);
    match fs.remove(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "an index file stays behind"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample() -> Sidecar {
        let entry = |n: u64| SparseEntry {
            index: LogIndex::new(n),
            offset: PhysicalOffset::new(n * 100),
            tag: LeaderTag {
                term: n / 2,
                leader: 1,
            },
        };
        Sidecar {
            entries: (3..9).map(entry).collect(),
            store_time_ms: 77,
        }
    }

    #[test]
    fn an_index_file_comes_back_as_it_was_and_every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        assert_eq!(Sidecar::decode(&bytes), Some(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sidecar::decode(&bad), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Sidecar::decode(&bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn entries_out_of_order_are_not_used() {
        let mut sidecar = sample();
        sidecar.entries.swap(1, 2);
        assert_eq!(Sidecar::decode(&sidecar.encode()), None);
    }
}
