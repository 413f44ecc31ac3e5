//! The recent records of a log, in memory, and the memory that all logs of a process may use for them.
//!
//! Records that are not durable yet are always there. Beyond those the logs share one budget: while it is not
//! used up, any of them may keep more than its share; then each that writes gives back what it has beyond
//! that. A log that stands still keeps what it has until its owner lets go of it
//! ([`CommitLog::forget_through`](super::CommitLog::forget_through)).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::format::Located;
use crate::position::{LogIndex, PhysicalOffset};

/// Memory that a record costs beside its payload; bytes.
const RECORD_OVERHEAD: usize = size_of::<Located>();

/// Memory for the recent records of several logs. Clones are the same budget.
#[derive(Clone)]
pub struct TailBudget(Arc<Budget>);

struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
    /// Logs that use any of it.
    holders: AtomicUsize,
}

impl TailBudget {
    /// `bytes_max` bytes of payload and heads; 0 keeps only what is not durable.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Budget {
            bytes_max,
            used: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
        }))
    }

    /// Bytes in use; more than the budget by what is not durable yet, and while logs take turns.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether a log that holds `bytes` has to give some back.
    fn is_over(&self, bytes: usize) -> bool {
        let holders = self.0.holders.load(Ordering::Relaxed).max(1);
        self.used() > self.0.bytes_max && bytes > self.0.bytes_max / holders
    }
}

impl fmt::Debug for TailBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailBudget")
            .field("bytes_max", &self.0.bytes_max)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// The recent records of one log.
///
/// Invariants: indexes are consecutive; `bytes` is what the records cost, and is counted in the budget.
pub(crate) struct Tail {
    records: VecDeque<Located>,
    bytes: usize,
    budget: TailBudget,
}

impl Tail {
    pub(crate) fn new(budget: TailBudget) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    /// The budget it counts against.
    pub(crate) fn budget(&self) -> TailBudget {
        self.budget.clone()
    }

    /// Adds the record that follows.
    pub(crate) fn push(&mut self, located: Located) {
        if self.records.is_empty() {
            self.budget.0.holders.fetch_add(1, Ordering::Relaxed);
        }
        let cost = cost(&located);
        self.bytes += cost;
        self.budget.0.used.fetch_add(cost, Ordering::Relaxed);
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
        while self.budget.is_over(self.bytes)
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
        let Some(located) = gone else { return };
        let cost = cost(&located);
        self.bytes -= cost;
        self.budget.0.used.fetch_sub(cost, Ordering::Relaxed);
        if self.records.is_empty() {
            self.budget.0.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.truncate(None);
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
        let budget = TailBudget::new(10 * COST);
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
        let budget = TailBudget::new(10 * COST);
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
        let budget = TailBudget::new(0);
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
