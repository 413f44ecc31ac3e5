//! Messages of a queue, in order.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::properties::properties_at;
use super::{Store, bounds_in};
use crate::commitlog::CommitLog;
use crate::consume_queue::Unit;
use crate::error::ReadError;
use crate::message;
use crate::position::{PhysicalOffset, QueueOffset};
use crate::queue_offsets::{QueueBounds, QueueKey};

/// Fewest units that a read may look at, so that a filter that matches little does not crawl.
const SCAN_UNITS_MIN: usize = 800;

/// Whether a message with this properties text is wanted.
pub type PropertiesFilter<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// What to read from a queue.
pub struct ReadRequest<'a> {
    /// The queue.
    pub key: QueueKey,
    /// First offset to look at.
    pub offset: QueueOffset,
    /// Most messages to return; at least one is returned if there is one.
    pub max_messages: usize,
    /// Most bytes to return, except that one message may be larger.
    pub max_bytes: usize,
    /// Which tags codes match.
    pub filter: &'a dyn Fn(i64) -> bool,
    /// Which of those match by their properties text; `None`: all. Reads the properties of every message that
    /// is looked at, and the rest only of those that match.
    pub properties: Option<&'a PropertiesFilter<'a>>,
    /// Address that the messages name as the one to ask for them.
    pub store_host: SocketAddrV4,
    /// Whether the disk may be waited for.
    pub may_wait: bool,
    /// Whether all that is asked for is waited for. Otherwise the answer ends where the disk has to be waited
    /// for a second time, or at all if `may_wait` is false, provided that it has something by then.
    pub whole: bool,
}

/// What a request may still wait for.
struct Waits<'a> {
    request: &'a ReadRequest<'a>,
    has_waited: bool,
}

impl Waits<'_> {
    /// Bytes of the log, with a wait for the disk unless it would be one too many: not the first, and the
    /// answer may end here.
    fn read_bytes(
        &mut self,
        log: &CommitLog,
        (offset, len): (PhysicalOffset, usize),
        may_end: bool,
    ) -> Result<Bytes, ReadError> {
        let read = log.read_bytes(offset, len, false);
        let must_wait = self.request.may_wait && !(self.has_waited && may_end);
        if !must_wait || !matches!(read, Err(ReadError::NotInMemory)) {
            return read;
        }
        self.has_waited = true;
        log.read_bytes(offset, len, true)
    }
}

/// How a read went. `next_offset` of the answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// There are messages; go on after the last one looked at.
    Found,
    /// There are messages but none matches; go on after the last one looked at.
    NoMatched,
    /// What matches was retired while it was read; go on after the last one looked at.
    Removed,
    /// The queue never had a message, or there is no such queue; go on at 0.
    NoMessageInQueue,
    /// The offset is the next one to be given: wait, and ask for the same.
    OffsetOverflowOne,
    /// The offset lies beyond that; go on at the next one to be given.
    OffsetOverflowBadly,
    /// The offset was retired; go on at the first one that is there.
    OffsetTooSmall,
}

/// Answer to a [`ReadRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRead {
    /// How it went.
    pub status: ReadStatus,
    /// Where to go on.
    pub next_offset: QueueOffset,
    /// What the queue held.
    pub bounds: QueueBounds,
    /// Messages one after the other, as clients receive them.
    pub body: Bytes,
    /// How many.
    pub count: usize,
}

/// Units of a queue, and how far looking at them got.
struct Units {
    bounds: QueueBounds,
    units: Vec<Unit>,
}

/// Messages that lie next to each other in one record.
struct Span {
    offset: PhysicalOffset,
    len: usize,
    messages: Vec<(QueueOffset, usize)>,
}

impl Store {
    /// Reads messages of a queue. Copies them once; recent ones come from memory.
    ///
    /// # Errors
    /// `NotInMemory` if the request does not want to wait; the disk refuses, or a queue's files do not point
    /// at messages (delete them, they come back).
    pub fn read_queue(&self, request: &ReadRequest<'_>) -> Result<QueueRead, ReadError> {
        let mut scan = request.max_messages.max(1);
        let may_wait = request.may_wait;
        let mut waits = Waits {
            request,
            has_waited: false,
        };
        let found = match self.units((request.key, request.offset), scan, may_wait)? {
            Ok(found) => found,
            Err(nothing) => return Ok(nothing),
        };
        let mut selection = Selection::from(request.offset);
        let mut units = found.units;
        loop {
            selection.take(self, &mut waits, &units)?;
            if selection.full || units.len() < scan || selection.seen >= SCAN_UNITS_MIN {
                break;
            }
            scan = SCAN_UNITS_MIN;
            let more = self.units((request.key, selection.next_offset), scan, may_wait)?;
            let Ok(more) = more else { break };
            units = more.units;
        }
        let Selection {
            spans,
            mut next_offset,
            ..
        } = selection;
        let matched = !spans.is_empty();
        let mut body = BytesMut::with_capacity(spans.iter().map(|span| span.len).sum());
        let mut count = 0;
        let mut wanted = 0;
        for span in &spans {
            let may_end = count > 0 && !request.whole;
            match self.append_span(span, &mut waits, may_end, &mut body) {
                Ok(more) => count += more,
                Err(ReadError::NotInMemory) if may_end => {
                    next_offset = span.messages[0].0;
                    break;
                }
                Err(error) => return Err(error),
            }
            wanted += span.messages.len();
        }
        if count < wanted {
            // Retired since the units were read: the queue begins later now.
            let bounds = bounds_in(&self.state(), request.key);
            if let Some(moved) = outside(bounds, request.offset) {
                return Ok(moved);
            }
        }
        let status = match (count, matched) {
            (0, false) => ReadStatus::NoMatched,
            (0, true) => ReadStatus::Removed,
            _ => ReadStatus::Found,
        };
        Ok(QueueRead {
            status,
            next_offset,
            bounds: found.bounds,
            body: body.freeze(),
            count,
        })
    }

    /// Up to `max` units from `offset`, at least one, or the answer that there are none.
    fn units(
        &self,
        (key, offset): (QueueKey, QueueOffset),
        max: usize,
        may_wait: bool,
    ) -> Result<Result<Units, QueueRead>, ReadError> {
        loop {
            let state = self.state();
            let bounds = bounds_in(&state, key);
            if let Some(nothing) = outside(bounds, offset) {
                return Ok(Err(nothing));
            }
            let bounds = bounds.unwrap_or_default();
            let border = state.tails.first(key).unwrap_or(bounds.next);
            let from_files = border.get().saturating_sub(offset.get()).min(max as u64) as usize;
            let tail_from = offset.max(border);
            let tail = state.tails.read(key, tail_from, max - from_files).to_vec();
            let epoch = state.epoch;
            drop(state);
            if from_files == 0 {
                return Ok(Ok(Units {
                    bounds,
                    units: tail,
                }));
            }
            let read = self.queue_files.read(key, offset, from_files, may_wait);
            if self.state().epoch != epoch {
                continue;
            }
            let mut units = match read {
                Ok(units) => units,
                Err(error) => return Err(self.unit_error((key, offset), error)),
            };
            units.extend(tail);
            return Ok(Ok(Units { bounds, units }));
        }
    }

    /// One unit; `None` if the queue has no such offset.
    pub(super) fn unit(
        &self,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<Option<Unit>, ReadError> {
        let units = self.units((key, offset), 1, true)?;
        Ok(units.ok().and_then(|found| found.units.first().copied()))
    }

    /// Appends the messages of a span; returns how many, none if they were retired.
    fn append_span(
        &self,
        span: &Span,
        waits: &mut Waits<'_>,
        may_end: bool,
        body: &mut BytesMut,
    ) -> Result<usize, ReadError> {
        let bytes = match waits.read_bytes(&self.log, (span.offset, span.len), may_end) {
            Ok(bytes) => bytes,
            Err(ReadError::Purged { .. }) => return Ok(0),
            Err(error) => return Err(error),
        };
        let store_host = waits.request.store_host;
        let start = body.len();
        body.extend_from_slice(&bytes);
        let mut at = 0;
        for (queue_offset, size) in &span.messages {
            let offset = span.offset.plus(at as u64);
            let message = &mut body[start + at..start + at + size];
            if let Err(error) = message::patch(message, *queue_offset, offset, store_host) {
                return Err(self.queue_error(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a unit points at byte {offset} of the log: {error}"),
                )));
            }
            at += size;
        }
        Ok(span.messages.len())
    }

    /// Damaged files are mended by the next maintenance.
    fn unit_error(&self, place: (QueueKey, QueueOffset), error: io::Error) -> ReadError {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        if !matches!(error.kind(), InvalidData | NotFound | UnexpectedEof) {
            return self.queue_error(error);
        }
        self.note_damaged_queue(place, &error);
        ReadError::Corrupt {
            path: self.dir.join(super::open::QUEUES_DIR),
            offset: place.1.get(),
            reason: error.to_string(),
        }
    }

    fn queue_error(&self, error: io::Error) -> ReadError {
        if error.kind() == io::ErrorKind::WouldBlock {
            return ReadError::NotInMemory;
        }
        ReadError::Io {
            path: self.dir.join(super::open::QUEUES_DIR),
            source: Arc::new(error),
        }
    }
}

/// The answer when `offset` is not in the queue.
fn outside(bounds: Option<QueueBounds>, offset: QueueOffset) -> Option<QueueRead> {
    let bounds = bounds.unwrap_or_default();
    let QueueBounds { min, next } = bounds;
    let (status, next_offset) = if next == QueueOffset::ZERO {
        (ReadStatus::NoMessageInQueue, QueueOffset::ZERO)
    } else if offset < min {
        (ReadStatus::OffsetTooSmall, min)
    } else if offset == next {
        (ReadStatus::OffsetOverflowOne, offset)
    } else if offset > next {
        (ReadStatus::OffsetOverflowBadly, next)
    } else {
        return None;
    };
    Some(QueueRead {
        status,
        next_offset,
        bounds,
        body: Bytes::new(),
        count: 0,
    })
}

/// Whether the message at `unit` is asked for. One that was retired is not.
fn matches(
    store: &Store,
    waits: &mut Waits<'_>,
    may_end: bool,
    unit: &Unit,
) -> Result<bool, ReadError> {
    let request = waits.request;
    if !(request.filter)(unit.tags_code) {
        return Ok(false);
    }
    let Some(wanted) = request.properties else {
        return Ok(true);
    };
    let properties = properties_at(unit, |range| waits.read_bytes(&store.log, range, may_end))?;
    Ok(properties.is_some_and(|text| wanted(&text)))
}

/// The messages to return, and where to go on.
struct Selection {
    spans: Vec<Span>,
    count: usize,
    bytes: usize,
    /// Units looked at.
    seen: usize,
    next_offset: QueueOffset,
    /// No more messages may be added.
    full: bool,
}

impl Selection {
    fn from(offset: QueueOffset) -> Self {
        Selection {
            spans: Vec::new(),
            count: 0,
            bytes: 0,
            seen: 0,
            next_offset: offset,
            full: false,
        }
    }

    /// Looks at the units that come next.
    fn take(
        &mut self,
        store: &Store,
        waits: &mut Waits<'_>,
        units: &[Unit],
    ) -> Result<(), ReadError> {
        let request = waits.request;
        for unit in units {
            let may_end = self.may_end(request);
            let matches = match matches(store, waits, may_end, unit) {
                Err(ReadError::NotInMemory) if may_end => {
                    self.full = true;
                    return Ok(());
                }
                matches => matches?,
            };
            if matches {
                let size = unit.size as usize;
                let larger = self.bytes + size > request.max_bytes;
                if self.count > 0 && (self.count >= request.max_messages || larger) {
                    self.full = true;
                    return Ok(());
                }
                self.add(unit.offset, size);
            }
            self.seen += 1;
            self.next_offset = self.next_offset.next();
        }
        self.full = self.count >= request.max_messages.max(1);
        Ok(())
    }

    /// Whether the answer may end here: without waiting, only messages are worth giving.
    fn may_end(&self, request: &ReadRequest<'_>) -> bool {
        !request.whole && (self.count > 0 || request.may_wait && self.seen > 0)
    }

    fn add(&mut self, offset: PhysicalOffset, size: usize) {
        self.count += 1;
        self.bytes += size;
        let message = (self.next_offset, size);
        match self.spans.last_mut() {
            // Between two records there is always a header: what is adjacent is in one record.
            Some(span) if span.offset.plus(span.len as u64) == offset => {
                span.len += size;
                span.messages.push(message);
            }
            _ => self.spans.push(Span {
                offset,
                len: size,
                messages: vec![message],
            }),
        }
    }
}
