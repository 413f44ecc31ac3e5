//! What the handles of a log and its writer share: the view, the queue, and the counters.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::cold::Cold;
use super::damage::{DamageObserver, MendDone};
use super::format::{LeaderTag, Located};
use super::group::Group;
use super::holes::Hole;
use super::log::{Done, FlushObserver, FlushedGroup};
use super::spares::Spares;
use super::view::{LogStart, Truncation, View};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs::FileSystem;
use crate::position::{LogIndex, PhysicalOffset};

/// A change on its way to the writer.
pub(crate) enum Command {
    Append {
        records: Vec<Located>,
        epoch: u64,
        done: Done,
    },
    SaveVote {
        bytes: Vec<u8>,
        done: Done,
    },
    Truncate {
        truncation: Truncation,
        epoch: u64,
        done: Done,
    },
    Purge {
        purged: (LogIndex, LeaderTag),
        start: LogStart,
        retired: Vec<PhysicalOffset>,
        done: Done,
    },
    Reset {
        start: LogStart,
        removed: Vec<PhysicalOffset>,
        epoch: u64,
        done: Done,
    },
    Fill {
        hole: Hole,
        bytes: Bytes,
        done: MendDone,
    },
    Barrier {
        done: Done,
    },
    Shutdown,
}

/// What the lock protects.
pub(crate) struct State {
    pub view: View,
    pub queue: VecDeque<Command>,
    /// Set once, for ever.
    pub failed: Option<LogError>,
    pub vote: Option<Vec<u8>>,
    pub committed: Option<LogIndex>,
    /// Counts truncations and resets: a flush that began before must not vouch for what came after.
    pub history: u64,
}

/// What handles and writer share.
pub(crate) struct Shared {
    pub fs: Arc<dyn FileSystem>,
    pub dir: PathBuf,
    pub config: LogConfig,
    pub spares: Spares,
    pub cold: Cold,
    pub recovered_committed: Option<LogIndex>,
    state: Mutex<State>,
    wake: Condvar,
    /// Called whenever something was queued, for a writer that is no thread.
    pub queued: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub unflushed: AtomicU64,
    pub counters: Counters,
    pub observer: OnceLock<FlushObserver>,
    pub damage_observer: OnceLock<DamageObserver>,
}

/// The numbers behind [`LogStats`](super::log::LogStats).
#[derive(Default)]
pub(crate) struct Counters {
    pub groups: AtomicU64,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
    pub holes_found: AtomicU64,
    pub holes_mended: AtomicU64,
    pub scrubbed_bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        config: LogConfig,
        spares: Spares,
        state: State,
    ) -> Self {
        let cold = Cold::new(config.cold.clone());
        Self {
            fs,
            dir: dir.to_path_buf(),
            config,
            spares,
            cold,
            recovered_committed: state.committed,
            state: Mutex::new(state),
            wake: Condvar::new(),
            queued: OnceLock::new(),
            unflushed: AtomicU64::new(0),
            counters: Counters::default(),
            observer: OnceLock::new(),
            damage_observer: OnceLock::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("an invariant of the log was broken earlier")
    }

    /// Writes the index files that have grown by `step` entries, and those of sealed segments.
    pub(crate) fn save_indexes(&self, step: usize) -> Result<(), LogError> {
        let (unsaved, epoch) = {
            let state = self.lock();
            (state.view.unsaved(step), state.view.epoch)
        };
        for (base, sidecar) in unsaved {
            sidecar.save(&*self.fs, &self.dir, base)?;
            self.lock().view.saved(base, sidecar.entries.len(), epoch);
        }
        Ok(())
    }

    /// Counts a group that was written since `began`, and tells who wants to know.
    pub(crate) fn count_group(&self, group: &Group, began: Duration) {
        let records = group.records.len() as u64;
        if records == 0 {
            return;
        }
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.counters.groups, 1);
        add(&self.counters.records, records);
        add(&self.counters.bytes, group.bytes);
        if let Some(observer) = self.observer.get() {
            let duration = self.config.clock.now().saturating_sub(began);
            observer(&FlushedGroup {
                bytes: group.bytes,
                records,
                duration,
            });
        }
    }

    /// Ends the wait of the writer.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
        if let Some(queued) = self.queued.get() {
            queued();
        }
    }

    /// Waits until a command is queued, or for `limit`.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        let state = self.lock();
        let idle = |state: &mut State| state.queue.is_empty();
        let broken = "an invariant of the log was broken earlier";
        match limit {
            None => drop(self.wake.wait_while(state, idle).expect(broken)),
            Some(limit) => drop(
                self.wake
                    .wait_timeout_while(state, limit, idle)
                    .expect(broken),
            ),
        }
    }
}
