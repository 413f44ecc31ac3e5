//! Messages that wait: what a million of them cost whoever applies and whoever takes a checkpoint.

use divan::Bencher;
use divan::counter::ItemsCount;
use gantry_storage::LogConfig;
use gantry_storage::batch::{BatchBuilder, RowHead, RowKind};
use gantry_storage::commitlog::Located;
use gantry_storage::position::PhysicalOffset;
use gantry_storage::store::Store;

use super::rig::{self, BATCH_MESSAGES, Directory, Rig, TOPIC_ID};

const WAITING: usize = 1_000_000;

/// Hands out records that park a batch of messages each, at times in no order.
struct Parking {
    last: Located,
    time_ms: u64,
}

impl Parking {
    fn new(store: &Store) -> Self {
        let last = Located {
            record: rig::topic_record(1),
            offset: PhysicalOffset::ZERO,
        };
        store.apply(&last);
        Parking { last, time_ms: 1 }
    }

    /// Behind a million that wait in the store.
    fn behind_a_million(store: &Store) -> Self {
        let mut parking = Parking::new(store);
        for _ in 0..WAITING / BATCH_MESSAGES {
            store.apply(&parking.next());
        }
        parking
    }

    fn next(&mut self) -> Located {
        let head = RowHead {
            topic_id: TOPIC_ID,
            kind: RowKind::Timer,
            origin: 0,
        };
        let mut batch = BatchBuilder::default();
        for _ in 0..BATCH_MESSAGES {
            self.time_ms = self.time_ms * 6_364_136_223 % 259_200_000 + 1;
            let pushed =
                batch.push_with_tags_code(head, &rig::message(0, b"x"), self.time_ms as i64);
            pushed.expect("a message within all limits");
        }
        let record = rig::record(self.last.record.index.next(), batch);
        let offset = self.last.end_offset();
        self.last = Located { record, offset };
        self.last.clone()
    }
}

/// One record of 256 timers, while a million wait.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn apply_timers(bencher: Bencher) {
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    let store = dir.open_store(&rig.log);
    let mut parking = Parking::behind_a_million(&store);
    bencher
        .counter(ItemsCount::new(BATCH_MESSAGES))
        .with_inputs(|| parking.next())
        .bench_local_values(|located| store.apply(&located));
}

/// A checkpoint while a million timers wait: nothing is applied meanwhile.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn checkpoint_of_timers(bencher: Bencher) {
    let dir = Directory::new();
    let rig = Rig::new(&dir, LogConfig::default());
    let store = dir.open_store(&rig.log);
    Parking::behind_a_million(&store);
    bencher
        .counter(ItemsCount::new(WAITING))
        .bench_local(|| store.digest());
}
