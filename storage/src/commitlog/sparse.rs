//! Log index to physical offset, sparsely: one entry per 32 KiB of log, per segment start and per change of
//! the leader. From an entry a reader walks the headers to the record it wants.

use super::format::LeaderTag;
use crate::position::{LogIndex, PhysicalOffset};

/// Distance between entries; bytes of log.
pub(crate) const SPARSE_STEP: u64 = 32 << 10;

/// One known record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SparseEntry {
    pub index: LogIndex,
    pub offset: PhysicalOffset,
    pub tag: LeaderTag,
}

/// The entries of one segment; the first one is its first record.
#[derive(Debug, Clone, Default)]
pub(crate) struct SparseIndex {
    entries: Vec<SparseEntry>,
}

impl SparseIndex {
    /// Counts the next record and remembers it if it is worth an entry, or `after_hole`: then nobody can walk
    /// to it from the one before.
    pub(crate) fn note(
        &mut self,
        index: LogIndex,
        tag: LeaderTag,
        offset: PhysicalOffset,
        after_hole: bool,
    ) {
        let worth = self.entries.last().is_none_or(|last| {
            assert!(
                index > last.index && offset > last.offset,
                "records out of order"
            );
            tag != last.tag || offset.get() - last.offset.get() >= SPARSE_STEP
        });
        if worth || after_hole {
            self.entries.push(SparseEntry { index, offset, tag });
        }
    }

    /// Drops the entries after `kept`.
    pub(crate) fn truncate(&mut self, kept: Option<LogIndex>) {
        let keep = self
            .entries
            .partition_point(|entry| Some(entry.index) <= kept);
        self.entries.truncate(keep);
    }

    /// The last entry at or before `index`.
    pub(crate) fn floor(&self, index: LogIndex) -> Option<SparseEntry> {
        let after = self.entries.partition_point(|entry| entry.index <= index);
        after.checked_sub(1).map(|at| self.entries[at])
    }

    /// Takes over entries from an index file.
    pub(crate) fn adopt(entries: &[SparseEntry]) -> Self {
        Self {
            entries: entries.to_vec(),
        }
    }

    /// Number of the last entry at or before `offset`.
    pub(crate) fn number_at(&self, offset: PhysicalOffset) -> Option<usize> {
        self.entries
            .partition_point(|entry| entry.offset <= offset)
            .checked_sub(1)
    }

    /// All entries, in order.
    pub(crate) fn entries(&self) -> &[SparseEntry] {
        &self.entries
    }
}
