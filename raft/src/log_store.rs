//! openraft's log storage over the CommitLog: an entry is a record, the vote is its hard state.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use gantry_storage::commitlog::{CommitLog, Done, LeaderTag, LogStart};
use gantry_storage::error::{LogError, ReadError};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::{LogIndex, Snapshot, Store};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, base::BoxStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::aside::aside;
use crate::types::{Entry, GroupTypes, LogId, Vote, decode_vote, encode_vote, log_id, tag_of};

/// What one replication request or one step of apply may hold, unless a single record is larger.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// A read that waits for damaged records looks again this often at the latest.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A replica's log as openraft sees it. Clones read the same log.
#[derive(Clone)]
pub struct LogStore {
    log: CommitLog,
    store: Arc<Store>,
    /// Set if damaged records come back: reads wait for that.
    mended: Option<watch::Receiver<u64>>,
}

impl LogStore {
    /// `store` is asked where the log goes on after a snapshot was installed.
    pub fn new(log: CommitLog, store: Arc<Store>) -> Self {
        LogStore {
            log,
            store,
            mended: None,
        }
    }

    /// Reads of damaged records wait until they are mended, if they can be, instead of ending the replica.
    pub(crate) fn waiting_for(mut self, mended: Option<watch::Receiver<u64>>) -> Self {
        self.mended = mended;
        self
    }

    /// Waits for damaged records, if `error` says that they are and there is hope.
    async fn outlasts(&self, error: &ReadError) -> bool {
        let Some(mended) = &self.mended else {
            return false;
        };
        if matches!(error, ReadError::Corrupt { .. }) {
            let mut mended = mended.clone();
            mended.mark_unchanged();
            // It may have been mended between the read and this.
            drop(timeout(LOOK_AGAIN, mended.changed()).await);
            return true;
        }
        false
    }

    /// Entries from `from` up to `end`, fewer if they are large; at least one if `from` is there.
    async fn read(&self, from: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (from, end) = (LogIndex::new(from), LogIndex::new(end));
        let located = loop {
            let read = if self.log.is_in_memory(from) {
                self.log.read(from, end, READ_BYTES_MAX)
            } else {
                let log = self.log.clone();
                aside(move || log.read(from, end, READ_BYTES_MAX))
                    .await
                    .map_err(io::Error::other)?
            };
            match read {
                Ok(located) => break located,
                Err(error) if self.outlasts(&error).await => {}
                Err(error) => return Err(read_error(error)),
            }
        };
        Ok(located
            .into_iter()
            .map(Entry::from_located)
            .collect::<Result<_, _>>()?)
    }

    /// The part of `range` that the log holds, as [from, end).
    fn held(&self, range: impl RangeBounds<u64>) -> (u64, u64) {
        let bounds = self.log.bounds();
        let first = match bounds.purged {
            Some((index, _)) => index.get() + 1,
            None => {
                let segments = self.log.segments();
                segments.first().map_or(0, |s| s.first_index.get())
            }
        };
        let past = bounds.last.map_or(first, |(index, _)| index.get() + 1);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(first), end.min(past))
    }

    /// Where a log begins that goes on after `index`, which is beyond the end of this one: as the
    /// installed snapshot says, or right here if there is none.
    fn start_after(&self, index: LogIndex, tag: LeaderTag) -> io::Result<LogStart> {
        let snapshot = self.store.current_snapshot().map_err(io::Error::other)?;
        let of_index = |s: &Snapshot| s.applied == Some((index, tag));
        Ok(match snapshot.filter(of_index) {
            Some(snapshot) => snapshot.log_start,
            None => LogStart {
                last_index: Some(index),
                last_tag: tag,
                next_offset: self.log.bounds().end_offset,
            },
        })
    }

    fn vote(&self) -> io::Result<Option<Vote>> {
        Ok(self
            .log
            .vote()
            .map(|bytes| decode_vote(&bytes))
            .transpose()?)
    }
}

fn read_error(error: ReadError) -> io::Error {
    io::Error::other(error)
}

fn log_error(error: LogError) -> io::Error {
    io::Error::other(error)
}

/// Waits for something that the log's writer does in its order.
async fn done(start: impl FnOnce(Done) -> Result<(), LogError>) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    start(Box::new(move |result| drop(tell.send(result)))).map_err(log_error)?;
    match told.await {
        Ok(result) => result.map_err(log_error),
        Err(_) => Err(io::Error::other("the log's writer has stopped")),
    }
}

impl RaftLogReader<GroupTypes> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut from, end) = self.held(range);
        let mut entries = Vec::new();
        while from < end {
            let part = self.read(from, end).await?;
            assert!(!part.is_empty(), "log entry {from} is missing below {end}");
            from += part.len() as u64;
            entries.extend(part);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl futures_util::Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, end) = self.held(range);
        let state = Reading {
            store: self.clone(),
            from,
            end,
            ready: Vec::new().into_iter(),
        };
        let stream = futures_util::stream::unfold(state, Reading::next);
        Box::pin(stream) as BoxStream<'static, _>
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, end) = self.held(start..end);
        if from != start {
            let reason = format!("log entry {start} is not in the log, which starts at {from}");
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        if from >= end {
            Ok(Vec::new())
        } else {
            self.read(from, end).await
        }
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.vote()
    }
}

/// Reads a long range in bounded steps.
struct Reading {
    store: LogStore,
    from: u64,
    end: u64,
    ready: std::vec::IntoIter<Entry>,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Entry, io::Error>, Reading)> {
        if let Some(entry) = self.ready.next() {
            return Some((Ok(entry), self));
        }
        if self.from >= self.end {
            return None;
        }
        match self.store.read(self.from, self.end).await {
            Ok(part) => {
                assert!(!part.is_empty(), "log entry {} is missing", self.from);
                self.from += part.len() as u64;
                self.ready = part.into_iter();
                self.ready.next().map(|entry| (Ok(entry), self))
            }
            Err(error) => {
                self.from = self.end;
                Some((Err(error), self))
            }
        }
    }
}

impl RaftLogStorage<GroupTypes> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<GroupTypes>, io::Error> {
        let bounds = self.log.bounds();
        let to_id = |(index, tag): (LogIndex, LeaderTag)| log_id(tag, index);
        let last_purged_log_id = bounds.purged.map(to_id);
        let last_log_id = bounds.last.map(to_id).or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = encode_vote(vote).to_vec();
        done(|tell| self.log.save_vote(bytes, tell)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.set_committed(LogIndex::new(committed.index()));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let Some(index) = self.log.recovered_committed() else {
            return Ok(None);
        };
        let tag = self.log.tag_at(index).map_err(read_error)?;
        Ok(tag.map(|tag| log_id(tag, index)))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<GroupTypes>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| entry.to_record()).collect();
        let flushed = move |result: Result<(), LogError>| {
            callback.io_completed(result.map_err(log_error));
        };
        let flushed: Done = if planted(Bug::AckAtAppend) {
            flushed(Ok(()));
            Box::new(drop)
        } else {
            Box::new(flushed)
        };
        self.log.append(records, flushed).map_err(log_error)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let last = last_log_id.map(|id| LogIndex::new(id.index()));
        // The record that becomes the last one may be damaged; the leader has it.
        while let Some(last) = last.filter(|last| !self.log.is_in_memory(*last)) {
            let log = self.log.clone();
            match log.read(last, last.next(), 1) {
                Err(error) if self.outlasts(&error).await => {}
                _ => break,
            }
        }
        done(|tell| self.log.truncate_after(last, tell)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let index = LogIndex::new(upto.index());
        let (first, past) = self.held(..);
        if upto.index() < first && first < past {
            return Ok(());
        }
        if self
            .log
            .bounds()
            .last
            .is_some_and(|(last, _)| index <= last)
        {
            // The files go later, in the writer's order; the log starts behind `upto` at once.
            let purged = |result| {
                if let Err(error) = result {
                    tracing::error!(%error, "removing segments failed");
                }
            };
            return self
                .log
                .purge_through(index, Box::new(purged))
                .map_err(log_error);
        }
        let start = self.start_after(index, tag_of(upto.committed_leader_id()))?;
        done(|tell| self.log.reset(start, tell)).await
    }
}
