//! Settings of the log of one group, complete and typed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::commitlog::MemoryBudget;

/// When a record counts as written. Decided in `commitlog::writer` and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlushMode {
    /// After `fdatasync`: an acknowledged record survives a power cut. Default.
    #[default]
    SyncFlush,
    /// After the write to the page cache: an acknowledged record survives the death of the process, a power
    /// cut may lose those of the last [`LogConfig::async_flush_interval`].
    AsyncFlush,
}

/// A monotonic clock: time since some fixed moment.
///
/// Only used for intervals between syncs and for measuring, never for what is written. A simulation hands
/// in its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The machine's monotonic clock.
    pub fn monotonic() -> Self {
        let origin = Instant::now();
        Self::new(move || origin.elapsed())
    }

    /// Time since the clock's origin.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Settings of one log. All have defaults.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size of a segment file. A constant of the group: all replicas have the same, and it never changes,
    /// because positions in the log depend on it. Default 1 GiB, minimum 4 KiB, a multiple of 4 KiB; bytes.
    pub segment_bytes: u64,
    /// Memory for recent records, which logs with the same budget share; records that are not durable yet are
    /// kept beyond that. Default 24 MiB for each log that is configured by itself.
    pub tail: MemoryBudget,
    /// Memory for records that were read from the disk, which logs with the same budget share; a log keeps
    /// its last two reads, of up to 1 MiB each, beyond that. Default 32 MiB for each log that is configured
    /// by itself.
    pub cold: MemoryBudget,
    /// Default `SyncFlush`.
    pub flush_mode: FlushMode,
    /// Longest time that acknowledged records stay unsynced with `AsyncFlush`. Default 500 ms.
    pub async_flush_interval: Duration,
    /// Longest time that the synced mark on disk may lag behind; a crash loses nothing, but damage in what
    /// was written since then would be taken for a torn tail. Default 100 ms.
    pub mark_interval: Duration,
    /// Prepared or retired segment files kept for reuse. Default 1, minimum 0.
    pub spare_segments: usize,
    /// Default [`Clock::monotonic`].
    pub clock: Clock,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            tail: MemoryBudget::new(24 << 20),
            cold: MemoryBudget::new(32 << 20),
            flush_mode: FlushMode::SyncFlush,
            async_flush_interval: Duration::from_millis(500),
            mark_interval: Duration::from_millis(100),
            spare_segments: 1,
            clock: Clock::monotonic(),
        }
    }
}

impl LogConfig {
    /// Smallest segment, and the unit of its size; bytes.
    pub const SEGMENT_UNIT: u64 = 4096;

    /// Checks what cannot be expressed in types.
    ///
    /// # Panics
    /// When `segment_bytes` is not a positive multiple of [`Self::SEGMENT_UNIT`] or exceeds 4 GiB - 4 KiB
    /// (lengths inside a segment are 32 bits).
    pub(crate) fn check(&self) {
        assert!(
            self.segment_bytes >= Self::SEGMENT_UNIT
                && self.segment_bytes.is_multiple_of(Self::SEGMENT_UNIT)
                && self.segment_bytes < 1 << 32,
            "segment_bytes {} must be a multiple of {} below 4 GiB",
            self.segment_bytes,
            Self::SEGMENT_UNIT
        );
    }
}
