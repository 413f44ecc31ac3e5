//! Filling a hole with the records that stood there, as a peer has them.
//!
//! Records travel as they stand in the log: header, payload, padding, one after the other. Before anything is
//! written, all of it is checked: CRCs, indexes, places, and that each record follows the one before. After
//! it is synced it is read back from the device, past the page cache.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::cursor::{Cursor, Expected, Source, Step};
use super::format::{Header, LeaderTag, RECORD_HEADER_BYTES, place, segment_base};
use super::holes::Hole;
use super::segment::segment_path;
use super::view::LogStart;
use crate::error::LogError;
use crate::fs::{File, FileSystem};
use crate::position::PhysicalOffset;

/// Why a hole was not filled.
#[derive(Debug, Clone, Error)]
pub enum MendError {
    /// These are not the records that stood there. Nothing was written: ask another peer.
    #[error("these are not the records of the hole: {0}")]
    Foreign(&'static str),
    /// The hole is not there any more: the log was cut, or somebody else filled it.
    #[error("the hole is gone")]
    Gone,
    /// The disk does not keep what is written to it.
    #[error("the disk gives back other bytes than were written to {0}: replace the disk")]
    Unfit(String),
    /// A write failed. The log is closed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What was filled.
pub(crate) struct Filled {
    /// What is left of the hole.
    pub rest: Option<Hole>,
    /// Records that are there again.
    pub records: u64,
    /// Files that were written to; perhaps new ones.
    pub files: BTreeMap<PhysicalOffset, Arc<dyn File>>,
}

/// One record as it travels.
struct Piece {
    header: Header,
    bytes: Bytes,
}

/// Fills the beginning of `hole`, or all of it, with `bytes`. Durable and read back when it returns.
pub(crate) fn fill(
    (fs, dir): (&dyn FileSystem, &Path),
    segment_bytes: u64,
    hole: &Hole,
    bytes: &Bytes,
) -> Result<Filled, MendError> {
    let (pieces, end) = check(hole, bytes, segment_bytes).map_err(MendError::Foreign)?;
    let done = end.last() == Some(hole.last);
    let mut target = Target {
        fs,
        dir,
        segment_bytes,
        files: BTreeMap::new(),
    };
    let mut at = start_of(hole);
    for piece in &pieces {
        let (header, base) = (
            &piece.header,
            segment_base(piece.header.offset, segment_bytes),
        );
        target.fill_rest(at, header.offset, header.tag)?;
        target.write(base, header.offset, &piece.bytes)?;
        at = end_of(header);
    }
    if let Some(next) = hole.next.filter(|_| done) {
        target.fill_rest(at, hole.to, next)?;
    }
    for (base, file) in &target.files {
        file.sync_data()
            .map_err(LogError::poison("sync", &segment_path(dir, *base)))?;
    }
    target.read_back(&pieces)?;
    let rest = (!done).then(|| Hole {
        before: end.last(),
        from: end.next_offset,
        ..*hole
    });
    Ok(Filled {
        rest,
        records: pieces.len() as u64,
        files: target.files,
    })
}

fn start_of(hole: &Hole) -> LogStart {
    let (last_index, last_tag) = hole.before.unzip();
    LogStart {
        last_index,
        last_tag: last_tag.unwrap_or_default(),
        next_offset: hole.from,
    }
}

fn end_of(header: &Header) -> LogStart {
    LogStart {
        last_index: Some(header.index),
        last_tag: header.tag,
        next_offset: header.end_offset(),
    }
}

/// Cuts the bytes into records and checks that they belong where they are to go. Returns where the last one
/// ends.
fn check(
    hole: &Hole,
    bytes: &Bytes,
    segment_bytes: u64,
) -> Result<(Vec<Piece>, LogStart), &'static str> {
    let mut end = start_of(hole);
    let mut pieces = Vec::new();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let header = rest.first_chunk().ok_or("the last one is cut short")?;
        let header = Header::decode(header)?;
        let len = header.end_offset().get() - header.offset.get();
        if header.kind.is_none() || (rest.len() as u64) < len {
            return Err("the last one is cut short");
        }
        let bytes = rest.split_to(len as usize);
        let payload = &bytes[RECORD_HEADER_BYTES..][..header.payload_len as usize];
        if crc32fast::hash(payload) != header.payload_crc {
            return Err("payload CRC mismatch");
        }
        let follows = end
            .last_index
            .is_none_or(|last| header.index == last.next() && header.previous == end.last_tag);
        if !follows || header.offset != place(end.next_offset, len, segment_bytes) {
            return Err("one does not follow the record before it");
        }
        if header.index > hole.last.0 || header.end_offset() > hole.to {
            return Err("they reach beyond the hole");
        }
        end = end_of(&header);
        pieces.push(Piece { header, bytes });
    }
    if pieces.is_empty() && !hole.is_filler() {
        return Err("there are none");
    }
    if end.last_index == Some(hole.last.0) {
        let at_boundary = hole.to.get().is_multiple_of(segment_bytes)
            && hole.to.get() - end.next_offset.get() < segment_bytes;
        let meets = end.next_offset == hole.to || hole.next.is_some() && at_boundary;
        if end.last_tag != hole.last.1 || !meets {
            return Err("the last one is another than the one that stood there");
        }
    }
    Ok((pieces, end))
}

/// The files that are written to.
struct Target<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    segment_bytes: u64,
    files: BTreeMap<PhysicalOffset, Arc<dyn File>>,
}

impl Target<'_> {
    /// When the record at `next` begins another segment, says so at the end of the old one.
    fn fill_rest(
        &mut self,
        end: LogStart,
        next: PhysicalOffset,
        next_tag: LeaderTag,
    ) -> Result<(), LogError> {
        let base = segment_base(end.next_offset, self.segment_bytes);
        let rest = base.get() + self.segment_bytes - end.next_offset.get();
        let rolls = base < segment_base(next, self.segment_bytes)
            && rest >= RECORD_HEADER_BYTES as u64
            // A log that begins with a record too large for its first segment has no file there.
            && end.next_offset != next;
        let Some(last) = end.last_index.filter(|_| rolls) else {
            return Ok(());
        };
        let filler = Header {
            kind: None,
            tag: next_tag,
            index: last.next(),
            offset: end.next_offset,
            store_time_ms: 0,
            previous: end.last_tag,
            payload_len: 0,
            payload_crc: 0,
        };
        self.write(base, end.next_offset, &filler.encode())
    }

    fn write(
        &mut self,
        base: PhysicalOffset,
        offset: PhysicalOffset,
        bytes: &[u8],
    ) -> Result<(), LogError> {
        let path = segment_path(self.dir, base);
        if !self.files.contains_key(&base) {
            let file = self.open(&path)?;
            self.files.insert(base, file);
        }
        self.files[&base]
            .write_all_at(bytes, offset.get() - base.get())
            .map_err(LogError::poison("write", &path))
    }

    /// The file of a segment, whole in length; a new one if it is missing.
    fn open(&self, path: &Path) -> Result<Arc<dyn File>, LogError> {
        let file = match self.fs.open_direct(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.fs
                    .create(path)
                    .map_err(LogError::allocating("create", path))?;
                self.fs
                    .sync_dir(self.dir)
                    .map_err(LogError::poison("sync directory", self.dir))?;
                self.fs
                    .open_direct(path)
                    .map_err(LogError::poison("open", path))?
            }
            Err(error) => return Err(LogError::poison("open", path)(error)),
        };
        let len = file.len().map_err(LogError::poison("measure", path))?;
        if len < self.segment_bytes {
            file.allocate(self.segment_bytes)
                .map_err(LogError::allocating("allocate", path))?;
        }
        Ok(file)
    }

    /// Reads what was written from the device.
    fn read_back(&self, pieces: &[Piece]) -> Result<(), MendError> {
        for piece in pieces {
            let offset = piece.header.offset;
            let base = segment_base(offset, self.segment_bytes);
            let limit = base.plus(self.segment_bytes);
            let mut cursor = Cursor::new(self.files[&base].clone(), base, limit, Source::Device);
            let anything = Expected {
                index: None,
                previous: None,
            };
            let unfit = || MendError::Unfit(segment_path(self.dir, base).display().to_string());
            let found = match cursor.step(offset, limit.get(), anything) {
                Ok(Step::Record(header)) if header == piece.header => cursor.payload(&header),
                _ => return Err(unfit()),
            };
            found.ok().flatten().ok_or_else(unfit)?;
        }
        Ok(())
    }
}
