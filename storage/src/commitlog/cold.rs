//! Records that were read from the disk a moment ago. Consumers that are behind come back for what follows,
//! and those of other queues for what lies between; a queue's messages are rarely next to each other. As long
//! as the consumers of a group's queues are no further apart than what is kept here, those behind need not
//! wait for the disk and catch up with the first; beyond that, each would read the whole log for itself.
//!
//! What is here was read as whole records whose CRCs were right. Reads go on where an earlier one ended in
//! larger and larger steps; a read at any other place is a small one. When half of a large one is used, the
//! next should be read, so that nobody has to wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::budget::{MemoryBudget, Share};
use super::format::Located;
use crate::position::{LogIndex, PhysicalOffset};

/// Payload that the first read at a place takes at least, if the log has as much; bytes.
const FIRST_READ_BYTES: usize = 64 << 10;

/// Payload that a read takes at most, unless one record is larger; bytes.
const READ_BYTES_MAX: usize = 1 << 20;

/// A read that begins so little behind the end of another continues it; bytes.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Runs of one log that are kept, whatever the budget: one in use and one ahead.
const RUNS_MIN: usize = 2;

/// Most runs that are kept, small ones too: all are looked through.
const RUNS_MAX: usize = 64;

/// A run of this much payload or more was read by somebody who goes on; bytes.
const AHEAD_BYTES_MIN: usize = 256 << 10;

/// What a log has read from the disk. Logs share a budget for it.
pub(crate) struct Cold {
    runs: Mutex<Runs>,
    /// Held while the disk is read, so that those who want the same do not all read it.
    pub(crate) reading: Mutex<()>,
}

/// Invariant: `share` counts what the runs have in bytes.
struct Runs {
    /// The one that was used last comes last.
    list: Vec<Run>,
    share: Share,
    /// What should be read before it is asked for.
    ahead: Option<NextRead>,
}

/// Adjacent records. Not empty.
struct Run {
    /// Of the view, when they were read.
    epoch: u64,
    records: Vec<Located>,
    payload_bytes: usize,
    /// Since [`Cold::forget`].
    used: bool,
    /// What follows was asked for.
    continued: bool,
}

/// How to read what is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextRead {
    /// The first record; if none, one that is known to be in front of the place.
    pub from: Option<LogIndex>,
    /// Payload to read at most, unless one record is larger; bytes.
    pub bytes_max: usize,
}

impl Run {
    fn end(&self) -> PhysicalOffset {
        let last = self.records.last().expect("a run is not empty");
        last.end_offset()
    }

    /// Number of the record whose bytes include `offset`.
    fn at(&self, offset: PhysicalOffset) -> Option<usize> {
        let after = self
            .records
            .partition_point(|located| located.offset <= offset);
        let number = after.checked_sub(1)?;
        (offset < self.records[number].end_offset()).then_some(number)
    }

    /// The read that goes on behind it.
    fn next_read(&self) -> NextRead {
        NextRead {
            from: self.records.last().map(|last| last.record.index.next()),
            bytes_max: (4 * self.payload_bytes).clamp(FIRST_READ_BYTES, READ_BYTES_MAX),
        }
    }
}

impl Runs {
    /// Lets go of the run that was not used for the longest time.
    fn drop_oldest(&mut self) {
        let run = self.list.remove(0);
        self.share.remove(run.payload_bytes);
    }

    fn retain(&mut self, keeps: impl Fn(&Run) -> bool) {
        let share = &mut self.share;
        self.list.retain(|run| {
            let keeps = keeps(run);
            if !keeps {
                share.remove(run.payload_bytes);
            }
            keeps
        });
    }
}

impl Cold {
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Cold {
            runs: Mutex::new(Runs {
                list: Vec::new(),
                share: Share::of(budget),
                ahead: None,
            }),
            reading: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record whose bytes include `offset`, if it was read since `epoch` began.
    pub(crate) fn at(&self, offset: PhysicalOffset, epoch: u64) -> Option<Located> {
        let mut runs = self.lock();
        let Runs { list, ahead, .. } = &mut *runs;
        let holds = |run: &Run| run.epoch == epoch && run.at(offset).is_some();
        let found = list.iter().rposition(holds)?;
        if found + 1 < list.len() {
            let run = list.remove(found);
            list.push(run);
        }
        let run = list.last_mut()?;
        run.used = true;
        let number = run.at(offset)?;
        let is_late = number >= run.records.len() / 2 && run.payload_bytes >= AHEAD_BYTES_MIN;
        if is_late && !run.continued {
            run.continued = true;
            *ahead = Some(run.next_read());
        }
        Some(run.records[number].clone())
    }

    /// What should be read now because it will be asked for soon; says so once.
    pub(crate) fn take_ahead(&self) -> Option<NextRead> {
        self.lock().ahead.take()
    }

    /// How to read the record at `offset`.
    pub(crate) fn next_read(&self, offset: PhysicalOffset, epoch: u64) -> NextRead {
        let mut runs = self.lock();
        let near = |run: &&mut Run| {
            let gap = offset.get().checked_sub(run.end().get());
            run.epoch == epoch && gap.is_some_and(|gap| gap <= GAP_BYTES_MAX)
        };
        let continued = runs
            .list
            .iter_mut()
            .filter(near)
            .max_by_key(|run| run.end());
        match continued {
            Some(run) => {
                run.continued = true;
                run.next_read()
            }
            None => NextRead {
                from: None,
                bytes_max: FIRST_READ_BYTES,
            },
        }
    }

    /// Keeps records that were read when the view had this epoch.
    pub(crate) fn keep(&self, records: Vec<Located>, epoch: u64) {
        if records.is_empty() {
            return;
        }
        let payload_bytes = records.iter().map(|l| l.record.payload.len()).sum();
        let mut runs = self.lock();
        runs.retain(|run| run.epoch == epoch);
        runs.share.add(payload_bytes);
        runs.list.push(Run {
            epoch,
            records,
            payload_bytes,
            used: true,
            continued: false,
        });
        let over = |runs: &Runs| runs.list.len() > RUNS_MIN && runs.share.is_over();
        while runs.list.len() > RUNS_MAX || over(&runs) {
            runs.drop_oldest();
        }
    }

    /// Lets go of what nobody has used since the last call.
    pub(crate) fn forget(&self) {
        let mut runs = self.lock();
        runs.ahead = None;
        runs.retain(|run| run.used);
        for run in &mut runs.list {
            run.used = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::commitlog::{LeaderTag, Record, RecordKind};

    const PAYLOAD: usize = 20 << 10;

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

    fn run(range: std::ops::Range<u64>) -> Vec<Located> {
        range.map(located).collect()
    }

    #[test]
    fn a_read_that_continues_another_is_larger_and_begins_behind_it() {
        let cold = roomy();
        let first = |at| NextRead {
            from: at,
            bytes_max: FIRST_READ_BYTES,
        };
        assert_eq!(cold.next_read(located(3).offset, 0), first(None));
        cold.keep(run(3..7), 0);
        let next = cold.next_read(located(7).offset.plus(5), 0);
        assert_eq!(next.from, Some(LogIndex::new(7)));
        assert_eq!(next.bytes_max, 16 * PAYLOAD);
        cold.keep(run(7..87), 0);
        assert_eq!(
            cold.next_read(located(87).offset, 0).bytes_max,
            READ_BYTES_MAX
        );
        assert_eq!(cold.next_read(located(2).offset, 0), first(None));
        assert_eq!(cold.next_read(located(99).offset, 0), first(None));
        assert_eq!(cold.next_read(located(87).offset, 1), first(None), "epoch");
    }

    #[test]
    fn the_next_read_is_wanted_once_when_half_of_a_large_one_is_used() {
        let cold = roomy();
        cold.keep(run(0..4), 0);
        assert!(cold.at(located(3).offset, 0).is_some());
        assert_eq!(cold.take_ahead(), None, "a small one may be the last");
        cold.keep(run(4..24), 0);
        assert!(cold.at(located(5).offset, 0).is_some());
        assert_eq!(cold.take_ahead(), None);
        assert!(cold.at(located(14).offset, 0).is_some());
        let ahead = cold.take_ahead().unwrap();
        assert_eq!(ahead.from, Some(LogIndex::new(24)));
        assert!(cold.at(located(20).offset, 0).is_some());
        assert_eq!(cold.take_ahead(), None);
    }

    fn roomy() -> Cold {
        Cold::new(MemoryBudget::new(usize::MAX))
    }

    fn of(index: u64) -> PhysicalOffset {
        located(index).offset.plus(100)
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let budget = MemoryBudget::new(6 * 2 * PAYLOAD);
        let cold = Cold::new(budget.clone());
        for start in 0..6 {
            cold.keep(run(10 * start..10 * start + 2), 0);
        }
        assert_eq!(cold.at(of(1), 0), Some(located(1)));
        cold.keep(run(90..91), 0);
        assert_eq!(cold.at(of(1), 0), Some(located(1)));
        assert_eq!(cold.at(of(10), 0), None);
        assert_eq!(cold.at(of(1), 1), None, "read before something vanished");
        cold.forget();
        assert_eq!(cold.at(of(20), 0), Some(located(20)));
        cold.forget();
        assert_eq!(cold.at(of(20), 0), Some(located(20)));
        assert_eq!(cold.at(of(1), 0), None);
        assert_eq!(budget.used(), 2 * PAYLOAD);
        cold.keep(run(5..6), 1);
        assert_eq!(cold.at(of(20), 0), None);
        assert_eq!(budget.used(), PAYLOAD);
    }

    #[test]
    fn logs_share_a_budget_and_each_keeps_its_last_reads() {
        let budget = MemoryBudget::new(8 * PAYLOAD);
        let (left, right) = (Cold::new(budget.clone()), Cold::new(budget.clone()));
        for start in 0..10 {
            left.keep(run(start..start + 1), 0);
        }
        assert_eq!(budget.used(), 8 * PAYLOAD);
        right.keep(run(0..3), 0);
        left.keep(run(10..11), 0);
        assert_eq!(left.at(of(5), 0), None);
        assert_eq!(left.at(of(6), 0), Some(located(6)));
        right.keep(run(3..7), 0);
        right.keep(run(7..20), 0);
        assert_eq!(right.at(of(0), 0), None);
        assert_eq!(right.at(of(3), 0), Some(located(3)), "the last two");
        assert_eq!(right.at(of(19), 0), Some(located(19)));
        drop(right);
        assert_eq!(budget.used(), 5 * PAYLOAD);
    }

    #[test]
    fn small_reads_are_not_kept_without_end() {
        let cold = roomy();
        for start in 0..=RUNS_MAX as u64 {
            cold.keep(run(2 * start..2 * start + 1), 0);
        }
        assert_eq!(cold.at(of(0), 0), None);
        assert_eq!(cold.at(of(2), 0), Some(located(2)));
    }
}
