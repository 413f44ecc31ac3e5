//! Units that were applied and are not in files yet.

use std::collections::HashMap;

use super::format::Unit;
use crate::position::QueueOffset;
use crate::queue_offsets::QueueKey;

/// Units of a queue that are written together, on average. Opening a file, writing and closing it costs some
/// 20 us whatever is written, and memory holds that many units of each queue for it: 1.5 KiB.
const WRITE_UNITS: usize = 64;

/// Units of all queues that memory may hold; beyond that all are written.
const UNITS_MAX: usize = 1_000_000;

/// Which queues are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// All that have units.
    All,
    /// Those that have enough of them to be worth it.
    Ripe,
}

/// Consecutive units of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingUnits {
    pub key: QueueKey,
    /// Queue offset of the first unit.
    pub first: QueueOffset,
    pub units: Vec<Unit>,
}

impl PendingUnits {
    fn end(&self) -> QueueOffset {
        self.first.plus(self.units.len() as u64)
    }

    /// Whether there are enough units to be written. From a half to one and a half times [`WRITE_UNITS`],
    /// by the queue, so that queues that grow alike are not all written at the same time.
    fn is_ripe(&self) -> bool {
        let spread = self.key.topic_id.wrapping_add(u32::from(self.key.queue)) as usize;
        self.units.len() >= WRITE_UNITS / 2 + spread % WRITE_UNITS
    }
}

/// The newest units of each queue that has any that are not written.
///
/// Invariant: a queue's units are consecutive and end at its next offset; what lies below is in files.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    queues: HashMap<QueueKey, PendingUnits>,
    count: usize,
}

impl Tails {
    /// Adds the unit of a message that was given `offset`.
    pub(crate) fn push(&mut self, key: QueueKey, offset: QueueOffset, unit: Unit) {
        let fresh = || PendingUnits {
            key,
            first: offset,
            units: Vec::new(),
        };
        let tail = self.queues.entry(key).or_insert_with(fresh);
        assert!(
            tail.end() == offset,
            "unit {offset} of {key:?} after {}",
            tail.end()
        );
        tail.units.push(unit);
        self.count += 1;
    }

    /// Units in all queues.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The first unit that is not in a file; `None` if all are.
    pub(crate) fn first(&self, key: QueueKey) -> Option<QueueOffset> {
        self.queues.get(&key).map(|tail| tail.first)
    }

    /// Up to `max` units from `from`, which must not lie below the tail's first one.
    pub(crate) fn read(&self, key: QueueKey, from: QueueOffset, max: usize) -> &[Unit] {
        let Some(tail) = self.queues.get(&key) else {
            return &[];
        };
        let skip = (from.get() - tail.first.get()).min(tail.units.len() as u64) as usize;
        let units = &tail.units[skip..];
        &units[..max.min(units.len())]
    }

    /// A copy of what is to be written.
    pub(crate) fn pending(&self, due: Due) -> Vec<PendingUnits> {
        let all = due == Due::All || self.count > UNITS_MAX;
        let wanted = self.queues.values().filter(|tail| all || tail.is_ripe());
        wanted.cloned().collect()
    }

    /// Lets go of units that were written.
    pub(crate) fn written(&mut self, written: &[PendingUnits]) {
        for part in written {
            let Some(tail) = self.queues.get_mut(&part.key) else {
                continue;
            };
            let Some(done) = part.end().get().checked_sub(tail.first.get()) else {
                continue;
            };
            let done = (done as usize).min(tail.units.len());
            self.count -= done;
            if done == tail.units.len() {
                self.queues.remove(&part.key);
            } else {
                tail.units.drain(..done);
                tail.first = part.end();
            }
        }
    }

    /// Forgets the queues of a topic.
    pub(crate) fn remove_topic(&mut self, topic_id: u32) {
        let count = &mut self.count;
        self.queues.retain(|key, tail| {
            let stays = key.topic_id != topic_id;
            *count -= if stays { 0 } else { tail.units.len() };
            stays
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::position::PhysicalOffset;

    const KEY: QueueKey = QueueKey {
        topic_id: 1,
        queue: 2,
    };

    fn unit(at: u64) -> Unit {
        Unit {
            offset: PhysicalOffset::new(at),
            size: 100,
            tags_code: 0,
        }
    }

    #[test]
    fn written_units_leave_and_newer_ones_stay() {
        let mut tails = Tails::default();
        tails.push(KEY, QueueOffset::new(5), unit(1));
        tails.push(KEY, QueueOffset::new(6), unit(2));
        let pending = tails.pending(Due::All);
        tails.push(KEY, QueueOffset::new(7), unit(3));
        tails.written(&pending);
        assert_eq!(
            (tails.first(KEY), tails.count()),
            (Some(QueueOffset::new(7)), 1)
        );
        assert_eq!(tails.read(KEY, QueueOffset::new(7), 9), [unit(3)]);
        assert!(tails.read(KEY, QueueOffset::new(8), 9).is_empty());
        tails.written(&tails.pending(Due::All));
        assert_eq!((tails.first(KEY), tails.count()), (None, 0));
    }

    #[test]
    fn queues_that_grow_alike_are_written_by_and_by() {
        let mut tails = Tails::default();
        let (queues, rounds) = (1000, 3 * WRITE_UNITS);
        let mut writes = vec![0; rounds];
        for (round, written) in writes.iter_mut().enumerate() {
            for queue in 0..queues {
                let key = QueueKey { queue, ..KEY };
                tails.push(key, QueueOffset::new(round as u64), unit(1));
            }
            let ripe = tails.pending(Due::Ripe);
            *written = ripe.len();
            tails.written(&ripe);
            assert!(tails.count() < usize::from(queues) * WRITE_UNITS * 3 / 2);
        }
        let (all, most) = (writes.iter().sum::<usize>(), writes.iter().max().unwrap());
        assert!(
            all <= rounds * usize::from(queues) / (WRITE_UNITS / 2),
            "{all} writes"
        );
        assert!(*most <= usize::from(queues) / 8, "{most} writes at once");
    }

    #[test]
    fn a_removed_topic_is_not_brought_back_by_a_late_write() {
        let mut tails = Tails::default();
        tails.push(KEY, QueueOffset::ZERO, unit(1));
        let pending = tails.pending(Due::All);
        tails.remove_topic(1);
        tails.written(&pending);
        assert_eq!((tails.first(KEY), tails.count()), (None, 0));
    }

    #[test]
    #[should_panic(expected = "unit 9")]
    fn a_gap_is_refused() {
        let mut tails = Tails::default();
        tails.push(KEY, QueueOffset::ZERO, unit(1));
        tails.push(KEY, QueueOffset::new(9), unit(2));
    }
}
