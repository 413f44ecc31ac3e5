//! openraft's conformance suite over the real log: real files, the real writer thread, segments so small
//! that the suite's longer logs roll.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::thread::JoinHandle;

use gantry_raft::{GroupTypes, LogStore, StateMachine};
use gantry_storage::commitlog::{CommitLog, MemoryBudget};
use gantry_storage::fs::RealFs;
use gantry_storage::{LogConfig, Store, StoreConfig};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

/// Ends the writer before the directory goes.
struct Guard {
    log: CommitLog,
    writer: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.log.shutdown();
        let ended = self.writer.take().unwrap().join();
        assert!(ended.is_ok(), "the writer panicked");
    }
}

struct Fresh;

impl StoreBuilder<GroupTypes, LogStore, StateMachine, Guard> for Fresh {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<GroupTypes>> {
        let dir = tempfile::tempdir().unwrap();
        let fs = Arc::new(RealFs);
        let config = LogConfig {
            segment_bytes: LogConfig::SEGMENT_UNIT,
            tail: MemoryBudget::new(0),
            ..LogConfig::default()
        };
        let (log, writer, _) = CommitLog::open(fs.clone(), dir.path(), config).unwrap();
        let writer = CommitLog::spawn_writer(writer, "suite-log").unwrap();
        let store = Store::open(fs, dir.path(), StoreConfig::default(), log.clone(), None);
        let store = Arc::new(store.unwrap());
        let guard = Guard {
            log: log.clone(),
            writer: Some(writer),
            _dir: dir,
        };
        let machine = StateMachine::new(store.clone(), Arc::new(|_, _, _| {}));
        Ok((guard, LogStore::new(log, store), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_state_machine_keep_openrafts_contract() {
    Suite::test_all(Fresh).await.unwrap();
}
