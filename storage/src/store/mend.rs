//! Consume queues whose files are damaged come back from the log, piece by piece.

use std::collections::BTreeSet;
use std::io;
use std::sync::MutexGuard;

use super::Store;
use crate::batch::BatchView;
use crate::commitlog::RecordKind;
use crate::consume_queue::{PendingUnits, Unit};
use crate::error::ReadError;
use crate::position::{PhysicalOffset, QueueOffset};
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

/// Units of a queue's messages, as the log has them.
#[derive(Default)]
struct Found {
    units: Vec<Unit>,
    /// False if there may be a message among them that was not stored, because the lease that it was for had
    /// ended (ADR 16). If there is one too many nobody can say which.
    is_certain: bool,
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
            is_certain,
        } = self.units_between(key, &gap)?;
        // Without a message in front, what is older than the queue's first message is found, too.
        let surplus = (units.len() as u64).saturating_sub(gap.count);
        if gap.after.is_none() && is_certain {
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

    /// Units of the queue's messages inside of a gap.
    fn units_between(&self, key: QueueKey, gap: &Gap) -> Result<Found, ReadError> {
        let bounds = self.log.bounds();
        let from = gap.after.unwrap_or(bounds.start_offset);
        let first = self.log.segments().first().map(|first| first.first_index);
        let mut next = match self.log.index_before(from).or(first) {
            Some(index) => index,
            None => return Ok(Found::default()),
        };
        let applied = self.applied().map(|(index, _)| index).unwrap_or_default();
        let mut found = Found {
            units: Vec::new(),
            is_certain: true,
        };
        while next <= applied {
            for located in self.log.read_stored(next, applied.next(), READ_BYTES)? {
                if located.offset >= gap.before {
                    return Ok(found);
                }
                next = located.record.index.next();
                if located.record.kind != RecordKind::Batch {
                    continue;
                }
                let batch = BatchView::parse(&located.record.payload);
                let batch = batch.map_err(|error| self.unmended(io::Error::other(error)))?;
                let before = found.units.len();
                for (row, _) in batch.rows() {
                    let offset = located.payload_offset().plus(u64::from(row.position));
                    let here = gap.after.is_none_or(|after| offset > after) && offset < gap.before;
                    if here && row.head.topic_id == key.topic_id && row.queue == key.queue {
                        found.units.push(Unit {
                            offset,
                            size: row.size,
                            tags_code: row.tags_code,
                        });
                    }
                }
                if found.units.len() > before {
                    let commands = batch.commands();
                    let commands =
                        commands.map_err(|error| self.unmended(io::Error::other(error)))?;
                    let redelivers =
                        |command: &Command| matches!(command, Command::Redeliver { .. });
                    found.is_certain &= !commands.iter().any(redelivers);
                }
            }
        }
        Ok(found)
    }
}
