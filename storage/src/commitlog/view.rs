//! The log as readers see it, in memory: positions, segments, and the recent records.
//!
//! Pure bookkeeping without a file in sight; the handle changes it under the lock, the writer thread brings
//! the disk in line afterwards.

use std::collections::VecDeque;
use std::sync::Arc;

use super::budget::MemoryBudget;
use super::format::{LeaderTag, Located, Record, place, segment_base};
use super::holes::{Hole, Holes};
use super::sidecar::Sidecar;
use super::sparse::{SparseEntry, SparseIndex};
use super::tail::Tail;
use crate::fs::File;
use crate::planted::{Bug, planted};
use crate::position::{LogIndex, PhysicalOffset};

/// Where a log begins: what came right before its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct LogStart {
    /// Index of the record before; `None` for a log that starts at the beginning of time.
    pub last_index: Option<LogIndex>,
    /// Tag of that record; zero if there is none.
    pub last_tag: LeaderTag,
    /// Where the log ended then. The first record is placed here, or at the start of the next segment.
    pub next_offset: PhysicalOffset,
}

impl LogStart {
    /// Of a log that goes on after a record.
    pub(super) fn after(located: &Located) -> Self {
        Self {
            last_index: Some(located.record.index),
            last_tag: located.record.tag,
            next_offset: located.end_offset(),
        }
    }

    /// The record before the log, if there is one.
    pub fn last(&self) -> Option<(LogIndex, LeaderTag)> {
        self.last_index.map(|index| (index, self.last_tag))
    }
}

/// One segment file and what it holds.
pub(crate) struct Segment {
    pub base: PhysicalOffset,
    /// What comes before its first record; `next_offset` is where that record is.
    pub start: LogStart,
    pub first_index: LogIndex,
    pub sparse: SparseIndex,
    /// After its last record.
    pub end_offset: PhysicalOffset,
    pub last_store_time_ms: u64,
    /// Entries of `sparse` that the index file on disk has.
    pub saved_entries: usize,
    /// `None` until the writer has created the file; its records are all in the tail until then.
    pub file: Option<Arc<dyn File>>,
}

/// The log in memory.
///
/// Invariants: indexes in `tail` are consecutive and end at `last`; a record that is not flushed is in
/// `tail`; `start.last_index <= purged <= last`; the segments are adjacent in index.
pub(crate) struct View {
    segment_bytes: u64,
    /// Before the first record that is still on disk.
    pub start: LogStart,
    /// Logical start: records up to here are gone for readers by index.
    pub purged: Option<(LogIndex, LeaderTag)>,
    pub last: Option<(LogIndex, LeaderTag)>,
    pub end_offset: PhysicalOffset,
    pub last_store_time_ms: u64,
    pub flushed: Option<LogIndex>,
    pub segments: VecDeque<Segment>,
    pub tail: Tail,
    /// Runs of records with the same tag: index of the first one, tag.
    tags: VecDeque<(LogIndex, LeaderTag)>,
    /// What is known to be damaged on disk. All of it is flushed and not in the tail.
    pub holes: Holes,
    /// Changes whenever bytes may vanish or be replaced: a read that began before must look again.
    pub epoch: u64,
}

/// What the writer has to undo on disk after a truncation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Truncation {
    pub kept: LogStart,
    /// Segments without a record left, in order.
    pub removed: Vec<PhysicalOffset>,
    /// End of the old records in the segment that stays.
    pub stale_end: PhysicalOffset,
}

impl View {
    /// An empty log.
    pub(crate) fn new(segment_bytes: u64, budget: MemoryBudget, start: LogStart) -> Self {
        Self {
            segment_bytes,
            start,
            purged: start.last(),
            last: start.last(),
            end_offset: start.next_offset,
            last_store_time_ms: 0,
            flushed: start.last_index,
            segments: VecDeque::new(),
            tail: Tail::new(budget),
            tags: VecDeque::new(),
            holes: Holes::default(),
            epoch: 0,
        }
    }

    /// Gives the records their places and makes them readable.
    pub(crate) fn append(&mut self, records: Vec<Record>) -> Vec<Located> {
        let mut placed = Vec::with_capacity(records.len());
        for record in records {
            let offset = place(self.end_offset, record.encoded_len(), self.segment_bytes);
            self.note(
                record.index,
                record.tag,
                record.store_time_ms,
                offset,
                record.encoded_len(),
            );
            let located = Located { record, offset };
            self.tail.push(located.clone());
            placed.push(located);
        }
        placed
    }

    /// Counts one record at the end of the log, appended or found on disk.
    pub(crate) fn note(
        &mut self,
        index: LogIndex,
        tag: LeaderTag,
        store_time_ms: u64,
        offset: PhysicalOffset,
        len: u64,
    ) {
        if let Some((last, last_tag)) = self.last {
            assert!(index == last.next(), "record {index} appended after {last}");
            assert!(
                tag.term >= last_tag.term,
                "term {} after {}",
                tag.term,
                last_tag.term
            );
        }
        let base = segment_base(offset, self.segment_bytes);
        if self
            .segments
            .back()
            .is_none_or(|segment| segment.base != base)
        {
            let (before, before_tag) = self.last.unzip();
            let start = LogStart {
                last_index: before,
                last_tag: before_tag.unwrap_or_default(),
                next_offset: offset,
            };
            self.segments.push_back(Segment {
                base,
                start,
                first_index: index,
                sparse: SparseIndex::default(),
                end_offset: offset,
                last_store_time_ms: 0,
                saved_entries: 0,
                file: None,
            });
        }
        let after_hole = self.holes.end_at(offset);
        let segment = self
            .segments
            .back_mut()
            .expect("a segment was just ensured");
        segment.sparse.note(index, tag, offset, after_hole);
        segment.end_offset = offset.plus(len);
        segment.last_store_time_ms = segment.last_store_time_ms.max(store_time_ms);
        if self.tags.back().is_none_or(|(_, run)| *run != tag) {
            self.tags.push_back((index, tag));
        }
        self.last = Some((index, tag));
        self.end_offset = offset.plus(len);
        self.last_store_time_ms = self.last_store_time_ms.max(store_time_ms);
    }

    /// Goes on behind a hole at the end of what was found so far. The tags inside of it are not known.
    pub(crate) fn skip(&mut self, hole: Hole) {
        let (last, tag) = hole.last;
        let mut base = segment_base(hole.from, self.segment_bytes);
        let mut first_index = hole.first();
        let mut start = LogStart {
            last_index: hole.before.map(|(index, _)| index),
            last_tag: hole.before.map(|(_, tag)| tag).unwrap_or_default(),
            next_offset: hole.from,
        };
        while base < hole.to {
            let end_offset = hole.to.min(base.plus(self.segment_bytes));
            match self.segments.back_mut().filter(|known| known.base == base) {
                Some(known) => known.end_offset = end_offset,
                None => self.segments.push_back(Segment {
                    base,
                    start,
                    first_index,
                    sparse: SparseIndex::default(),
                    end_offset,
                    last_store_time_ms: 0,
                    saved_entries: 0,
                    file: None,
                }),
            }
            base = base.plus(self.segment_bytes);
            // Which record a file in the hole begins with is not known either.
            first_index = last.next();
            start = LogStart {
                last_index: Some(last),
                last_tag: tag,
                next_offset: base,
            };
        }
        if self.tags.back().is_none_or(|(_, run)| *run != tag) {
            self.tags.push_back((last, tag));
        }
        self.last = Some(hole.last);
        self.end_offset = hole.to;
        let new = self.holes.add(hole);
        assert!(new, "{hole:?} is a hole already");
    }

    /// The part of the log around `offset`, from one known record to the next, that a read of the disk may
    /// cover: bounded as a hole is. `None` if it is in memory or not in the log.
    pub(crate) fn part_at(&self, offset: PhysicalOffset) -> Option<Hole> {
        let segment = self.segment_at(segment_base(offset, self.segment_bytes))?;
        let number = segment.sparse.number_at(offset)?;
        let entries = segment.sparse.entries();
        let first = entries[number];
        let following = self.segment_at(segment.base.plus(self.segment_bytes));
        let after_segment = match following {
            Some(following) => following.first_index,
            None => self.last?.0.next(),
        };
        let (mut end, mut to) = match entries.get(number + 1) {
            Some(next) => (next.index, next.offset),
            None => (after_segment, segment.end_offset),
        };
        // What is in memory is served from there, and its block on disk may still be written.
        if let Some(tail) = self.tail.first()
            && tail.record.index < end
        {
            (end, to) = (tail.record.index, tail.offset);
        }
        if end <= first.index || offset >= to {
            return None;
        }
        let last = LogIndex::new(end.get() - 1);
        let before = match first.index == segment.first_index {
            true => segment.start.last(),
            false => {
                let index = LogIndex::new(first.index.get() - 1);
                Some((index, self.run_tag(index)?))
            }
        };
        Some(Hole {
            before,
            from: first.offset,
            last: (last, self.run_tag(last)?),
            to,
            // A filler behind it is not part of it.
            next: None,
        })
    }

    /// All records of the segment at `base`, bounded as a hole is, if it is sealed.
    pub(crate) fn whole_segment(&self, base: PhysicalOffset) -> Option<Hole> {
        let segment = self.segment_at(base)?;
        let following = self.segment_at(base.plus(self.segment_bytes))?;
        let last = following.start.last()?;
        Some(Hole {
            before: segment.start.last(),
            from: segment.start.next_offset,
            last,
            to: following.start.next_offset,
            next: Some(self.run_tag(following.first_index)?),
        })
    }

    /// Takes over the beginning of the segment at `base` from its index file: the records in front of
    /// `next`, of which `known` are some. The log must end right in front of `known`, and `next` must come
    /// after them.
    pub(crate) fn adopt(
        &mut self,
        base: PhysicalOffset,
        known: &[SparseEntry],
        next: SparseEntry,
        store_time_ms: u64,
    ) {
        let first = known.first().expect("there is something to take over");
        let before_next = LogIndex::new(next.index.get() - 1);
        for entry in known {
            let (at, tag) = (entry.index, entry.tag);
            if self.tags.back().is_none_or(|(_, run)| *run != tag) {
                self.tags.push_back((at, tag));
            }
        }
        let (last_index, last_tag) = self.last.unzip();
        let start = LogStart {
            last_index,
            last_tag: last_tag.unwrap_or_default(),
            next_offset: first.offset,
        };
        self.segments.push_back(Segment {
            base,
            start,
            first_index: first.index,
            sparse: SparseIndex::adopt(known),
            end_offset: next.offset,
            last_store_time_ms: store_time_ms,
            saved_entries: known.len(),
            file: None,
        });
        self.last = known.last().map(|entry| (before_next, entry.tag));
        self.end_offset = next.offset;
        self.last_store_time_ms = self.last_store_time_ms.max(store_time_ms);
    }

    /// The index files that are worth writing: those of sealed segments, and others that have grown by
    /// `step` entries.
    pub(crate) fn unsaved(&self, step: usize) -> Vec<(PhysicalOffset, Sidecar)> {
        let last = self.segments.back().map(|segment| segment.base);
        let worth = |segment: &&Segment| {
            let step = if Some(segment.base) == last { step } else { 1 };
            segment.sparse.entries().len() >= segment.saved_entries + step
        };
        let sidecar = |segment: &Segment| {
            (
                segment.base,
                Sidecar::of(&segment.sparse, segment.last_store_time_ms),
            )
        };
        self.segments.iter().filter(worth).map(sidecar).collect()
    }

    /// An index file with `entries` entries was written in epoch `epoch`.
    pub(crate) fn saved(&mut self, base: PhysicalOffset, entries: usize, epoch: u64) {
        let at = self.segments.partition_point(|segment| segment.base < base);
        if epoch == self.epoch
            && let Some(segment) = self.segments.get_mut(at)
            && segment.base == base
        {
            segment.saved_entries = entries;
        }
    }

    /// Tag of a record by index; `None` outside of `purged..=last`.
    pub(crate) fn tag_at(&self, index: LogIndex) -> Option<LeaderTag> {
        let (last, _) = self.last?;
        if index > last {
            return None;
        }
        if let Some((purged, tag)) = self.purged
            && index <= purged
        {
            return (index == purged).then_some(tag);
        }
        self.run_tag(index)
    }

    /// Tag of a record that is stored, also in front of the logical start, or of the one before the first.
    /// Not to be asked about what is inside a hole that was found when the log was opened.
    pub(crate) fn stored_tag(&self, index: LogIndex) -> Option<LeaderTag> {
        if self.start.last_index.is_some_and(|start| index <= start) {
            return self
                .start
                .last()
                .filter(|(at, _)| *at == index)
                .map(|(_, tag)| tag);
        }
        let (last, _) = self.last?;
        (index <= last).then(|| self.run_tag(index))?
    }

    fn run_tag(&self, index: LogIndex) -> Option<LeaderTag> {
        let after = self.tags.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|run| self.tags[run].1)
    }

    /// The segment that holds record `index`.
    pub(crate) fn segment_of(&self, index: LogIndex) -> Option<&Segment> {
        let after = self
            .segments
            .partition_point(|segment| segment.first_index <= index);
        self.segments.get(after.checked_sub(1)?)
    }

    /// The segment that begins at `base`.
    pub(crate) fn segment_at(&self, base: PhysicalOffset) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.base < base);
        self.segments.get(at).filter(|segment| segment.base == base)
    }

    /// Gives a segment its file.
    pub(crate) fn attach(&mut self, base: PhysicalOffset, file: Arc<dyn File>) {
        let at = self.segments.partition_point(|segment| segment.base < base);
        if let Some(segment) = self.segments.get_mut(at)
            && segment.base == base
        {
            segment.file = Some(file);
        }
    }

    /// Drops everything after `kept`, which must lie in `start..=last`.
    pub(crate) fn truncate(&mut self, kept: LogStart) -> Truncation {
        let kept_index = kept.last_index;
        let beyond = |index: LogIndex| kept_index.is_none_or(|last| index > last);
        self.epoch += 1;
        // One that reaches over the cut is found again.
        self.holes.retain(|hole| hole.to <= kept.next_offset);
        if !planted(Bug::StaleTail) {
            self.tail.truncate(kept_index);
        }
        while self.tags.back().is_some_and(|(first, _)| beyond(*first)) {
            self.tags.pop_back();
        }
        let mut removed = Vec::new();
        while let Some(segment) = self.segments.back()
            && beyond(segment.first_index)
        {
            removed.push(segment.base);
            self.segments.pop_back();
        }
        removed.reverse();
        let mut stale_end = kept.next_offset;
        if let Some(segment) = self.segments.back_mut() {
            stale_end = segment.end_offset.max(kept.next_offset);
            segment.sparse.truncate(kept_index);
            // The file now tells of records that are gone; it is written anew when there is a reason.
            segment.saved_entries = 0;
            segment.end_offset = kept.next_offset;
        }
        self.last = kept.last();
        self.end_offset = kept.next_offset;
        self.flushed = self.flushed.min(kept_index);
        Truncation {
            kept,
            removed,
            stale_end,
        }
    }

    /// Moves the logical start behind `index`, and the physical one past the segments that hold nothing
    /// else; returns those. The last segment always stays.
    pub(crate) fn purge(&mut self, index: LogIndex) -> Vec<PhysicalOffset> {
        let tag = self
            .tag_at(index)
            .expect("the caller checked that the record exists");
        self.purged = Some((index, tag));
        let mut retired = Vec::new();
        while let Some(next) = self.segments.get(1)
            && next.start.last_index.is_some_and(|last| last <= index)
        {
            self.start = next.start;
            let segment = self.segments.pop_front().expect("there is a second one");
            retired.push(segment.base);
        }
        if !retired.is_empty() {
            self.epoch += 1;
            self.drop_before(self.start);
        }
        retired
    }

    fn drop_before(&mut self, start: LogStart) {
        self.holes.retain(|hole| hole.from >= start.next_offset);
        self.tail.drop_through(start.last_index);
        // The run that reaches over the start stays, it begins a little early.
        while self
            .tags
            .get(1)
            .is_some_and(|(first, _)| start.last_index.is_some_and(|last| *first <= last.next()))
        {
            self.tags.pop_front();
        }
    }

    /// Forgets everything; the next record comes after `start`. Returns the segments that are gone.
    pub(crate) fn reset(&mut self, start: LogStart) -> Vec<PhysicalOffset> {
        let removed = self.segments.iter().map(|segment| segment.base).collect();
        let epoch = self.epoch + 1;
        let store_time = self.last_store_time_ms;
        *self = Self::new(self.segment_bytes, self.tail.budget(), start);
        self.epoch = epoch;
        self.last_store_time_ms = store_time;
        removed
    }

    /// Records up to `index` are durable; older ones may leave the tail.
    pub(crate) fn flushed_through(&mut self, index: Option<LogIndex>) {
        self.flushed = self.flushed.max(index);
        self.tail.shrink(self.flushed);
    }

    /// Lets go of the durable records up to `index` that are in memory.
    pub(crate) fn forget_through(&mut self, index: LogIndex) {
        self.tail.drop_through(self.flushed.min(Some(index)));
    }
}
