//! State that leaves for another replica, or comes from one.

use bytes::Bytes;

use super::state::{AppliedMembership, State};
use super::{Store, StoreError};
use crate::checkpoint::{Checkpoint, Image};
use crate::commitlog::{LeaderTag, LogStart};
use crate::position::LogIndex;

/// The state as of one record. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last record that is in it; `None` before the first.
    pub applied: Option<(LogIndex, LeaderTag)>,
    /// The members as of that record.
    pub membership: Option<AppliedMembership>,
    /// Where a log begins that goes on after it.
    pub log_start: LogStart,
    /// All of it, for [`Store::install_snapshot`] elsewhere.
    pub bytes: Bytes,
}

impl Snapshot {
    /// Looks into the bytes of a snapshot that another replica built.
    ///
    /// # Errors
    /// The bytes are damaged or of another version.
    pub fn decode(bytes: Bytes) -> Result<Self, StoreError> {
        let image = Checkpoint::decode(&bytes)?;
        Ok(Self::new(&image, bytes))
    }

    fn new(image: &Image<'_>, bytes: Bytes) -> Self {
        let membership = image
            .membership
            .as_ref()
            .map(|(index, tag, bytes)| (*index, *tag, Bytes::copy_from_slice(bytes)));
        Self {
            applied: image.applied,
            membership,
            log_start: image.log_start(),
            bytes,
        }
    }
}

impl Store {
    /// The state at the boundary (see [`set_boundary`](Self::set_boundary)), or as of the last applied record
    /// if none was set. Either way it is on disk as a checkpoint when this returns, so that the log up to it
    /// may be purged.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn build_snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut maintenance = self.maintenance();
        if let Some(index) = maintenance.boundary {
            let bytes = maintenance
                .checkpoints
                .read(index)
                .map_err(self.io("read a checkpoint"))?;
            return Snapshot::decode(bytes);
        }
        let current = self.flush_durably(&mut maintenance)?;
        if current.applied.is_some() {
            maintenance
                .checkpoints
                .write(&current)
                .map_err(self.io("write a checkpoint"))?;
        }
        maintenance.built = current.applied.map(|(index, _)| index);
        Snapshot::decode(current.bytes)
    }

    /// The snapshot that was chosen, built or installed last, if there is one; it is on disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn current_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let maintenance = self.maintenance();
        let Some(index) = maintenance.boundary.max(maintenance.built) else {
            return Ok(None);
        };
        let bytes = maintenance.checkpoints.read(index);
        Snapshot::decode(bytes.map_err(self.io("read a checkpoint"))?).map(Some)
    }

    /// Replaces the state by that of a snapshot. Ignored if this replica has applied as much already.
    ///
    /// The snapshot is on disk when this returns; it counts after a restart once the log has been made to
    /// start after it ([`CommitLog::reset`](crate::commitlog::CommitLog::reset) or a purge). A crash before
    /// that leaves the old state.
    ///
    /// # Errors
    /// The bytes are damaged or of another version: nothing was changed. Or the disk refuses.
    pub fn install_snapshot(&self, bytes: &Bytes) -> Result<(), StoreError> {
        let image = Checkpoint::decode(bytes)?;
        let mut maintenance = self.maintenance();
        if image.applied <= self.applied() {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            applied: image.applied,
            bytes: bytes.clone(),
        };
        maintenance
            .checkpoints
            .write(&checkpoint)
            .map_err(self.io("write a checkpoint"))?;
        maintenance.boundary = image.applied.map(|(index, _)| index);
        let mut fresh = State::from_image(image);
        let mut state = self.state_mut();
        fresh.epoch = state.epoch + 1;
        // Queues that the snapshot does not know may have files.
        fresh.topics_deleted = true;
        *state = fresh;
        drop(state);
        self.key_files.forget();
        Ok(())
    }
}
