//! The recent records of a log, in memory.
//!
//! Records that are not durable yet are always there. Beyond those the logs share one budget. A log that
//! stands still keeps what it has until its owner lets go of it
//! ([`CommitLog::forget_through`](super::CommitLog::forget_through)).

use std::collections::VecDeque;

use super::budget::{MemoryBudget, Share};
use super::format::Located;
use crate::position::{LogIndex, PhysicalOffset};

/// Memory that a record costs beside its payload; bytes.
const RECORD_OVERHEAD: usize = size_of::<Located>();

/// The recent records of one log.
///
/// Invariants: indexes are consecutive; `share` counts what the records cost.
pub(crate) struct Tail {
    records: VecDeque<Located>,
    share: Share,
}

impl Tail {
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Self {
            records: VecDeque::new(),
            share: Share::of(budget),
        }
    }

    /// The budget it counts against.
    pub(crate) fn budget(&self) -> MemoryBudget {
        self.share.budget()
    }

    /// Adds the record that follows.
    pub(crate) fn push(&mut self, located: Located) {
        self.share.add(cost(&located));
        self.records.push_back(located);
    }

    /// The oldest record.
    pub(crate) fn first(&self) -> Option<&Located> {
        self.records.front()
    }

    /// Index of the oldest record.
    pub(crate) fn first_index(&self) -> Option<LogIndex> {
        self.first().map(|located| located.record.index)
    }

    /// A record by index.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Located> {
        let skip = index.get().checked_sub(self.first_index()?.get())?;
        self.records.get(usize::try_from(skip).ok()?)
    }

    /// The record whose bytes include `offset`.
    pub(crate) fn at(&self, offset: PhysicalOffset) -> Option<&Located> {
        let after = self
            .records
            .partition_point(|located| located.offset <= offset);
        let located = self.records.get(after.checked_sub(1)?)?;
        (offset < located.end_offset()).then_some(located)
    }

    /// Lets go of the records after `last_kept`.
    pub(crate) fn truncate(&mut self, last_kept: Option<LogIndex>) {
        while let Some(located) = self.records.back()
            && last_kept.is_none_or(|last| located.record.index > last)
        {
            let gone = self.records.pop_back();
            self.account(gone);
        }
    }

    /// Lets go of the records up to `index`.
    pub(crate) fn drop_through(&mut self, index: Option<LogIndex>) {
        while self.first_index().is_some_and(|first| Some(first) <= index) {
            let gone = self.records.pop_front();
            self.account(gone);
        }
        if self.records.is_empty() {
            self.records = VecDeque::new();
        }
    }

    /// Lets go of what is over the budget, the oldest records first; those after `flushed` stay.
    pub(crate) fn shrink(&mut self, flushed: Option<LogIndex>) {
        while self.share.is_over()
            && self
                .first_index()
                .is_some_and(|first| Some(first) <= flushed)
        {
            let gone = self.records.pop_front();
            self.account(gone);
        }
    }

    /// Takes a record that left out of the books.
    fn account(&mut self, gone: Option<Located>) {
        if let Some(located) = gone {
            self.share.remove(cost(&located));
        }
    }
}

fn cost(located: &Located) -> usize {
    located.record.payload.len() + RECORD_OVERHEAD
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::commitlog::{LeaderTag, Record, RecordKind};

    const PAYLOAD: usize = 1000;
    const COST: usize = PAYLOAD + RECORD_OVERHEAD;

    fn located(index: u64) -> Located {
        let record = Record {
            tag: LeaderTag { term: 1, leader: 1 },
            index: LogIndex::new(index),
            kind: RecordKind::Batch,
            store_time_ms: 0,
            payload: Bytes::from(vec![0; PAYLOAD]),
            payload_crc: 0,
        };
        let offset = PhysicalOffset::new(index * record.encoded_len());
        Located { record, offset }
    }

    /// Appends and flushes `count` records.
    fn write(tail: &mut Tail, count: u64) {
        let next = tail.records.back().map_or(0, |l| l.record.index.get() + 1);
        for index in next..next + count {
            tail.push(located(index));
            tail.shrink(Some(LogIndex::new(index)));
        }
    }

    #[test]
    fn a_log_alone_may_use_the_whole_budget_and_two_half_each() {
        let budget = MemoryBudget::new(10 * COST);
        let (mut left, mut right) = (Tail::new(budget.clone()), Tail::new(budget.clone()));
        write(&mut left, 50);
        assert_eq!((left.records.len(), budget.used()), (10, 10 * COST));
        for _ in 0..50 {
            write(&mut left, 1);
            write(&mut right, 1);
        }
        assert_eq!((left.records.len(), right.records.len()), (5, 5));
        drop(left);
        assert_eq!(budget.used(), 5 * COST);
        write(&mut right, 50);
        assert_eq!(right.records.len(), 10, "the other's share is free again");
    }

    #[test]
    fn a_log_that_needs_little_leaves_the_rest_to_the_others() {
        let budget = MemoryBudget::new(10 * COST);
        let (mut quiet, mut busy) = (Tail::new(budget.clone()), Tail::new(budget.clone()));
        write(&mut quiet, 2);
        write(&mut busy, 50);
        assert_eq!((quiet.records.len(), busy.records.len()), (2, 8));
        quiet.drop_through(Some(LogIndex::new(1)));
        write(&mut busy, 50);
        assert_eq!((quiet.records.len(), busy.records.len()), (0, 10));
    }

    #[test]
    fn what_is_not_durable_stays_whatever_the_budget() {
        let budget = MemoryBudget::new(0);
        let mut tail = Tail::new(budget.clone());
        for index in 3..9 {
            tail.push(located(index));
        }
        tail.shrink(Some(LogIndex::new(5)));
        assert_eq!(tail.first_index(), Some(LogIndex::new(6)));
        assert_eq!(tail.get(LogIndex::new(7)), Some(&located(7)));
        assert_eq!(tail.get(LogIndex::new(5)), None);
        assert_eq!(tail.at(located(8).offset.plus(3)), Some(&located(8)));
        tail.truncate(Some(LogIndex::new(6)));
        assert_eq!(budget.used(), COST);
        tail.truncate(None);
        assert_eq!((budget.used(), tail.first_index()), (0, None));
    }
}
