//! The disk as this crate sees it: a few operations on files and directories.
//!
//! Everything in the crate that touches a file does so through [`FileSystem`] and [`File`], so that a test
//! can make any single operation fail, tear a write in two, or show what a power cut may leave behind
//! (`testing::FaultyFs`). Positioned reads and writes only: there is no cursor to share between threads.
//! Nothing here is mapped into memory, because a full disk would then kill the process instead of returning
//! an error.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

/// What goes past the page cache is written in whole blocks of this size; bytes. No device that Linux
/// knows of needs larger ones.
pub const BLOCK_BYTES: u64 = 4096;

/// Size and free space of the volume that holds a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged process may still allocate.
    pub free: u64,
    /// What is used and what is free, together.
    pub total: u64,
}

/// An open file. Handles are shared; all methods may be called from several threads at once, and
/// overlapping writes are the caller's affair.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file, 0 beyond it.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`, growing the file if needed. In the page cache when it returns, or
    /// on the device if the file was opened with [`open_direct`](FileSystem::open_direct).
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset` and makes these bytes durable, whatever else was written before; may
    /// be cheaper than a write and a sync. After an error see [`sync_data`](File::sync_data).
    fn write_all_durably_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)?;
        self.sync_data()
    }

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

    /// Like [`read_exact_at`](File::read_exact_at), but only if the bytes are in memory: `WouldBlock` if the
    /// device would have to be waited for.
    fn read_exact_now_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    /// Like [`read_at`](File::read_at), but from the device and not from a copy in memory, as far as the file
    /// system can do that: what comes is what a restart would find.
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }

    /// Like [`read_at`](File::read_at), for bytes that nobody else will read soon: past the page cache if the
    /// file was opened with [`open_direct`](FileSystem::open_direct) and the file system can do that.
    fn read_once_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }

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

    /// Opens an existing file like [`open`](FileSystem::open), for large or many writes that nobody reads
    /// soon: whole blocks from memory that is aligned to a block go past the page cache where the file
    /// system can do that. Everything else is as with `open`.
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

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
        Ok(Arc::new(RealFile { file, direct: None }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let direct = match open_past_page_cache(path) {
            Ok(direct) => Some(direct),
            // Some file systems cannot; some say so only when something is read or written.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            Err(error) => return Err(error),
        };
        Ok(Arc::new(RealFile { file, direct }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(RealFile { file, direct: None }))
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
            // As `df` counts, and RocketMQ: what is kept for root is neither used nor free.
            total: (stat.f_blocks - stat.f_bfree + stat.f_bavail) * stat.f_frsize,
        })
    }
}

fn open_past_page_cache(path: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)?;
    let mut memory = vec![0; 2 * BLOCK_BYTES as usize];
    let skip = memory.as_ptr().align_offset(BLOCK_BYTES as usize);
    let block = &mut memory[skip..skip + BLOCK_BYTES as usize];
    rustix::io::retry_on_intr(|| rustix::io::pread(file.as_fd(), &mut *block, 0))?;
    Ok(file)
}

/// One file of the operating system.
struct RealFile {
    file: fs::File,
    /// Opened past the page cache. The kernel keeps the two consistent: a write here drops the pages that
    /// hold the same bytes.
    direct: Option<fs::File>,
}

impl RealFile {
    fn write_with(&self, buf: &[u8], offset: u64, flags: ReadWriteFlags) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let (rest, at) = (&buf[done..], offset + done as u64);
            let bufs = [IoSlice::new(rest)];
            match rustix::io::pwritev2(self.writer_of(rest, at), &bufs, at, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The descriptor to write this through.
    fn writer_of(&self, buf: &[u8], offset: u64) -> BorrowedFd<'_> {
        let block = BLOCK_BYTES as usize;
        let whole = offset.is_multiple_of(BLOCK_BYTES)
            && buf.len().is_multiple_of(block)
            && buf.as_ptr().align_offset(block) == 0;
        match &self.direct {
            Some(direct) if whole => direct.as_fd(),
            _ => self.file.as_fd(),
        }
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(self.file.as_fd(), &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_with(buf, offset, ReadWriteFlags::empty())
    }

    fn write_all_durably_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        // The device writes through its cache where it can, which spares flushing all of that.
        match self.write_with(buf, offset, ReadWriteFlags::DSYNC) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.write_all_at(buf, offset)?;
                self.sync_data()
            }
            written => written,
        }
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
            Err(Errno::OPNOTSUPP) => {
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

    fn read_exact_now_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = buf.len();
        let mut bufs = [IoSliceMut::new(buf)];
        let flags = ReadWriteFlags::NOWAIT;
        let read = rustix::io::preadv2(self.file.as_fd(), &mut bufs, offset, flags);
        match read {
            Ok(count) if count == wanted => Ok(()),
            // Half in memory, or a file system that cannot tell.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(direct) = &self.direct else {
            // The next best: have the pages dropped that are the same on the device.
            let len = NonZeroU64::new(buf.len() as u64);
            rustix::fs::fadvise(self.file.as_fd(), offset, len, Advice::DontNeed)?;
            return self.read_at(buf, offset);
        };
        let start = offset - offset % BLOCK_BYTES;
        let end = (offset + buf.len() as u64).next_multiple_of(BLOCK_BYTES);
        let mut memory = vec![0; (end - start + BLOCK_BYTES) as usize];
        let skip = memory.as_ptr().align_offset(BLOCK_BYTES as usize);
        let blocks = &mut memory[skip..skip + (end - start) as usize];
        let mut done = 0;
        // A read that stops inside a block has reached the end of the file.
        while done < blocks.len() && done.is_multiple_of(BLOCK_BYTES as usize) {
            match rustix::io::pread(direct.as_fd(), &mut blocks[done..], start + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let from = (offset - start) as usize;
        let got = done.saturating_sub(from).min(buf.len());
        buf[..got].copy_from_slice(&blocks[from..from + got]);
        Ok(got)
    }

    fn read_once_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.direct {
            Some(_) => self.read_device_at(buf, offset),
            None => self.read_at(buf, offset),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_past_the_page_cache_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        RealFs.create(&path).unwrap().allocate(64 << 10).unwrap();
        let file = RealFs.open_direct(&path).unwrap();
        let mut memory = vec![7; 4 * BLOCK_BYTES as usize];
        let skip = memory.as_ptr().align_offset(BLOCK_BYTES as usize);
        let mut back = vec![0; 2 * BLOCK_BYTES as usize];
        for round in 1..4u8 {
            // Now in the page cache, which must not outlive the next write.
            file.read_exact_at(&mut back, BLOCK_BYTES).unwrap();
            memory.fill(round);
            let blocks = &memory[skip..skip + 2 * BLOCK_BYTES as usize];
            match round {
                1 => file.write_all_at(blocks, BLOCK_BYTES).unwrap(),
                _ => file.write_all_durably_at(blocks, BLOCK_BYTES).unwrap(),
            }
            file.write_all_at(b"odd", BLOCK_BYTES + 5).unwrap();
            file.read_exact_at(&mut back, BLOCK_BYTES).unwrap();
            assert_eq!((&back[5..8], back[8], back[4]), (&b"odd"[..], round, round));
        }
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
