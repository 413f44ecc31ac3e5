//! Entries that are not in a full run yet.

use std::collections::BTreeMap;

use super::format::{KeyEntry, RUN_ENTRIES};
use crate::position::PhysicalOffset;

/// Entries of one segment that are next to be written, as a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyBatch {
    /// The segment.
    pub base: PhysicalOffset,
    /// Position in the segment from which on `entries` are all there are.
    pub from: u32,
    /// Position up to which they are all there are; `u32::MAX` = the segment is finished.
    pub through: u32,
    /// In log order.
    pub entries: Vec<KeyEntry>,
}

/// The newest entries, by segment.
#[derive(Debug, Default)]
pub(crate) struct PendingKeys {
    segments: BTreeMap<PhysicalOffset, Pending>,
}

#[derive(Debug)]
struct Pending {
    from: u32,
    entries: Vec<KeyEntry>,
}

impl PendingKeys {
    /// A record at `position` of the segment at `base` is about to be indexed.
    pub(crate) fn enter(&mut self, base: PhysicalOffset, position: u32) {
        let fresh = || Pending {
            from: position,
            entries: Vec::new(),
        };
        self.segments.entry(base).or_insert_with(fresh);
    }

    /// Adds an entry of a segment that was entered.
    pub(crate) fn push(&mut self, base: PhysicalOffset, entry: KeyEntry) {
        let pending = self
            .segments
            .get_mut(&base)
            .expect("the segment was entered");
        pending.entries.push(entry);
    }

    /// Takes up where a file ends: what was in its last run.
    pub(crate) fn resume(&mut self, base: PhysicalOffset, from: u32, entries: Vec<KeyEntry>) {
        self.segments.insert(base, Pending { from, entries });
    }

    /// Places with this hash, newest first.
    pub(crate) fn find(&self, hash: u32) -> Vec<PhysicalOffset> {
        let newest_first = self.segments.iter().rev();
        let hits = newest_first.flat_map(|(base, pending)| {
            let entries = pending
                .entries
                .iter()
                .rev()
                .filter(move |entry| entry.hash == hash);
            entries.map(move |entry| base.plus(u64::from(entry.position)))
        });
        hits.collect()
    }

    /// Copies what is worth writing: full runs and finished segments, or everything.
    /// `current` is the segment that is being filled, and how far.
    pub(crate) fn batches(
        &self,
        current: (PhysicalOffset, u32),
        everything: bool,
    ) -> Vec<KeyBatch> {
        let mut batches = Vec::new();
        for (base, pending) in &self.segments {
            let finished = *base < current.0;
            if finished || everything || pending.entries.len() >= RUN_ENTRIES {
                let through = if finished { u32::MAX } else { current.1 };
                let entries = pending.entries.clone();
                batches.push(KeyBatch {
                    base: *base,
                    from: pending.from,
                    through,
                    entries,
                });
            }
        }
        batches
    }

    /// Lets go of the first `count` entries of a segment, which are in full runs now; `from` is where the
    /// rest begins. A finished segment goes as a whole.
    pub(crate) fn written(&mut self, base: PhysicalOffset, count: usize, from: u32) {
        if from == u32::MAX {
            self.segments.remove(&base);
            return;
        }
        // Gone if a snapshot was installed meanwhile.
        if let Some(pending) = self.segments.get_mut(&base) {
            pending.entries.drain(..count);
            pending.from = from;
        }
    }

    /// Forgets the segments before the one at `base`.
    pub(crate) fn remove_before(&mut self, base: PhysicalOffset) {
        self.segments = self.segments.split_off(&base);
    }
}
