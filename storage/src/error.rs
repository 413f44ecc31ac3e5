//! What can go wrong in the log, sorted by what the caller must decide.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::commitlog::CommitLog;
use crate::position::{LogIndex, PhysicalOffset};

/// Why a log could not be opened. None of these is repaired silently.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk refused.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Records that were durable are wrong now. Nothing was changed; they can be had from a peer.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// This replica no longer knows what it promised: it must not act under its name again.
    #[error(
        "{}: {reason}. This replica no longer knows what it promised. Remedy: move this group's directory \
         away and let the node rejoin as a new replica, or restore the directory from a copy of this same \
         replica.",
        path.display()
    )]
    Lost {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory was written with settings that cannot be changed afterwards.
    #[error("{}: {reason}", path.display())]
    Mismatch {
        /// The file that says so.
        path: PathBuf,
        /// Both values.
        reason: String,
    },
}

/// A log that was not opened because it has holes.
#[derive(Debug, Error)]
#[error(
    "{} is damaged at byte {offset}: {reason}. Data that was durable is wrong on this disk; nothing was \
     changed. Remedy: restore the file from a copy of this same replica, or, if other nodes have the group, \
     move this group's directory away and let the node rejoin as a new replica.",
    path.display()
)]
pub struct Damage {
    /// Can be read around its holes, and filled; takes no other changes, and has no writer.
    pub log: CommitLog,
    /// The first damaged file.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

impl OpenError {
    /// For `map_err`: `operation` on `path` failed.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

/// Why the log did not do what it was told. Nothing is retried inside.
#[derive(Debug, Clone, Error)]
pub enum LogError {
    /// There was no room for another segment. As final as [`LogError::Poisoned`] when it reaches a callback;
    /// harmless when it comes from `prepare_next`.
    #[error("no space left for {}", path.display())]
    NoSpace {
        /// The file that could not be allocated.
        path: PathBuf,
    },
    /// A write or sync failed, now or earlier. What is on disk beyond the last success is unknown, so nothing
    /// more is written: stop the process.
    #[error("{operation} {} failed, the log is closed: {source}", path.display())]
    Poisoned {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: Arc<io::Error>,
    },
    /// The writer was shut down.
    #[error("the log is closed")]
    Closed,
    /// The record is larger than a segment. Nothing was appended.
    #[error("a record of {bytes} bytes does not fit into a segment of {segment_bytes}")]
    TooLarge {
        /// Size of the record with header and padding.
        bytes: u64,
        /// The limit.
        segment_bytes: u64,
    },
    /// The index lies outside of the log. Nothing was changed.
    #[error("record {index} is not in the log")]
    OutOfRange {
        /// The index that was asked for.
        index: LogIndex,
    },
    /// A position in the log could not be looked up. Nothing was changed.
    #[error(transparent)]
    Lookup(#[from] ReadError),
}

impl LogError {
    /// For `map_err`: `operation` on `path` failed and the log must stop.
    pub(crate) fn poison(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Poisoned {
            operation,
            path,
            source: Arc::new(source),
        }
    }

    /// For `map_err`: making a new file at `path` failed, perhaps only for lack of room.
    pub(crate) fn allocating(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Poisoned {
                operation,
                path,
                source: Arc::new(source),
            },
        }
    }
}

/// Why bytes of the log could not be returned.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// The position lies before the start of the log: it was retired. Read from the start, or elsewhere.
    #[error("the log starts at {start_offset} (byte), {what} was purged")]
    Purged {
        /// What was asked for.
        what: String,
        /// Where the log begins now.
        start_offset: PhysicalOffset,
    },
    /// There is nothing at this position (any more): beyond the end, or never a record.
    #[error("{what} is not in the log")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// Bytes that were durable are wrong now: this replica must not answer from them.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The caller does not want to wait for the disk, which alone has the answer.
    #[error("not in memory")]
    NotInMemory,
    /// The disk refused.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer.
        source: Arc<io::Error>,
    },
}
