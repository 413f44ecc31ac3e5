//! The disk as this crate sees it: a few operations on files and directories.
//!
//! Everything in the crate that touches a file does so through [`FileSystem`] and [`File`], so that a test
//! can make any single operation fail, tear a write in two, or show what a power cut may leave behind
//! (`testing::FaultyFs`). Positioned reads and writes only: there is no cursor to share between threads.
//! Nothing here is mapped into memory, because a full disk would then kill the process instead of returning
//! an error.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// Most buffers that Linux takes in one vectored write.
const VECTORS_MAX: usize = 1024;

/// Size and free space of the volume that holds a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged process may still allocate.
    pub free: u64,
    /// Size of the volume.
    pub total: u64,
}

/// An open file. Handles are shared; all methods may be called from several threads at once, and
/// overlapping writes are the caller's affair.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file, 0 beyond it.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`, growing the file if needed. In the page cache when it returns.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all buffers one after the other, starting at `offset`. In the page cache when it returns.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes the contents and the length durable. After an error the state of what was written before is
    /// unknown for ever; calling again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves blocks for the first `len` bytes and makes the file at least that long; new bytes read as
    /// zero. `StorageFull` if there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads exactly `buf.len()` bytes at `offset`; `UnexpectedEof` if the file ends earlier.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let got = self.read_at(buf, offset)?;
        if got == buf.len() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{got} of {} bytes at offset {offset}", buf.len()),
        ))
    }
}

/// Files and directories by path. Creating, renaming and removing are durable only after
/// [`sync_dir`](FileSystem::sync_dir) on the directory.
pub trait FileSystem: Send + Sync {
    /// Opens an existing file for reading and writing; `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates an empty file, or empties the existing one, and opens it for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file or directory another name, replacing the file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles that are open stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files and directories in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and the missing ones above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory and everything below it.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes earlier creations, renames and removals directly inside `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes everything durable that was written to the volume of `dir`, by anyone. For very many small
    /// files, which would cost a sync each.
    fn sync_volume(&self, dir: &Path) -> io::Result<()>;

    /// Room on the volume of `dir`.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl FileSystem for RealFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn sync_volume(&self, dir: &Path) -> io::Result<()> {
        // Reports what failed to be written earlier, too, as long as nobody was told yet.
        Ok(rustix::fs::syncfs(fs::File::open(dir)?)?)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free: stat.f_bavail * stat.f_frsize,
            total: stat.f_blocks * stat.f_frsize,
        })
    }
}

/// One file of the operating system.
struct RealFile {
    file: fs::File,
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(self.file.as_fd(), &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_vectored_at(&[IoSlice::new(buf)], offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for group in bufs.chunks(VECTORS_MAX) {
            let mut owned = group.to_vec();
            let mut rest = owned.as_mut_slice();
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(self.file.as_fd(), rest, at) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        at += count as u64;
                        IoSlice::advance_slices(&mut rest, count);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(self.file.as_fd(), FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve; a longer sparse file is the best there is on them.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                if self.len()? < len {
                    self.set_len(len)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_vectored_write_of_more_buffers_than_the_kernel_takes_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealFs.create(&path).unwrap();
        let pieces: Vec<Vec<u8>> = (0..2500u32).map(|n| n.to_le_bytes().to_vec()).collect();
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        slices.insert(3, IoSlice::new(&[]));
        file.write_vectored_at(&slices, 5).unwrap();
        assert_eq!(file.len().unwrap(), 5 + 10_000);
        let mut back = vec![0; 10_000];
        file.read_exact_at(&mut back, 5).unwrap();
        assert_eq!(back, pieces.concat());
    }

    #[test]
    fn reading_past_the_end_is_short_and_exact_reading_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFs.create(&dir.path().join("file")).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        let mut buf = [0; 8];
        assert_eq!(file.read_at(&mut buf, 1).unwrap(), 2);
        assert_eq!(
            file.read_exact_at(&mut buf, 1).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn files_are_listed_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        RealFs.create_dir(&nested).unwrap();
        let file = RealFs.create(&nested.join("two")).unwrap();
        file.allocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        RealFs.create(&nested.join("one")).unwrap();
        assert_eq!(RealFs.list(&nested).unwrap(), ["one", "two"]);
        RealFs
            .rename(&nested.join("two"), &nested.join("three"))
            .unwrap();
        RealFs.remove(&nested.join("one")).unwrap();
        RealFs.sync_dir(&nested).unwrap();
        assert_eq!(RealFs.list(&nested).unwrap(), ["three"]);
        assert_eq!(
            RealFs.open(&nested.join("two")).err().map(|e| e.kind()),
            Some(io::ErrorKind::NotFound)
        );
        assert!(RealFs.space(&nested).unwrap().total > 0);
    }
}
