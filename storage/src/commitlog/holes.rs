//! Holes: parts of the log that were durable and whose bytes on this disk are wrong now (ADR 10).
//!
//! A hole is bounded by what is intact around it: the record in front of it, and the tag of its last record,
//! which the record behind it, the index or the mark tells. By Raft's log matching, whoever has a record
//! with that index and tag has the same bytes in front of it. That is how a peer's records are known to be
//! the ones that stood here.

use super::format::LeaderTag;
use crate::position::{LogIndex, PhysicalOffset};

/// A damaged part of the log.
///
/// Invariants: `from < to`; `last` is not before `before`. They are equal when only the filler at the end of
/// a segment is damaged, which takes no peer to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The record in front of it; `None` at the very start of the log.
    pub before: Option<(LogIndex, LeaderTag)>,
    /// Where that record ends.
    pub from: PhysicalOffset,
    /// The last record in it.
    pub last: (LogIndex, LeaderTag),
    /// Where the next intact record is, or where the log ends.
    pub to: PhysicalOffset,
    /// Leader of the record at `to`, if there is one.
    pub next: Option<LeaderTag>,
}

impl Hole {
    /// Its first record.
    pub fn first(&self) -> LogIndex {
        self.before
            .map_or(LogIndex::ZERO, |(index, _)| index.next())
    }

    /// No record is damaged, only the filler behind one.
    pub fn is_filler(&self) -> bool {
        self.before == Some(self.last)
    }

    /// Whether record `index` is in it.
    pub(crate) fn has(&self, index: LogIndex) -> bool {
        (self.first()..=self.last.0).contains(&index)
    }

    /// Whether it has any of these bytes.
    pub(crate) fn overlaps(&self, from: PhysicalOffset, to: PhysicalOffset) -> bool {
        from < self.to && self.from < to
    }
}

/// The holes of one log, in order and apart from each other.
#[derive(Debug, Default)]
pub(crate) struct Holes(Vec<Hole>);

impl Holes {
    /// All of them.
    pub(crate) fn all(&self) -> &[Hole] {
        &self.0
    }

    /// Adds one; false if a part of it is known already.
    pub(crate) fn add(&mut self, hole: Hole) -> bool {
        assert!(hole.from < hole.to, "an empty hole: {hole:?}");
        if self.over(hole.from, hole.to).is_some() {
            return false;
        }
        let at = self.0.partition_point(|known| known.from < hole.from);
        self.0.insert(at, hole);
        true
    }

    /// The hole that has record `index`.
    pub(crate) fn at(&self, index: LogIndex) -> Option<&Hole> {
        self.0.iter().find(|hole| hole.has(index))
    }

    /// A hole that has any of these bytes.
    pub(crate) fn over(&self, from: PhysicalOffset, to: PhysicalOffset) -> Option<&Hole> {
        self.0.iter().find(|hole| hole.overlaps(from, to))
    }

    /// First damaged record behind `index`.
    pub(crate) fn next_after(&self, index: LogIndex) -> Option<LogIndex> {
        let records = self.0.iter().filter(|hole| !hole.is_filler());
        records.map(Hole::first).find(|first| *first > index)
    }

    /// Whether a record that starts at `offset` is the first one behind a hole.
    pub(crate) fn end_at(&self, offset: PhysicalOffset) -> bool {
        self.0.iter().any(|hole| hole.to == offset)
    }

    /// Replaces a hole by what is left of it; false if it is not known (any more).
    pub(crate) fn shrink(&mut self, hole: &Hole, rest: Option<Hole>) -> bool {
        let Some(at) = self.0.iter().position(|known| known == hole) else {
            return false;
        };
        match rest {
            Some(rest) => self.0[at] = rest,
            None => drop(self.0.remove(at)),
        }
        true
    }

    /// Forgets the holes for which `stays` is false.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Hole) -> bool) {
        self.0.retain(stays);
    }
}
