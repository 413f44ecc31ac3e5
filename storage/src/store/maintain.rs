//! What a thread beside the log does from time to time: files follow the memory.

use std::collections::HashSet;
use std::io;

use super::state::State;
use super::{Maintenance, Store, StoreError};
use crate::checkpoint::Checkpoint;
use crate::commitlog::LeaderTag;
use crate::consume_queue::{Due, PendingUnits};
use crate::key_index::KeyBatch;
use crate::position::{LogIndex, PhysicalOffset};
use crate::queue_offsets::QueueKey;

/// What memory has that the files do not, as of one record.
struct Pending {
    units: Vec<PendingUnits>,
    keys: Vec<KeyBatch>,
}

impl Store {
    /// Writes what was applied to the index files, as far as it is worth a write, and checkpoints that
    /// segments have begun with. Call it about every second, and more often when much is applied: what it
    /// has not written is in memory.
    ///
    /// Checkpoints are durable when this returns, and the index files as far as checkpoints need them;
    /// otherwise nothing is synced, since a crash only costs a longer replay. Returns whether there was a
    /// checkpoint: the next start can begin there, as with a new copy of the tables.
    ///
    /// # Errors
    /// The disk refuses; stop the process, the files are rebuilt at the next start.
    pub fn flush_indexes(&self) -> Result<bool, StoreError> {
        let mut maintenance = self.maintenance();
        let rolled = !self.state().checkpoints.is_empty();
        if rolled {
            self.flush_durably(&mut maintenance)?;
        } else {
            self.write_pending(Due::Ripe)?;
        }
        self.mend_queues(&maintenance);
        self.remove_deleted_topics()?;
        Ok(rolled)
    }

    /// Writes the index files, makes them durable, and then the copy of the tables as of the same record.
    /// Without a copy only the files. Call it every few seconds and before the process ends.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_copy(&self) -> Result<(), StoreError> {
        let mut maintenance = self.maintenance();
        let current = self.flush_durably(&mut maintenance)?;
        if let Some(copy) = &mut maintenance.copy
            && let Err(error) = copy.save(&current)
        {
            // Without it, or with an older one, the next start takes longer.
            tracing::warn!(dir = %self.dir.display(), %error, "the tables were not copied");
        }
        drop(maintenance);
        Ok(())
    }

    /// Chooses where snapshots are taken from now on, so that the segments before the one at `base` can go:
    /// the newest checkpoint on disk that is not beyond the start of that segment. `None`, and no change, if
    /// there is none yet or the log starts there already.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_boundary(
        &self,
        base: PhysicalOffset,
    ) -> Result<Option<(LogIndex, LeaderTag)>, StoreError> {
        let mut maintenance = self.maintenance();
        let before = self
            .log
            .segment_start(base)
            .and_then(|start| start.last_index);
        let listed = maintenance
            .checkpoints
            .list()
            .map_err(self.io("list checkpoints"))?;
        let newest = listed
            .into_iter()
            .rev()
            .find(|index| Some(*index) <= before);
        let purged = self.log.bounds().purged.map(|(index, _)| index);
        let Some(index) = newest.filter(|index| Some(*index) > purged) else {
            return Ok(None);
        };
        let Ok(Some(tag)) = self.log.tag_at(index) else {
            return Ok(None);
        };
        maintenance.boundary = maintenance.boundary.max(Some(index));
        Ok(Some((index, tag)))
    }

    /// Queues begin where the boundary says, from now on. Call it before the log is purged up to there: a
    /// pull must not find messages gone that the queue still claims to have. Reads the checkpoint.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn retire_before(&self, boundary: LogIndex) -> Result<(), StoreError> {
        self.raise_min(&self.maintenance(), boundary).map(drop)
    }

    /// Moves first offsets up to what they were at a checkpoint; false if this replica is not there yet.
    fn raise_min(&self, maintenance: &Maintenance, index: LogIndex) -> Result<bool, StoreError> {
        let bytes = maintenance
            .checkpoints
            .read(index)
            .map_err(self.io("read a checkpoint"))?;
        let image = Checkpoint::decode(&bytes)?;
        let mut state = self.state_mut();
        let is_past = image.applied <= state.applied;
        if is_past {
            state.queues.raise_min(&image.queues);
        }
        Ok(is_past)
    }

    /// Follows a purge of the log: first offsets move up, files of what is gone are removed. Call it after
    /// the log has called back; until then reads of what is gone say so one by one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn log_purged(&self) -> Result<(), StoreError> {
        let maintenance = self.maintenance();
        let Some((purged, _)) = self.log.bounds().purged else {
            return Ok(());
        };
        let listed = maintenance
            .checkpoints
            .list()
            .map_err(self.io("list checkpoints"))?;
        let Some(start) = listed.into_iter().find(|index| *index >= purged) else {
            return Ok(());
        };
        if !self.raise_min(&maintenance, start)? {
            return Ok(());
        }
        let queues: Vec<_> = self.state().queues.iter().collect();
        maintenance
            .checkpoints
            .remove_below(start)
            .map_err(self.io("remove checkpoints"))?;
        if let Some(first) = self.log.segments().first() {
            self.state_mut().keys.remove_before(first.base);
            self.key_files
                .remove_before(first.base)
                .map_err(self.io("remove key indexes"))?;
        }
        for (key, bounds) in queues {
            let removed = self.queue_files.remove_below(key, bounds.min);
            removed.map_err(self.io("remove consume queues"))?;
        }
        Ok(())
    }

    /// Writes everything that memory has to the index files, syncs them, and then writes the checkpoints that
    /// wait for that. Returns the state as of the last record that is in the files now.
    ///
    /// # Errors
    /// The disk refuses. If it was a sync, this fails always from then on: one that succeeds after one that
    /// failed proves nothing. A write for which there was no room may be tried again.
    pub(super) fn flush_durably(
        &self,
        maintenance: &mut Maintenance,
    ) -> Result<Checkpoint, StoreError> {
        if maintenance.failed {
            return Err(self.io("sync index files")(io::Error::other(
                "an earlier sync failed",
            )));
        }
        let flushed = self.try_flush_durably(maintenance);
        maintenance.failed = flushed
            .as_ref()
            .is_err_and(|error| !error.is_lack_of_room());
        flushed
    }

    fn try_flush_durably(&self, maintenance: &Maintenance) -> Result<Checkpoint, StoreError> {
        let (pending, checkpoints, current) = {
            let state = self.state();
            (
                self.pending(&state, Due::All),
                state.checkpoints.clone(),
                state.checkpoint(),
            )
        };
        self.write(&pending)?;
        self.queue_files
            .sync()
            .map_err(self.io("sync the consume queues"))?;
        self.key_files
            .sync()
            .map_err(self.io("sync the key index"))?;
        for checkpoint in &checkpoints {
            maintenance
                .checkpoints
                .write(checkpoint)
                .map_err(self.io("write a checkpoint"))?;
        }
        self.state_mut().checkpoints.drain(..checkpoints.len());
        Ok(current)
    }

    /// Writes units of queues, and keys as far as they fill runs or all are due, without a sync. One caller
    /// at a time.
    pub(super) fn write_pending(&self, due: Due) -> Result<(), StoreError> {
        let pending = self.pending(&self.state(), due);
        self.write(&pending)
    }

    /// Copies what is to be written, as of one record.
    fn pending(&self, state: &State, due: Due) -> Pending {
        let segment = state.segment(self.log.segment_bytes()).unwrap_or_default();
        let position = state.next_offset.get().saturating_sub(segment.get()) as u32;
        Pending {
            units: state.tails.pending(due),
            keys: state.keys.batches((segment, position), due == Due::All),
        }
    }

    fn write(&self, pending: &Pending) -> Result<(), StoreError> {
        for queue in &pending.units {
            self.queue_files
                .write(queue)
                .map_err(self.io("write a consume queue"))?;
        }
        let mut written = Vec::with_capacity(pending.keys.len());
        for batch in &pending.keys {
            written.push(
                self.key_files
                    .write(batch)
                    .map_err(self.io("write the key index"))?,
            );
        }
        let mut state = self.state_mut();
        state.tails.written(&pending.units);
        for part in &written {
            state.keys.written(part.base, part.count, part.from);
        }
        Ok(())
    }

    fn remove_deleted_topics(&self) -> Result<(), StoreError> {
        let live = {
            let mut state = self.state_mut();
            if !std::mem::take(&mut state.topics_deleted) {
                return Ok(());
            }
            let ids = state.tables.topics().map(|topic| topic.id);
            ids.collect::<HashSet<u32>>()
        };
        // A topic that is created meanwhile has no files: they are written by the same caller as this.
        let stays = |key: QueueKey| live.contains(&key.topic_id);
        self.queue_files
            .retain(stays)
            .map_err(self.io("remove consume queues"))
    }
}
