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

/// The file. One owner.
pub(crate) struct HardState {
    file: Arc<dyn File>,
    path: PathBuf,
    sequence: u64,
    /// The slot that holds the last synced state; never written to before the other one is synced.
    durable: u64,
}

impl HardState {
    /// Opens the file, creating an empty one if there is none, and returns what it holds.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: &Path,
    ) -> Result<(Self, Option<Vec<u8>>), OpenError> {
        let file = match fs.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(fs, path)?,
            Err(error) => return Err(OpenError::io("open", path)(error)),
        };
        let mut newest: Option<(u64, u64, Vec<u8>)> = None;
        let mut damaged = [false; 2];
        for slot in 0..2 {
            match read_slot(&*file, slot).map_err(OpenError::io("read", path))? {
                Slot::Empty => {}
                Slot::Damaged => damaged[slot as usize] = true,
                Slot::Valid(sequence, bytes) => {
                    if newest.as_ref().is_none_or(|(best, _, _)| sequence > *best) {
                        newest = Some((sequence, slot, bytes));
                    }
                }
            }
        }
        // A crash during the very first write leaves slot 0 torn and slot 1 empty, nothing else does.
        if newest.is_none() && damaged[1] {
            let reason = "neither slot is readable".to_owned();
            return Err(OpenError::Corrupt {
                path: path.to_path_buf(),
                offset: 0,
                reason,
            });
        }
        let (sequence, durable, bytes) = match newest {
            Some((sequence, slot, bytes)) => (sequence, slot, Some(bytes)),
            None => (0, 1, None),
        };
        let mut state = Self {
            file,
            path: path.to_path_buf(),
            sequence,
            durable,
        };
        if let Some(bytes) = &bytes {
            // What was read may only be in the page cache, and the other slot may be torn.
            state.store(bytes).map_err(OpenError::io("write", path))?;
        }
        Ok((state, bytes))
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

enum Slot {
    Empty,
    Damaged,
    Valid(u64, Vec<u8>),
}

fn read_slot(file: &dyn File, slot: u64) -> io::Result<Slot> {
    let mut bytes = vec![0; SLOT_BYTES as usize];
    // A file that is too short reads as zeros: its creation was cut short.
    file.read_at(&mut bytes, slot * SLOT_BYTES)?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Slot::Empty);
    }
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let length = u32_at(16) as usize;
    if u32_at(0) != MAGIC || length > HARD_STATE_BYTES_MAX {
        return Ok(Slot::Damaged);
    }
    if crc32fast::hash(&bytes[8..SLOT_HEADER + length]) != u32_at(4) {
        return Ok(Slot::Damaged);
    }
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    Ok(Slot::Valid(
        sequence,
        bytes[SLOT_HEADER..SLOT_HEADER + length].to_vec(),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    fn reopen(path: &Path) -> Option<Vec<u8>> {
        HardState::open(&RealFs, path).unwrap().1
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
            assert_eq!(nothing, None);
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
    fn a_torn_first_write_is_no_state_and_two_bad_slots_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vote");
        let (mut state, _) = HardState::open(&RealFs, &path).unwrap();
        state.store_lazily(b"first").unwrap();
        damage(&path, 23);
        assert_eq!(reopen(&path), None);
        let (mut state, _) = HardState::open(&RealFs, &path).unwrap();
        state.store(b"again").unwrap();
        damage(&path, 20);
        damage(&path, SLOT_BYTES + 20);
        assert!(matches!(
            HardState::open(&RealFs, &path),
            Err(OpenError::Corrupt { .. })
        ));
    }
}
