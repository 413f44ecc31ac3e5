//! What a log does about damage (ADR 10): notes it, keeps readers away from it, gives intact records to peers
//! that miss them, takes theirs, and looks for rot that nobody has met yet.

use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use thiserror::Error;

use super::cursor::{Cursor, Expected, RangeError, Source, Step, Stop};
use super::format::{Header, LeaderTag, segment_base};
use super::holes::Hole;
use super::mend::{self, MendError};
use super::segment::segment_path;
use super::shared::{Command, Shared};
use super::writer::Writer;
use super::{CommitLog, Located};
use crate::error::ReadError;
use crate::position::{LogIndex, PhysicalOffset};

/// Told, on the thread that met it, that there is a new hole. Must not block.
pub type DamageObserver = Box<dyn Fn() + Send + Sync>;

/// Told how filling a hole went: the number of records that are there again. On the writer's thread.
pub type MendDone = Box<dyn FnOnce(Result<u64, MendError>) + Send>;

/// Why records are not given to a peer that misses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Withheld {
    /// They are damaged here too.
    #[error("damaged here too")]
    Damaged,
    /// Retention has removed them here.
    #[error("removed by retention here")]
    Purged,
    /// This log does not have the peer's last record: it ends earlier, or is another history.
    #[error("this log does not have the same record")]
    Unknown,
    /// This log is known to be committed further than the peer's record, and has another one there: what the
    /// peer had was never committed.
    #[error("another record is committed in its place")]
    Refuted,
}

/// One step of looking for rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes that were read.
    pub bytes: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<PhysicalOffset>,
}

/// What is known of damage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DamageStats {
    /// Not mended yet.
    pub holes: Vec<Hole>,
    /// Found since the log was opened.
    pub found: u64,
    /// Mended since the log was opened.
    pub mended: u64,
    /// Bytes that [`CommitLog::scrub`] has read since the log was opened.
    pub scrubbed_bytes: u64,
}

impl Shared {
    /// Fills a hole that is still there.
    pub(super) fn fill(&self, hole: &Hole, bytes: &Bytes) -> Result<u64, MendError> {
        if !self.lock().view.holes.all().contains(hole) {
            return Err(MendError::Gone);
        }
        let place = (&*self.fs, self.dir.as_path());
        let filled = mend::fill(place, self.config.segment_bytes, hole, bytes)?;
        let mut state = self.lock();
        let view = &mut state.view;
        for (base, file) in &filled.files {
            view.attach(*base, file.clone());
        }
        if view.holes.shrink(hole, filled.rest) {
            // Reads that began before it was filled look again.
            view.epoch += 1;
            let mended = u64::from(filled.rest.is_none());
            self.counters
                .holes_mended
                .fetch_add(mended, Ordering::Relaxed);
        }
        Ok(filled.records)
    }

    /// Notes that a part of the log is damaged, as it was in `epoch`.
    fn note_hole(&self, hole: Hole, epoch: u64, reason: &str) {
        let new = {
            let mut state = self.lock();
            let view = &mut state.view;
            let new = view.epoch == epoch && view.holes.add(hole);
            view.epoch += u64::from(new);
            new
        };
        if !new {
            return;
        }
        self.counters.holes_found.fetch_add(1, Ordering::Relaxed);
        let path = segment_path(
            &self.dir,
            segment_base(hole.from, self.config.segment_bytes),
        );
        let (first, last) = (hole.first(), hole.last.0);
        let path = path.display();
        tracing::error!(%path, at = %hole.from, %first, %last, reason, "damaged records are fenced");
        if let Some(observer) = self.damage_observer.get() {
            observer();
        }
    }
}

impl Writer {
    /// In the order of everything else that writes, so that no cut of the log comes in between.
    pub(super) fn fill(&self, hole: Hole, bytes: &Bytes, done: MendDone) {
        let outcome = match self.failed() {
            Some(error) => Err(error.into()),
            None => self.shared.fill(&hole, bytes),
        };
        if let Err(MendError::Log(error)) = &outcome {
            self.fail(error);
        }
        done(outcome);
    }
}

impl CommitLog {
    /// The damaged parts of the log, in order. Memory only.
    pub fn holes(&self) -> Vec<Hole> {
        self.shared.lock().view.holes.all().to_vec()
    }

    /// What is known of damage. Memory only.
    pub fn damage(&self) -> DamageStats {
        let counters = &self.shared.counters;
        DamageStats {
            holes: self.holes(),
            found: counters.holes_found.load(Ordering::Relaxed),
            mended: counters.holes_mended.load(Ordering::Relaxed),
            scrubbed_bytes: counters.scrubbed_bytes.load(Ordering::Relaxed),
        }
    }

    /// Has `observer` called whenever damage is found.
    ///
    /// # Panics
    /// When there is one already.
    pub fn observe_damage(&self, observer: DamageObserver) {
        let first = self.shared.damage_observer.set(observer).is_ok();
        assert!(first, "a log has one observer of damage");
    }

    /// Records behind `before` up to `last`, as they stand in the log, for a peer's hole with these bounds:
    /// as many as fit into `max_bytes`, at least one. They are the ones that the peer had, because this
    /// log has its last one, too. Blocks on the disk; may run next to everything.
    ///
    /// # Errors
    /// See [`Withheld`].
    pub fn records_for(
        &self,
        before: Option<(LogIndex, LeaderTag)>,
        last: (LogIndex, LeaderTag),
        max_bytes: usize,
    ) -> Result<Bytes, Withheld> {
        let first = before.map_or(LogIndex::ZERO, |(index, _)| index.next());
        let previous = {
            let state = self.shared.lock();
            let view = &state.view;
            let start = view.start.last_index;
            if view.holes.at(last.0).is_some_and(|hole| hole.last != last) {
                return Err(Withheld::Damaged);
            }
            if start.is_some_and(|start| first <= start) {
                return Err(Withheld::Purged);
            }
            if view.stored_tag(last.0) != Some(last.1) {
                // A later term was agreed on at an index that the peer's records have, too, or behind.
                let later = |index| {
                    view.stored_tag(index)
                        .is_some_and(|tag| tag.term > last.1.term)
                };
                let refuted = state.committed >= Some(last.0) || state.committed.is_some_and(later);
                return Err(if refuted {
                    Withheld::Refuted
                } else {
                    Withheld::Unknown
                });
            }
            before.map_or(LeaderTag::default(), |(_, tag)| tag)
        };
        let records = self.read_stored(first, last.0.next(), max_bytes);
        let records = records.map_err(|error| match error {
            ReadError::Purged { .. } => Withheld::Purged,
            ReadError::NotFound { .. } => Withheld::Unknown,
            ReadError::Corrupt { .. } | ReadError::NotInMemory | ReadError::Io { .. } => {
                Withheld::Damaged
            }
        })?;
        Ok(as_they_stand(&records, previous))
    }

    /// A record at or in front of `offset`, from which on reading by index comes to it soon. Memory only.
    pub(crate) fn index_before(&self, offset: PhysicalOffset) -> Option<LogIndex> {
        let state = self.shared.lock();
        let base = segment_base(offset, self.segment_bytes());
        let segment = state.view.segment_at(base)?;
        let number = segment.sparse.number_at(offset)?;
        Some(segment.sparse.entries()[number].index)
    }

    /// Fills the beginning of a hole, or all of it, with records of a peer, on the writer's thread. `done`
    /// hears of it when they are durable and were read back from the device.
    pub fn fill(&self, hole: Hole, bytes: Bytes, done: MendDone) {
        match self.open_state() {
            Ok(state) => self.enqueue(state, Command::Fill { hole, bytes, done }),
            Err(error) => done(Err(error.into())),
        }
    }

    /// Like [`fill`](Self::fill), for a log that is too damaged to be opened. Blocks on the disk. Open it
    /// again when there is no hole left.
    ///
    /// # Errors
    /// See [`MendError`].
    pub fn fill_unopened(&self, hole: &Hole, bytes: &Bytes) -> Result<u64, MendError> {
        self.shared.fill(hole, bytes)
    }

    /// Reads records from the device and checks their CRCs, from `from` on, about `max_bytes` at once; what
    /// is damaged becomes a hole. Leaves out what is in memory. Blocks on the disk; may run next to
    /// everything.
    ///
    /// # Errors
    /// A segment file cannot be opened.
    pub fn scrub(&self, from: PhysicalOffset, max_bytes: u64) -> Result<Scrubbed, ReadError> {
        let mut at = from;
        let mut bytes = 0;
        loop {
            let Some((part, epoch)) = self.next_part(at) else {
                return Ok(Scrubbed { bytes, next: None });
            };
            if bytes >= max_bytes {
                let next = Some(part.from);
                return Ok(Scrubbed { bytes, next });
            }
            at = part.to;
            let base = segment_base(part.from, self.segment_bytes());
            if self
                .shared
                .lock()
                .view
                .holes
                .over(part.from, part.to)
                .is_some()
            {
                continue;
            }
            let path = segment_path(&self.shared.dir, base);
            let outcome = match self.shared.fs.open_direct(&path) {
                Ok(file) => walk_part(file, base, &part),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.note_missing(base);
                    continue;
                }
                Err(error) => return Err(self.read_error(base, RangeError::Io(0, error))),
            };
            let len = part.to.get() - part.from.get();
            bytes += len;
            let scrubbed = &self.shared.counters.scrubbed_bytes;
            scrubbed.fetch_add(len, Ordering::Relaxed);
            if let Err(error) = outcome {
                self.shared.note_hole(part, epoch, &error.describe().1);
            }
        }
    }

    /// The first part at or behind `at` that is on disk only, and the epoch.
    fn next_part(&self, at: PhysicalOffset) -> Option<(Hole, u64)> {
        let state = self.shared.lock();
        let view = &state.view;
        let mut at = at.max(view.start.next_offset);
        loop {
            let base = segment_base(at, self.segment_bytes());
            let segment = view.segments.iter().find(|segment| segment.base >= base)?;
            at = at.max(segment.start.next_offset);
            if at < segment.end_offset {
                return Some((view.part_at(at)?, view.epoch));
            }
            at = segment.base.plus(self.segment_bytes());
        }
    }

    fn note_missing(&self, base: PhysicalOffset) {
        let (whole, epoch) = {
            let state = self.shared.lock();
            (state.view.whole_segment(base), state.view.epoch)
        };
        // The active segment's is found when the log is opened again.
        if let Some(hole) = whole {
            self.shared.note_hole(hole, epoch, "the file is missing");
        }
    }

    /// A read in the segment at `base` failed: fences the part that it is in.
    pub(super) fn note_damage(&self, base: PhysicalOffset, error: &RangeError) {
        let offset = base.plus(error.describe().0);
        let (part, epoch) = {
            let state = self.shared.lock();
            (state.view.part_at(offset), state.view.epoch)
        };
        if let Some(part) = part {
            self.shared.note_hole(part, epoch, &error.describe().1);
        }
    }
}

/// Reads all records of a part; they must be the ones that it is bounded by.
fn walk_part(
    file: std::sync::Arc<dyn crate::fs::File>,
    base: PhysicalOffset,
    part: &Hole,
) -> Result<(), RangeError> {
    let mut cursor = Cursor::new(file, base, part.to, Source::Device);
    let mut at = part.from;
    let mut previous = part.before.map(|(_, tag)| tag);
    let mut index = part.before.map(|(index, _)| index.next());
    while at < part.to {
        let place = at.get() - base.get();
        let bad = |reason| RangeError::Bad(place, reason);
        let io = |error| RangeError::Io(place, error);
        let expected = Expected { index, previous };
        let header = match cursor.step(at, part.to.get(), expected).map_err(io)? {
            Step::Record(header) => header,
            Step::NextSegment => return Err(bad("the segment ends too early")),
            Step::End(Stop::Clean) => return Err(bad("another record is expected here")),
            Step::End(Stop::Bad(reason)) => return Err(bad(reason)),
        };
        if cursor.payload(&header).map_err(io)?.is_none() {
            return Err(bad("payload CRC mismatch"));
        }
        at = header.end_offset();
        previous = Some(header.tag);
        index = Some(header.index.next());
    }
    let last = index.map(|index| index.get() - 1);
    if last != Some(part.last.0.get()) || previous != Some(part.last.1) {
        let at = part.from.get() - base.get();
        return Err(RangeError::Bad(at, "other records than expected"));
    }
    Ok(())
}

/// The bytes of consecutive records in the log, the first of which comes after one of `previous`.
fn as_they_stand(records: &[Located], mut previous: LeaderTag) -> Bytes {
    let len = records.iter().map(|located| located.record.encoded_len());
    let mut bytes = Vec::with_capacity(len.sum::<u64>() as usize);
    for located in records {
        let end = bytes.len() + located.record.encoded_len() as usize;
        bytes.extend_from_slice(&Header::of(located, previous).encode());
        bytes.extend_from_slice(&located.record.payload);
        bytes.resize(end, 0);
        previous = located.record.tag;
    }
    Bytes::from(bytes)
}
