//! Opening a log: what is on disk, what of it counts, and what is cut off.
//!
//! The log is walked from its start, or from the last record that an index file vouches for, to the first
//! place where the next record is not found. If that place lies at or beyond the synced mark, it is the end:
//! what follows was never acknowledged, and segments behind it are removed. If it lies below the mark,
//! something that was durable is gone; then nothing is touched and the log does not open.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::blocks::Blocks;
use super::cursor::{Cursor, Expected, Step, Stop};
use super::format::segment_base;
use super::hard_state::HardState;
use super::mark::Mark;
use super::segment::{MARK_FILE, VOTE_FILE, index_of_name, segment_of_name, segment_path};
use super::shared::{Shared, State};
use super::sidecar::{self, Sidecar};
use super::spares::Spares;
use super::sparse::SparseEntry;
use super::view::{LogStart, View};
use super::writer::{Active, WriterFiles};
use crate::config::LogConfig;
use crate::error::OpenError;
use crate::fs::{File, FileSystem};
use crate::planted::{Bug, planted};
use crate::position::PhysicalOffset;

/// What was found when the log was opened, for the log file and for tests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The end of the log; its next record goes here.
    pub end: LogStart,
    /// The durable end as it was recorded on disk before.
    pub marked_end: PhysicalOffset,
    /// Set if a record at the end was damaged or incomplete and was cut off: what was wrong with it.
    pub torn: Option<&'static str>,
    /// Segment files behind the end that were removed.
    pub removed_segments: usize,
    /// Bytes of log that were walked because no index file vouched for them.
    pub walked_bytes: u64,
}

/// Opens everything in `dir`.
pub(crate) fn recover(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    config: LogConfig,
) -> Result<(Shared, WriterFiles, Recovered), OpenError> {
    ensure_dir(&*fs, dir)?;
    let names = fs.list(dir).map_err(OpenError::io("list", dir))?;
    let bases: Vec<PhysicalOffset> = names.iter().filter_map(|n| segment_of_name(n)).collect();
    let (mark_file, mut mark) = open_mark(&*fs, dir, &config, bases.is_empty())?;
    let (vote_file, vote) = HardState::open(&*fs, &dir.join(VOTE_FILE))?;

    let mut walk = Walk::new(&*fs, dir, &config, mark);
    let torn = walk.run(&bases)?;
    let Walk {
        view,
        end,
        walked_bytes,
        ..
    } = walk;

    let mut files = WriterFiles {
        mark_file,
        mark,
        vote_file,
        active: None,
    };
    let removed_segments = remove_others(&*fs, dir, &bases, &view)?;
    for base in names.iter().filter_map(|name| index_of_name(name)) {
        if view.segment_at(base).is_none() {
            sidecar::remove(&*fs, dir, base);
        }
    }
    files.active = reopen_active(&*fs, &view, end, &config, dir)?;
    let marked_end = mark.end();
    mark.synced = end;
    mark.purged = view.purged;
    mark.committed = mark.committed.min(end.last_index);
    if mark != files.mark {
        files
            .mark_file
            .store(&mark.encode())
            .map_err(OpenError::io("write", dir.join(MARK_FILE)))?;
        files.mark = mark;
    }
    let limits = (config.segment_bytes, config.spare_segments);
    let spares = Spares::open(fs.clone(), dir, &names, limits)?;
    fs.sync_dir(dir)
        .map_err(OpenError::io("sync directory", dir))?;
    let recovered = Recovered {
        end,
        marked_end,
        torn,
        removed_segments,
        walked_bytes,
    };
    let state = State {
        view,
        queue: VecDeque::new(),
        failed: None,
        vote,
        committed: mark.committed,
        history: 0,
    };
    Ok((
        Shared::new(fs, dir, config, spares, state),
        files,
        recovered,
    ))
}

fn ensure_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), OpenError> {
    match fs.list(dir) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs.create_dir(dir)
                .map_err(OpenError::io("create directory", dir))?;
            match dir.parent() {
                Some(above) if above != Path::new("") => fs
                    .sync_dir(above)
                    .map_err(OpenError::io("sync directory", above)),
                _ => Ok(()),
            }
        }
        Err(error) => Err(OpenError::io("list", dir)(error)),
    }
}

fn open_mark(
    fs: &dyn FileSystem,
    dir: &Path,
    config: &LogConfig,
    new: bool,
) -> Result<(HardState, Mark), OpenError> {
    let path = dir.join(MARK_FILE);
    let corrupt = |reason| OpenError::Corrupt {
        path: path.clone(),
        offset: 0,
        reason,
    };
    let (mut file, bytes) = HardState::open(fs, &path)?;
    let Some(bytes) = bytes else {
        // The mark is durable before the first segment is created.
        if !new {
            return Err(corrupt("there are segments but no synced mark".to_owned()));
        }
        let mark = Mark::new(config.segment_bytes, LogStart::default());
        file.store(&mark.encode())
            .map_err(OpenError::io("write", &path))?;
        return Ok((file, mark));
    };
    let mark = Mark::decode(&bytes).map_err(corrupt)?;
    if mark.segment_bytes != config.segment_bytes {
        let reason = format!(
            "the log has segments of {} bytes, the configuration says {}; the size cannot change",
            mark.segment_bytes, config.segment_bytes
        );
        return Err(OpenError::Mismatch { path, reason });
    }
    Ok((file, mark))
}

/// Removes the segment files that are not part of the log.
fn remove_others(
    fs: &dyn FileSystem,
    dir: &Path,
    bases: &[PhysicalOffset],
    view: &View,
) -> Result<usize, OpenError> {
    let mut removed = 0;
    for base in bases
        .iter()
        .rev()
        .filter(|base| view.segment_at(**base).is_none())
    {
        let path = segment_path(dir, *base);
        fs.remove(&path).map_err(OpenError::io("remove", &path))?;
        fs.sync_dir(dir)
            .map_err(OpenError::io("sync directory", dir))?;
        removed += 1;
    }
    Ok(removed)
}

fn reopen_active(
    fs: &dyn FileSystem,
    view: &View,
    end: LogStart,
    config: &LogConfig,
    dir: &Path,
) -> Result<Option<Active>, OpenError> {
    let base = segment_base(end.next_offset, config.segment_bytes);
    if view.segment_at(base).is_none() {
        return Ok(None);
    }
    let path = segment_path(dir, base);
    let file = fs
        .open_direct(&path)
        .map_err(OpenError::io("open", &path))?;
    if file.len().map_err(OpenError::io("measure", &path))? < config.segment_bytes {
        file.allocate(config.segment_bytes)
            .map_err(OpenError::io("allocate", &path))?;
        file.sync_data().map_err(OpenError::io("sync", &path))?;
    }
    let blocks = Blocks::at(&*file, end.next_offset.get() - base.get())
        .map_err(OpenError::io("read", &path))?;
    Ok(Some(Active { base, file, blocks }))
}

/// The walk over the segments.
struct Walk<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    segment_bytes: u64,
    mark: Mark,
    view: View,
    end: LogStart,
    walked_bytes: u64,
}

/// How the walk over one segment ended.
enum SegmentEnd {
    Continues,
    Ends(Stop),
}

impl<'a> Walk<'a> {
    fn new(fs: &'a dyn FileSystem, dir: &'a Path, config: &LogConfig, mark: Mark) -> Self {
        let view = View::new(config.segment_bytes, config.tail.clone(), mark.start);
        let segment_bytes = config.segment_bytes;
        Self {
            fs,
            dir,
            segment_bytes,
            mark,
            view,
            end: mark.start,
            walked_bytes: 0,
        }
    }

    /// Walks from the start of the log to its end; returns what was torn there.
    fn run(&mut self, bases: &[PhysicalOffset]) -> Result<Option<&'static str>, OpenError> {
        let mut base = segment_base(self.end.next_offset, self.segment_bytes);
        // The first record may have been too large for the rest of the segment in which the log begins. It
        // always fits into a whole one: if the log begins with a segment, that is where its first record is.
        let after = base.plus(self.segment_bytes);
        if self.end.next_offset > base && !bases.contains(&base) && bases.contains(&after) {
            base = after;
        }
        let mut torn = None;
        let mut at = base;
        let mut reason = "the file is missing".to_owned();
        while bases.contains(&base) {
            match self.walk_segment(base)? {
                SegmentEnd::Continues => {}
                SegmentEnd::Ends(Stop::Clean) => {
                    at = self.end.next_offset;
                    reason = "the next record is missing".to_owned();
                    break;
                }
                SegmentEnd::Ends(Stop::Bad(what)) => {
                    at = self.end.next_offset;
                    torn = Some(what);
                    reason = what.to_owned();
                    break;
                }
            }
            base = base.plus(self.segment_bytes);
            at = base;
        }
        if self.end.next_offset < self.mark.end() {
            let path = segment_path(self.dir, base);
            let offset = at.get().saturating_sub(base.get());
            return Err(OpenError::Corrupt {
                path,
                offset,
                reason,
            });
        }
        self.settle_bounds();
        Ok(torn)
    }

    fn settle_bounds(&mut self) {
        let start = self.mark.start;
        let purged = self
            .mark
            .purged
            .filter(|(index, _)| Some(*index) <= self.end.last_index);
        self.view.purged = purged.max(start.last());
        self.view.flushed = self.end.last_index;
    }

    /// Takes over the records of one segment, makes them durable, and says how it ended.
    fn walk_segment(&mut self, base: PhysicalOffset) -> Result<SegmentEnd, OpenError> {
        let path = segment_path(self.dir, base);
        let file = self.fs.open(&path).map_err(OpenError::io("open", &path))?;
        let walked_before = self.walked_bytes;
        let outcome = self
            .walk_records(base, &file)
            .map_err(OpenError::io("read", &path))?;
        let beyond_mark = self.end.next_offset > self.mark.end() && !planted(Bug::CacheTrusted);
        if beyond_mark && self.walked_bytes > walked_before {
            // They may only be in the page cache: whoever wrote them did not live to sync them.
            file.sync_data().map_err(OpenError::io("sync", &path))?;
        }
        self.view.attach(base, file);
        Ok(outcome)
    }

    fn walk_records(
        &mut self,
        base: PhysicalOffset,
        file: &Arc<dyn File>,
    ) -> io::Result<SegmentEnd> {
        let limit = base.plus(self.segment_bytes);
        let mut cursor = Cursor::new(file.clone(), base, limit);
        self.skip_what_is_indexed(base, &mut cursor)?;
        let mut at = base.max(self.end.next_offset);
        loop {
            let previous = self.end.last_index.map(|_| self.end.last_tag);
            let index = self.end.last_index.map(|last| last.next());
            let header = match cursor.step(at, limit.get(), Expected { index, previous })? {
                Step::Record(header) => header,
                Step::NextSegment => return Ok(SegmentEnd::Continues),
                Step::End(stop) => return Ok(SegmentEnd::Ends(stop)),
            };
            if cursor.payload(&header)?.is_none() && !planted(Bug::TornRecordAccepted) {
                return Ok(SegmentEnd::Ends(Stop::Bad("payload CRC mismatch")));
            }
            let next = header.end_offset();
            let len = next.get() - at.get();
            self.view
                .note(header.index, header.tag, header.store_time_ms, at, len);
            self.end = LogStart {
                last_index: Some(header.index),
                last_tag: header.tag,
                next_offset: next,
            };
            self.walked_bytes += len;
            at = next;
        }
    }

    /// Takes over what the index file says about synced records, if the segment confirms it.
    fn skip_what_is_indexed(
        &mut self,
        base: PhysicalOffset,
        cursor: &mut Cursor,
    ) -> io::Result<()> {
        let Some(sidecar) = Sidecar::load(self.fs, self.dir, base)? else {
            return Ok(());
        };
        // Beyond the mark every record is looked at.
        let synced = sidecar
            .entries
            .partition_point(|entry| entry.offset < self.mark.end());
        let Some((next, known)) = sidecar.entries[..synced].split_last() else {
            return Ok(());
        };
        if self.continues_here(known.first(), base) && self.stands_on_disk(*next, known, cursor)? {
            self.view.adopt(base, known, *next, sidecar.store_time_ms);
            let (last_index, last_tag) = self.view.last.unzip();
            let last_tag = last_tag.unwrap_or_default();
            self.end = LogStart {
                last_index,
                last_tag,
                next_offset: next.offset,
            };
        }
        Ok(())
    }

    /// Whether the record that the index file knows as the first one is the next one of the log.
    fn continues_here(&self, first: Option<&SparseEntry>, base: PhysicalOffset) -> bool {
        let at = base.max(self.end.next_offset);
        first.is_some_and(|first| {
            first.offset == at
                && self
                    .end
                    .last_index
                    .is_none_or(|last| first.index == last.next())
                && first.tag.term >= self.end.last_tag.term
        })
    }

    fn stands_on_disk(
        &self,
        entry: SparseEntry,
        known: &[SparseEntry],
        cursor: &mut Cursor,
    ) -> io::Result<bool> {
        let limit = segment_base(entry.offset, self.segment_bytes).plus(self.segment_bytes);
        let previous = known.last().map(|entry| entry.tag);
        let expected = Expected {
            index: Some(entry.index),
            previous,
        };
        let step = cursor.step(entry.offset, limit.get(), expected)?;
        Ok(matches!(step, Step::Record(header) if header.tag == entry.tag))
    }
}
