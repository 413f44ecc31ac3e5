//! The one that writes: takes what has gathered, writes it, syncs once, calls back in order.
//!
//! ```text
//! append, append, vote | append, barrier | truncate | append ...
//! '----- group 1 -----' '--- group 2 --'
//! ```
//!
//! A group ends behind a vote, because a record that follows the vote must not be durable before it, and in
//! front of everything that changes the shape of the log. Inside of a group the order on disk is: records
//! (and directories, when the log rolls), sync, vote, sync; then come the callbacks. The mark follows when
//! it is due. A write or sync that fails is never tried again: what the device did with it is unknown, so
//! the log closes and everything queued gets the error.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::blocks::{Blocks, zero};
use super::format::{Header, LeaderTag, Located, RECORD_ALIGN, RECORD_HEADER_BYTES, segment_base};
use super::group::{Alone, Group};
use super::hard_state::HardState;
use super::mark::Mark;
use super::segment::segment_path;
use super::shared::Shared;
use super::view::{LogStart, Truncation};
use crate::config::FlushMode;
use crate::error::LogError;
use crate::fs::File;
use crate::planted::{Bug, planted};
use crate::position::{LogIndex, PhysicalOffset};

const PADDING: [u8; RECORD_ALIGN as usize] = [0; RECORD_ALIGN as usize];

/// What a turn of the writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something; there may be more.
    Worked,
    /// Nothing; come back when something is queued, or after this time at the latest.
    Idle(Option<Duration>),
    /// It was shut down. The files are closed when the writer is dropped.
    Stopped,
}

/// The files that recovery opened for the writer.
pub(crate) struct WriterFiles {
    pub mark_file: HardState,
    pub mark: Mark,
    pub vote_file: HardState,
    pub active: Option<Active>,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub base: PhysicalOffset,
    pub file: Arc<dyn File>,
    pub blocks: Blocks,
}

/// Owner of all files of a log. See [`CommitLog::open`](super::CommitLog::open).
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    mark_file: HardState,
    vote_file: HardState,
    active: Option<Active>,
    /// End of what is written.
    end: LogStart,
    mark: Mark,
    /// When the first write since the last sync of the active segment happened (asynchronous flush).
    data_dirty_since: Option<Duration>,
    /// Since when the mark on disk is behind, or not synced.
    mark_dirty_since: Option<Duration>,
    stopped: bool,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, files: WriterFiles) -> Self {
        Self {
            shared,
            mark_file: files.mark_file,
            vote_file: files.vote_file,
            active: files.active,
            end: files.mark.synced,
            mark: files.mark,
            data_dirty_since: None,
            mark_dirty_since: None,
            stopped: false,
        }
    }

    /// Has `queued` called whenever there is something to do, from whatever thread queued it: for whoever
    /// takes turns with [`run_once`](Self::run_once) instead of having a thread.
    ///
    /// # Panics
    /// When there is one already.
    pub fn on_queued(&self, queued: Box<dyn Fn() + Send + Sync>) {
        let first = self.shared.queued.set(queued).is_ok();
        assert!(first, "a writer is woken in one way");
    }

    /// Runs until the log is shut down. Waits without spinning while there is nothing to do.
    pub fn run(mut self) {
        loop {
            match self.run_once() {
                Turn::Worked => {}
                Turn::Idle(limit) => self.shared.wait(limit),
                Turn::Stopped => return,
            }
        }
    }

    /// Takes everything that is queued, carries it out, and does what is due by the clock. Calls back before
    /// it returns. Never waits for commands.
    pub fn run_once(&mut self) -> Turn {
        if self.stopped {
            return Turn::Stopped;
        }
        let commands = mem::take(&mut self.shared.lock().queue);
        let worked = !commands.is_empty();
        let mut group = Group::default();
        for command in commands {
            if let Some(alone) = group.take(command) {
                self.commit(mem::take(&mut group));
                self.carry_out_alone(alone);
            } else if group.vote.is_some() {
                self.commit(mem::take(&mut group));
            }
        }
        self.commit(group);
        if self.stopped {
            return Turn::Stopped;
        }
        let limit = self.sync_what_is_due();
        if worked {
            return Turn::Worked;
        }
        self.zero_ahead();
        Turn::Idle(limit)
    }

    /// The error that closed the log.
    pub(super) fn failed(&self) -> Option<LogError> {
        self.shared.lock().failed.clone()
    }

    pub(super) fn fail(&self, error: &LogError) {
        tracing::error!(dir = %self.shared.dir.display(), %error, "the log is closed");
        let mut state = self.shared.lock();
        state.failed.get_or_insert_with(|| error.clone());
    }

    fn commit(&mut self, mut group: Group) {
        if group.done.is_empty() {
            return;
        }
        let callbacks = mem::take(&mut group.done);
        let outcome = match self.failed() {
            Some(error) => Err(error),
            None => self
                .write_group(&mut group)
                .inspect_err(|error| self.fail(error)),
        };
        self.shared
            .unflushed
            .fetch_sub(group.bytes, Ordering::Relaxed);
        for done in callbacks {
            done(outcome.clone());
        }
        // Written when it is due: a mark that lags behind costs a second look at some records.
        if outcome.is_ok() {
            self.mark_dirty_since
                .get_or_insert_with(|| self.shared.config.clock.now());
        }
    }

    fn write_group(&mut self, group: &mut Group) -> Result<(), LogError> {
        let began = self.shared.config.clock.now();
        let synchronous = self.shared.config.flush_mode == FlushMode::SyncFlush || group.must_sync;
        let synchronous = synchronous && !planted(Bug::AckBeforeSync);
        if planted(Bug::MarkAhead)
            && let Some(last) = group.records.last()
        {
            self.mark.synced = LogStart::after(last);
            self.write_mark()?;
        }
        self.write_records(&group.records, synchronous)?;
        if synchronous {
            self.sync_data()?;
        }
        if let Some(vote) = group.vote.take() {
            let stored = match planted(Bug::VoteNotSynced) {
                true => self.vote_file.store_lazily(&vote),
                false => self.vote_file.store(&vote),
            };
            stored.map_err(LogError::poison("write", self.vote_file.path()))?;
            self.count_syncs(2);
            self.shared.lock().vote = Some(vote);
        }
        let mut state = self.shared.lock();
        if let Some(last) = group.records.last()
            && group.epoch == state.history
        {
            state.view.flushed_through(Some(last.record.index));
        }
        drop(state);
        self.shared.count_group(group, began);
        Ok(())
    }

    fn count_syncs(&self, count: u64) {
        let syncs = &self.shared.counters.syncs;
        syncs.fetch_add(count, Ordering::Relaxed);
    }

    /// Writes records that follow the current end, rolling where the segment changes.
    fn write_records(&mut self, records: &[Located], durably: bool) -> Result<(), LogError> {
        let segment_bytes = self.shared.config.segment_bytes;
        let base_of = |located: &Located| segment_base(located.offset, segment_bytes);
        for run in records.chunk_by(|left, right| base_of(left) == base_of(right)) {
            let base = base_of(&run[0]);
            let mut active = match self.active.take() {
                Some(active) if active.base == base => active,
                previous => self.roll(previous, base, &run[0])?,
            };
            let written = self.write_run(&mut active, run, durably);
            self.active = Some(active);
            written?;
        }
        Ok(())
    }

    /// Closes the active segment with a filler and opens the one at `base` for `next`.
    fn roll(
        &mut self,
        previous: Option<Active>,
        base: PhysicalOffset,
        next: &Located,
    ) -> Result<Active, LogError> {
        if let Some(mut old) = previous {
            let at = self.end.next_offset.get() - old.base.get();
            let rest = self.shared.config.segment_bytes - at;
            let path = segment_path(&self.shared.dir, old.base);
            if rest >= RECORD_HEADER_BYTES as u64 {
                let filler =
                    Header::filler(self.end.next_offset, &next.record, self.end.last_tag).encode();
                old.blocks
                    .push(&*old.file, &filler)
                    .and_then(|()| old.blocks.write(&*old.file))
                    .map_err(LogError::poison("write", &path))?;
            }
            // In front of everything in the new file, so that the log has no hole whatever happens.
            if !planted(Bug::RollNotSynced) {
                old.file
                    .sync_data()
                    .map_err(LogError::poison("sync", &path))?;
            }
            self.count_syncs(1);
            self.data_dirty_since = None;
            self.mark.synced = self.end;
        }
        let file = self.shared.spares.take(base)?;
        self.shared.lock().view.attach(base, file.clone());
        let path = segment_path(&self.shared.dir, base);
        let at = next.offset.get() - base.get();
        let blocks = Blocks::at(&*file, at).map_err(LogError::poison("read", &path))?;
        Ok(Active { base, file, blocks })
    }

    /// Writes records that are adjacent in one segment, together.
    fn write_run(
        &mut self,
        active: &mut Active,
        run: &[Located],
        durably: bool,
    ) -> Result<(), LogError> {
        let mut end = self.end;
        let Active { base, file, blocks } = active;
        let poison = |error| {
            let path = segment_path(&self.shared.dir, *base);
            LogError::poison("write", &path)(error)
        };
        for located in run {
            let record = &located.record;
            let expected = end
                .last_index
                .is_none_or(|last| record.index == last.next());
            assert!(
                expected,
                "record {} written after {:?}",
                record.index, end.last_index
            );
            let header = Header::of(located, end.last_tag).encode();
            let padding = record.encoded_len() as usize - header.len() - record.payload.len();
            for part in [&header[..], &record.payload, &PADDING[..padding]] {
                blocks.push(&**file, part).map_err(poison)?;
            }
            end = LogStart::after(located);
        }
        if durably {
            let written = match blocks.write_durably(&**file) {
                Err(_) if planted(Bug::SyncRetried) => file.sync_data(),
                written => written,
            };
            written.map_err(poison)?;
            self.count_syncs(1);
        } else {
            blocks.write(&**file).map_err(poison)?;
            self.data_dirty_since
                .get_or_insert_with(|| self.shared.config.clock.now());
        }
        self.end = end;
        Ok(())
    }

    fn sync_data(&mut self) -> Result<(), LogError> {
        if self.data_dirty_since.take().is_some()
            && let Some(active) = &self.active
        {
            active.file.sync_data().map_err(|error| {
                LogError::poison("sync", &segment_path(&self.shared.dir, active.base))(error)
            })?;
            self.count_syncs(1);
        }
        self.mark.synced = self.end;
        Ok(())
    }

    /// Writes the mark; it becomes durable later.
    fn write_mark(&mut self) -> Result<(), LogError> {
        let committed = self
            .shared
            .lock()
            .committed
            .min(self.mark.synced.last_index);
        self.mark.committed = committed.max(self.mark.committed);
        self.mark_file
            .store_lazily(&self.mark.encode())
            .map_err(LogError::poison("write", self.mark_file.path()))?;
        self.mark_dirty_since
            .get_or_insert_with(|| self.shared.config.clock.now());
        Ok(())
    }

    /// Makes the mark durable, in both slots.
    fn store_mark(&mut self) -> Result<(), LogError> {
        self.mark_file
            .store(&self.mark.encode())
            .map_err(LogError::poison("write", self.mark_file.path()))?;
        self.count_syncs(2);
        self.mark_dirty_since = None;
        Ok(())
    }

    /// Syncs what has waited long enough; returns when the next thing is due.
    fn sync_what_is_due(&mut self) -> Option<Duration> {
        if self.failed().is_some() {
            return None;
        }
        let outcome = self.try_sync_what_is_due();
        if let Err(error) = &outcome {
            self.fail(error);
        }
        outcome.unwrap_or(None)
    }

    fn try_sync_what_is_due(&mut self) -> Result<Option<Duration>, LogError> {
        let now = self.shared.config.clock.now();
        let data_interval = self.shared.config.async_flush_interval;
        if self
            .data_dirty_since
            .is_some_and(|since| now.saturating_sub(since) >= data_interval)
        {
            self.sync_data()?;
            self.write_mark()?;
        }
        let mark_interval = self.shared.config.mark_interval;
        if self
            .mark_dirty_since
            .is_some_and(|since| now.saturating_sub(since) >= mark_interval)
        {
            self.write_mark()?;
            self.mark_file
                .sync()
                .map_err(LogError::poison("sync", self.mark_file.path()))?;
            self.count_syncs(1);
            self.mark_dirty_since = None;
        }
        let due = |since: Option<Duration>, interval: Duration| {
            since.map(|since| (since + interval).saturating_sub(now))
        };
        let data = due(self.data_dirty_since, data_interval);
        let mark = due(self.mark_dirty_since, mark_interval);
        Ok(data.into_iter().chain(mark).min())
    }

    /// Prepares the blocks that come next. A disk that fails here is trusted with nothing else.
    fn zero_ahead(&mut self) {
        if self.failed().is_none()
            && let Some(Active { base, file, blocks }) = &mut self.active
            && let Err(error) = blocks.zero_ahead(&**file, self.shared.config.segment_bytes)
        {
            let path = segment_path(&self.shared.dir, *base);
            self.fail(&LogError::poison("write", &path)(error));
        }
    }

    fn carry_out_alone(&mut self, command: Alone) {
        let command = match command {
            Alone::Shutdown => return self.stop(),
            Alone::Fill(hole, bytes, done) => return self.fill(hole, &bytes, done),
            other => other,
        };
        let failed = self.failed();
        let (outcome, done) = match command {
            Alone::Truncate(truncation, epoch, done) => (
                failed.map_or_else(|| self.truncate(&truncation, epoch), Err),
                done,
            ),
            Alone::Purge(purged, start, retired, done) => (
                failed.map_or_else(|| self.purge(purged, start, &retired), Err),
                done,
            ),
            Alone::Reset(start, removed, epoch, done) => (
                failed.map_or_else(|| self.reset(start, &removed, epoch), Err),
                done,
            ),
            Alone::Fill(..) | Alone::Shutdown => unreachable!("handled above"),
        };
        if let Err(error) = &outcome {
            self.fail(error);
        }
        done(outcome);
    }

    /// Makes the disk forget what comes after the kept end: first the mark, so that what is about to be
    /// destroyed no longer counts as durable, then the bytes, then whole files from the back.
    fn truncate(&mut self, truncation: &Truncation, epoch: u64) -> Result<(), LogError> {
        let kept = truncation.kept;
        if self.mark.end() > kept.next_offset {
            self.mark.synced = kept;
        }
        self.mark.committed = self.mark.committed.min(kept.last_index);
        self.store_mark()?;
        self.sync_data_below(truncation)?;
        self.end = kept;
        self.mark.synced = kept;
        for base in truncation.removed.iter().rev() {
            self.shared.spares.discard(*base)?;
            self.shared.spares.sync_dir()?;
        }
        self.write_mark()?;
        let mut state = self.shared.lock();
        if state.history == epoch {
            state.view.flushed_through(kept.last_index);
        }
        Ok(())
    }

    /// Zeroes the stale records in the segment that stays, and makes the kept ones durable.
    fn sync_data_below(&mut self, truncation: &Truncation) -> Result<(), LogError> {
        let kept_end = truncation.kept.next_offset;
        let segment_bytes = self.shared.config.segment_bytes;
        // The record before the cut may end exactly where its segment does; then nothing is stale there.
        let base = segment_base(kept_end, segment_bytes);
        let active = self.active.take();
        self.data_dirty_since = None;
        if truncation.removed.contains(&base) {
            return Ok(());
        }
        let file = match active {
            Some(active) if active.base == base => active.file,
            // Not asked from the view, which may be ahead of the disk.
            _ => match self
                .shared
                .fs
                .open_direct(&segment_path(&self.shared.dir, base))
            {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => {
                    let path = segment_path(&self.shared.dir, base);
                    return Err(LogError::poison("open", &path)(error));
                }
            },
        };
        let path = segment_path(&self.shared.dir, base);
        let segment_end = base.get() + segment_bytes;
        let stale_end = (truncation.stale_end.get() + RECORD_HEADER_BYTES as u64).min(segment_end);
        zero(&*file, kept_end.get() - base.get(), stale_end - base.get())
            .and_then(|()| file.sync_data())
            .map_err(LogError::poison("truncate", &path))?;
        self.count_syncs(1);
        let blocks = Blocks::at(&*file, kept_end.get() - base.get())
            .map_err(LogError::poison("read", &path))?;
        self.active = Some(Active { base, file, blocks });
        Ok(())
    }

    /// Moves the start of the log, durably, then retires the segments before it, oldest first.
    fn purge(
        &mut self,
        purged: (LogIndex, LeaderTag),
        start: LogStart,
        retired: &[PhysicalOffset],
    ) -> Result<(), LogError> {
        self.mark.purged = Some(purged);
        self.mark.start = start;
        if retired.is_empty() {
            return self.write_mark();
        }
        self.sync_data()?;
        self.store_mark()?;
        for base in retired {
            self.shared.spares.retire(*base)?;
        }
        self.shared.spares.sync_dir()
    }

    fn reset(
        &mut self,
        start: LogStart,
        removed: &[PhysicalOffset],
        epoch: u64,
    ) -> Result<(), LogError> {
        self.active = None;
        self.data_dirty_since = None;
        self.mark = Mark::new(self.shared.config.segment_bytes, start);
        self.mark.committed = start.last_index;
        self.store_mark()?;
        self.end = start;
        for base in removed.iter().rev() {
            self.shared.spares.discard(*base)?;
        }
        self.shared.spares.clear()?;
        self.shared.spares.sync_dir()?;
        let mut state = self.shared.lock();
        if state.history == epoch {
            state.view.flushed_through(start.last_index);
        }
        Ok(())
    }

    /// Makes everything durable and refuses what comes later.
    fn stop(&mut self) {
        if self.failed().is_none() {
            let synced = self
                .sync_data()
                .and_then(|()| self.write_mark())
                .and_then(|()| self.store_mark());
            match synced {
                Err(error) => self.fail(&error),
                Ok(()) => self.save_indexes(),
            }
        }
        self.stopped = true;
        self.close();
    }

    /// So that the next start is quick. It is only slower without.
    fn save_indexes(&self) {
        if let Err(error) = self.shared.save_indexes(1) {
            tracing::warn!(%error, "no index files were written");
        }
    }

    /// Refuses later changes, and answers those that came too late.
    fn close(&mut self) {
        let (error, queue) = {
            let mut state = self.shared.lock();
            let error = state.failed.get_or_insert(LogError::Closed).clone();
            (error, mem::take(&mut state.queue))
        };
        let mut late = Group::default();
        for command in queue {
            match late.take(command) {
                None | Some(Alone::Shutdown) => {}
                Some(
                    Alone::Truncate(_, _, done)
                    | Alone::Purge(_, _, _, done)
                    | Alone::Reset(_, _, _, done),
                ) => late.done.push(done),
                Some(Alone::Fill(_, _, done)) => done(Err(error.clone().into())),
            }
        }
        for done in late.done {
            done(Err(error.clone()));
        }
    }
}

impl Drop for Writer {
    /// Without a writer nothing will ever be done: say so instead of letting callers wait.
    fn drop(&mut self) {
        // While panicking the state may be locked or broken; the process is on its way out.
        if !self.stopped && !std::thread::panicking() {
            self.close();
        }
    }
}
