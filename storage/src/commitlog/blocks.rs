//! The growing end of a segment, written in whole blocks so that it can go past the page cache (ADR 6).
//!
//! A group rarely ends where a block does: the unfinished block is kept, and is written again in front of
//! what follows. Its bytes that were there before are the same in both writes, so a torn write cannot
//! take them back. What is behind them in the block is zero.
//!
//! A file system keeps books about blocks that were reserved and never written, and each durable write into
//! them writes the books too: half as much time and CPU again. A new log's first segment is such a file, and
//! may be for ever when little is sent. So the writer, when it has nothing to do, writes zeros ahead of a log
//! that grows in small steps.

use std::io;

use crate::fs::{BLOCK_BYTES, File};

/// Most bytes that one write takes; larger groups are written in several.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Zeros written at once: few enough that a flush of the log that waits for them waits shortly.
const ZEROS_BYTES: u64 = 256 << 10;

const BLOCK: usize = BLOCK_BYTES as usize;

/// Zeros that are written ahead at once: a fraction of a millisecond, in which a group may have to wait.
const AHEAD_BYTES: usize = 128 << 10;

/// After a larger group nothing is written ahead: writing that much twice costs more than the books.
const SMALL_GROUP_BYTES: usize = 64 << 10;

/// Aligned, so that it goes past the page cache.
#[repr(align(4096))]
struct Zeros([u8; AHEAD_BYTES]);

static ZEROS: Zeros = Zeros([0; AHEAD_BYTES]);

/// Invariants: `start` is a multiple of the block size, `filled <= WRITE_BYTES_MAX`, and between groups
/// `filled < BLOCK`, where the first `filled` bytes are on disk at `start`.
pub(crate) struct Blocks {
    /// Has room for an aligned megabyte. Grows to it with the first large group.
    memory: Vec<u8>,
    /// Place in the file of the first aligned byte.
    start: u64,
    filled: usize,
    /// A part of the group was written before the rest of it.
    spilled: bool,
    /// Bytes of the last write.
    last_write: usize,
    /// Place in the file up to which all blocks were written once, as far as is known.
    zeroed_to: u64,
}

impl Blocks {
    /// Goes on at `at`: reads what the file holds of an unfinished block.
    pub(crate) fn at(file: &dyn File, at: u64) -> io::Result<Self> {
        let filled = (at % BLOCK_BYTES) as usize;
        let mut blocks = Self {
            memory: vec![0; 2 * BLOCK],
            start: at - filled as u64,
            filled,
            spilled: false,
            last_write: 0,
            zeroed_to: 0,
        };
        let start = blocks.start;
        file.read_exact_at(&mut blocks.aligned()[..filled], start)?;
        Ok(blocks)
    }

    /// Adds bytes at the end. On disk after [`Blocks::write`] or [`Blocks::write_durably`] only.
    pub(crate) fn push(&mut self, file: &dyn File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let len = bytes.len().min(WRITE_BYTES_MAX - self.filled);
            self.make_room(self.filled + len);
            let filled = self.filled;
            self.aligned()[filled..filled + len].copy_from_slice(&bytes[..len]);
            self.filled += len;
            bytes = &bytes[len..];
            if self.filled == WRITE_BYTES_MAX {
                self.write(file)?;
                self.spilled = true;
            }
        }
        Ok(())
    }

    /// Writes everything that was pushed. On the device when it returns, but not durable: the device may
    /// have a cache, and the file system its own records of the file.
    pub(crate) fn write(&mut self, file: &dyn File) -> io::Result<()> {
        let (padded, start) = self.padded();
        file.write_all_at(padded, start)?;
        self.keep_unfinished();
        Ok(())
    }

    /// Like [`Blocks::write`]; everything that was pushed since the last call of either is durable when it
    /// returns.
    pub(crate) fn write_durably(&mut self, file: &dyn File) -> io::Result<()> {
        let spilled = self.spilled;
        let (padded, start) = self.padded();
        if spilled {
            file.write_all_at(padded, start)?;
            file.sync_data()?;
        } else {
            file.write_all_durably_at(padded, start)?;
        }
        self.keep_unfinished();
        Ok(())
    }

    /// Writes zeros behind the end, if small groups are on their way to blocks that may never have been
    /// written; not at or beyond `segment_bytes`. Not durable: all of it is only there to be overwritten.
    pub(crate) fn zero_ahead(&mut self, file: &dyn File, segment_bytes: u64) -> io::Result<()> {
        let end = (self.start + self.filled as u64).next_multiple_of(BLOCK_BYTES);
        let from = self.zeroed_to.max(end);
        let enough = from - end >= AHEAD_BYTES as u64 / 2;
        if enough || self.last_write == 0 || self.last_write > SMALL_GROUP_BYTES {
            return Ok(());
        }
        let len = segment_bytes.saturating_sub(from).min(AHEAD_BYTES as u64);
        file.write_all_at(&ZEROS.0[..len as usize], from)?;
        self.zeroed_to = from + len;
        Ok(())
    }

    /// Whole blocks with everything that is to be written, and their place.
    fn padded(&mut self) -> (&[u8], u64) {
        let (start, filled) = (self.start, self.filled);
        let padded = filled.next_multiple_of(BLOCK);
        self.last_write = padded;
        self.make_room(padded);
        let aligned = self.aligned();
        aligned[filled..padded].fill(0);
        (&aligned[..padded], start)
    }

    /// What was written goes, but for the block that is not full.
    fn keep_unfinished(&mut self) {
        let filled = self.filled;
        let whole = filled - filled % BLOCK;
        self.aligned().copy_within(whole..filled, 0);
        self.start += whole as u64;
        self.filled -= whole;
        self.spilled = false;
    }

    fn make_room(&mut self, len: usize) {
        let needed = len.next_power_of_two() + BLOCK;
        if self.memory.len() >= needed {
            return;
        }
        let mut larger = Self {
            memory: vec![0; needed],
            ..*self
        };
        let filled = self.filled;
        larger.aligned()[..filled].copy_from_slice(&self.aligned()[..filled]);
        *self = larger;
    }

    /// The memory from its first aligned byte on: always as far from the start, because a vector's memory
    /// does not move unless it grows.
    fn aligned(&mut self) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(BLOCK);
        &mut self.memory[skip..]
    }
}

/// Writes zeros from one place in a file to another; past the page cache where both are at the edge of a
/// block.
pub(crate) fn zero(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let len = to.saturating_sub(from).min(ZEROS_BYTES) as usize;
    let memory = vec![0; len + BLOCK];
    let zeros = &memory[memory.as_ptr().align_offset(BLOCK)..];
    let mut at = from;
    while at < to {
        let len = (to - at).min(ZEROS_BYTES);
        file.write_all_at(&zeros[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::{FileSystem, RealFs};

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + seed * 13) as u8).collect()
    }

    #[test]
    fn what_is_pushed_in_pieces_is_in_the_file_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        RealFs.create(&path).unwrap().allocate(4 << 20).unwrap();
        let file = RealFs.open_direct(&path).unwrap();
        let mut expected = Vec::new();
        let mut blocks = Blocks::at(&*file, 0).unwrap();
        let sizes = [0, 1, 64, 4031, 4096, 4097, 70_000, WRITE_BYTES_MAX + 5, 10];
        for (round, len) in sizes.into_iter().enumerate() {
            let piece = bytes(len, round);
            blocks.push(&*file, &piece[..len / 3]).unwrap();
            blocks.push(&*file, &piece[len / 3..]).unwrap();
            if round % 3 == 0 {
                blocks.write(&*file).unwrap();
            } else {
                blocks.write_durably(&*file).unwrap();
            }
            expected.extend_from_slice(&piece);
            let mut back = vec![0; expected.len() + 3];
            file.read_exact_at(&mut back, 0).unwrap();
            assert_eq!(back[..expected.len()], expected, "after {len} bytes");
            assert_eq!(back[expected.len()..], [0; 3]);
            if round % 2 == 1 {
                blocks.zero_ahead(&*file, 4 << 20).unwrap();
            }
            // Whoever opens the file here goes on with the same bytes.
            if round % 2 == 0 {
                blocks = Blocks::at(&*file, expected.len() as u64).unwrap();
            }
        }
    }

    #[test]
    fn zeros_go_ahead_of_small_groups_and_stay_in_the_segment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let segment_bytes = 3 * AHEAD_BYTES as u64;
        let stale = vec![7; segment_bytes as usize + BLOCK];
        let file = RealFs.create(&path).unwrap();
        file.write_all_at(&stale, 0).unwrap();
        let file = RealFs.open_direct(&path).unwrap();
        let mut blocks = Blocks::at(&*file, 0).unwrap();
        let contents = || std::fs::read(&path).unwrap();
        blocks.zero_ahead(&*file, segment_bytes).unwrap();
        assert!(contents() == stale, "nothing is written before the log is");
        let mut expected = Vec::new();
        while (expected.len() as u64) < segment_bytes - 5000 {
            let piece = bytes(5000, expected.len());
            expected.extend_from_slice(&piece);
            blocks.push(&*file, &piece).unwrap();
            blocks.write_durably(&*file).unwrap();
            blocks.zero_ahead(&*file, segment_bytes).unwrap();
            let found = contents();
            let (log, rest) = found.split_at(expected.len());
            assert!(log == expected, "at {}", expected.len());
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            let room = segment_bytes as usize - expected.len();
            assert!(zeros >= room.min(AHEAD_BYTES / 2), "{zeros} of {room}");
            assert!(
                found[segment_bytes as usize..]
                    .iter()
                    .all(|byte| *byte == 7)
            );
        }
        let large = vec![1; SMALL_GROUP_BYTES + 1];
        let mut blocks = Blocks::at(&*file, 0).unwrap();
        blocks.push(&*file, &large).unwrap();
        blocks.write(&*file).unwrap();
        file.write_all_at(&stale[..BLOCK], 2 * SMALL_GROUP_BYTES as u64)
            .unwrap();
        blocks.zero_ahead(&*file, segment_bytes).unwrap();
        assert_eq!(contents()[2 * SMALL_GROUP_BYTES], 7);
    }
}
