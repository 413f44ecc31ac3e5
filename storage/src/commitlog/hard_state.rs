//! A few bytes that must survive: a file of two slots.
//!
//! Used for the vote and for the synced mark. Each slot has its own page:
//!
//! ```text
//! 0 magic u32   4 CRC u32 (of bytes 8..20+length)   8 sequence u64   16 length u32   20 bytes
//! ```
//!
//! The valid slot with the higher sequence counts. A lazy write always goes to the slot that is *not* the
//! last synced one, however often it is repeated, so that a crash can only damage bytes that were never
//! promised. A firm write goes to both slots, one after the other, each synced: afterwards the loss of either
//! slot does not bring back an older state (an older vote would mean to vote twice in a term).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::OpenError;
use crate::fs::{File, FileSystem};

const MAGIC: u32 = 0x474f_4853;
const SLOT_BYTES: u64 = 4096;
const SLOT_HEADER: usize = 20;

/// Most bytes that fit into a slot.
pub(crate) const HARD_STATE_BYTES_MAX: usize = SLOT_BYTES as usize - SLOT_HEADER;

/// What a file held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// There was no file.
    Nothing,
    /// The last state that was stored.
    Value(Vec<u8>),
    /// There was a file without a whole slot: damaged, or its creation was cut short.
    Lost,
}

/// The file. One owner.
pub(crate) struct HardState {
    file: Arc<dyn File>,
    path: PathBuf,
    sequence: u64,
    /// The slot that holds the last synced state; never written to before the other one is synced.
    durable: u64,
}

impl HardState {
    /// Opens the file, creating an empty one if there is none, and says what it holds. One bad slot is healed
    /// from the other.
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path) -> Result<(Self, Held), OpenError> {
        let (file, new) = match fs.open(path) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (create(fs, path)?, true),
            Err(error) => return Err(OpenError::io("open", path)(error)),
        };
        let mut newest: Option<(u64, u64, Vec<u8>)> = None;
        for slot in 0..2 {
            if let Some((sequence, bytes)) = read_slot(&*file, slot)
                && newest.as_ref().is_none_or(|(best, _, _)| sequence > *best)
            {
                newest = Some((sequence, slot, bytes));
            }
        }
        let (sequence, durable, held) = match newest {
            Some((sequence, slot, bytes)) => (sequence, slot, Held::Value(bytes)),
            None if new => (0, 1, Held::Nothing),
            None => (0, 1, Held::Lost),
        };
        let mut state = Self {
            file,
            path: path.to_path_buf(),
            sequence,
            durable,
        };
        if let Held::Value(bytes) = &held {
            // What was read may only be in the page cache, and the other slot may be torn or rotten.
            state.store(bytes).map_err(OpenError::io("write", path))?;
        }
        Ok((state, held))
    }

    /// The file's path, for error messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Durable in both slots when it returns. Two syncs.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        for _ in 0..2 {
            self.store_lazily(bytes)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Written when it returns, durable after the next [`sync`](Self::sync).
    pub(crate) fn store_lazily(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(
            bytes.len() <= HARD_STATE_BYTES_MAX,
            "hard state of {} bytes, the limit is {HARD_STATE_BYTES_MAX}",
            bytes.len()
        );
        self.sequence += 1;
        let mut slot = vec![0; SLOT_HEADER + bytes.len()];
        slot[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        slot[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        slot[16..20].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        slot[SLOT_HEADER..].copy_from_slice(bytes);
        let crc = crc32fast::hash(&slot[8..]);
        slot[4..8].copy_from_slice(&crc.to_le_bytes());
        self.file
            .write_all_at(&slot, (1 - self.durable) * SLOT_BYTES)
    }

    /// Makes the last lazy write durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.durable = 1 - self.durable;
        Ok(())
    }
}

fn create(fs: &dyn FileSystem, path: &Path) -> Result<Arc<dyn File>, OpenError> {
    let file = fs.create(path).map_err(OpenError::io("create", path))?;
    file.allocate(2 * SLOT_BYTES)
        .map_err(OpenError::io("allocate", path))?;
    file.sync_data().map_err(OpenError::io("sync", path))?;
    if let Some(dir) = path.parent() {
        fs.sync_dir(dir)
            .map_err(OpenError::io("sync directory", dir))?;
    }
    Ok(file)
}

/// Sequence and contents of a slot; `None` if it is empty, torn, rotten, or cannot be read.
fn read_slot(file: &dyn File, slot: u64) -> Option<(u64, Vec<u8>)> {
    let mut bytes = vec![0; SLOT_BYTES as usize];
    // A file that is too short reads as zeros.
    if let Err(error) = file.read_at(&mut bytes, slot * SLOT_BYTES) {
        tracing::warn!(slot, %error, "a slot of a two-slot file cannot be read");
        return None;
    }
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let length = u32_at(16) as usize;
    if u32_at(0) != MAGIC || length > HARD_STATE_BYTES_MAX {
        return None;
    }
    if crc32fast::hash(&bytes[8..SLOT_HEADER + length]) != u32_at(4) {
        return None;
    }
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    Some((sequence, bytes[SLOT_HEADER..SLOT_HEADER + length].to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    fn reopen(path: &Path) -> Option<Vec<u8>> {
        match HardState::open(&RealFs, path).unwrap().1 {
            Held::Value(bytes) => Some(bytes),
            Held::Nothing | Held::Lost => None,
        }
    }

    fn damage(path: &Path, at: u64) {
        let file = RealFs.open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }

    #[test]
    fn a_stored_state_outlives_the_loss_of_either_slot() {
        for slot in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("vote");
            let (mut state, nothing) = HardState::open(&RealFs, &path).unwrap();
            assert_eq!(nothing, Held::Nothing);
            state.store(b"one").unwrap();
            state.store(b"two").unwrap();
            damage(&path, slot * SLOT_BYTES + 21);
            assert_eq!(reopen(&path).as_deref(), Some(&b"two"[..]));
        }
    }

    #[test]
    fn a_torn_lazy_write_falls_back_to_the_synced_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mut state, _) = HardState::open(&RealFs, &path).unwrap();
        state.store(b"synced").unwrap();
        for lazy in [b"lazy 1", b"lazy 2", b"lazy 3"] {
            state.store_lazily(lazy).unwrap();
        }
        damage(&path, (1 - state.durable) * SLOT_BYTES + 22);
        assert_eq!(reopen(&path).as_deref(), Some(&b"synced"[..]));
    }

    #[test]
    fn the_newest_lazy_write_counts_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mut state, _) = HardState::open(&RealFs, &path).unwrap();
        state.store(b"old").unwrap();
        state.store_lazily(b"new").unwrap();
        assert_eq!(reopen(&path).as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn a_slot_that_rots_is_healed_from_the_other_at_the_next_open() {
        for slot in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("vote");
            let (mut state, _) = HardState::open(&RealFs, &path).unwrap();
            state.store(b"kept").unwrap();
            damage(&path, slot * SLOT_BYTES + 4);
            assert_eq!(reopen(&path).as_deref(), Some(&b"kept"[..]));
            damage(&path, (1 - slot) * SLOT_BYTES + 9);
            assert_eq!(reopen(&path).as_deref(), Some(&b"kept"[..]));
        }
    }

    #[test]
    fn a_file_without_a_whole_slot_is_lost_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vote");
        let (mut state, _) = HardState::open(&RealFs, &path).unwrap();
        state.store(b"again").unwrap();
        let lost = || HardState::open(&RealFs, &path).unwrap().1;
        damage(&path, 20);
        damage(&path, SLOT_BYTES + 20);
        assert_eq!(lost(), Held::Lost);
        RealFs.open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(lost(), Held::Lost);
    }
}
