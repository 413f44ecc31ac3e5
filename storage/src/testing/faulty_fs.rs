//! The file system in front of the disk: records and fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Operation;
use super::disk::{Base, Disk, durable_for_certain};
use super::live::{Access, AccessKind};
use crate::fs::{File, FileSystem, Space};

/// What is made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The write with this number (counting from 0 since the disk was made) fails with this error, after
    /// its first half was written.
    Write(u64, io::ErrorKind),
    /// The sync with this number fails with this error. What was written before it may or may not be there.
    Sync(u64, io::ErrorKind),
    /// The allocation with this number fails with this error.
    Allocate(u64, io::ErrorKind),
}

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub struct FaultyFs {
    disk: Arc<Mutex<Disk>>,
}

impl FaultyFs {
    /// An empty disk that does not record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts to record operations, with the disk as it is now taken for durable.
    pub fn record(&self) {
        let mut disk = self.lock();
        let (files, names, dirs) = (disk.files.clone(), disk.names.clone(), disk.dirs.clone());
        disk.base = Some(Box::new(Base { files, names, dirs }));
        disk.trace.clear();
    }

    /// What was recorded.
    pub fn trace(&self) -> Vec<Operation> {
        self.lock().trace.clone()
    }

    /// How many operations were recorded: the number of crash points.
    pub fn trace_len(&self) -> usize {
        self.lock().trace.len()
    }

    /// Makes something go wrong, once.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Writes, syncs and allocations so far: what the numbers in [`Fault`] count.
    pub fn counts(&self) -> (u64, u64, u64) {
        let disk = self.lock();
        (disk.writes, disk.syncs, disk.allocations)
    }

    /// What [`FileSystem::space`] reports as free; bytes.
    pub fn set_free(&self, free: u64) {
        self.lock().free = Some(free);
    }

    /// Flips all bits of one byte of a file, as rot would.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn rot(&self, path: &Path, at: u64) {
        let mut disk = self.lock();
        let inode = *disk.names.get(path).expect("the file exists");
        let bytes = disk
            .files
            .get_mut(&inode)
            .expect("a named file has contents");
        bytes[at as usize] ^= 0xff;
    }

    /// The contents of a file, if it exists.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.lock();
        let inode = disk.names.get(path)?;
        disk.files.get(inode).cloned()
    }

    /// A disk as it may be after a power cut right behind the first `operations` that were recorded.
    /// `choose(n)` decides what happens to operations that were not synced: it returns a number below `n`.
    ///
    /// # Panics
    /// When nothing was recorded, or not that much.
    pub fn crash_image(&self, operations: usize, choose: &mut dyn FnMut(u64) -> u64) -> Self {
        let disk = self.lock();
        let done = &disk.trace[..operations];
        let durable = durable_for_certain(done);
        let base = disk.base.as_ref().expect("recording was started");
        let mut image = Disk {
            files: base.files.clone(),
            names: base.names.clone(),
            dirs: base.dirs.clone(),
            next_inode: disk.next_inode,
            ..Disk::default()
        };
        for (operation, durable) in done.iter().zip(durable) {
            if durable {
                image.carry_out(operation);
            } else {
                image.carry_out_partly(operation, choose);
            }
        }
        Self {
            disk: Arc::new(Mutex::new(image)),
        }
    }

    /// Asks whether something may be done.
    fn ask(&self, access: &Access<'_>) -> io::Result<()> {
        let gate = self.lock().gate.clone();
        gate.map_or(Ok(()), |gate| gate(access))
    }

    fn ask_by_name(&self, kind: AccessKind, path: &Path, grows: bool) -> io::Result<()> {
        let (offset, bytes) = (0, &[][..]);
        self.ask(&Access {
            kind,
            path,
            offset,
            bytes,
            grows,
        })
    }

    fn handle(&self, path: &Path, inode: u64, direct: bool) -> Arc<dyn File> {
        Arc::new(FaultyFile {
            fs: self.clone(),
            path: path.to_path_buf(),
            inode,
            direct,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk
            .lock()
            .expect("no thread panics while it holds the disk")
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no {}", path.display()))
}

impl FileSystem for FaultyFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = *self.lock().names.get(path).ok_or_else(|| missing(path))?;
        Ok(self.handle(path, inode, false))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = *self.lock().names.get(path).ok_or_else(|| missing(path))?;
        Ok(self.handle(path, inode, true))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.ask_by_name(AccessKind::Name, path, true)?;
        let mut disk = self.lock();
        let inode = match disk.names.get(path) {
            Some(inode) => {
                let inode = *inode;
                disk.perform(Operation::SetLen { inode, len: 0 });
                inode
            }
            None => {
                let parent = path.parent().unwrap_or(Path::new(""));
                if !disk.dirs.contains(parent) {
                    return Err(missing(parent));
                }
                let inode = disk.next_inode;
                disk.next_inode += 1;
                disk.perform(Operation::Create {
                    path: path.to_path_buf(),
                    inode,
                });
                inode
            }
        };
        drop(disk);
        Ok(self.handle(path, inode, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask_by_name(AccessKind::Name, to, false)?;
        let mut disk = self.lock();
        if !disk.exists(from) {
            return Err(missing(from));
        }
        disk.perform(Operation::Rename {
            from: from.to_path_buf(),
            to: to.to_path_buf(),
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask_by_name(AccessKind::Name, path, false)?;
        let mut disk = self.lock();
        if !disk.names.contains_key(path) {
            return Err(missing(path));
        }
        disk.perform(Operation::Remove {
            path: path.to_path_buf(),
        });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.lock();
        if !disk.dirs.contains(dir) {
            return Err(missing(dir));
        }
        let all = disk.names.keys().chain(&disk.dirs);
        let inside = all.filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = inside
            .filter_map(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .map(str::to_owned)
            })
            .collect();
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let new = !self.lock().dirs.contains(dir);
        self.ask_by_name(AccessKind::Name, dir, new)?;
        let mut disk = self.lock();
        if !disk.dirs.contains(dir) {
            disk.perform(Operation::CreateDir {
                path: dir.to_path_buf(),
            });
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask_by_name(AccessKind::Name, dir, false)?;
        let mut disk = self.lock();
        if !disk.dirs.contains(dir) {
            return Err(missing(dir));
        }
        disk.perform(Operation::RemoveDir {
            path: dir.to_path_buf(),
        });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask_by_name(AccessKind::Sync, dir, false)?;
        let mut disk = self.lock();
        // Like every file system, it has a root that needs no creation.
        let root = dir.as_os_str().is_empty() || dir == Path::new("/");
        if !root && !disk.dirs.contains(dir) {
            return Err(missing(dir));
        }
        disk.perform(Operation::SyncDir {
            path: dir.to_path_buf(),
        });
        Ok(())
    }

    fn sync_volume(&self, dir: &Path) -> io::Result<()> {
        self.ask_by_name(AccessKind::Sync, dir, false)?;
        let mut disk = self.lock();
        let inodes: Vec<u64> = disk.files.keys().copied().collect();
        let dirs = disk.dirs.clone();
        for inode in inodes {
            disk.perform(Operation::SyncData { inode });
        }
        for path in dirs {
            disk.perform(Operation::SyncDir { path });
        }
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let disk = self.lock();
        let used: u64 = disk.files.values().map(|file| file.len() as u64).sum();
        let free = disk.free.unwrap_or(1 << 40);
        Ok(Space {
            free,
            total: free + used,
        })
    }
}

/// A file on the disk in memory.
struct FaultyFile {
    fs: FaultyFs,
    /// Its name when it was opened.
    path: PathBuf,
    inode: u64,
    /// Opened past the page cache.
    direct: bool,
}

impl FaultyFile {
    fn ask(&self, kind: AccessKind, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let grows = match kind {
            AccessKind::Write => offset + bytes.len() as u64 > self.len()?,
            AccessKind::Allocate => offset > self.len()?,
            _ => false,
        };
        self.fs.ask(&Access {
            kind,
            path: &self.path,
            offset,
            bytes,
            grows,
        })
    }
}

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.ask(AccessKind::Read, offset, &[])?;
        let disk = self.fs.lock();
        let bytes = disk.files.get(&self.inode).map_or(&[][..], Vec::as_slice);
        let from = bytes
            .len()
            .min(usize::try_from(offset).unwrap_or(usize::MAX));
        let len = buf.len().min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let refused = self.ask(AccessKind::Write, offset, buf).err();
        let mut disk = self.fs.lock();
        let inode = self.inode;
        let mut bytes = buf.to_vec();
        let number = disk.writes;
        disk.writes += 1;
        let fault = disk.fault(|fault| match fault {
            Fault::Write(n, kind) if *n == number => Some(*kind),
            _ => None,
        });
        let fault = refused.or(fault);
        if fault.is_some() {
            bytes.truncate(bytes.len() / 2);
        }
        disk.perform(Operation::Write {
            inode,
            offset,
            bytes,
        });
        fault.map_or(Ok(()), Err)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Err(refused) = self.ask(AccessKind::Sync, 0, &[]) {
            self.fs.lock().forget_unsynced(self.inode, self.direct);
            return Err(refused);
        }
        let mut disk = self.fs.lock();
        let number = disk.syncs;
        disk.syncs += 1;
        let fault = disk.fault(|fault| match fault {
            Fault::Sync(n, kind) if *n == number => Some(*kind),
            _ => None,
        });
        match fault {
            Some(error) => Err(error),
            None => {
                disk.perform(Operation::SyncData { inode: self.inode });
                Ok(())
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.ask(AccessKind::Allocate, len, &[])?;
        let mut disk = self.fs.lock();
        let number = disk.allocations;
        disk.allocations += 1;
        let fault = disk.fault(|fault| match fault {
            Fault::Allocate(n, kind) if *n == number => Some(*kind),
            _ => None,
        });
        if let Some(error) = fault {
            return Err(error);
        }
        let inode = self.inode;
        if disk
            .files
            .get(&inode)
            .is_none_or(|file| (file.len() as u64) < len)
        {
            disk.perform(Operation::SetLen { inode, len });
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ask(AccessKind::Allocate, len, &[])?;
        self.fs.lock().perform(Operation::SetLen {
            inode: self.inode,
            len,
        });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self
            .fs
            .lock()
            .files
            .get(&self.inode)
            .map_or(0, |file| file.len() as u64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PAGE_BYTES: usize = 4096;

    /// Keeps nothing that was not synced.
    fn nothing(_: u64) -> u64 {
        0
    }

    #[test]
    fn what_was_synced_is_there_and_the_rest_may_be_missing() {
        let fs = FaultyFs::new();
        fs.record();
        let dir = Path::new("/d");
        fs.create_dir(dir).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let path = dir.join("f");
        let file = fs.create(&path).unwrap();
        file.write_all_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        let named_after = {
            fs.sync_dir(dir).unwrap();
            fs.trace_len()
        };
        file.write_all_at(b"pending", 6).unwrap();
        let image = fs.crash_image(fs.trace_len(), &mut nothing);
        assert_eq!(image.contents(&path).unwrap(), b"synced");
        let image = fs.crash_image(fs.trace_len(), &mut |n| 1 % n);
        assert_eq!(image.contents(&path).unwrap(), b"syncedpending");
        let image = fs.crash_image(named_after - 1, &mut nothing);
        assert_eq!(image.contents(&path), None, "the name was not durable yet");
    }

    #[test]
    fn an_unsynced_write_may_leave_any_of_its_pages() {
        let fs = FaultyFs::new();
        fs.record();
        fs.create_dir(Path::new("/d")).unwrap();
        let path = Path::new("/d/f");
        let file = fs.create(path).unwrap();
        file.write_all_at(&[7; 3 * PAGE_BYTES], 0).unwrap();
        // Directory, name, then "some pages": no, yes, no.
        let mut choices = [1, 1, 2, 0, 1, 0].into_iter();
        let image = fs.crash_image(fs.trace_len(), &mut |_| choices.next().unwrap());
        let bytes = image.contents(path).unwrap();
        assert_eq!(bytes.len(), 2 * PAGE_BYTES);
        assert!(bytes[..PAGE_BYTES].iter().all(|byte| *byte == 0));
        assert!(bytes[PAGE_BYTES..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn ordered_faults_happen_once() {
        let fs = FaultyFs::new();
        fs.create_dir(Path::new("/d")).unwrap();
        let file = fs.create(Path::new("/d/f")).unwrap();
        fs.inject(Fault::Write(1, io::ErrorKind::StorageFull));
        fs.inject(Fault::Sync(0, io::ErrorKind::Other));
        file.write_all_at(b"aaaa", 0).unwrap();
        let torn = file.write_all_at(b"bbbb", 0).unwrap_err();
        assert_eq!(torn.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.contents(Path::new("/d/f")).unwrap(), b"bbaa");
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
    }
}
