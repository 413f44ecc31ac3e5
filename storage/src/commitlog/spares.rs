//! Segment files on the shelf: prepared ahead or retired, waiting to be used (again).
//!
//! Overwriting blocks that exist takes half the time of extending a file, so a segment file is made with all
//! its blocks written once, and a retired one is kept. Stale bytes in it are harmless: records carry their
//! physical offset, and a file is only ever reused for a later part of the log. Files left by a truncation
//! or a reset, which could be reused for the *same* part, are removed instead.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::blocks::zero;
use super::segment::{SPARE_SUFFIX, TEMPORARY_SUFFIX, segment_path};
use super::sidecar;
use crate::error::{LogError, OpenError};
use crate::fs::{File, FileSystem};
use crate::planted::{Bug, planted};
use crate::position::PhysicalOffset;

/// The shelf. Shared by the writer, which takes and returns files, and by whoever prepares them.
pub(crate) struct Spares {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    segment_bytes: u64,
    count_max: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    files: Vec<PathBuf>,
    /// The file that is being zeroed; not there while somebody zeroes a piece of it.
    making: Option<Making>,
    next_number: u64,
}

/// A spare whose blocks are written up to `zeroed`; bytes.
struct Making {
    number: u64,
    temporary: PathBuf,
    file: Arc<dyn File>,
    zeroed: u64,
}

impl Spares {
    /// Takes stock of the spare files named in `names`; removes half-made ones.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        names: &[String],
        (segment_bytes, count_max): (u64, usize),
    ) -> Result<Self, OpenError> {
        let mut shelf = Shelf::default();
        for name in names {
            let path = dir.join(name);
            if name.ends_with(TEMPORARY_SUFFIX) {
                fs.remove(&path).map_err(OpenError::io("remove", &path))?;
                continue;
            }
            let Some(number) = name.strip_suffix(SPARE_SUFFIX) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            // Not one that was counted up to here.
            let Some(next_number) = number.checked_add(1) else {
                continue;
            };
            shelf.next_number = shelf.next_number.max(next_number);
            let file = fs.open(&path).map_err(OpenError::io("open", &path))?;
            let whole = file.len().map_err(OpenError::io("measure", &path))? == segment_bytes;
            if whole && shelf.files.len() < count_max {
                shelf.files.push(path);
            } else {
                fs.remove(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
        let dir = dir.to_path_buf();
        Ok(Self {
            fs,
            dir,
            segment_bytes,
            count_max,
            shelf: Mutex::new(shelf),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf
            .lock()
            .expect("no thread panics while it holds the shelf")
    }

    /// Zeroes up to `bytes` more of a spare, if none is there. For one caller at a time.
    pub(crate) fn prepare(&self, bytes: u64) -> Result<(), LogError> {
        let (making, number) = {
            let mut shelf = self.lock();
            if self.count_max == 0 || !shelf.files.is_empty() {
                let superfluous = shelf.making.take();
                drop(shelf);
                return superfluous.map_or(Ok(()), |making| self.remove(&making.temporary));
            }
            let making = shelf.making.take();
            if making.is_none() {
                shelf.next_number += 1;
            }
            (making, shelf.next_number)
        };
        let mut making = match making {
            Some(making) => making,
            None => self.begin(number)?,
        };
        let to = making.zeroed.saturating_add(bytes).min(self.segment_bytes);
        if let Err(error) = self.zero_on(&mut making, to) {
            // Room for the log itself matters more than a spare; a file that cannot be removed is
            // removed when the log is opened.
            let _ = self.fs.remove(&making.temporary);
            return Err(error);
        }
        if to < self.segment_bytes {
            self.lock().making = Some(making);
            return Ok(());
        }
        let spare = self.dir.join(format!("{}{SPARE_SUFFIX}", making.number));
        self.fs
            .rename(&making.temporary, &spare)
            .map_err(LogError::poison("rename", &making.temporary))?;
        self.sync_dir()?;
        self.lock().files.push(spare);
        Ok(())
    }

    fn begin(&self, number: u64) -> Result<Making, LogError> {
        let temporary = self.dir.join(format!("{number}{TEMPORARY_SUFFIX}"));
        match self.make(&temporary) {
            Ok(file) => Ok(Making {
                number,
                temporary,
                file,
                zeroed: 0,
            }),
            Err(error) => {
                let _ = self.fs.remove(&temporary);
                Err(error)
            }
        }
    }

    fn zero_on(&self, making: &mut Making, to: u64) -> Result<(), LogError> {
        let path = &making.temporary;
        zero(&*making.file, making.zeroed, to).map_err(LogError::allocating("write", path))?;
        making.zeroed = to;
        if to < self.segment_bytes {
            return Ok(());
        }
        making
            .file
            .sync_data()
            .map_err(LogError::allocating("sync", path))
    }

    fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.fs
            .remove(path)
            .map_err(LogError::allocating("remove", path))
    }

    fn make(&self, path: &Path) -> Result<Arc<dyn File>, LogError> {
        let file = self
            .fs
            .create(path)
            .and_then(|_| self.fs.open_direct(path))
            .map_err(LogError::allocating("create", path))?;
        file.allocate(self.segment_bytes)
            .map_err(LogError::allocating("allocate", path))?;
        Ok(file)
    }

    /// The file for the segment at `base`: a spare under its new name, or a fresh one. Its name is durable
    /// when this returns.
    pub(crate) fn take(&self, base: PhysicalOffset) -> Result<Arc<dyn File>, LogError> {
        let path = segment_path(&self.dir, base);
        let spare = self.lock().files.pop();
        let file = match spare {
            Some(spare) => {
                self.fs
                    .rename(&spare, &path)
                    .map_err(LogError::poison("rename", &spare))?;
                self.fs
                    .open_direct(&path)
                    .map_err(LogError::poison("open", &path))?
            }
            None => {
                let file = self.make(&path)?;
                file.sync_data()
                    .map_err(LogError::allocating("sync", &path))?;
                file
            }
        };
        if !planted(Bug::NameNotSynced) {
            self.sync_dir()?;
        }
        Ok(file)
    }

    /// Puts the file of a retired segment on the shelf, or removes it if the shelf is full.
    pub(crate) fn retire(&self, base: PhysicalOffset) -> Result<(), LogError> {
        let path = segment_path(&self.dir, base);
        sidecar::remove(&*self.fs, &self.dir, base);
        let mut shelf = self.lock();
        if shelf.files.len() >= self.count_max {
            return self
                .fs
                .remove(&path)
                .map_err(LogError::poison("remove", &path));
        }
        shelf.next_number += 1;
        let spare = self
            .dir
            .join(format!("{}{SPARE_SUFFIX}", shelf.next_number));
        self.fs
            .rename(&path, &spare)
            .map_err(LogError::poison("rename", &path))?;
        shelf.files.push(spare);
        Ok(())
    }

    /// Removes the file of a segment for good.
    pub(crate) fn discard(&self, base: PhysicalOffset) -> Result<(), LogError> {
        let path = segment_path(&self.dir, base);
        sidecar::remove(&*self.fs, &self.dir, base);
        self.fs
            .remove(&path)
            .map_err(LogError::poison("remove", &path))
    }

    /// Removes all spares: after a reset the log may go on before the place they came from.
    pub(crate) fn clear(&self) -> Result<(), LogError> {
        let mut shelf = self.lock();
        while let Some(path) = shelf.files.pop() {
            self.fs
                .remove(&path)
                .map_err(LogError::poison("remove", &path))?;
        }
        Ok(())
    }

    /// Makes renames and removals durable.
    pub(crate) fn sync_dir(&self) -> Result<(), LogError> {
        self.fs
            .sync_dir(&self.dir)
            .map_err(LogError::poison("sync directory", &self.dir))
    }
}
