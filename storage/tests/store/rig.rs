//! A log and a store in a directory, as a broker group of one would drive them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::commitlog::{
    CommitLog, Done, LeaderTag, Located, MemoryBudget, Record, RecordKind,
};
use gantry_storage::config::LogConfig;
use gantry_storage::error::ReadError;
use gantry_storage::fs::RealFs;
use gantry_storage::message::{MessageView, NewMessage};
use gantry_storage::position::{LogIndex, QueueOffset};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{Applied, QueueRead, ReadRequest, RowResult, Store, StoreConfig};
use gantry_storage::table_copy;
use gantry_storage::tables::{Command, CommandResult, TopicConfig};

pub const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 7), 10_911);
pub const TAG: LeaderTag = LeaderTag { term: 1, leader: 1 };
pub const SEGMENT_BYTES: u64 = 64 << 10;

/// Sends `change` to the log and waits until it is done.
pub fn wait(change: impl FnOnce(Done)) {
    let (told, done) = mpsc::channel();
    change(Box::new(move |result| told.send(result).unwrap()));
    done.recv().unwrap().unwrap();
}

pub struct Rig {
    pub dir: PathBuf,
    pub log: CommitLog,
    pub store: Store,
    writer: Option<JoinHandle<()>>,
    database: Option<sled::Db>,
    segment_bytes: u64,
    pub now_ms: u64,
}

impl Rig {
    /// Opens what is in `dir` and applies the whole log.
    pub fn open(dir: &Path) -> Self {
        Self::open_with(dir, false, SEGMENT_BYTES)
    }

    /// Also with a copy of the tables.
    pub fn open_with_copy(dir: &Path) -> Self {
        Self::open_with(dir, true, SEGMENT_BYTES)
    }

    /// With segments of another size.
    pub fn open_with_segments(dir: &Path, segment_bytes: u64) -> Self {
        Self::open_with(dir, false, segment_bytes)
    }

    fn open_with(dir: &Path, copied: bool, segment_bytes: u64) -> Self {
        let fs = Arc::new(RealFs);
        let config = LogConfig {
            segment_bytes,
            tail: MemoryBudget::new(32 << 10),
            ..Default::default()
        };
        let (log, writer, _) = CommitLog::open(fs.clone(), &dir.join("log"), config).unwrap();
        let writer = CommitLog::spawn_writer(writer, "test-log").unwrap();
        let database = copied.then(|| table_copy::open(&dir.join("copy")).unwrap());
        let tree = database
            .as_ref()
            .map(|database| database.open_tree("group").unwrap());
        let small = StoreConfig {
            replay_units_max: 100,
            replay_read_bytes: 10_000,
        };
        let store = Store::open(fs, &dir.join("state"), small, log.clone(), tree).unwrap();
        let (writer, now_ms) = (Some(writer), store.tables().clock_ms());
        let rig = Self {
            dir: dir.to_path_buf(),
            log,
            store,
            writer,
            database,
            segment_bytes,
            now_ms,
        };
        rig.catch_up();
        rig
    }

    fn catch_up(&self) {
        let Some((last, _)) = self.log.bounds().last else {
            return;
        };
        let first = self
            .log
            .bounds()
            .purged
            .map_or(LogIndex::new(1), |(index, _)| index.next());
        let mut next = self
            .store
            .applied()
            .map_or(first, |(index, _)| index.next());
        while next <= last {
            for located in self.log.read(next, last.next(), 1 << 20).unwrap() {
                next = located.record.index.next();
                self.store.apply(&located);
            }
        }
    }

    /// Closes everything and opens it again; `meanwhile` runs in between.
    pub fn reopen_after(mut self, meanwhile: impl FnOnce(&Path)) -> Self {
        let copied = self.database.take().is_some();
        let (dir, segment_bytes) = (self.dir.clone(), self.segment_bytes);
        drop(self);
        meanwhile(&dir);
        Self::open_with(&dir, copied, segment_bytes)
    }

    /// Flips all bits of some units in the file of a queue.
    pub fn damage_queue(&self, key: QueueKey, units: Range<usize>) {
        let queue = format!("state/consume_queue/{}-{}", key.topic_id, key.queue);
        let mut files = std::fs::read_dir(self.dir.join(queue)).unwrap();
        let file = files.next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        for byte in &mut bytes[units.start * 24..units.end * 24] {
            *byte ^= 0xff;
        }
        std::fs::write(&file, bytes).unwrap();
    }

    pub fn next_index(&self) -> LogIndex {
        self.log
            .bounds()
            .last
            .map_or(LogIndex::new(1), |(index, _)| index.next())
    }

    /// Appends a record, commits it and applies it.
    pub fn put(&mut self, record: Record) -> (Located, Applied) {
        let index = record.index;
        wait(|done| self.log.append(vec![record], done).unwrap());
        self.log.set_committed(index);
        let located = self.log.read(index, index.next(), 1).unwrap().remove(0);
        let applied = self.store.apply(&located);
        (located, applied)
    }

    /// Puts a batch; every batch is a second later than the one before.
    pub fn put_batch(&mut self, batch: BatchBuilder) -> (Located, Applied) {
        self.now_ms += 1_000;
        let (payload, payload_crc) = batch.seal(self.now_ms);
        let (index, store_time_ms) = (self.next_index(), self.now_ms);
        let kind = RecordKind::Batch;
        self.put(Record {
            tag: TAG,
            index,
            kind,
            store_time_ms,
            payload,
            payload_crc,
        })
    }

    pub fn command(&mut self, command: Command) -> CommandResult {
        let mut batch = BatchBuilder::default();
        batch.push_command(&command);
        self.put_batch(batch).1.commands.remove(0)
    }

    /// Creates a topic and returns its id.
    pub fn topic(&mut self, name: &str, queues: u16) -> u32 {
        let config = TopicConfig::new(name, queues);
        match self.command(Command::PutTopic { config }) {
            CommandResult::TopicId(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Stores one message and returns where it is.
    pub fn send(&mut self, topic: (&str, u32), queue: u16, body: &[u8], properties: &[u8]) -> Sent {
        let mut batch = BatchBuilder::default();
        push(&mut batch, topic, queue, body, properties);
        let (located, applied) = self.put_batch(batch);
        let row = applied.rows[0];
        let RowResult::Stored(queue_offset) = row.result else {
            panic!("{row:?}")
        };
        assert!(row.offset > located.offset && row.offset < located.end_offset());
        Sent {
            offset: row.offset,
            queue_offset,
        }
    }

    pub fn read(&self, key: QueueKey, offset: u64, max_messages: usize) -> QueueRead {
        self.try_read(key, offset, max_messages).unwrap()
    }

    pub fn try_read(
        &self,
        key: QueueKey,
        offset: u64,
        max_messages: usize,
    ) -> Result<QueueRead, ReadError> {
        self.store.read_queue(&ReadRequest {
            key,
            offset: QueueOffset::new(offset),
            max_messages,
            max_bytes: 1 << 20,
            filter: &|_| true,
            properties: None,
            store_host: HOST,
            may_wait: true,
            whole: true,
        })
    }

    /// Bodies of the messages of one read.
    pub fn bodies_in(&self, read: &QueueRead) -> Vec<Vec<u8>> {
        let messages = split(&read.body);
        messages.iter().map(|view| view.body().to_vec()).collect()
    }

    /// Bodies of all messages of a queue, in order; every message must say where it is.
    pub fn bodies(&self, key: QueueKey) -> Vec<Vec<u8>> {
        let bounds = self.store.queue_bounds(key).unwrap();
        let mut bodies = Vec::new();
        let mut next = bounds.min;
        while next < bounds.next {
            let read = self.read(key, next.get(), 32);
            let messages = split(&read.body);
            assert_eq!(messages.len(), read.count);
            for (number, view) in messages.iter().enumerate() {
                assert_eq!(view.queue_offset(), next.plus(number as u64));
                assert_eq!(view.store_host(), HOST);
                bodies.push(view.body().to_vec());
            }
            assert!(read.next_offset > next, "{read:?}");
            next = read.next_offset;
        }
        bodies
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.log.shutdown();
        if let Some(writer) = self.writer.take() {
            writer.join().unwrap();
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub offset: gantry_storage::position::PhysicalOffset,
    pub queue_offset: QueueOffset,
}

/// An ordinary message.
pub fn message<'a>(
    topic: &'a str,
    queue_id: u16,
    body: &'a [u8],
    properties: &'a [u8],
) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: "192.0.2.1:4000".parse().unwrap(),
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        properties,
    }
}

pub fn push(
    batch: &mut BatchBuilder,
    (topic, topic_id): (&str, u32),
    queue: u16,
    body: &[u8],
    properties: &[u8],
) {
    let message = message(topic, queue, body, properties);
    let head = RowHead {
        topic_id,
        ..RowHead::default()
    };
    batch.push_message(head, &message).unwrap();
}

/// Takes a body of messages apart.
pub fn split(mut body: &[u8]) -> Vec<MessageView<'_>> {
    let mut views = Vec::new();
    while !body.is_empty() {
        let size = u32::from_be_bytes(*body.first_chunk().unwrap()) as usize;
        views.push(MessageView::parse(&body[..size]).unwrap());
        body = &body[size..];
    }
    views
}
