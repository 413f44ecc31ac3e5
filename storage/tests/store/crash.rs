//! Power cuts at many points of a workload that writes queues, key indexes and checkpoints, and purges.

use std::path::Path;
use std::sync::{Arc, mpsc};

use gantry_storage::batch::BatchBuilder;
use gantry_storage::commitlog::{CommitLog, Done, Record, RecordKind, Turn, Writer};
use gantry_storage::config::LogConfig;
use gantry_storage::message::MessageView;
use gantry_storage::position::{LogIndex, QueueOffset};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{KeyQuery, ReadRequest, ReadStatus, Store, StoreConfig};
use gantry_storage::tables::{Command, TopicConfig};
use gantry_storage::testing::FaultyFs;

use crate::rig::{HOST, SEGMENT_BYTES, TAG, push};

const QUEUES: u16 = 2;
const MESSAGES: u64 = 150;

/// A group on the disk in memory, its writer driven by hand.
struct Group {
    log: CommitLog,
    writer: Writer,
    store: Store,
}

impl Group {
    fn open(fs: &FaultyFs) -> Self {
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            ..LogConfig::default()
        };
        let disk = Arc::new(fs.clone());
        let (log, writer, _) = CommitLog::open(disk.clone(), Path::new("/g/log"), config).unwrap();
        let small = StoreConfig {
            replay_units_max: 20,
            replay_read_bytes: 5_000,
        };
        let store = Store::open(disk, Path::new("/g/state"), small, log.clone(), None).unwrap();
        Self { log, writer, store }
    }

    fn carry_out(&mut self, change: impl FnOnce(&CommitLog, Done)) {
        let (told, done) = mpsc::channel();
        change(
            &self.log,
            Box::new(move |result| told.send(result).unwrap()),
        );
        while self.writer.run_once() == Turn::Worked {}
        done.try_recv().unwrap().unwrap();
    }

    fn put(&mut self, batch: BatchBuilder, now_ms: u64) {
        let (payload, payload_crc) = batch.seal(now_ms);
        let index = self
            .log
            .bounds()
            .last
            .map_or(LogIndex::new(1), |(index, _)| index.next());
        let (tag, kind) = (TAG, RecordKind::Batch);
        let record = Record {
            tag,
            index,
            kind,
            store_time_ms: now_ms,
            payload,
            payload_crc,
        };
        self.carry_out(|log, done| log.append(vec![record], done).unwrap());
        self.log.set_committed(index);
        self.catch_up();
    }

    fn catch_up(&self) {
        let Some((last, _)) = self.log.bounds().last else {
            return;
        };
        let mut next = self
            .store
            .applied()
            .map_or(LogIndex::new(1), |(index, _)| index.next());
        while next <= last {
            for located in self.log.read(next, last.next(), 1 << 20).unwrap() {
                next = located.record.index.next();
                self.store.apply(&located);
            }
        }
    }

    fn retire(&mut self) {
        let segments = self.log.segments();
        let Some(base) = segments.len().checked_sub(2).map(|at| segments[at].base) else {
            return;
        };
        let Some((index, _)) = self.store.set_boundary(base).unwrap() else {
            return;
        };
        self.store.build_snapshot().unwrap();
        self.carry_out(|log, done| log.purge_through(index, done).unwrap());
        self.store.log_purged().unwrap();
    }

    /// Every message that the queue is said to hold is there, and is the right one.
    fn check_queue(&self, key: QueueKey) -> u64 {
        let bounds = self.store.queue_bounds(key).unwrap();
        let mut offset = bounds.min;
        while offset < bounds.next {
            let request = ReadRequest {
                key,
                offset,
                max_messages: 1,
                max_bytes: 1,
                filter: &|_| true,
                properties: None,
                store_host: HOST,
                may_wait: true,
                whole: true,
            };
            let read = self.store.read_queue(&request).unwrap();
            assert_eq!(read.status, ReadStatus::Found, "{key:?} at {offset}");
            let view = MessageView::parse(&read.body).unwrap();
            assert_eq!(
                view.body()[..8],
                body(key.queue, offset)[..8],
                "{key:?} at {offset}"
            );
            offset = offset.next();
        }
        bounds.next.get() - bounds.min.get()
    }

    fn check_keys(&self, expected: u64) {
        let query = KeyQuery {
            topic: "T",
            key: "k",
            max_messages: 1 << 20,
            begin_ms: 0,
            end_ms: u64::MAX,
            store_host: HOST,
        };
        assert_eq!(
            self.store.query_keys(&query).unwrap().len() as u64,
            expected
        );
    }
}

fn body(queue: u16, offset: QueueOffset) -> Vec<u8> {
    let mut body = (u64::from(queue) << 32 | offset.get())
        .to_be_bytes()
        .to_vec();
    body.resize(1_500, 7);
    body
}

/// Digest of the state after each record.
fn run(fs: &FaultyFs) -> Vec<u32> {
    let mut group = Group::open(fs);
    let mut digests = vec![group.store.digest()];
    let mut create = BatchBuilder::default();
    create.push_command(&Command::PutTopic {
        config: TopicConfig::new("T", QUEUES),
    });
    group.put(create, 1);
    digests.push(group.store.digest());
    let topic = group.store.tables().topic("T").unwrap().id;
    for number in 0..MESSAGES {
        let queue = (number % u64::from(QUEUES)) as u16;
        let offset = QueueOffset::new(number / u64::from(QUEUES));
        let mut batch = BatchBuilder::default();
        push(
            &mut batch,
            ("T", topic),
            queue,
            &body(queue, offset),
            b"KEYS\x01k\x02",
        );
        group.put(batch, number + 2);
        digests.push(group.store.digest());
        match number % 23 {
            5 | 12 => {
                group.store.flush_indexes().unwrap();
            }
            17 => group.store.save_copy().unwrap(),
            22 => group.retire(),
            _ => {}
        }
    }
    assert!(
        group.log.bounds().purged.is_some(),
        "the workload retires segments"
    );
    digests
}

/// A small generator: the same seed gives the same crashes.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn after_a_power_cut_the_state_is_the_one_that_the_log_makes() {
    let fs = FaultyFs::new();
    fs.record();
    let digests = run(&fs);
    let operations = fs.trace_len();
    let mut choices = Choices(0x9E37_79B9_7F4A_7C15);
    let mut from_purged_logs = 0;
    for crash in (operations / 10..=operations).step_by(operations / 250) {
        let image = fs.crash_image(crash, &mut |limit| choices.below(limit));
        let group = Group::open(&image);
        group.catch_up();
        let Some((applied, _)) = group.store.applied() else {
            continue;
        };
        assert_eq!(
            group.store.digest(),
            digests[applied.get() as usize],
            "crash at {crash}"
        );
        from_purged_logs += usize::from(group.log.bounds().purged.is_some());
        let Some(topic) = group.store.tables().topic("T") else {
            continue;
        };
        let mut messages = 0;
        for queue in 0..QUEUES {
            messages += group.check_queue(QueueKey {
                topic_id: topic.id,
                queue,
            });
        }
        group.check_keys(messages);
        group.store.save_copy().unwrap();
        group.check_keys(messages);
    }
    assert!(
        from_purged_logs > 20,
        "purges are among what is cut short: {from_purged_logs}"
    );
}
