//! Readers, maintenance and apply at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gantry_storage::fs::RealFs;
use gantry_storage::position::{LogIndex, QueueOffset};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{KeyQuery, QueueRead, ReadRequest, ReadStatus, Store};

use crate::rig::{HOST, Rig, split};

const MESSAGES: u64 = 1_500;

#[test]
fn a_reader_sees_every_message_once_while_files_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 1);
    let key = QueueKey {
        topic_id: topic,
        queue: 0,
    };
    for number in 0..MESSAGES {
        rig.send(("T", topic), 0, &number.to_be_bytes(), b"KEYS\x01all\x02");
    }
    let records = rig
        .log
        .read(LogIndex::new(1), rig.next_index(), 1 << 30)
        .unwrap();
    // A second store on the same log: it was opened when nothing was known to be committed.
    let path = dir.path().join("second");
    let store = Store::open(
        Arc::new(RealFs),
        &path,
        Default::default(),
        rig.log.clone(),
        None,
    )
    .unwrap();
    assert_eq!(store.applied(), None);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.flush_indexes().unwrap();
                store.save_copy().unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                check_keys(&store, key);
            }
        });
        let reader = scope.spawn(|| {
            let mut next = 0;
            while next < MESSAGES {
                let read = read(&store, key, next);
                for view in split(&read.body) {
                    assert_eq!(view.body(), next.to_be_bytes());
                    assert_eq!(view.queue_offset().get(), next);
                    next += 1;
                }
                assert_eq!(read.next_offset.get(), next, "{:?}", read.status);
                if read.status != ReadStatus::Found {
                    thread::yield_now();
                }
            }
        });
        for located in &records {
            store.apply(located);
            thread::yield_now();
        }
        reader.join().unwrap();
        done.store(true, Ordering::Release);
    });
    assert_eq!(store.digest(), rig.store.digest());
}

/// Every message that is in the queue is found by its key, wherever its entry is just now.
fn check_keys(store: &Store, key: QueueKey) {
    let stored = || {
        store
            .queue_bounds(key)
            .map_or(0, |bounds| bounds.next.get())
    };
    let query = KeyQuery {
        topic: "T",
        key: "all",
        max_messages: 1 << 20,
        begin_ms: 0,
        end_ms: u64::MAX,
        store_host: HOST,
    };
    let before = stored();
    let found = store.query_keys(&query).unwrap().len() as u64;
    let after = stored();
    assert!(
        (before..=after).contains(&found),
        "{found} of {before} to {after}"
    );
}

fn read(store: &Store, key: QueueKey, offset: u64) -> QueueRead {
    let request = ReadRequest {
        key,
        offset: QueueOffset::new(offset),
        max_messages: 32,
        max_bytes: 1 << 20,
        filter: &|_| true,
        properties: None,
        store_host: HOST,
        may_wait: true,
        whole: true,
    };
    store.read_queue(&request).unwrap()
}
