//! The good directories, made once per process: one whole, one whose beginning was purged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::commitlog::{
    Bounds, CommitLog, LeaderTag, MemoryBudget, Record, RecordKind, Turn, Writer,
};
use gantry_storage::fs::FileSystem;
use gantry_storage::message::NewMessage;
use gantry_storage::tables::{Command, OffsetCommit, TopicConfig};
use gantry_storage::testing::FaultyFs;
use gantry_storage::{Clock, LogConfig, LogIndex, QueueKey, QueueOffset, Store, StoreConfig};

/// Where the log and the state are.
pub(super) const DIRECTORY: &str = "/g";

const RECORDS: u64 = 40;

/// Contents of every file by its path.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A directory and what is in it.
pub(super) struct Ground {
    pub files: Files,
    pub records: BTreeMap<u64, Record>,
    pub bounds: Bounds,
    pub vote: Option<Vec<u8>>,
    pub queues: Vec<QueueKey>,
    pub digest: u32,
}

pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 10,
        tail: MemoryBudget::new(0),
        spare_segments: 0,
        clock: Clock::new(|| Duration::ZERO),
        ..LogConfig::default()
    }
}

/// Both, with the logs about 24 KiB long.
pub(super) fn directories() -> &'static [Ground; 2] {
    static BOTH: OnceLock<[Ground; 2]> = OnceLock::new();
    BOTH.get_or_init(|| [build(false), build(true)])
}

/// A disk with these files.
pub(super) fn disk_of(files: &Files) -> FaultyFs {
    let fs = FaultyFs::new();
    for (path, bytes) in files {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for dir in above.into_iter().filter(|dir| *dir != Path::new("/")) {
            fs.create_dir(dir).unwrap();
        }
        fs.create(path).unwrap().write_all_at(bytes, 0).unwrap();
    }
    fs
}

struct Rig {
    log: CommitLog,
    writer: Writer,
    store: Store,
}

impl Rig {
    fn settle(&mut self) {
        while self.writer.run_once() == Turn::Worked {}
    }

    fn put(&mut self, index: u64) -> Record {
        let tag = LeaderTag {
            term: index / 7 + 1,
            leader: index / 7 % 3 + 1,
        };
        let (payload, payload_crc) = batch(index).seal(index * 1_000);
        let record = Record {
            tag,
            index: LogIndex::new(index),
            kind: RecordKind::Batch,
            store_time_ms: index * 1_000,
            payload,
            payload_crc,
        };
        self.log
            .append(vec![record.clone()], Box::new(|done| done.unwrap()))
            .unwrap();
        self.log.set_committed(record.index);
        self.settle();
        let index = record.index;
        let located = self.log.read(index, index.next(), usize::MAX).unwrap();
        self.store.apply(&located[0]);
        self.store.flush_indexes().unwrap();
        record
    }

    /// Forgets what the checkpoint at the start of the third segment makes unnecessary.
    fn purge(&mut self) {
        let base = self.log.segments()[2].base;
        let (index, _) = self.store.set_boundary(base).unwrap().unwrap();
        self.log
            .purge_through(index, Box::new(|done| done.unwrap()))
            .unwrap();
        self.settle();
        self.store.log_purged().unwrap();
    }
}

fn build(purged: bool) -> Ground {
    let fs = FaultyFs::new();
    let shared = Arc::new(fs.clone());
    let dir = Path::new(DIRECTORY);
    let (log, writer, _) = CommitLog::open(shared.clone(), dir, config()).unwrap();
    let store = Store::open(shared, dir, StoreConfig::default(), log.clone(), None).unwrap();
    let mut rig = Rig { log, writer, store };
    let vote = b"a vote of seventeen".to_vec();
    rig.log
        .save_vote(vote.clone(), Box::new(|done| done.unwrap()))
        .unwrap();
    let records = (1..=RECORDS).map(|index| (index, rig.put(index))).collect();
    rig.log.save_indexes().unwrap();
    if purged {
        rig.purge();
    }
    rig.store.save_copy().unwrap();
    rig.log.shutdown();
    while rig.writer.run_once() != Turn::Stopped {}
    let queues = (0..2).map(|queue| QueueKey { topic_id: 1, queue });
    let mut files = Files::new();
    collect(&fs, dir, &mut files);
    Ground {
        files,
        records,
        bounds: rig.log.bounds(),
        vote: Some(vote),
        queues: queues.collect(),
        digest: rig.store.digest(),
    }
}

fn batch(index: u64) -> BatchBuilder {
    let mut batch = BatchBuilder::default();
    if index == 1 {
        let config = TopicConfig::new("T", 2);
        batch.push_command(&Command::PutTopic { config });
        return batch;
    }
    let entry = OffsetCommit {
        group: "G".into(),
        topic: "T".into(),
        queue: (index % 2) as u16,
        offset: QueueOffset::new(index / 2),
    };
    batch.push_command(&Command::CommitOffsets {
        entries: vec![entry],
        advance_only: true,
    });
    let body = vec![index as u8; 300];
    let properties = format!("TAGS\u{1}t{}\u{2}KEYS\u{1}k{index}\u{2}", index % 3);
    let message = NewMessage {
        topic: "T",
        queue_id: (index % 2) as u16,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: "192.0.2.1:4000".parse().unwrap(),
        reconsume_times: 0,
        prepared_offset: 0,
        body: &body,
        properties: properties.as_bytes(),
    };
    let head = RowHead {
        topic_id: 1,
        ..RowHead::default()
    };
    batch.push_message(head, &message).unwrap();
    batch
}

/// Every file below a directory.
fn collect(fs: &FaultyFs, dir: &Path, files: &mut Files) {
    for name in fs.list(dir).unwrap() {
        let path = dir.join(name);
        match fs.contents(&path) {
            Some(bytes) => drop(files.insert(path, bytes)),
            None => collect(fs, &path, files),
        }
    }
}
