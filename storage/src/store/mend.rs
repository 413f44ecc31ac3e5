//! Consume queues whose files are damaged come back from the log, piece by piece.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::MutexGuard;

use super::Store;
use crate::batch::{BatchView, NotABatch, RowKind};
use crate::commitlog::{Located, RecordKind};
use crate::consume_queue::{PendingUnits, Unit};
use crate::error::ReadError;
use crate::position::{LogIndex, PhysicalOffset, QueueOffset};
use crate::queue_offsets::QueueKey;
use crate::tables::Command;

/// Payload of log read at once.
const READ_BYTES: usize = 4 << 20;

/// Units in the files of a queue that are damaged, and what is intact around them.
struct Gap {
    first: QueueOffset,
    count: u64,
    /// The message in front of them; `None` at the start of the queue.
    after: Option<PhysicalOffset>,
    /// The message behind them, or the end of what was applied.
    before: PhysicalOffset,
}

impl Store {
    /// A read of a queue's files failed at or behind this place.
    pub(super) fn note_damaged_queue(&self, place: (QueueKey, QueueOffset), error: &io::Error) {
        if self.damaged_queues().insert(place) {
            let (key, offset) = place;
            let dir = self.dir.display();
            tracing::error!(%dir, ?key, %offset, %error, "a consume queue is damaged");
        }
    }

    fn damaged_queues(&self) -> MutexGuard<'_, BTreeSet<(QueueKey, QueueOffset)>> {
        self.damaged
            .lock()
            .expect("nothing panics with this locked")
    }

    /// Brings back what is known to be damaged. What cannot be brought back now is met again by the next
    /// read.
    pub(super) fn mend_queues(&self) {
        let places = std::mem::take(&mut *self.damaged_queues());
        for (key, offset) in places {
            match self.mend_queue(key, offset) {
                Ok(0) => {}
                Ok(units) => tracing::info!(?key, units, "a consume queue was mended from the log"),
                Err(error) => tracing::warn!(?key, %error, "a consume queue is still damaged"),
            }
        }
    }

    /// Mends the first gap at or behind `from`; returns how many units it had.
    fn mend_queue(&self, key: QueueKey, from: QueueOffset) -> Result<u64, ReadError> {
        let Some(gap) = self.find_gap(key, from)? else {
            return Ok(0);
        };
        let Found {
            mut units,
            is_doubtful,
            ..
        } = self.units_between(key, &gap)?;
        // Without a message in front, what is older than the queue's first message is found, too.
        let surplus = (units.len() as u64).saturating_sub(gap.count);
        if gap.after.is_none() && !is_doubtful {
            units.drain(..surplus as usize);
        }
        if units.len() as u64 != gap.count {
            let reason = format!("{} messages where {} belong", units.len(), gap.count);
            return Err(self.unmended(io::Error::other(reason)));
        }
        let pending = PendingUnits {
            key,
            first: gap.first,
            units,
        };
        self.queue_files
            .write(&pending)
            .map_err(|error| self.unmended(error))?;
        Ok(gap.count)
    }

    fn unmended(&self, error: io::Error) -> ReadError {
        ReadError::Io {
            path: self.dir.join(super::open::QUEUES_DIR),
            source: std::sync::Arc::new(error),
        }
    }

    fn find_gap(&self, key: QueueKey, from: QueueOffset) -> Result<Option<Gap>, ReadError> {
        let (min, border, tail, end) = {
            let state = self.state();
            let Some(bounds) = state.queues.get(key) else {
                return Ok(None);
            };
            let border = state.tails.first(key).unwrap_or(bounds.next);
            let tail = state.tails.read(key, border, 1).first().copied();
            (bounds.min, border, tail, state.next_offset)
        };
        let intact = |at: QueueOffset| -> Result<Option<Unit>, ReadError> {
            use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
            match self.queue_files.read(key, at, 1, true) {
                Ok(units) => Ok(units.first().copied()),
                Err(error) if matches!(error.kind(), InvalidData | NotFound | UnexpectedEof) => {
                    Ok(None)
                }
                Err(error) => Err(self.unmended(error)),
            }
        };
        let mut first = from.max(min);
        while first < border && intact(first)?.is_some() {
            first = first.next();
        }
        if first >= border {
            return Ok(None);
        }
        let mut after = None;
        while first > min {
            after = intact(first.before())?.map(|unit| unit.offset);
            if after.is_some() {
                break;
            }
            first = first.before();
        }
        let mut past = first.next();
        let mut before = tail.map_or(end, |unit| unit.offset);
        while past < border {
            if let Some(unit) = intact(past)? {
                before = unit.offset;
                break;
            }
            past = past.next();
        }
        Ok(Some(Gap {
            first,
            count: past.get() - first.get(),
            after,
            before,
        }))
    }

    /// Units of the queue's messages inside of a gap, as the log has them.
    fn units_between(&self, key: QueueKey, gap: &Gap) -> Result<Found, ReadError> {
        let bounds = self.log.bounds();
        let first = self.log.segments().first().map(|first| first.first_index);
        let near = self
            .log
            .index_before(gap.after.unwrap_or(bounds.start_offset));
        let (Some(near), Some(first)) = (near.or(first), first) else {
            return Ok(Found::default());
        };
        let found = self.scan(key, gap, near)?;
        if !found.replaces {
            return Ok(found);
        }
        // Whether a message that takes another's place was stored depends on all that came before it.
        self.scan(key, gap, first)
    }

    /// Goes through the log from a record to the end of the gap.
    fn scan(&self, key: QueueKey, gap: &Gap, from: LogIndex) -> Result<Found, ReadError> {
        let applied = self.applied().map(|(index, _)| index).unwrap_or_default();
        let mut next = from;
        let mut found = Found::default();
        while next <= applied {
            for located in self.log.read_stored(next, applied.next(), READ_BYTES)? {
                if located.offset >= gap.before {
                    return Ok(found);
                }
                next = located.record.index.next();
                if located.record.kind == RecordKind::Batch {
                    let looked = found.look_at(key, gap, &located);
                    looked.map_err(|error| self.unmended(io::Error::other(error)))?;
                }
            }
        }
        Ok(found)
    }
}

/// What a scan has found.
#[derive(Default)]
struct Found {
    units: Vec<Unit>,
    /// Some of them take the place of messages that waited.
    replaces: bool,
    /// Some of them came with the end of leases, or were stored only if they were not sent before, and nobody
    /// knows any more which of those were.
    is_doubtful: bool,
    /// What was resolved since the scan began.
    resolved: HashSet<PhysicalOffset>,
}

impl Found {
    fn look_at(&mut self, key: QueueKey, gap: &Gap, located: &Located) -> Result<(), NotABatch> {
        let batch = BatchView::parse(&located.record.payload)?;
        let mut is_doubtful = false;
        for command in batch.commands()? {
            match command {
                Command::Unpark { places } => self.resolved.extend(places),
                Command::Redeliver { .. } | Command::StoreOnce { .. } => is_doubtful = true,
                _ => {}
            }
        }
        for (row, _) in batch.rows() {
            let replaces = matches!(row.head.kind, RowKind::Resolves | RowKind::Moves);
            let origin = PhysicalOffset::new(row.head.origin);
            if replaces && !self.resolved.insert(origin) {
                // It was dropped when it was applied.
                continue;
            }
            let offset = located.payload_offset().plus(u64::from(row.position));
            let here = gap.after.is_none_or(|after| offset > after) && offset < gap.before;
            if here && row.head.topic_id == key.topic_id && row.queue == key.queue {
                self.replaces |= replaces;
                self.is_doubtful |= is_doubtful;
                self.units.push(Unit {
                    offset,
                    size: row.size,
                    tags_code: row.tags_code,
                });
            }
        }
        Ok(())
    }
}
