//! Walking over the records of one segment file.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{Header, LeaderTag, Located, RECORD_ALIGN, RECORD_HEADER_BYTES};
use crate::fs::{BLOCK_BYTES, File};
use crate::position::{LogIndex, PhysicalOffset};

/// What a cursor reads from disk at once when it walks; bytes.
const CHUNK_BYTES: u64 = 256 << 10;

/// The same for whoever wants more; bytes.
const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// What the next record must look like to belong to the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// `None`: any, for the very first record of a group.
    pub index: Option<LogIndex>,
    /// Tag of the record before; `None`: not known, any.
    pub previous: Option<LeaderTag>,
}

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Step {
    /// The header of the expected record; its payload is not checked yet.
    Record(Header),
    /// The log goes on at the start of the next segment.
    NextSegment,
    /// Not the expected record.
    End(Stop),
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Zeros, or the remains of what the file held before it was reused: nothing was ever written here.
    Clean,
    /// Bytes that look like a damaged record.
    Bad(&'static str),
}

/// Where a cursor takes its bytes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Where they come from soonest, without leaving a copy in the page cache if that can be had.
    Once,
    /// From the device: what a restart would find.
    Device,
}

/// Walks over one segment file. Positions are physical offsets.
pub(crate) struct Cursor {
    file: Arc<dyn File>,
    source: Source,
    base: u64,
    /// End of the readable range.
    limit: u64,
    chunk: Bytes,
    chunk_at: u64,
    /// Read at once, at least.
    chunk_bytes: u64,
}

impl Cursor {
    /// A cursor over the file that begins at `base`; nothing at or beyond `limit` is read.
    pub(crate) fn new(
        file: Arc<dyn File>,
        base: PhysicalOffset,
        limit: PhysicalOffset,
        source: Source,
    ) -> Self {
        let (base, limit) = (base.get(), limit.get());
        assert!(base <= limit, "segment {base} ends at {limit}");
        Self {
            file,
            source,
            base,
            limit,
            chunk: Bytes::new(),
            chunk_at: base,
            chunk_bytes: CHUNK_BYTES,
        }
    }

    /// `len` bytes at `at`; `None` if they are not inside the range or the file is too short.
    fn bytes(&mut self, at: u64, len: u64) -> io::Result<Option<Bytes>> {
        if at < self.base || at + len > self.limit {
            return Ok(None);
        }
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if at < self.chunk_at || at + len > chunk_end {
            let want = len.max(self.chunk_bytes).min(self.limit - at);
            let mut buffer = vec![0; want as usize];
            let got = match self.read(&mut buffer, at) {
                // One bad sector must not take what is around it along.
                Err(_) if want > len => {
                    buffer.truncate(len as usize);
                    self.read(&mut buffer, at)?
                }
                read => read?,
            };
            buffer.truncate(got);
            self.chunk = Bytes::from(buffer);
            self.chunk_at = at;
            if (got as u64) < len {
                return Ok(None);
            }
        }
        let from = (at - self.chunk_at) as usize;
        Ok(Some(self.chunk.slice(from..from + len as usize)))
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let place = at - self.base;
        match self.source {
            Source::Once => self.file.read_once_at(buffer, place),
            Source::Device => self.file.read_device_at(buffer, place),
        }
    }

    /// The first whole record at or behind `at` that is accepted, wherever it begins. What cannot be read is
    /// passed over.
    pub(crate) fn find_record(
        &mut self,
        at: PhysicalOffset,
        accept: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<Header>> {
        let mut at = at.get().next_multiple_of(RECORD_ALIGN);
        while at + RECORD_HEADER_BYTES as u64 <= self.limit {
            let bytes = match self.bytes(at, RECORD_HEADER_BYTES as u64) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(None),
                Err(_) => {
                    at = (at + 1).next_multiple_of(BLOCK_BYTES);
                    continue;
                }
            };
            let bytes: &[u8; RECORD_HEADER_BYTES] = bytes[..].try_into().expect("asked for it");
            if Header::begins(bytes)
                && let Ok(header) = Header::decode(bytes)
                && header.offset.get() == at
                && header.kind.is_some()
                && accept(&header)
                && matches!(self.payload(&header), Ok(Some(_)))
            {
                return Ok(Some(header));
            }
            at += RECORD_ALIGN;
        }
        Ok(None)
    }

    /// Looks at the header at `at`. `segment_end` is the end of the segment, which decides whether a rest is
    /// too small for anything.
    pub(crate) fn step(
        &mut self,
        at: PhysicalOffset,
        segment_end: u64,
        expected: Expected,
    ) -> io::Result<Step> {
        if segment_end - at.get() < RECORD_HEADER_BYTES as u64 {
            return Ok(Step::NextSegment);
        }
        let Some(bytes) = self.bytes(at.get(), RECORD_HEADER_BYTES as u64)? else {
            return Ok(Step::End(Stop::Clean));
        };
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes[..].try_into().expect("asked for a header");
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(_) if bytes.iter().all(|byte| *byte == 0) => return Ok(Step::End(Stop::Clean)),
            Err(reason) => return Ok(Step::End(Stop::Bad(reason))),
        };
        let foreign = header.offset != at
            || expected.index.is_some_and(|index| index != header.index)
            || expected.previous.is_some_and(|tag| tag != header.previous)
            || header.tag.term < header.previous.term;
        if foreign {
            return Ok(Step::End(Stop::Clean));
        }
        if header.kind.is_none() {
            return Ok(Step::NextSegment);
        }
        if header.end_offset().get() > segment_end {
            return Ok(Step::End(Stop::Bad(
                "record crosses the end of its segment",
            )));
        }
        Ok(Step::Record(header))
    }

    /// The payload that belongs to `header`, checked; `None` if it is damaged or cut short.
    pub(crate) fn payload(&mut self, header: &Header) -> io::Result<Option<Bytes>> {
        let at = header.offset.get() + RECORD_HEADER_BYTES as u64;
        let Some(payload) = self.bytes(at, u64::from(header.payload_len))? else {
            return Ok(None);
        };
        Ok((crc32fast::hash(&payload) == header.payload_crc).then_some(payload))
    }
}

/// A cold read inside one segment.
pub(crate) struct RangeRead {
    pub file: Arc<dyn File>,
    pub base: PhysicalOffset,
    pub segment_end: u64,
    /// A known record at or before `from`.
    pub known_index: LogIndex,
    pub known_offset: PhysicalOffset,
    pub from: LogIndex,
    pub end_exclusive: LogIndex,
    /// End of the records in this segment.
    pub end_offset: PhysicalOffset,
    pub source: Source,
}

/// Why a cold read failed.
#[derive(Debug)]
pub(crate) enum RangeError {
    /// Offset in the file, the answer.
    Io(u64, io::Error),
    /// Offset in the file, what is wrong.
    Bad(u64, &'static str),
}

impl RangeError {
    /// Where in the file, and what is wrong.
    pub(crate) fn describe(&self) -> (u64, String) {
        match self {
            Self::Io(at, error) => (*at, format!("cannot be read: {error}")),
            Self::Bad(at, reason) => (*at, (*reason).to_owned()),
        }
    }
}

impl RangeRead {
    /// Reads until the range, or `max_bytes` of payload, is exhausted; at least one record.
    pub(crate) fn run(&self, max_bytes: usize) -> Result<Vec<Located>, RangeError> {
        let mut cursor = Cursor::new(self.file.clone(), self.base, self.end_offset, self.source);
        // One large read is quicker than several that wait for each other.
        cursor.chunk_bytes = (max_bytes as u64).clamp(CHUNK_BYTES, CHUNK_BYTES_MAX);
        let mut at = self.known_offset;
        let mut expected = Expected {
            index: Some(self.known_index),
            previous: None,
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        while expected
            .index
            .is_some_and(|index| index < self.end_exclusive)
        {
            let place = at.get() - self.base.get();
            let bad = |reason| RangeError::Bad(place, reason);
            let io = |error| RangeError::Io(place, error);
            let step = cursor.step(at, self.segment_end, expected);
            let header = match step.map_err(io)? {
                Step::Record(header) => header,
                Step::NextSegment => return Err(bad("the segment ends too early")),
                Step::End(Stop::Clean) => return Err(bad("another record is expected here")),
                Step::End(Stop::Bad(reason)) => return Err(bad(reason)),
            };
            if header.index >= self.from {
                let payload = cursor.payload(&header).map_err(io)?;
                let payload = payload.ok_or_else(|| bad("payload CRC mismatch"))?;
                bytes += payload.len();
                if !found.is_empty() && bytes > max_bytes {
                    break;
                }
                found.push(header.with_payload(payload));
            }
            at = header.end_offset();
            expected = Expected {
                index: Some(header.index.next()),
                previous: Some(header.tag),
            };
        }
        Ok(found)
    }
}
