//! Messages of one queue that a group consumes in order: at most one batch is handed out.

use serde::{Deserialize, Serialize};

use crate::position::QueueOffset;

/// A batch of messages that is handed out, in the order of the queue. Times are the log's, in milliseconds.
///
/// Invariants: `entries` ascend, lie below `next`, and not all of them are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderBatch {
    /// When it was handed out.
    pub pop_ms: u64,
    /// What the client calls the attempt; empty for none. The same attempt gets the same batch again.
    pub attempt_id: String,
    /// Where the group goes on when all is acknowledged.
    pub next: QueueOffset,
    /// The messages.
    pub entries: Vec<OrderEntry>,
}

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEntry {
    /// Which.
    pub offset: QueueOffset,
    /// From when on it is handed out again.
    pub visible_ms: u64,
    /// How often it was handed out before.
    pub times: u32,
    /// Whether it is acknowledged.
    pub acked: bool,
}

impl OrderBatch {
    /// The first message that is not acknowledged: where the group is.
    pub fn position(&self) -> QueueOffset {
        let first = self.open().next();
        first.map_or(self.next, |entry| entry.offset)
    }

    /// Until when nobody else gets messages of the queue, if that is after `now_ms`.
    pub fn blocked_until(&self, now_ms: u64) -> Option<u64> {
        let last = self.open().map(|entry| entry.visible_ms).max();
        last.filter(|visible_ms| *visible_ms > now_ms)
    }

    /// Whether `attempt_id` names this batch.
    pub fn is_attempt(&self, attempt_id: &str) -> bool {
        !attempt_id.is_empty() && self.attempt_id == attempt_id
    }

    /// How often a message was handed out before it is now, to `attempt_id`.
    pub(crate) fn times_now(&self, offset: QueueOffset, attempt_id: &str) -> u32 {
        let again = u32::from(!self.is_attempt(attempt_id));
        let entry = self.entries.iter().find(|entry| entry.offset == offset);
        entry.map_or(0, |entry| entry.times.saturating_add(again))
    }

    /// How many messages are not acknowledged.
    pub(crate) fn open_count(&self) -> usize {
        self.open().count()
    }

    /// The message at `offset`.
    pub(crate) fn entry_mut(&mut self, offset: QueueOffset) -> Option<&mut OrderEntry> {
        let found = self.entries.iter_mut().find(|entry| entry.offset == offset);
        found.filter(|entry| !entry.acked)
    }

    fn open(&self) -> impl Iterator<Item = &OrderEntry> {
        self.entries.iter().filter(|entry| !entry.acked)
    }
}
