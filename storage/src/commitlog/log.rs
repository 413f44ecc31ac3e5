//! The handle of a log: cheap to clone, used from any thread.
//!
//! Changes (`append`, `truncate_after`, `purge_through`, `reset`) take effect in memory before they return
//! and are queued for the [`Writer`], which brings the disk in line in the same order and then calls back.
//! They must come from one caller at a time, otherwise their order is undefined; reads may run next to
//! everything and are in `reader`.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io, thread};

use super::format::{LeaderTag, Record};
use super::recovery::{self, Recovered};
use super::shared::{Command, Shared, State};
use super::view::{LogStart, Segment};
use super::writer::Writer;
use crate::config::LogConfig;
use crate::error::{LogError, OpenError};
use crate::fs::FileSystem;
use crate::position::{LogIndex, PhysicalOffset};

/// New index entries (of 32 KiB of log each) after which the index file of the active segment is written.
const INDEX_SAVE_STEP: usize = 256;

/// Told the outcome of a queued change, on the writer's thread, in the order of the changes. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Told about every group that was written. Must not block.
pub type FlushObserver = Box<dyn Fn(&FlushedGroup) + Send + Sync>;

/// One group commit.
#[derive(Debug, Clone, Copy)]
pub struct FlushedGroup {
    /// Bytes of records with headers and padding.
    pub bytes: u64,
    /// Records in the group.
    pub records: u64,
    /// From the first write to the end of the last sync.
    pub duration: Duration,
}

/// What the log holds, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Logical start: the last record that was purged.
    pub purged: Option<(LogIndex, LeaderTag)>,
    /// The newest record, flushed or not; equals `purged` in an empty log.
    pub last: Option<(LogIndex, LeaderTag)>,
    /// Newest record that counts as written (by the flush mode).
    pub flushed: Option<LogIndex>,
    /// First byte that is still on disk; up to a segment before the logical start.
    pub start_offset: PhysicalOffset,
    /// Where the newest record ends.
    pub end_offset: PhysicalOffset,
    /// Highest store time of any record seen, milliseconds since 1970; 0 if there was none.
    pub last_store_time_ms: u64,
}

/// One segment file, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// First byte of the file.
    pub base: PhysicalOffset,
    /// Its first record.
    pub first_index: LogIndex,
    /// After its last record.
    pub end_offset: PhysicalOffset,
    /// Highest store time in it; milliseconds since 1970.
    pub last_store_time_ms: u64,
    /// Whether the log has gone on in another segment.
    pub sealed: bool,
}

/// Counters since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Group commits.
    pub groups: u64,
    /// Records written.
    pub records: u64,
    /// Bytes written, with headers and padding.
    pub bytes: u64,
    /// Syncs of segment files, vote and mark.
    pub syncs: u64,
}

/// The log of one group.
#[derive(Clone)]
pub struct CommitLog {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitLog")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl CommitLog {
    /// Opens the log in `dir`, creating an empty one if there is none, and repairs a torn tail.
    ///
    /// When this returns, everything that [`bounds`](Self::bounds) reports is durable. The log does nothing
    /// on disk until the [`Writer`] is run: by [`spawn_writer`](Self::spawn_writer), or step by step by a
    /// simulation. Only one log may be open in a directory. Cost: the headers and payloads that no index
    /// file vouches for are read and checked, at most about one segment.
    ///
    /// # Errors
    /// Damage below the synced mark is refused and never repaired by cutting.
    ///
    /// # Panics
    /// When the configuration is out of range.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        config: LogConfig,
    ) -> Result<(Self, Writer, Recovered), OpenError> {
        config.check();
        let (shared, files, recovered) = recovery::recover(fs, dir, config)?;
        let shared = Arc::new(shared);
        let writer = Writer::new(shared.clone(), files);
        Ok((Self { shared }, writer, recovered))
    }

    /// Runs `writer` on a thread of the given name until [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn spawn_writer(writer: Writer, name: &str) -> io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.run())
    }

    /// Appends records with consecutive indexes, right after the last one.
    ///
    /// On return they have their physical offsets and every reader sees them; nothing is on disk. `done` is
    /// called when they are durable (by the flush mode), or with the error that closed the log. Never
    /// waits for the disk.
    ///
    /// # Errors
    /// The log is closed or failed earlier, or a record is larger than a segment. Then nothing was appended
    /// and `done` is dropped without a call.
    ///
    /// # Panics
    /// When an index is not the previous one + 1, or a term is below the previous one.
    pub fn append(&self, records: Vec<Record>, done: Done) -> Result<(), LogError> {
        let segment_bytes = self.shared.config.segment_bytes;
        for record in &records {
            let bytes = record.encoded_len();
            if bytes > segment_bytes {
                return Err(LogError::TooLarge {
                    bytes,
                    segment_bytes,
                });
            }
        }
        let mut state = self.open_state()?;
        let records = state.view.append(records);
        let bytes: u64 = records
            .iter()
            .map(|located| located.record.encoded_len())
            .sum();
        self.shared.unflushed.fetch_add(bytes, Ordering::Relaxed);
        let epoch = state.history;
        self.enqueue(
            state,
            Command::Append {
                records,
                epoch,
                done,
            },
        );
        Ok(())
    }

    /// Stores the vote: opaque bytes, at most 4,000.
    ///
    /// When `done` is called with success, the vote and every record appended before it are durable, in that
    /// order, and no record appended after it was written earlier. Never waits for the disk.
    ///
    /// # Errors
    /// The log is closed or failed earlier; `done` is dropped without a call.
    pub fn save_vote(&self, bytes: Vec<u8>, done: Done) -> Result<(), LogError> {
        let state = self.open_state()?;
        self.enqueue(state, Command::SaveVote { bytes, done });
        Ok(())
    }

    /// The vote that is durable, if one ever was.
    pub fn vote(&self) -> Option<Vec<u8>> {
        self.shared.lock().vote.clone()
    }

    /// Removes all records after `last_kept` (`None`: all, in a log that was never purged).
    ///
    /// On return they are gone for readers; when `done` is called with success they cannot come back after
    /// a crash. Cost: nothing on the disk, or reading up to 32 KiB when the cut lies beyond the tail in
    /// memory. Nothing happens if `last_kept` is at or beyond the end, but `done` is called.
    ///
    /// # Errors
    /// `OutOfRange` when `last_kept` was purged; the log is closed or failed earlier. `done` is dropped.
    pub fn truncate_after(&self, last_kept: Option<LogIndex>, done: Done) -> Result<(), LogError> {
        if self.bounds().last.map(|(last, _)| last) <= last_kept {
            return self.barrier(done);
        }
        let kept = self.end_of(last_kept)?;
        let mut state = self.open_state()?;
        let truncation = state.view.truncate(kept);
        state.history += 1;
        state.committed = state.committed.min(kept.last_index);
        let epoch = state.history;
        self.enqueue(
            state,
            Command::Truncate {
                truncation,
                epoch,
                done,
            },
        );
        Ok(())
    }

    /// The end of the log if `index` were its last record.
    fn end_of(&self, index: Option<LogIndex>) -> Result<LogStart, LogError> {
        let (start, purged) = {
            let state = self.shared.lock();
            (state.view.start, state.view.purged)
        };
        let at = index.unwrap_or_default();
        if index < purged.map(|(purged, _)| purged) {
            return Err(LogError::OutOfRange { index: at });
        }
        if index == start.last_index {
            return Ok(start);
        }
        let located = self.read_stored(at, at.next(), usize::MAX)?;
        let located = located.first().ok_or(LogError::OutOfRange { index: at })?;
        Ok(LogStart::after(located))
    }

    /// Forgets the records up to `index`, which must be in the log (or already purged: then nothing happens).
    ///
    /// On return readers by index no longer see them. Segments that hold nothing else are retired
    /// by the writer, in order; `done` is called after that. Records that share a segment with a live one
    /// stay readable by offset. Never waits for the disk. The new logical start is durable before a segment
    /// goes.
    ///
    /// # Errors
    /// `OutOfRange` when `index` is beyond the end; the log is closed or failed earlier. `done` is dropped.
    pub fn purge_through(&self, index: LogIndex, done: Done) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        if state.view.purged.is_some_and(|(purged, _)| index <= purged) {
            self.enqueue(state, Command::Barrier { done });
            return Ok(());
        }
        let Some(tag) = state.view.tag_at(index) else {
            return Err(LogError::OutOfRange { index });
        };
        let retired = state.view.purge(index);
        let start = state.view.start;
        self.enqueue(
            state,
            Command::Purge {
                purged: (index, tag),
                start,
                retired,
                done,
            },
        );
        Ok(())
    }

    /// Replaces the whole log by an empty one that goes on after `start`; for a snapshot that was installed.
    ///
    /// On return readers see the empty log; when `done` is called with success it is durable and the old
    /// records cannot come back. The vote stays. Never waits for the disk.
    ///
    /// # Errors
    /// The log is closed or failed earlier; `done` is dropped.
    pub fn reset(&self, start: LogStart, done: Done) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        let removed = state.view.reset(start);
        state.history += 1;
        state.committed = start.last_index;
        let epoch = state.history;
        self.enqueue(
            state,
            Command::Reset {
                start,
                removed,
                epoch,
                done,
            },
        );
        Ok(())
    }

    /// Calls `done` when everything queued before is durable, whatever the flush mode.
    ///
    /// # Errors
    /// The log is closed or failed earlier; `done` is dropped.
    pub fn barrier(&self, done: Done) -> Result<(), LogError> {
        let state = self.open_state()?;
        self.enqueue(state, Command::Barrier { done });
        Ok(())
    }

    /// Tells the writer to finish what is queued, to sync, and to end. Later changes are refused.
    pub fn shutdown(&self) {
        // Also after a failure: the writer's thread has to end.
        self.enqueue(self.shared.lock(), Command::Shutdown);
    }

    /// Remembers how far the log is committed. Memory only; goes to disk with the next synced mark.
    pub fn set_committed(&self, index: LogIndex) {
        let mut state = self.shared.lock();
        state.committed = state.committed.max(Some(index));
    }

    /// How far the log was known to be committed when it was opened; may lag, is never too high.
    pub fn recovered_committed(&self) -> Option<LogIndex> {
        self.shared.recovered_committed
    }

    /// What the log holds now. Memory only.
    pub fn bounds(&self) -> Bounds {
        let state = self.shared.lock();
        let view = &state.view;
        Bounds {
            purged: view.purged,
            last: view.last,
            flushed: view.flushed,
            start_offset: view.start.next_offset,
            end_offset: view.end_offset,
            last_store_time_ms: view.last_store_time_ms,
        }
    }

    /// The segments on disk, oldest first. Memory only.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.lock();
        let segments = &state.view.segments;
        let last = segments.back().map(|segment| segment.base);
        let info = |segment: &Segment| SegmentInfo {
            base: segment.base,
            first_index: segment.first_index,
            end_offset: segment.end_offset,
            last_store_time_ms: segment.last_store_time_ms,
            sealed: Some(segment.base) != last,
        };
        segments.iter().map(info).collect()
    }

    /// What comes before the first record of the segment at `base`, and where that record is; `None` if there
    /// is no such segment. Memory only.
    pub fn segment_start(&self, base: PhysicalOffset) -> Option<LogStart> {
        self.shared
            .lock()
            .view
            .segment_at(base)
            .map(|segment| segment.start)
    }

    /// Prepares the file of the next segment, so that rolling is only a rename: writes up to `bytes` more of
    /// its blocks, if it is not ready. A multiple of 4 KiB, or all that is left. Blocks on the disk. Call it
    /// from a maintenance thread with about twice of what the log has grown by, so that the disk is
    /// never kept busy by it. May run next to everything but itself.
    ///
    /// # Errors
    /// `NoSpace` or the error of the disk; neither closes the log.
    pub fn prepare_next(&self, bytes: u64) -> Result<(), LogError> {
        self.shared.spares.prepare(bytes)
    }

    /// Writes index files, so that opening the log is quick: those of sealed segments, and that of the
    /// active one when it has grown by some megabytes. Blocks on the disk, for a millisecond or so: call it
    /// from a maintenance thread every few seconds. May run next to everything but itself. Nothing depends
    /// on it.
    ///
    /// # Errors
    /// `NoSpace` or the error of the disk; neither closes the log.
    pub fn save_indexes(&self) -> Result<(), LogError> {
        self.shared.save_indexes(INDEX_SAVE_STEP)
    }

    /// Lets go of the records up to `index` that are in memory, as far as they are durable, and of those that
    /// were read from disk and not wanted since the last call: they are read from disk from now on. For
    /// records that have been there for long.
    pub fn forget_through(&self, index: LogIndex) {
        self.shared.cold.forget();
        self.shared.lock().view.forget_through(index);
    }

    /// Bytes appended and not yet counted as written.
    pub fn unflushed_bytes(&self) -> u64 {
        self.shared.unflushed.load(Ordering::Relaxed)
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> LogStats {
        let counters = &self.shared.counters;
        LogStats {
            groups: counters.groups.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
        }
    }

    /// Has `observer` called by the writer after every group commit.
    ///
    /// # Panics
    /// When there is one already.
    pub fn observe_flushes(&self, observer: FlushObserver) {
        let first = self.shared.observer.set(observer).is_ok();
        assert!(first, "a log has one flush observer");
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.shared.config.segment_bytes
    }

    pub(super) fn open_state(&self) -> Result<MutexGuard<'_, State>, LogError> {
        let state = self.shared.lock();
        match &state.failed {
            None => Ok(state),
            Some(error) => Err(error.clone()),
        }
    }

    pub(super) fn enqueue(&self, mut state: MutexGuard<'_, State>, command: Command) {
        state.queue.push_back(command);
        drop(state);
        self.shared.wake();
    }
}
