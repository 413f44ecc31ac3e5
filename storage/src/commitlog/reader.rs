//! Reading the log: from the tail in memory where possible, else from the segment files.
//!
//! A read from disk does not hold the lock. Whether the bytes may have been removed or replaced meanwhile is
//! found out afterwards, by the epoch of the view; if so the read starts over.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::CommitLog;
use super::cold::NextRead;
use super::cursor::{Cursor, Expected, RangeError, RangeRead, Source, Step};
use super::format::{LeaderTag, Located, RECORD_HEADER_BYTES, segment_base};
use super::holes::Hole;
use super::segment::segment_path;
use super::view::{Segment, View};
use crate::error::ReadError;
use crate::fs::File;
use crate::position::{LogIndex, PhysicalOffset};

/// Something that should be read before it is asked for.
#[derive(Debug)]
pub struct ReadAhead(NextRead);

impl CommitLog {
    /// Whether a read that starts at `index` needs no disk. Memory only; a moment later it may.
    pub fn is_in_memory(&self, index: LogIndex) -> bool {
        self.shared.lock().view.tail.get(index).is_some()
    }

    /// Records `from..end_exclusive` in order, as far as they exist: at least one if `from` does, then as
    /// many as fit into `max_bytes` of payload. Recent ones come from memory without copying, others from
    /// disk, with their CRC checked. May run next to everything.
    ///
    /// # Errors
    /// `Purged` or `NotFound` when `from` is not in the log; `Corrupt` when the disk lets us down: the place
    /// is fenced then, and comes back once it is mended.
    pub fn read(
        &self,
        from: LogIndex,
        end_exclusive: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Located>, ReadError> {
        if from >= end_exclusive {
            return Ok(Vec::new());
        }
        let state = self.shared.lock();
        if state.view.purged.is_some_and(|(purged, _)| from <= purged) {
            return Err(purged(format!("record {from}"), &state.view));
        }
        drop(state);
        self.read_stored(from, end_exclusive, max_bytes)
    }

    /// Like [`read`](Self::read), but also in front of the logical start, as far as the disk has it.
    pub(crate) fn read_stored(
        &self,
        from: LogIndex,
        end_exclusive: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Located>, ReadError> {
        let mut found: Vec<Located> = Vec::new();
        let mut bytes = 0;
        loop {
            let next = found
                .last()
                .map_or(from, |located| located.record.index.next());
            let state = self.shared.lock();
            let view = &state.view;
            let after_last = view.last.map_or(LogIndex::ZERO, |(last, _)| last.next());
            if next >= end_exclusive || bytes >= max_bytes && !found.is_empty() {
                return Ok(found);
            }
            if next >= after_last {
                return if found.is_empty() {
                    Err(not_found(next))
                } else {
                    Ok(found)
                };
            }
            if view.tail.get(next).is_some() {
                take_from_tail(
                    view,
                    next,
                    end_exclusive,
                    max_bytes.saturating_sub(bytes),
                    &mut found,
                );
                return Ok(found);
            }
            if let Some(hole) = view.holes.at(next).filter(|hole| !hole.is_filler()) {
                let error = self.fenced(hole);
                return if found.is_empty() {
                    Err(error)
                } else {
                    Ok(found)
                };
            }
            let Some(range) = cold_range(view, self.segment_bytes(), next, end_exclusive) else {
                return Err(purged(format!("record {next}"), view));
            };
            let epoch = view.epoch;
            drop(state);
            let read = range.run(max_bytes.saturating_sub(bytes));
            if self.shared.lock().view.epoch != epoch {
                continue;
            }
            let more = match read {
                Ok(more) => more,
                Err(error) => {
                    self.note_damage(range.base, &error);
                    if found.is_empty() {
                        return Err(self.read_error(range.base, error));
                    }
                    return Ok(found);
                }
            };
            let more_bytes: usize = more.iter().map(|l| l.record.payload.len()).sum();
            if !found.is_empty() && bytes + more_bytes > max_bytes {
                return Ok(found);
            }
            bytes += more_bytes;
            found.extend(more);
        }
    }

    pub(super) fn read_error(&self, base: PhysicalOffset, error: RangeError) -> ReadError {
        let path = segment_path(&self.shared.dir, base);
        let (offset, reason) = error.describe();
        ReadError::Corrupt {
            path,
            offset,
            reason,
        }
    }

    /// The error for what is inside of a hole.
    fn fenced(&self, hole: &Hole) -> ReadError {
        let base = segment_base(hole.from, self.segment_bytes());
        ReadError::Corrupt {
            path: segment_path(&self.shared.dir, base),
            offset: hole.from.get() - base.get(),
            reason: "damaged, waiting for a peer's copy".to_owned(),
        }
    }

    /// Tag of a record, or of the last purged one. Memory only.
    ///
    /// # Errors
    /// `Purged` when `index` lies before that; `Ok(None)` when it lies beyond the end.
    pub fn tag_at(&self, index: LogIndex) -> Result<Option<LeaderTag>, ReadError> {
        let state = self.shared.lock();
        let view = &state.view;
        if view.purged.is_some_and(|(purged, _)| index < purged) {
            return Err(purged(format!("record {index}"), view));
        }
        Ok(view.tag_at(index))
    }

    /// `len` bytes at `offset`, which must lie inside the payload of one record. A slice of memory if the
    /// record is recent or was read a moment ago; else it is read with others that follow, with their CRCs
    /// checked. The range is not trusted. `may_wait` says whether the disk may be waited for.
    ///
    /// # Errors
    /// `Purged`, `NotFound` also when the range is not in one payload, `NotInMemory`, `Corrupt`.
    pub fn read_bytes(
        &self,
        offset: PhysicalOffset,
        len: usize,
        may_wait: bool,
    ) -> Result<Bytes, ReadError> {
        let cold = &self.shared.cold;
        let mut reading = None;
        loop {
            let state = self.shared.lock();
            let view = &state.view;
            self.segment_for(view, offset, len as u64)?;
            if len == 0 {
                return Ok(Bytes::new());
            }
            if let Some(located) = view.tail.at(offset) {
                return payload_range(located, offset, len);
            }
            if let Some(hole) = view.holes.over(offset, offset.plus(len as u64)) {
                return Err(self.fenced(hole));
            }
            let epoch = view.epoch;
            drop(state);
            if let Some(located) = cold.at(offset, epoch) {
                return payload_range(&located, offset, len);
            }
            if !may_wait {
                return Err(ReadError::NotInMemory);
            }
            if reading.is_none() {
                // Somebody may have read it by the time it is our turn.
                reading = Some(cold.reading.lock().unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            let found = self.read_cold(offset, epoch)?;
            if self.shared.lock().view.epoch == epoch {
                let located = found.ok_or_else(|| not_found_at(offset))?;
                return payload_range(&located, offset, len);
            }
        }
    }

    /// Up to `len` bytes from the disk at `offset`, as they stand there: nobody has checked them, and fewer
    /// come at the end of a segment. `None` when that part of the log is in memory, damaged or not there,
    /// or when the disk refuses; [`read_bytes`](Self::read_bytes) says which. Blocks.
    pub(crate) fn read_unchecked(&self, offset: PhysicalOffset, len: usize) -> Option<Bytes> {
        let state = self.shared.lock();
        let view = &state.view;
        let segment = self.segment_for(view, offset, 1).ok()?;
        let end = segment.end_offset.min(offset.plus(len as u64));
        if view.tail.at(offset).is_some() || view.holes.over(offset, end).is_some() {
            return None;
        }
        let (file, base, epoch) = (segment.file.clone()?, segment.base, view.epoch);
        drop(state);
        let mut buffer = vec![0; (end.get() - offset.get()) as usize];
        let place = offset.get() - base.get();
        let got = file.read_once_at(&mut buffer, place).ok()?;
        buffer.truncate(got);
        // Otherwise it may have been removed or replaced meanwhile.
        let is_same = self.shared.lock().view.epoch == epoch;
        is_same.then(|| Bytes::from(buffer))
    }

    /// Whether [`read_ahead`](Self::read_ahead) should be called now. Says so once.
    pub fn wants_ahead(&self) -> Option<ReadAhead> {
        let next = self.shared.cold.take_ahead()?;
        next.from.filter(|from| !self.is_in_memory(*from))?;
        Some(ReadAhead(next))
    }

    /// Reads from the disk what somebody is likely to ask [`read_bytes`](Self::read_bytes) for. Blocks.
    /// Errors show when it is asked for.
    pub fn read_ahead(&self, ahead: ReadAhead) {
        let cold = &self.shared.cold;
        let _one_at_a_time = cold.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.shared.lock().view.epoch;
        let ReadAhead(NextRead { from, bytes_max }) = ahead;
        if let Some(from) = from
            && let Ok(records) = self.read_stored(from, LogIndex::new(u64::MAX), bytes_max)
        {
            cold.keep(records, epoch);
        }
    }

    /// Reads records from the disk into memory; returns the one among them whose bytes include `offset`.
    fn read_cold(&self, offset: PhysicalOffset, epoch: u64) -> Result<Option<Located>, ReadError> {
        let next = self.shared.cold.next_read(offset, epoch);
        let mut from = next.from.or_else(|| self.index_before(offset));
        // More than one turn only when the known record is far in front.
        while let Some(index) = from {
            let records = self.read_stored(index, LogIndex::new(u64::MAX), next.bytes_max)?;
            let last = records.last().expect("at least one record or an error");
            let end = last.end_offset();
            from = (end <= offset).then(|| last.record.index.next());
            let found = records.iter().find(|l| offset < l.end_offset()).cloned();
            self.shared.cold.keep(records, epoch);
            if let Some(located) = found {
                return Ok(Some(located).filter(|located| located.offset <= offset));
            }
        }
        Ok(None)
    }

    fn segment_for<'a>(
        &self,
        view: &'a View,
        offset: PhysicalOffset,
        len: u64,
    ) -> Result<&'a Segment, ReadError> {
        if offset < view.start.next_offset {
            return Err(purged(format!("byte {offset}"), view));
        }
        let segment = view.segment_at(segment_base(offset, self.segment_bytes()));
        let end = offset.get().checked_add(len);
        segment
            .filter(|segment| end.is_some_and(|end| end <= segment.end_offset.get()))
            .ok_or_else(|| not_found_at(offset))
    }

    /// The record that starts exactly at `offset`, which is not trusted.
    ///
    /// # Errors
    /// `Purged`; `NotFound` when no record starts there; `Corrupt` when it is damaged.
    pub fn record_at(&self, offset: PhysicalOffset) -> Result<Located, ReadError> {
        loop {
            let state = self.shared.lock();
            let view = &state.view;
            let segment = self.segment_for(view, offset, RECORD_HEADER_BYTES as u64)?;
            if let Some(located) = view.tail.at(offset) {
                return if located.offset == offset {
                    Ok(located.clone())
                } else {
                    Err(not_found_at(offset))
                };
            }
            let Some(file) = segment.file.clone() else {
                return Err(not_found_at(offset));
            };
            let (base, epoch, end) = (segment.base, view.epoch, segment.end_offset);
            drop(state);
            let read = record_in(file, base, end, offset);
            if self.shared.lock().view.epoch == epoch {
                return match read {
                    Ok(located) => located.ok_or_else(|| not_found_at(offset)),
                    Err(error) => {
                        self.note_damage(base, &error);
                        Err(self.read_error(base, error))
                    }
                };
            }
        }
    }
}

fn take_from_tail(
    view: &View,
    from: LogIndex,
    end_exclusive: LogIndex,
    max_bytes: usize,
    found: &mut Vec<Located>,
) {
    let mut bytes = 0;
    let mut next = from;
    while next < end_exclusive
        && let Some(located) = view.tail.get(next)
    {
        bytes += located.record.payload.len();
        if bytes > max_bytes && !found.is_empty() {
            return;
        }
        found.push(located.clone());
        next = next.next();
    }
}

/// The part of `from..end_exclusive` that one segment file can answer; `None` if there is no such file.
fn cold_range(
    view: &View,
    segment_bytes: u64,
    from: LogIndex,
    end_exclusive: LogIndex,
) -> Option<RangeRead> {
    let segment = view.segment_of(from)?;
    let known = segment.sparse.floor(from)?;
    let file = segment.file.clone()?;
    let mut end = end_exclusive.min(view.tail.first_index().unwrap_or(end_exclusive));
    if let Some((last, _)) = view.last {
        end = end.min(last.next());
    }
    if let Some(next) = view.segment_at(segment.base.plus(segment_bytes)) {
        end = end.min(next.first_index);
    }
    if let Some(damaged) = view.holes.next_after(from) {
        end = end.min(damaged);
    }
    Some(RangeRead {
        file,
        base: segment.base,
        segment_end: segment.base.get() + segment_bytes,
        known_index: known.index,
        known_offset: known.offset,
        from,
        end_exclusive: end,
        end_offset: segment.end_offset,
        source: Source::Once,
    })
}

fn record_in(
    file: Arc<dyn File>,
    base: PhysicalOffset,
    end: PhysicalOffset,
    offset: PhysicalOffset,
) -> Result<Option<Located>, RangeError> {
    let io = |error| RangeError::Io(offset.get() - base.get(), error);
    let mut cursor = Cursor::new(file, base, end, Source::Once);
    let anything = Expected {
        index: None,
        previous: None,
    };
    let step = cursor.step(offset, end.get(), anything).map_err(io)?;
    let Step::Record(header) = step else {
        return Ok(None);
    };
    match cursor.payload(&header).map_err(io)? {
        Some(payload) => Ok(Some(header.with_payload(payload))),
        None => Err(RangeError::Bad(
            offset.get() - base.get(),
            "payload CRC mismatch",
        )),
    }
}

fn payload_range(
    located: &Located,
    offset: PhysicalOffset,
    len: usize,
) -> Result<Bytes, ReadError> {
    let payload = &located.record.payload;
    let from = offset.get().checked_sub(located.payload_offset().get());
    let from = from.and_then(|from| usize::try_from(from).ok());
    match from {
        Some(from) if from + len <= payload.len() => Ok(payload.slice(from..from + len)),
        _ => Err(not_found_at(offset)),
    }
}

fn purged(what: String, view: &View) -> ReadError {
    ReadError::Purged {
        what,
        start_offset: view.start.next_offset,
    }
}

fn not_found(index: LogIndex) -> ReadError {
    ReadError::NotFound {
        what: format!("record {index}"),
    }
}

fn not_found_at(offset: PhysicalOffset) -> ReadError {
    ReadError::NotFound {
        what: format!("byte {offset}"),
    }
}
