//! A disk that machines come and go on: what is durable is kept up to date as files are synced, so that a
//! power cut costs as much as what is pending, and whoever simulates a machine decides what goes wrong.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Base, Disk};
use super::{FaultyFs, Operation};

/// What is about to be done to a disk.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// What.
    pub kind: AccessKind,
    /// The file as it was called when it was opened, or the directory.
    pub path: &'a Path,
    /// Where, for reads and writes.
    pub offset: u64,
    /// What is written; nothing for everything else.
    pub bytes: &'a [u8],
    /// Whether it makes a file or the volume larger.
    pub grows: bool,
}

/// Kinds of [`Access`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKind {
    /// Bytes of a file are read.
    Read,
    /// Bytes of a file are written.
    Write,
    /// A file, a directory or the volume is synced.
    Sync,
    /// Room is reserved, or the length is changed.
    Allocate,
    /// A name is given, changed or removed.
    Name,
}

/// Asked before each access, without any lock: may take its time, and may refuse. After a refusal half of a
/// write is done, a part of what a sync was to save is saved and the rest never will be, and nothing else is.
pub type Gate = Arc<dyn Fn(&Access<'_>) -> io::Result<()> + Send + Sync>;

/// Decides what happens to what was not synced: a number below its argument.
pub type Choose = Box<dyn FnMut(u64) -> u64 + Send>;

impl FaultyFs {
    /// An empty disk that can lose its power, and asks `gate` about each access.
    pub fn live(gate: Gate, choose: Choose) -> Self {
        let fs = Self::default();
        let mut disk = fs.lock();
        disk.base = Some(Box::default());
        disk.gate = Some(gate);
        disk.choose = Some(choose);
        drop(disk);
        fs
    }

    /// The machine loses its power: what was synced is there, of the rest what chance decides.
    ///
    /// # Panics
    /// On a disk that is not [`live`](Self::live).
    pub fn cut_power(&self) {
        let mut disk = self.lock();
        let mut choose = disk.choose.take().expect("the disk is live");
        let pending = std::mem::take(&mut disk.trace);
        let Base { files, names, dirs } = *disk.base.take().expect("the disk is live");
        disk.files = files;
        disk.names = names;
        disk.dirs = dirs;
        for operation in &pending {
            disk.carry_out_partly(operation, &mut *choose);
        }
        let (files, names, dirs) = (disk.files.clone(), disk.names.clone(), disk.dirs.clone());
        disk.base = Some(Box::new(Base { files, names, dirs }));
        disk.choose = Some(choose);
    }

    /// Everything on it is gone, durable or not.
    pub fn wipe(&self) {
        let mut disk = self.lock();
        disk.files.clear();
        disk.names.clear();
        disk.dirs.clear();
        disk.trace.clear();
        disk.base = Some(Box::default());
    }

    /// Flips one bit of a file where it lies, as rot would; false if the file has no such byte.
    pub fn flip(&self, path: &Path, at: u64, bit: u8) -> bool {
        let mut disk = self.lock();
        let Some(inode) = disk.names.get(path).copied() else {
            return false;
        };
        let flip = |bytes: Option<&mut Vec<u8>>| {
            let byte = bytes.and_then(|bytes| bytes.get_mut(at as usize));
            byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
        };
        let flipped = flip(disk.files.get_mut(&inode));
        if let Some(base) = &mut disk.base {
            flip(base.files.get_mut(&inode));
        }
        flipped
    }

    /// The contents of a file as far as no power cut can take them; `None` if there is no such file then,
    /// or if the disk is not [`live`](Self::live).
    pub fn durable_contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.lock();
        let base = disk.base.as_ref()?;
        base.files.get(base.names.get(path)?).cloned()
    }

    /// The names of all files, in order.
    pub fn paths(&self) -> Vec<std::path::PathBuf> {
        self.lock().names.keys().cloned().collect()
    }
}

impl Disk {
    /// A sync succeeded: what it covers is pending no more.
    pub(super) fn settle(&mut self, synced: &Operation) {
        let covers = |operation: &Operation| match (synced, operation) {
            (
                Operation::SyncData { inode },
                Operation::Write { inode: of, .. } | Operation::SetLen { inode: of, .. },
            ) => inode == of,
            (
                Operation::SyncDir { path },
                Operation::Create { path: name, .. }
                | Operation::Remove { path: name }
                | Operation::CreateDir { path: name }
                | Operation::RemoveDir { path: name }
                | Operation::Rename { to: name, .. },
            ) => name.parent() == Some(path),
            _ => false,
        };
        let pending = std::mem::take(&mut self.trace);
        let (durable, pending) = pending.into_iter().partition(covers);
        self.trace = pending;
        self.make_durable(durable);
    }

    /// A sync failed: the kernel takes its pages for clean, so what did not reach the device never will. What
    /// went past the page cache is gone for readers, too.
    pub(super) fn forget_unsynced(&mut self, inode: u64, direct: bool) {
        let of_file = |operation: &Operation| match operation {
            Operation::Write { inode: of, .. } | Operation::SetLen { inode: of, .. } => {
                inode == *of
            }
            _ => false,
        };
        let pending = std::mem::take(&mut self.trace);
        let (lost, pending): (Vec<_>, Vec<_>) = pending.into_iter().partition(of_file);
        self.trace = pending;
        let Some(mut choose) = self.choose.take() else {
            return;
        };
        let saved = self.on_base(|image| {
            for operation in &lost {
                image.carry_out_partly(operation, &mut *choose);
            }
            image.files.get(&inode).cloned()
        });
        if direct && let Some(saved) = saved {
            self.files.insert(inode, saved);
        }
        self.choose = Some(choose);
    }

    fn make_durable(&mut self, operations: Vec<Operation>) {
        self.on_base(|image| {
            for operation in &operations {
                image.carry_out(operation);
            }
        });
    }

    /// Does something to the durable image, as if it were a disk.
    fn on_base<T>(&mut self, act: impl FnOnce(&mut Disk) -> T) -> T {
        let Base { files, names, dirs } = *self.base.take().expect("the disk is live");
        let mut image = Disk {
            files,
            names,
            dirs,
            ..Disk::default()
        };
        let outcome = act(&mut image);
        let Disk {
            files, names, dirs, ..
        } = image;
        self.base = Some(Box::new(Base { files, names, dirs }));
        outcome
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fs::FileSystem;

    /// A live disk whose syncs fail while the switch is on, and which loses all that it may lose.
    fn disk() -> (FaultyFs, Arc<AtomicBool>) {
        let broken = Arc::new(AtomicBool::new(false));
        let switch = broken.clone();
        let gate: Gate = Arc::new(move |access| {
            let fails = access.kind == AccessKind::Sync && switch.load(Ordering::Relaxed);
            if fails {
                return Err(io::Error::other("injected"));
            }
            Ok(())
        });
        (FaultyFs::live(gate, Box::new(|_| 0)), broken)
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced() {
        let (fs, _) = disk();
        let dir = Path::new("/d");
        fs.create_dir(dir).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let file = fs.create(&dir.join("f")).unwrap();
        file.write_all_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(dir).unwrap();
        file.write_all_at(b"pending", 6).unwrap();
        fs.create(&dir.join("unnamed")).unwrap();
        fs.cut_power();
        assert_eq!(fs.contents(&dir.join("f")).unwrap(), b"synced");
        assert_eq!(fs.list(dir).unwrap(), ["f"]);
        // The handle is of the machine that was: what it writes now is as any write.
        file.write_all_at(b"again", 0).unwrap();
        fs.cut_power();
        assert_eq!(fs.contents(&dir.join("f")).unwrap(), b"synced");
    }

    #[test]
    fn after_a_failed_sync_a_good_one_saves_nothing_of_before() {
        let (fs, broken) = disk();
        fs.create_dir(Path::new("/d")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        for (name, direct) in [("cached", false), ("direct", true)] {
            let path = Path::new("/d").join(name);
            fs.create(&path).unwrap();
            fs.sync_dir(Path::new("/d")).unwrap();
            let file = match direct {
                true => fs.open_direct(&path).unwrap(),
                false => fs.open(&path).unwrap(),
            };
            file.write_all_at(b"old", 0).unwrap();
            file.sync_data().unwrap();
            file.write_all_at(b"new", 0).unwrap();
            broken.store(true, Ordering::Relaxed);
            file.sync_data().unwrap_err();
            broken.store(false, Ordering::Relaxed);
            file.sync_data().unwrap();
            let seen: &[u8] = if direct { b"old" } else { b"new" };
            assert_eq!(fs.contents(&path).unwrap(), seen, "{name}");
            fs.cut_power();
            assert_eq!(fs.contents(&path).unwrap(), b"old", "{name}");
        }
    }
}
