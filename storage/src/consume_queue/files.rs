//! The files of all queues.
//!
//! `<dir>/<topic id>-<queue>/<queue offset of the first unit, 20 digits>`, at most 300,000 units each, never
//! preallocated. Units below a queue's first offset may be missing or stale and are never read.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::format::{UNIT_BYTES, UNITS_PER_FILE, Unit};
use super::handles::Handles;
use super::tails::PendingUnits;
use crate::fs::{File, FileSystem};
use crate::planted::{Bug, planted};
use crate::position::QueueOffset;
use crate::queue_offsets::QueueKey;

/// Files kept open; more are opened and closed as needed.
const OPEN_FILES_MAX: usize = 512;

/// With more files than this to sync, the whole volume is synced instead: a sync of a file costs about a
/// millisecond, ten thousand of them would keep the log waiting for long.
const SYNC_EACH_MAX: usize = 32;

/// A file of a queue: the queue, and the number of the file in it.
type FileKey = (QueueKey, u64);

/// All queue files of one group. Reads may run next to everything; writing, syncing and removing come from
/// one caller at a time.
pub(crate) struct QueueFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    handles: Mutex<Handles<FileKey>>,
    unsynced: Mutex<Unsynced>,
}

/// What the next sync has to cover.
#[derive(Default)]
struct Unsynced {
    files: BTreeSet<FileKey>,
    dirs: BTreeSet<PathBuf>,
}

impl QueueFiles {
    /// Uses `dir`, creating it if needed.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, dir: &Path) -> io::Result<Self> {
        fs.create_dir(dir)?;
        let handles = Mutex::new(Handles::new(OPEN_FILES_MAX));
        let mut unsynced = Unsynced::default();
        unsynced.dirs.extend(dir.parent().map(Path::to_path_buf));
        Ok(Self {
            fs,
            dir: dir.to_path_buf(),
            handles,
            unsynced: Mutex::new(unsynced),
        })
    }

    /// Reads `count` units from `from`, all of which must have been written. `WouldBlock` if the disk would
    /// have to be waited for and `may_wait` is false; `InvalidData` if one is damaged.
    pub(crate) fn read(
        &self,
        key: QueueKey,
        from: QueueOffset,
        count: usize,
        may_wait: bool,
    ) -> io::Result<Vec<Unit>> {
        let mut units = Vec::with_capacity(count);
        let mut at = from.get();
        let end = at + count as u64;
        while at < end {
            let (number, slot) = (at / UNITS_PER_FILE, at % UNITS_PER_FILE);
            let here = (UNITS_PER_FILE - slot).min(end - at);
            let mut bytes = vec![0; here as usize * UNIT_BYTES];
            let file = self.file((key, number))?;
            let place = slot * UNIT_BYTES as u64;
            if may_wait {
                file.read_exact_at(&mut bytes, place)?;
            } else {
                file.read_exact_now_at(&mut bytes, place)?;
            }
            let (chunks, _) = bytes.as_chunks::<UNIT_BYTES>();
            for (bytes, at) in chunks.iter().zip(at..) {
                let unit = Unit::decode(bytes, key, QueueOffset::new(at));
                units.push(unit.ok_or_else(|| damaged(at))?);
            }
            at += here;
        }
        Ok(units)
    }

    /// Writes consecutive units. In the page cache when it returns.
    pub(crate) fn write(&self, pending: &PendingUnits) -> io::Result<()> {
        let mut at = pending.first.get();
        let mut rest = pending.units.as_slice();
        while !rest.is_empty() {
            let (number, slot) = (at / UNITS_PER_FILE, at % UNITS_PER_FILE);
            let here = rest.len().min((UNITS_PER_FILE - slot) as usize);
            let (now, later) = rest.split_at(here);
            let mut bytes = Vec::with_capacity(here * UNIT_BYTES);
            for (unit, at) in now.iter().zip(at..) {
                unit.encode(pending.key, QueueOffset::new(at), &mut bytes);
            }
            let file_key = (pending.key, number);
            self.file_or_create(file_key)?
                .write_all_at(&bytes, slot * UNIT_BYTES as u64)?;
            self.unsynced().files.insert(file_key);
            at += here as u64;
            rest = later;
        }
        Ok(())
    }

    /// Makes everything written so far durable. After an error the files must not be vouched for any more:
    /// the disk may have dropped what it could not write.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced());
        if planted(Bug::IndexNotSynced) {
            return Ok(());
        }
        if unsynced.files.len() > SYNC_EACH_MAX {
            return self.fs.sync_volume(&self.dir);
        }
        for key in &unsynced.files {
            match self.file(*key) {
                Ok(file) => file.sync_data()?,
                // Removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for dir in &unsynced.dirs {
            match self.fs.sync_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether there are files that are long enough to hold all units from `from` up to `to`.
    pub(crate) fn cover(
        &self,
        key: QueueKey,
        from: QueueOffset,
        to: QueueOffset,
    ) -> io::Result<bool> {
        let mut at = from.get();
        while at < to.get() {
            let number = at / UNITS_PER_FILE;
            let end = ((number + 1) * UNITS_PER_FILE).min(to.get());
            let needed = (end - number * UNITS_PER_FILE) * UNIT_BYTES as u64;
            // Not through the handles: this runs once over all queues.
            let len = match self.fs.open(&self.path((key, number))) {
                Ok(file) => file.len()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if len < needed {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    /// Removes the files that only hold units below `min`.
    pub(crate) fn remove_below(&self, key: QueueKey, min: QueueOffset) -> io::Result<()> {
        let dir = self.queue_dir(key);
        let names = match self.fs.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names {
            let Ok(first) = name.parse::<u64>() else {
                continue;
            };
            if first.saturating_add(UNITS_PER_FILE) <= min.get() {
                self.fs.remove(&dir.join(&name))?;
                let gone = (key, first / UNITS_PER_FILE);
                self.handles().retain(|open| *open != gone);
            }
        }
        Ok(())
    }

    /// Removes the directories of all queues for which `stays` is false.
    pub(crate) fn retain(&self, stays: impl Fn(QueueKey) -> bool) -> io::Result<()> {
        for name in self.fs.list(&self.dir)? {
            let Some(key) = parse_queue_dir(&name) else {
                continue;
            };
            if !stays(key) {
                self.handles().retain(|(open, _)| *open != key);
                self.fs.remove_dir(&self.dir.join(&name))?;
            }
        }
        Ok(())
    }

    fn file(&self, key: FileKey) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.handles().get(key) {
            return Ok(file);
        }
        let file = self.fs.open(&self.path(key))?;
        self.handles().insert(key, Arc::clone(&file));
        Ok(file)
    }

    fn file_or_create(&self, key: FileKey) -> io::Result<Arc<dyn File>> {
        match self.file(key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let dir = self.queue_dir(key.0);
        self.fs.create_dir(&dir)?;
        let file = self.fs.create(&self.path(key))?;
        self.handles().insert(key, Arc::clone(&file));
        self.unsynced().dirs.extend([dir, self.dir.clone()]);
        Ok(file)
    }

    fn queue_dir(&self, key: QueueKey) -> PathBuf {
        self.dir.join(format!("{}-{}", key.topic_id, key.queue))
    }

    fn path(&self, (key, number): FileKey) -> PathBuf {
        self.queue_dir(key)
            .join(format!("{:020}", number * UNITS_PER_FILE))
    }

    fn handles(&self) -> MutexGuard<'_, Handles<FileKey>> {
        self.handles
            .lock()
            .expect("nothing panics with the open files locked")
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced
            .lock()
            .expect("nothing panics with this locked")
    }
}

fn damaged(at: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the unit of queue offset {at} is damaged"),
    )
}

fn parse_queue_dir(name: &str) -> Option<QueueKey> {
    let (topic_id, queue) = name.split_once('-')?;
    Some(QueueKey {
        topic_id: topic_id.parse().ok()?,
        queue: queue.parse().ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::RealFs;
    use crate::position::PhysicalOffset;

    const KEY: QueueKey = QueueKey {
        topic_id: 1,
        queue: 2,
    };

    fn pending(first: u64, count: u64) -> PendingUnits {
        let unit = |at| Unit {
            offset: PhysicalOffset::new(at),
            size: 100,
            tags_code: -7,
        };
        let units = (first..first + count).map(unit).collect();
        PendingUnits {
            key: KEY,
            first: QueueOffset::new(first),
            units,
        }
    }

    fn open(dir: &Path) -> QueueFiles {
        QueueFiles::open(Arc::new(RealFs), &dir.join("queues")).unwrap()
    }

    #[test]
    fn units_are_written_and_read_across_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path());
        let first = UNITS_PER_FILE - 3;
        files.write(&pending(first, 6)).unwrap();
        files.sync().unwrap();
        let from = QueueOffset::new(first + 1);
        let units = files.read(KEY, from, 4, true).unwrap();
        assert_eq!(units, pending(first + 1, 4).units);
        assert!(
            files
                .cover(KEY, QueueOffset::new(first), QueueOffset::new(first + 6))
                .unwrap()
        );
        assert!(!files.cover(KEY, from, QueueOffset::new(first + 7)).unwrap());
        assert!(files.read(KEY, from, 9, true).is_err());
    }

    #[test]
    fn old_files_and_removed_queues_go() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(dir.path());
        files.write(&pending(UNITS_PER_FILE - 1, 2)).unwrap();
        files
            .remove_below(KEY, QueueOffset::new(UNITS_PER_FILE - 1))
            .unwrap();
        assert_eq!(
            files
                .read(KEY, QueueOffset::new(UNITS_PER_FILE - 1), 1, true)
                .unwrap()
                .len(),
            1
        );
        files
            .remove_below(KEY, QueueOffset::new(UNITS_PER_FILE))
            .unwrap();
        assert!(
            files
                .read(KEY, QueueOffset::new(UNITS_PER_FILE - 1), 1, true)
                .is_err()
        );
        assert!(
            files
                .read(KEY, QueueOffset::new(UNITS_PER_FILE), 1, true)
                .is_ok()
        );
        files.retain(|_| false).unwrap();
        assert!(
            files
                .read(KEY, QueueOffset::new(UNITS_PER_FILE), 1, true)
                .is_err()
        );
    }
}
