//! Where a store begins after a restart.

use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use super::state::State;
use super::{Maintenance, Store, StoreConfig, StoreError, io_error};
use crate::checkpoint::{Checkpoint, CheckpointFiles, Image};
use crate::commitlog::CommitLog;
use crate::consume_queue::{Due, QueueFiles};
use crate::fs::FileSystem;
use crate::key_index::KeyFiles;
use crate::position::{LogIndex, PhysicalOffset};
use crate::queue_offsets::QueueOffsets;
use crate::table_copy::TableCopy;

/// Directory of the consume queues.
pub(super) const QUEUES_DIR: &str = "consume_queue";
/// Directory of the key index.
pub(super) const KEYS_DIR: &str = "key_index";

/// Checkpoints that replay keeps in memory before it makes them durable.
const REPLAY_CHECKPOINTS_MAX: usize = 16;

/// See [`Store::open`].
pub(super) fn open(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    config: &StoreConfig,
    log: CommitLog,
    copy: Option<TableCopy>,
) -> Result<Store, StoreError> {
    fs.create_dir(dir).map_err(io_error("create", dir))?;
    let queue_files = QueueFiles::open(Arc::clone(&fs), &dir.join(QUEUES_DIR))
        .map_err(io_error("create the consume queues", dir))?;
    let key_files = KeyFiles::open(Arc::clone(&fs), &dir.join(KEYS_DIR))
        .map_err(io_error("create the key index", dir))?;
    let maintenance = Maintenance {
        checkpoints: CheckpointFiles::new(fs, dir),
        copy,
        boundary: None,
        built: None,
        failed: false,
    };
    let mut store = Store {
        log,
        dir: dir.to_path_buf(),
        state: RwLock::default(),
        queue_files,
        key_files,
        maintenance: Mutex::new(maintenance),
        damaged: Mutex::default(),
    };
    store.load()?;
    store.replay(config)?;
    Ok(store)
}

impl Store {
    /// Finds the newest state whose index files are complete.
    fn load(&mut self) -> Result<(), StoreError> {
        let start = self.start_image(&self.maintenance())?;
        let first = start.applied.map(|(index, _)| index);
        self.maintenance().boundary = first;
        for image in self.newer_images(first)? {
            if let Some(state) = self.complete(image, &start)? {
                *self.state_mut() = state;
                return Ok(());
            }
            self.key_files.forget();
        }
        *self.state_mut() = State::from_image(start);
        Ok(())
    }

    /// The state at the start of the log. A later one will not do: what was stored between the two would be
    /// in no queue.
    pub(super) fn start_image(
        &self,
        maintenance: &Maintenance,
    ) -> Result<Image<'static>, StoreError> {
        let Some((purged, _)) = self.log.bounds().purged else {
            return Ok(Image::default());
        };
        if self.listed(maintenance, purged)?.first() == Some(&purged)
            && let Some(image) = self.checkpoint_image(maintenance, purged)?
        {
            return Ok(image);
        }
        Err(StoreError::StartMissing {
            path: self.dir.clone(),
            purged,
        })
    }

    /// States after `first` that might be taken, the newest first.
    fn newer_images(&self, first: Option<LogIndex>) -> Result<Vec<Image<'static>>, StoreError> {
        let mut images = Vec::new();
        let maintenance = self.maintenance();
        let copied = maintenance.copy.as_ref().and_then(TableCopy::load);
        images.extend(copied.filter(|image| self.is_of_this_log(image)));
        for index in self.listed(&maintenance, first.unwrap_or_default())? {
            images.extend(self.checkpoint_image(&maintenance, index)?);
        }
        drop(maintenance);
        images.retain(|image| image.applied.map(|(index, _)| index) > first);
        images.sort_by_key(|image| std::cmp::Reverse(image.applied));
        Ok(images)
    }

    /// Checkpoints from `from` on, ascending.
    pub(super) fn listed(
        &self,
        maintenance: &Maintenance,
        from: LogIndex,
    ) -> Result<Vec<LogIndex>, StoreError> {
        let listed = maintenance
            .checkpoints
            .list()
            .map_err(self.io("list checkpoints"))?;
        Ok(listed.into_iter().filter(|index| *index >= from).collect())
    }

    /// A checkpoint, if it is whole and belongs to the log.
    pub(super) fn checkpoint_image(
        &self,
        maintenance: &Maintenance,
        index: LogIndex,
    ) -> Result<Option<Image<'static>>, StoreError> {
        let bytes = maintenance
            .checkpoints
            .read(index)
            .map_err(self.io("read a checkpoint"))?;
        match Checkpoint::decode(&bytes) {
            Ok(image) => Ok(Some(image).filter(|image| self.is_of_this_log(image))),
            Err(error) => {
                let path = maintenance.checkpoints.path(index);
                tracing::warn!(path = %path.display(), %error, "checkpoint is ignored");
                Ok(None)
            }
        }
    }

    /// Whether the log has the record that the state is of, written by the same leader.
    fn is_of_this_log(&self, image: &Image<'_>) -> bool {
        let Some((index, tag)) = image.applied else {
            return false;
        };
        self.log.tag_at(index).is_ok_and(|found| found == Some(tag))
    }

    /// The state of `image` on top of the index files; `None` if these do not hold everything between
    /// `start` and it.
    fn complete(&self, image: Image<'_>, start: &Image<'_>) -> Result<Option<State>, StoreError> {
        let queues = QueueOffsets::between(&start.queues, &image.queues);
        for (key, bounds) in queues.iter() {
            let covered = self.queue_files.cover(key, bounds.min, bounds.next);
            if !covered.map_err(self.io("look at the consume queues"))? {
                return Ok(None);
            }
        }
        let mut state = State::from_image(image);
        state.queues = queues;
        let segment_bytes = self.log.segment_bytes();
        let Some(current) = state.segment(segment_bytes) else {
            return Ok(Some(state));
        };
        for segment in self.log.segments() {
            let base = segment.base;
            if base > current {
                break;
            }
            let from = position_in(base, start.next_offset);
            let through = if base < current {
                u32::MAX
            } else {
                position_in(base, state.next_offset)
            };
            let resumed = self.key_files.resume(base, from, through);
            match resumed.map_err(self.io("read the key index"))? {
                None => return Ok(None),
                Some(resumed) if resumed.from == u32::MAX => {}
                Some(resumed) => state.keys.resume(base, resumed.from, resumed.entries),
            }
        }
        Ok(Some(state))
    }

    /// Applies what the log has beyond the state, as far as it is known to be committed.
    fn replay(&mut self, config: &StoreConfig) -> Result<(), StoreError> {
        let last = self.log.bounds().last.map(|(index, _)| index);
        let Some(end) = self.log.recovered_committed().min(last) else {
            return Ok(());
        };
        let first = self
            .log
            .segments()
            .first()
            .map_or(end, |segment| segment.first_index);
        let mut next = self.applied().map_or(first, |(index, _)| index.next());
        while next <= end {
            for located in self.log.read(next, end.next(), config.replay_read_bytes)? {
                next = located.record.index.next();
                self.apply(&located);
            }
            let (units, checkpoints) = {
                let state = self.state();
                (state.tails.count(), state.checkpoints.len())
            };
            if checkpoints >= REPLAY_CHECKPOINTS_MAX {
                self.flush_indexes()?;
            } else if units >= config.replay_units_max {
                // Nothing is synced yet: a start should not wait for the disk.
                self.write_pending(Due::All)?;
            }
        }
        Ok(())
    }
}

/// Position of `offset` in the segment at `base`; 0 if it lies before.
fn position_in(base: PhysicalOffset, offset: PhysicalOffset) -> u32 {
    u32::try_from(offset.get().saturating_sub(base.get())).unwrap_or(u32::MAX)
}
