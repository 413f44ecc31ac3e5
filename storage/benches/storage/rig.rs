//! A log in a directory of the target folder, which is on a real disk where /tmp often is not, and what
//! goes into it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use gantry_storage::LogConfig;
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::commitlog::{CommitLog, Done, LeaderTag, Record, RecordKind, Recovered};
use gantry_storage::fs::RealFs;
use gantry_storage::message::NewMessage;
use gantry_storage::position::LogIndex;
use gantry_storage::store::{Store, StoreConfig};
use gantry_storage::tables::{Command, TopicConfig};
use tempfile::TempDir;

pub const TOPIC: &str = "orders";
/// The first topic of a log gets this id.
pub const TOPIC_ID: u32 = 0;
/// Messages of a full batch.
pub const BATCH_MESSAGES: usize = 256;
/// Body of a message where nothing else is said.
pub const BODY_BYTES: usize = 1024;

const STORE_TIME_MS: u64 = 1_700_000_000_000;
/// What a stock producer sends along.
const PROPERTIES: &[u8] =
    b"UNIQ_KEY\x017F00000100002A139A551C3E1F4B0001\x02WAIT\x01true\x02TAGS\x01paid\x02";

/// A message of [`TOPIC`] from a stock producer.
pub fn message(queue_id: u16, body: &[u8]) -> NewMessage<'_> {
    NewMessage {
        topic: TOPIC,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: STORE_TIME_MS as i64,
        born_host: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)),
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        properties: PROPERTIES,
    }
}

/// A batch of messages with [`BODY_BYTES`] each, spread over the queues in turn.
pub fn batch(messages: usize, queues: u16) -> BatchBuilder {
    let body = vec![b'x'; BODY_BYTES];
    let head = RowHead {
        topic_id: TOPIC_ID,
        ..RowHead::default()
    };
    let mut batch = BatchBuilder::default();
    for queue in (0..queues).cycle().take(messages) {
        batch
            .push_message(head, &message(queue, &body))
            .expect("a message within all limits");
    }
    batch
}

/// The first record of a log, which creates [`TOPIC`].
pub fn topic_record(queues: u16) -> Record {
    let config = TopicConfig::new(TOPIC, queues);
    let mut batch = BatchBuilder::default();
    batch.push_command(&Command::PutTopic { config });
    record(LogIndex::new(1), batch)
}

/// A record with that batch.
pub fn record(index: LogIndex, batch: BatchBuilder) -> Record {
    let (payload, payload_crc) = batch.seal(STORE_TIME_MS);
    Record {
        tag: LeaderTag { term: 1, leader: 1 },
        index,
        kind: RecordKind::Batch,
        store_time_ms: STORE_TIME_MS,
        payload,
        payload_crc,
    }
}

/// The same contents as the next record of the log.
pub fn following(record: &Record) -> Record {
    Record {
        index: record.index.next(),
        ..record.clone()
    }
}

/// Sends `change` to the log and waits until it is done.
pub fn wait(change: impl FnOnce(Done)) {
    let (told, done) = mpsc::channel();
    change(Box::new(move |result| {
        told.send(result).expect("somebody waits for the log");
    }));
    done.recv()
        .expect("the log answers")
        .expect("the disk of a benchmark works");
}

/// A directory that goes with it.
pub struct Directory(TempDir);

impl Directory {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self(dir.expect("cargo made the directory"))
    }

    pub fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    pub fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// Opens the log without letting it write.
    pub fn open_log(&self, config: LogConfig) -> (CommitLog, Recovered) {
        let opened = CommitLog::open(Arc::new(RealFs), &self.log(), config);
        let (log, _, recovered) = opened.expect("a log of ours");
        (log, recovered)
    }

    /// Removes the index files of the log, which it can do without.
    pub fn remove_indexes(&self) {
        for entry in fs::read_dir(self.log()).expect("the log is there") {
            let path = entry.expect("the directory is ours").path();
            if path.extension().is_some_and(|ending| ending == "idx") {
                fs::remove_file(path).expect("the file is ours");
            }
        }
    }

    /// Opens the state and replays what it has not seen of the log.
    pub fn open_store(&self, log: &CommitLog) -> Store {
        let config = StoreConfig::default();
        let opened = Store::open(Arc::new(RealFs), &self.state(), config, log.clone(), None);
        opened.expect("a store of ours")
    }
}

/// A log that writes. Shut down when dropped.
pub struct Rig {
    pub log: CommitLog,
    writer: Option<JoinHandle<()>>,
}

impl Rig {
    /// A new log in `dir`.
    pub fn new(dir: &Directory, config: LogConfig) -> Self {
        let opened = CommitLog::open(Arc::new(RealFs), &dir.log(), config);
        let (log, writer, _) = opened.expect("a new log");
        let writer = CommitLog::spawn_writer(writer, "bench-log").expect("a thread");
        Self {
            log,
            writer: Some(writer),
        }
    }

    /// Appends records and waits until they are durable.
    pub fn append(&self, records: Vec<Record>) {
        wait(|done| self.log.append(records, done).expect("the log is open"));
    }

    /// Writes the topic and then full batches of it, `bytes` or a little more, as committed.
    pub fn fill(&self, bytes: u64, queues: u16) {
        let mut next = topic_record(queues);
        self.append(vec![next.clone()]);
        let contents = record(next.index, batch(BATCH_MESSAGES, queues));
        while self.log.bounds().end_offset.get() < bytes {
            next = following(&Record {
                index: next.index,
                ..contents.clone()
            });
            self.append(vec![next.clone()]);
        }
        self.log.set_committed(next.index);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.log.shutdown();
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer ended in order");
        }
    }
}
