//! The door of this crate: one group's state as its log makes it, and everything that reads it.
//!
//! ```text
//!  committed record ──> apply (memory, under the lock) ──> tables, offsets, units, keys
//!  readers          ──> memory for what is new, files for what is old, the log for the messages
//!  maintenance      ──> flush_indexes, save_copy, log_purged: files follow, one caller at a time
//! ```
//!
//! Nothing here decides what is in the log. Every file that this module writes can be deleted and comes back
//! from the log, except the checkpoint at the start of a log whose beginning was purged.
//!
//! Locks: `maintenance` before `state`; no file is touched while `state` is held.

mod maintain;
mod mend;
mod open;
mod parked;
mod properties;
mod read;
mod search;
mod snapshot;
mod state;

use std::collections::BTreeSet;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;

use crate::checkpoint::{CheckpointFiles, NotACheckpoint};
use crate::commitlog::{CommitLog, LeaderTag, Located};
use crate::consume_queue::QueueFiles;
use crate::error::ReadError;
use crate::fs::FileSystem;
use crate::key_index::KeyFiles;
use crate::position::{LogIndex, QueueOffset};
use crate::queue_offsets::{QueueBounds, QueueKey};
use crate::table_copy::TableCopy;
use crate::tables::Tables;

pub use read::{PropertiesFilter, QueueRead, ReadRequest, ReadStatus};
pub use search::{KeyQuery, TimeBoundary};
pub use snapshot::Snapshot;
pub use state::{Applied, AppliedMembership, AppliedRow, Arrival, RowResult};

use state::State;

/// Why the store could not do what it was asked to.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk refused. What was written before may or may not be durable.
    #[error("{operation} in {}: {source}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// In which directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The beginning of the log was purged and the state at its start is not on this disk.
    #[error(
        "{}: the log starts after record {purged}, and there is no whole checkpoint of that place. \
         Remedy: move this group's directory away and let the node rejoin as a new replica.",
        path.display()
    )]
    StartMissing {
        /// Where checkpoints are.
        path: PathBuf,
        /// The last purged record.
        purged: LogIndex,
    },
    /// A snapshot from another node is damaged or of another version. Nothing was changed.
    #[error("snapshot: {0}")]
    Snapshot(#[from] NotACheckpoint),
}

impl StoreError {
    /// Whether there was no room for a file that can be written later. Nothing is lost then.
    pub fn is_lack_of_room(&self) -> bool {
        let StoreError::Io { source, .. } = self else {
            return false;
        };
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(source.kind(), StorageFull | QuotaExceeded)
    }
}

/// Settings of a store. All have defaults.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Consume queue units that replay keeps in memory before it writes them. Default 1,000,000, minimum 1.
    pub replay_units_max: usize,
    /// Payload that replay reads at once. Default 4 MiB, minimum 1; bytes.
    pub replay_read_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            replay_units_max: 1_000_000,
            replay_read_bytes: 4 << 20,
        }
    }
}

/// State of one group on one replica.
///
/// All methods may be called from several threads; [`apply`](Self::apply) from one at a time, in the order of
/// the log, and the maintenance methods wait for each other.
pub struct Store {
    log: CommitLog,
    dir: PathBuf,
    state: RwLock<State>,
    queue_files: QueueFiles,
    key_files: KeyFiles,
    maintenance: Mutex<Maintenance>,
    /// Places in consume queues whose files are damaged, until they are mended.
    damaged: Mutex<BTreeSet<(QueueKey, QueueOffset)>>,
}

/// What only the maintenance methods use.
struct Maintenance {
    checkpoints: CheckpointFiles,
    copy: Option<TableCopy>,
    /// The record that snapshots are taken at; `None` = at the last applied one.
    boundary: Option<LogIndex>,
    /// The snapshot that was built last without a boundary.
    built: Option<LogIndex>,
    /// A sync failed: what is on disk is unknown for ever.
    failed: bool,
}

impl Store {
    /// Opens the state in `dir` and brings it up to what the log is known to be committed to.
    ///
    /// Begins with the copy of the tables or the newest checkpoint whose index files are complete, and
    /// replays the log from there; in the worst case from the start of the log. Blocks for as long as that
    /// takes: milliseconds with a recent copy, about a second per GiB of log without.
    ///
    /// # Errors
    /// The disk or the log cannot be read, or the state at the start of a purged log is missing.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        config: StoreConfig,
        log: CommitLog,
        copy: Option<sled::Tree>,
    ) -> Result<Self, StoreError> {
        open::open(fs, dir, &config, log, copy.map(TableCopy::new))
    }

    /// Applies one committed record: gives its messages their queue offsets and changes the tables.
    ///
    /// Memory only; at the first record of a segment it also serialises the tables, which takes milliseconds
    /// when they are large. What it returns is the same on every replica.
    ///
    /// # Panics
    /// When a record is out of order, or a batch cannot be understood: going on would make this replica
    /// differ from the others.
    pub fn apply(&self, located: &Located) -> Applied {
        self.state_mut().apply(located, self.log.segment_bytes())
    }

    /// The last applied record.
    pub fn applied(&self) -> Option<(LogIndex, LeaderTag)> {
        self.state().applied
    }

    /// The last applied members.
    pub fn applied_membership(&self) -> Option<AppliedMembership> {
        self.state().membership.clone()
    }

    /// The tables as of the last applied record. While this is held nothing can be applied: look, and let go.
    pub fn tables(&self) -> TablesGuard<'_> {
        TablesGuard(self.state())
    }

    /// What a queue holds; `None` if there is no such queue. A queue without messages holds 0 to 0.
    pub fn queue_bounds(&self, key: QueueKey) -> Option<QueueBounds> {
        bounds_in(&self.state(), key)
    }

    /// A number that is the same on two replicas that are in the same state, and hardly ever otherwise.
    pub fn digest(&self) -> u32 {
        crc32fast::hash(&self.state().checkpoint().bytes)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state
            .read()
            .expect("apply never fails half-way without ending the process")
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state
            .write()
            .expect("apply never fails half-way without ending the process")
    }

    fn maintenance(&self) -> MutexGuard<'_, Maintenance> {
        self.maintenance.lock().expect("maintenance does not panic")
    }

    /// For `map_err`.
    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        io_error(operation, &self.dir)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// For `map_err`: `operation` in `dir` failed.
fn io_error(operation: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = dir.to_path_buf();
    move |source| StoreError::Io {
        operation,
        path,
        source,
    }
}

fn bounds_in(state: &State, key: QueueKey) -> Option<QueueBounds> {
    state.queues.get(key).or_else(|| {
        let queues = state.tables.queues_of(key.topic_id)?;
        (key.queue < queues).then(QueueBounds::default)
    })
}

/// Read access to the tables.
pub struct TablesGuard<'a>(RwLockReadGuard<'a, State>);

impl Deref for TablesGuard<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.0.tables
    }
}
