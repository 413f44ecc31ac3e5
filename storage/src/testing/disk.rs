//! The disk itself: what is on it, what was done to it, and what of that survives.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::Fault;
use super::live::{Choose, Gate};

const PAGE_BYTES: usize = 4096;

/// One operation that changed the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A new, empty file got a name.
    Create {
        /// The name.
        path: PathBuf,
        /// Number of the file; stays the same when it is renamed.
        inode: u64,
    },
    /// Bytes were written.
    Write {
        /// To which file.
        inode: u64,
        /// Where.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The length changed.
    SetLen {
        /// Of which file.
        inode: u64,
        /// The new length.
        len: u64,
    },
    /// A file was synced.
    SyncData {
        /// Which one.
        inode: u64,
    },
    /// A file or directory got another name.
    Rename {
        /// The old one.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// A file lost its name.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// A directory was created.
    CreateDir {
        /// The directory.
        path: PathBuf,
    },
    /// A directory and what is in it was removed.
    RemoveDir {
        /// The directory.
        path: PathBuf,
    },
    /// A directory was synced.
    SyncDir {
        /// The directory.
        path: PathBuf,
    },
}

#[derive(Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<u64, Vec<u8>>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) trace: Vec<Operation>,
    /// The disk when recording began.
    pub(super) base: Option<Box<Base>>,
    pub(super) next_inode: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) writes: u64,
    pub(super) syncs: u64,
    pub(super) allocations: u64,
    pub(super) free: Option<u64>,
    /// Set on a live disk: asked before each access.
    pub(super) gate: Option<Gate>,
    /// Set on a live disk, whose trace holds only what is pending.
    pub(super) choose: Option<Choose>,
}

#[derive(Default)]
pub(super) struct Base {
    pub(super) files: BTreeMap<u64, Vec<u8>>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

/// Which operations a later one made durable.
pub(super) fn durable_for_certain(done: &[Operation]) -> Vec<bool> {
    let mut inodes = BTreeSet::new();
    let mut dirs: BTreeSet<&Path> = BTreeSet::new();
    let mut durable = vec![true; done.len()];
    for (at, operation) in done.iter().enumerate().rev() {
        let in_synced = |path: &Path| dirs.contains(path.parent().unwrap_or(Path::new("")));
        durable[at] = match operation {
            Operation::Write { inode, .. } | Operation::SetLen { inode, .. } => {
                inodes.contains(inode)
            }
            Operation::Create { path, .. }
            | Operation::Remove { path }
            | Operation::CreateDir { path }
            | Operation::RemoveDir { path } => in_synced(path),
            Operation::Rename { from, to } => in_synced(from) && in_synced(to),
            Operation::SyncData { inode } => {
                inodes.insert(*inode);
                true
            }
            Operation::SyncDir { path } => {
                dirs.insert(path);
                true
            }
        };
    }
    durable
}

impl Disk {
    /// Does an operation and writes it down.
    pub(super) fn perform(&mut self, operation: Operation) {
        self.carry_out(&operation);
        let is_sync = matches!(
            operation,
            Operation::SyncData { .. } | Operation::SyncDir { .. }
        );
        if self.choose.is_some() && is_sync {
            self.settle(&operation);
        } else if self.base.is_some() {
            self.trace.push(operation);
        }
    }

    pub(super) fn carry_out(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { path, inode } => {
                self.files.entry(*inode).or_default();
                self.names.insert(path.clone(), *inode);
            }
            Operation::Write {
                inode,
                offset,
                bytes,
            } => self.write(*inode, *offset, bytes),
            Operation::SetLen { inode, len } => {
                self.files
                    .entry(*inode)
                    .or_default()
                    .resize(*len as usize, 0);
            }
            Operation::Rename { from, to } => self.rename(from, to),
            Operation::Remove { path } => {
                self.names.remove(path);
            }
            Operation::CreateDir { path } => {
                self.dirs.extend(path.ancestors().map(Path::to_path_buf));
            }
            Operation::RemoveDir { path } => {
                self.names.retain(|name, _| !name.starts_with(path));
                self.dirs.retain(|name| !name.starts_with(path));
            }
            Operation::SyncData { .. } | Operation::SyncDir { .. } => {}
        }
    }

    pub(super) fn carry_out_partly(
        &mut self,
        operation: &Operation,
        choose: &mut dyn FnMut(u64) -> u64,
    ) {
        match operation {
            Operation::Write {
                inode,
                offset,
                bytes,
            } => match choose(4) {
                0 => {}
                1 => self.write(*inode, *offset, bytes),
                2 => self.write_some_pages(*inode, *offset, bytes, choose),
                _ => {
                    let len = choose(bytes.len() as u64 + 1) as usize;
                    self.write(*inode, *offset, &bytes[..len]);
                }
            },
            Operation::Create { inode, .. } => {
                if choose(2) == 1 {
                    self.carry_out(operation);
                } else {
                    // The file is there without a name: its contents count once it has one.
                    self.files.entry(*inode).or_default();
                }
            }
            _ => {
                if choose(2) == 1 {
                    self.carry_out(operation);
                }
            }
        }
    }

    fn write_some_pages(
        &mut self,
        inode: u64,
        offset: u64,
        bytes: &[u8],
        choose: &mut dyn FnMut(u64) -> u64,
    ) {
        let mut at = 0;
        while at < bytes.len() {
            let in_page = (offset as usize + at) % PAGE_BYTES;
            let len = (PAGE_BYTES - in_page).min(bytes.len() - at);
            if choose(2) == 1 {
                self.write(inode, offset + at as u64, &bytes[at..at + len]);
            }
            at += len;
        }
    }

    fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let file = self.files.entry(inode).or_default();
        let end = offset as usize + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(inode) = self.names.remove(from) {
            self.names.insert(to.to_path_buf(), inode);
            return;
        }
        let moved: Vec<PathBuf> = self
            .names
            .keys()
            .filter(|name| name.starts_with(from))
            .cloned()
            .collect();
        for name in moved {
            let inode = self.names.remove(&name).expect("the key was just listed");
            let below = name.strip_prefix(from).expect("it starts with it");
            self.names.insert(to.join(below), inode);
        }
        let dirs: Vec<PathBuf> = self
            .dirs
            .iter()
            .filter(|name| name.starts_with(from))
            .cloned()
            .collect();
        for name in dirs {
            self.dirs.remove(&name);
            let below = name.strip_prefix(from).expect("it starts with it");
            self.dirs.insert(to.join(below));
        }
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.names.contains_key(path) || self.dirs.contains(path)
    }

    /// The error that was ordered for this operation, if any.
    pub(super) fn fault(
        &mut self,
        matches: impl Fn(&Fault) -> Option<io::ErrorKind>,
    ) -> Option<io::Error> {
        let at = self
            .faults
            .iter()
            .position(|fault| matches(fault).is_some())?;
        let kind = matches(&self.faults.remove(at))?;
        Some(io::Error::new(kind, "injected"))
    }
}
