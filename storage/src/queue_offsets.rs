//! Which offset a queue gives next, and where its messages begin.
//!
//! Offsets are given at apply and nowhere else, so all replicas agree on them. The first offset moves when
//! the log is purged, and is the next offset as it was at that place of the log.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::position::QueueOffset;

/// A queue of a topic. Topic ids are never reused, so a key means the same queue for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueKey {
    /// Id of the topic in this group.
    pub topic_id: u32,
    /// Number of the queue in the topic.
    pub queue: u16,
}

/// What a queue holds: offsets from `min` up to but not including `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueBounds {
    /// First offset that is still in the log, or `next` if none is.
    pub min: QueueOffset,
    /// Offset of the next message.
    pub next: QueueOffset,
}

/// Bounds of all queues that ever had a message.
///
/// Invariant: `min <= next` for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueueOffsets {
    queues: HashMap<QueueKey, QueueBounds>,
}

impl QueueOffsets {
    /// Queues that begin and end at the given offsets.
    pub(crate) fn starting_at(next: &[(QueueKey, QueueOffset)]) -> Self {
        let bounds = |next: QueueOffset| QueueBounds { min: next, next };
        Self {
            queues: next
                .iter()
                .map(|(key, next)| (*key, bounds(*next)))
                .collect(),
        }
    }

    /// Queues that begin where they ended at one record and end where they ended at a later one.
    pub(crate) fn between(
        start: &[(QueueKey, QueueOffset)],
        next: &[(QueueKey, QueueOffset)],
    ) -> Self {
        let mut offsets = Self::starting_at(next);
        for bounds in offsets.queues.values_mut() {
            bounds.min = QueueOffset::ZERO;
        }
        offsets.raise_min(start);
        offsets
    }

    /// The offset of a new message of `key`.
    pub(crate) fn assign(&mut self, key: QueueKey) -> QueueOffset {
        let bounds = self.queues.entry(key).or_default();
        let given = bounds.next;
        bounds.next = given.next();
        given
    }

    /// `None` if the queue never had a message.
    pub(crate) fn get(&self, key: QueueKey) -> Option<QueueBounds> {
        self.queues.get(&key).copied()
    }

    /// Next offset of all queues, ordered by key.
    pub(crate) fn next_offsets(&self) -> Vec<(QueueKey, QueueOffset)> {
        let mut all: Vec<_> = self
            .queues
            .iter()
            .map(|(key, bounds)| (*key, bounds.next))
            .collect();
        all.sort_unstable();
        all
    }

    /// All queues.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QueueKey, QueueBounds)> {
        self.queues.iter().map(|(key, bounds)| (*key, *bounds))
    }

    /// Moves the first offsets up to `starts`; never down.
    pub(crate) fn raise_min(&mut self, starts: &[(QueueKey, QueueOffset)]) {
        for (key, start) in starts {
            let Some(bounds) = self.queues.get_mut(key) else {
                continue;
            };
            assert!(
                *start <= bounds.next,
                "{key:?} starts at {start}, behind {}",
                bounds.next
            );
            bounds.min = bounds.min.max(*start);
        }
    }

    /// Forgets the queues of a topic.
    pub(crate) fn remove_topic(&mut self, topic_id: u32) {
        self.queues.retain(|key, _| key.topic_id != topic_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: QueueKey = QueueKey {
        topic_id: 1,
        queue: 0,
    };

    #[test]
    fn offsets_count_up_per_queue() {
        let mut offsets = QueueOffsets::default();
        assert_eq!(offsets.get(KEY), None);
        assert_eq!(offsets.assign(KEY).get(), 0);
        assert_eq!(offsets.assign(KEY).get(), 1);
        assert_eq!(offsets.assign(QueueKey { queue: 1, ..KEY }).get(), 0);
        assert_eq!(offsets.next_offsets()[0], (KEY, QueueOffset::new(2)));
        offsets.remove_topic(1);
        assert_eq!(offsets, QueueOffsets::default());
    }

    #[test]
    fn the_start_only_moves_up() {
        let mut offsets = QueueOffsets::starting_at(&[(KEY, QueueOffset::new(5))]);
        offsets.assign(KEY);
        offsets.raise_min(&[(KEY, QueueOffset::new(2))]);
        assert_eq!(offsets.get(KEY).map(|bounds| bounds.min.get()), Some(5));
        offsets.raise_min(&[(KEY, QueueOffset::new(6))]);
        assert_eq!(offsets.get(KEY).map(|bounds| bounds.min.get()), Some(6));
    }
}
