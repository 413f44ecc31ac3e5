//! The state that follows the log: applying it, reading queues, building it anew.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use gantry_storage::commitlog::{Located, MemoryBudget};
use gantry_storage::position::{LogIndex, PhysicalOffset, QueueOffset};
use gantry_storage::store::{ReadRequest, Store};
use gantry_storage::{LogConfig, QueueKey, RowResult};

use super::rig::{self, BATCH_MESSAGES, Directory, Rig, TOPIC_ID};

const REPLAYED_BYTES: u64 = 256 << 20;
const READ_BYTES: u64 = 32 << 20;
const PULL_MESSAGES: usize = 32;

/// One record with 256 messages of one key each, spread over that many queues.
#[divan::bench(args = [1, 16], sample_count = 1000, sample_size = 1)]
fn apply(bencher: Bencher, queues: u16) {
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    let store = dir.open_store(&rig.log);
    let mut last = Located {
        record: rig::topic_record(queues),
        offset: PhysicalOffset::ZERO,
    };
    store.apply(&last);
    let contents = rig::record(last.record.index, rig::batch(BATCH_MESSAGES, queues));
    // Apply does not ask the log for what it is given, so the log stays empty and the disk quiet.
    let mut next = || {
        let mut record = contents.clone();
        record.index = last.record.index.next();
        let offset = last.end_offset();
        last = Located { record, offset };
        last.clone()
    };
    let stored = store.apply(&next()).rows;
    assert!(
        stored
            .iter()
            .all(|row| matches!(row.result, RowResult::Stored(_)))
    );
    bencher
        .counter(ItemsCount::new(BATCH_MESSAGES))
        .with_inputs(next)
        .bench_local_values(|located| store.apply(&located));
}

/// What a second of maintenance writes after 10,000 messages, by the number of queues that they are spread
/// over.
#[divan::bench(args = [1, 100, 1000, 10_000], sample_count = 200, sample_size = 1)]
fn flush_indexes(bencher: Bencher, queues: u16) {
    const MESSAGES: usize = 10_000;
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    let store = dir.open_store(&rig.log);
    let mut last = Located {
        record: rig::topic_record(queues),
        offset: PhysicalOffset::ZERO,
    };
    store.apply(&last);
    let contents = rig::record(last.record.index, rig::batch(MESSAGES, queues));
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .with_inputs(|| {
            let mut record = contents.clone();
            record.index = last.record.index.next();
            let offset = last.end_offset();
            last = Located { record, offset };
            store.apply(&last);
        })
        .bench_local_values(|()| store.flush_indexes().expect("there is room for the units"));
}

/// A pull of 32 messages of 1 KiB from the memory of units and recent records.
#[divan::bench(args = [1, 16], sample_count = 1000, sample_size = 10)]
fn pull_from_memory(bencher: Bencher, queues: u16) {
    let config = LogConfig {
        tail: MemoryBudget::new(2 * READ_BYTES as usize),
        ..LogConfig::default()
    };
    let dir = Directory::new();
    let rig = Rig::new(&dir, config);
    let store = filled(&dir, &rig, queues);
    pull(bencher, &store, queues);
}

/// The same from the files of the queue and of the log, which are in the page cache.
#[divan::bench(args = [1, 16], sample_count = 1000, sample_size = 10)]
fn pull_from_files(bencher: Bencher, queues: u16) {
    let config = LogConfig {
        tail: MemoryBudget::new(0),
        ..LogConfig::default()
    };
    let dir = Directory::new();
    let rig = Rig::new(&dir, config);
    let store = filled(&dir, &rig, queues);
    store.flush_indexes().expect("there is room for the units");
    pull(bencher, &store, queues);
}

/// A store that has applied [`READ_BYTES`] of log.
fn filled(dir: &Directory, rig: &Rig, queues: u16) -> Store {
    let store = dir.open_store(&rig.log);
    rig.fill(READ_BYTES, queues);
    let (last, _) = rig.log.bounds().last.expect("the log was filled");
    let mut next = LogIndex::new(1);
    while next <= last {
        let read = rig.log.read(next, last.next(), 1 << 20);
        for located in read.expect("the log was just written") {
            next = located.record.index.next();
            store.apply(&located);
        }
    }
    store
}

/// Pulls through all queues, from one queue after the other.
fn pull(bencher: Bencher, store: &Store, queues: u16) {
    let whole = |queue| {
        let bounds = store.queue_bounds(QueueKey {
            topic_id: TOPIC_ID,
            queue,
        });
        let next = bounds.expect("the topic has the queue").next;
        (0..next.get() / PULL_MESSAGES as u64).map(move |pull| (queue, pull))
    };
    let pulls: Vec<(u16, u64)> = (0..queues).flat_map(whole).collect();
    let mut pulls = pulls.iter().cycle();
    bencher
        .counter(ItemsCount::new(PULL_MESSAGES))
        .with_inputs(|| *pulls.next().expect("there is a whole pull"))
        .bench_local_values(|(queue, pull)| {
            let request = ReadRequest {
                key: QueueKey {
                    topic_id: TOPIC_ID,
                    queue,
                },
                offset: QueueOffset::new(pull * PULL_MESSAGES as u64),
                max_messages: PULL_MESSAGES,
                max_bytes: 1 << 20,
                filter: &|_| true,
                properties: None,
                store_host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_911),
                may_wait: true,
                whole: true,
            };
            let read = store.read_queue(&request).expect("the queue is whole");
            assert_eq!(read.count, PULL_MESSAGES);
            read
        });
}

/// Builds the state anew from 256 MiB of log in the page cache: what a start costs that finds neither a copy
/// of the tables nor a checkpoint, beside opening the log.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn replay(bencher: Bencher) {
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    rig.fill(REPLAYED_BYTES, 16);
    drop(rig);
    let (log, _) = dir.open_log(LogConfig::default());
    let last = log.bounds().last;
    bencher
        .counter(BytesCount::new(REPLAYED_BYTES))
        .with_inputs(|| {
            if dir.state().exists() {
                fs::remove_dir_all(dir.state()).expect("the directory is ours");
            }
        })
        .bench_local_values(|()| {
            let store = dir.open_store(&log);
            assert_eq!(store.applied(), last, "the whole log was replayed");
            store
        });
}
