//! Consume queues whose files are damaged come back from the log, piece by piece.

use std::collections::BTreeSet;
use std::io;
use std::sync::MutexGuard;

use super::state::State;
use super::{Maintenance, Store, StoreError};
use crate::checkpoint::Image;
use crate::consume_queue::{PendingUnits, Unit};
use crate::key_index::PendingKeys;
use crate::position::QueueOffset;
use crate::queue_offsets::QueueKey;

/// Payload of log read at once.
const READ_BYTES: usize = 4 << 20;

/// Units in the files of a queue that are damaged, between intact ones.
struct Gap {
    first: QueueOffset,
    /// The next one that is intact, or that memory has.
    end: QueueOffset,
}

impl Gap {
    fn len(&self) -> u64 {
        self.end.get() - self.first.get()
    }
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
    pub(super) fn mend_queues(&self, maintenance: &Maintenance) {
        let places = std::mem::take(&mut *self.damaged_queues());
        for (key, offset) in places {
            match self.mend_queue(maintenance, key, offset) {
                Ok(0) => {}
                Ok(units) => tracing::info!(?key, units, "a consume queue was mended from the log"),
                Err(error) => tracing::warn!(?key, %error, "a consume queue is still damaged"),
            }
        }
    }

    /// Mends the first gap at or behind `from`; returns how many units it had.
    fn mend_queue(
        &self,
        maintenance: &Maintenance,
        key: QueueKey,
        from: QueueOffset,
    ) -> Result<u64, StoreError> {
        let Some(gap) = self.find_gap(key, from)? else {
            return Ok(0);
        };
        let image = self.image_before(maintenance, key, gap.first)?;
        let pending = PendingUnits {
            key,
            first: gap.first,
            units: self.units_again(image, key, &gap)?,
        };
        self.queue_files
            .write(&pending)
            .map_err(self.io("write a consume queue"))?;
        Ok(gap.len())
    }

    /// The newest state on disk in which the queue has not grown beyond `first`.
    fn image_before(
        &self,
        maintenance: &Maintenance,
        key: QueueKey,
        first: QueueOffset,
    ) -> Result<Image<'static>, StoreError> {
        let start = self.log.bounds().purged.map(|(index, _)| index);
        let listed = self.listed(maintenance, start.unwrap_or_default())?;
        for index in listed.into_iter().rev() {
            let image = self.checkpoint_image(maintenance, index)?;
            let reaches = |image: &Image<'_>| {
                let mut nexts = image.queues.iter();
                nexts.any(|(queue, next)| *queue == key && *next > first)
            };
            if let Some(image) = image.filter(|image| !reaches(image)) {
                return Ok(image);
            }
        }
        self.start_image(maintenance)
    }

    /// Units of a gap, by applying the log to `state` once more: whether a message was stored can depend on
    /// all that came before it. Memory has what one read of the log brings.
    fn units_again(
        &self,
        image: Image<'_>,
        key: QueueKey,
        gap: &Gap,
    ) -> Result<Vec<Unit>, StoreError> {
        let applied = self.applied().map(|(index, _)| index).unwrap_or_default();
        let first = self.log.segments().first().map(|first| first.first_index);
        let mut state = State::from_image(image);
        let mut next = state
            .applied
            .map_or(first.unwrap_or_default(), |(index, _)| index.next());
        let wanted = gap.len() as usize;
        let mut units = Vec::with_capacity(wanted);
        while next <= applied && units.len() < wanted {
            for located in self.log.read(next, applied.next(), READ_BYTES)? {
                next = located.record.index.next();
                state.apply(&located, self.log.segment_bytes());
            }
            let grown = std::mem::take(&mut state.tails);
            let from = gap.first.plus(units.len() as u64);
            units.extend_from_slice(grown.read(key, from, wanted - units.len()));
            state.keys = PendingKeys::default();
            state.checkpoints.clear();
        }
        if units.len() == wanted {
            return Ok(units);
        }
        let reason = format!("the log has {} of {wanted} messages", units.len());
        Err(self.io("mend a consume queue")(io::Error::other(reason)))
    }

    fn find_gap(&self, key: QueueKey, from: QueueOffset) -> Result<Option<Gap>, StoreError> {
        let (min, border) = {
            let state = self.state();
            let Some(bounds) = state.queues.get(key) else {
                return Ok(None);
            };
            (bounds.min, state.tails.first(key).unwrap_or(bounds.next))
        };
        let is_intact = |at: QueueOffset| {
            use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
            match self.queue_files.read(key, at, 1, true) {
                Ok(units) => Ok(!units.is_empty()),
                Err(error) if matches!(error.kind(), InvalidData | NotFound | UnexpectedEof) => {
                    Ok(false)
                }
                Err(error) => Err(self.io("read a consume queue")(error)),
            }
        };
        let mut first = from.max(min);
        while first < border && is_intact(first)? {
            first = first.next();
        }
        if first >= border {
            return Ok(None);
        }
        let mut end = first.next();
        while first > min && !is_intact(first.before())? {
            first = first.before();
        }
        while end < border && !is_intact(end)? {
            end = end.next();
        }
        Ok(Some(Gap { first, end }))
    }
}
