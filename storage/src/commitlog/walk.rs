//! The walk over the segments when a log is opened.
//!
//! From the start of the log, or from the last record that an index file vouches for, to the first place
//! where the next record is not found. At or beyond the synced mark that is the end. Below it something that
//! was durable is gone: the walk goes on at the next record that is whole, and what lies between is a hole.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::cursor::{Cursor, Expected, Source, Step, Stop};
use super::format::{Header, segment_base};
use super::holes::Hole;
use super::mark::Mark;
use super::segment::segment_path;
use super::sidecar::Sidecar;
use super::sparse::SparseEntry;
use super::view::{LogStart, View};
use crate::config::LogConfig;
use crate::error::OpenError;
use crate::fs::{File, FileSystem};
use crate::planted::{Bug, planted};
use crate::position::PhysicalOffset;

/// The walk, and what it has found so far.
pub(super) struct Walk<'a> {
    fs: &'a dyn FileSystem,
    dir: &'a Path,
    segment_bytes: u64,
    mark: Mark,
    pub view: View,
    /// The end of what was found.
    pub end: LogStart,
    pub walked_bytes: u64,
    /// Where the first hole is: segment, offset in the file, what is wrong.
    pub damaged: Option<(PhysicalOffset, u64, String)>,
}

/// How the walk over one segment ended.
enum SegmentEnd {
    Continues,
    Ends(Stop),
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        fs: &'a dyn FileSystem,
        dir: &'a Path,
        config: &LogConfig,
        mark: Mark,
    ) -> Self {
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
            damaged: None,
        }
    }

    /// Walks from the start of the log to its end; returns what was torn there.
    pub(super) fn run(
        &mut self,
        bases: &[PhysicalOffset],
    ) -> Result<Option<&'static str>, OpenError> {
        let mut base = segment_base(self.end.next_offset, self.segment_bytes);
        // The first record may have been too large for the rest of the segment in which the log begins. It
        // always fits into a whole one: if the log begins with a segment, that is where its first record is.
        let after = base.plus(self.segment_bytes);
        let inside = self.end.next_offset > base;
        if inside && !bases.contains(&base) && bases.contains(&after) {
            base = after;
        }
        let torn = loop {
            let (torn, reason) = match bases.contains(&base) {
                false => (None, "the file is missing"),
                true => match self.walk_segment(base)? {
                    SegmentEnd::Continues => {
                        base = base.plus(self.segment_bytes);
                        continue;
                    }
                    SegmentEnd::Ends(Stop::Clean) => (None, "the next record is missing"),
                    SegmentEnd::Ends(Stop::Bad(what)) => (Some(what), what),
                },
            };
            if self.end.next_offset >= self.mark.end() {
                break torn;
            }
            let at = self.end.next_offset.max(base).get() - base.get();
            self.damaged
                .get_or_insert_with(|| (base, at, reason.to_owned()));
            self.skip_hole(bases)?;
            base = segment_base(self.end.next_offset, self.segment_bytes);
        };
        self.settle_bounds();
        Ok(torn)
    }

    /// Goes on at the next whole record below the mark, or at the mark.
    fn skip_hole(&mut self, bases: &[PhysicalOffset]) -> Result<(), OpenError> {
        let next = self.find_record(bases, self.mark.end())?;
        let (before, from) = (self.end.last(), self.end.next_offset);
        let hole = match next {
            Some(header) => Hole {
                before,
                from,
                last: (header.index.before(), header.previous),
                to: header.offset,
                next: Some(header.tag),
            },
            None => Hole {
                before,
                from,
                last: self
                    .mark
                    .synced
                    .last()
                    .expect("the mark is beyond the start of the log"),
                to: self.mark.end(),
                next: None,
            },
        };
        self.view.skip(hole);
        self.end = LogStart {
            last_index: Some(hole.last.0),
            last_tag: hole.last.1,
            next_offset: hole.to,
        };
        Ok(())
    }

    /// The first whole record behind the end of what was found, below `limit`.
    pub(super) fn find_record(
        &self,
        bases: &[PhysicalOffset],
        limit: PhysicalOffset,
    ) -> Result<Option<Header>, OpenError> {
        let (end, last) = (self.end.next_offset, self.end.last_index);
        let first = segment_base(end, self.segment_bytes);
        let accept = |header: &Header| {
            header.offset > end
                && last.is_none_or(|last| header.index > last)
                && header.index.get() > 0
                && header.previous.term >= self.end.last_tag.term
        };
        for base in bases
            .iter()
            .filter(|base| **base >= first && **base < limit)
        {
            let path = segment_path(self.dir, *base);
            let file = self
                .fs
                .open_direct(&path)
                .map_err(OpenError::io("open", &path))?;
            let until = base.plus(self.segment_bytes).min(limit);
            let mut cursor = Cursor::new(file, *base, until, Source::Device);
            let found = cursor.find_record(end.max(*base), accept);
            if let Some(header) = found.map_err(OpenError::io("read", &path))? {
                return Ok(Some(header));
            }
        }
        Ok(None)
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
        let file = self
            .fs
            .open_direct(&path)
            .map_err(OpenError::io("open", &path))?;
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
        // From the device: after a sync that failed, the page cache may hold what never got there.
        let mut cursor = Cursor::new(file.clone(), base, limit, Source::Device);
        self.skip_what_is_indexed(base, &mut cursor)?;
        let mut at = base.max(self.end.next_offset);
        loop {
            let previous = self.end.last_index.map(|_| self.end.last_tag);
            let index = self.end.last_index.map(|last| last.next());
            let expected = Expected { index, previous };
            let (header, payload) = match cursor.step(at, limit.get(), expected) {
                Ok(Step::Record(header)) => (header, cursor.payload(&header)),
                Ok(Step::NextSegment) => return Ok(SegmentEnd::Continues),
                Ok(Step::End(stop)) => return Ok(SegmentEnd::Ends(stop)),
                Err(error) => return self.unreadable(at, error),
            };
            match payload {
                Ok(Some(_)) => {}
                Ok(None) if planted(Bug::TornRecordAccepted) => {}
                Ok(None) => return Ok(SegmentEnd::Ends(Stop::Bad("payload CRC mismatch"))),
                Err(error) => return self.unreadable(at, error),
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

    /// A sector that cannot be read is as good as a wrong one where a record was durable; beyond the mark
    /// nobody knows what was there, and the operator should look.
    fn unreadable(&self, at: PhysicalOffset, error: io::Error) -> io::Result<SegmentEnd> {
        if at < self.mark.end() {
            Ok(SegmentEnd::Ends(Stop::Bad("it cannot be read")))
        } else {
            Err(error)
        }
    }

    /// Takes over what the index file says about synced records, if the segment confirms it.
    fn skip_what_is_indexed(
        &mut self,
        base: PhysicalOffset,
        cursor: &mut Cursor,
    ) -> io::Result<()> {
        let sidecar = match Sidecar::load(self.fs, self.dir, base) {
            Ok(Some(sidecar)) => sidecar,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(%base, %error, "an index file is not used");
                return Ok(());
            }
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
        // If it cannot be read, everything is looked at.
        let step = cursor.step(entry.offset, limit.get(), expected);
        Ok(matches!(step, Ok(Step::Record(header)) if header.tag == entry.tag))
    }
}
