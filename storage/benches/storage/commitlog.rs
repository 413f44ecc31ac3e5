//! The log on a disk: how long an append takes to be durable, and a log to be opened again.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use gantry_storage::LogConfig;
use gantry_storage::commitlog::{LeaderTag, Record, RecordKind};
use gantry_storage::position::LogIndex;

use super::rig::{self, Directory, Rig};

const LOG_BYTES: u64 = 256 << 20;

/// Between two appends to a log that has time.
const PAUSE: Duration = Duration::from_millis(2);

/// Records that are appended together.
struct Group {
    records: usize,
    payload_bytes: usize,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} KiB", self.records, self.payload_bytes >> 10)
    }
}

const GROUPS: [Group; 4] = [
    Group {
        records: 1,
        payload_bytes: 1 << 10,
    },
    Group {
        records: 1,
        payload_bytes: 64 << 10,
    },
    Group {
        records: 16,
        payload_bytes: 1 << 10,
    },
    Group {
        records: 16,
        payload_bytes: 64 << 10,
    },
];

/// From `append` to `done`, fdatasync and both changes of thread included, into blocks that were written
/// before, as in a log that has reached its retention.
#[divan::bench(args = GROUPS, sample_count = 1000, sample_size = 1)]
fn append_sync(bencher: Bencher, group: &Group) {
    let dir = Directory::new();
    let config = LogConfig {
        segment_bytes: 64 << 20,
        ..LogConfig::default()
    };
    let rig = Rig::new(&dir, config);
    let tag = LeaderTag { term: 1, leader: 1 };
    let payload = Bytes::from(vec![b'x'; group.payload_bytes]);
    let first = Record::new(tag, LogIndex::new(1), RecordKind::Batch, payload);
    prepare_next(&rig);
    rig.append(vec![first.clone()]);
    prepare_next(&rig);
    let bytes = group.records * group.payload_bytes;
    bencher
        .counter(BytesCount::new(bytes))
        .with_inputs(|| {
            let (last, _) = rig.log.bounds().last.expect("the first record is there");
            retire_sealed(&rig, last);
            let indexes = (last.get() + 1..).map(LogIndex::new).take(group.records);
            let record = |index| Record {
                index,
                ..first.clone()
            };
            indexes.map(record).collect()
        })
        .bench_local_values(|records: Vec<Record>| rig.append(records));
}

/// The same in the first segment of a new log, whose blocks were never written; nothing follows at once, as
/// when little is sent.
#[divan::bench(args = &GROUPS[..2], sample_count = 500, sample_size = 1)]
fn append_sync_in_a_new_log(bencher: Bencher, group: &Group) {
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    let tag = LeaderTag { term: 1, leader: 1 };
    let payload = Bytes::from(vec![b'x'; group.payload_bytes]);
    let mut last = Record::new(tag, LogIndex::new(1), RecordKind::Batch, payload);
    rig.append(vec![last.clone()]);
    bencher
        .counter(BytesCount::new(group.payload_bytes))
        .with_inputs(|| {
            std::thread::sleep(PAUSE);
            last = rig::following(&last);
            vec![last.clone()]
        })
        .bench_local_values(|records: Vec<Record>| rig.append(records));
}

fn prepare_next(rig: &Rig) {
    rig.log
        .prepare_next(u64::MAX)
        .expect("there is room for a segment");
}

/// Gives back the segment that the log has just left, so that the next one reuses its blocks.
fn retire_sealed(rig: &Rig, last: LogIndex) {
    if rig.log.segments().len() > 1 {
        rig::wait(|done| {
            rig.log
                .purge_through(last, done)
                .expect("the log has the record");
        });
    }
}

/// What vouches for the log when it is opened.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Index {
    /// Nothing: every record is read and checked.
    Absent,
    /// The index file that was written when the log was shut down.
    Saved,
}

/// Opens a log of 256 MiB that is in the page cache.
#[divan::bench(args = [Index::Absent, Index::Saved], sample_count = 20, sample_size = 1)]
fn open(bencher: Bencher, index: Index) {
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    rig.fill(LOG_BYTES, 4);
    drop(rig);
    if index == Index::Absent {
        dir.remove_indexes();
    }
    let (_, recovered) = dir.open_log(LogConfig::default());
    let walks_all = recovered.walked_bytes >= LOG_BYTES;
    assert_eq!(walks_all, index == Index::Absent, "{recovered:?}");
    bencher
        .counter(BytesCount::new(LOG_BYTES))
        .bench_local(|| dir.open_log(LogConfig::default()));
}
