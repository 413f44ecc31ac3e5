//! Retention, snapshots, and replicas that begin with one.

use gantry_storage::position::{LogIndex, QueueOffset};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{ReadStatus, Snapshot, StoreError};
use gantry_storage::tables::{Command, OffsetCommit};

use crate::rig::{HOST, Rig, split, wait};

fn filled(rig: &mut Rig) -> u32 {
    let topic = rig.topic("T", 2);
    for number in 0..200u64 {
        rig.send(
            ("T", topic),
            (number % 2) as u16,
            &[number as u8; 1_000],
            b"KEYS\x01k\x02",
        );
        let entry = OffsetCommit {
            group: "G".into(),
            topic: "T".into(),
            queue: 0,
            offset: QueueOffset::new(number),
        };
        rig.command(Command::CommitOffsets {
            entries: vec![entry],
            advance_only: true,
        });
    }
    rig.store.flush_indexes().unwrap();
    topic
}

/// Lets go of everything before the third segment.
fn retire(rig: &Rig) -> LogIndex {
    let base = rig.log.segments()[2].base;
    let (index, tag) = rig.store.set_boundary(base).unwrap().unwrap();
    let snapshot = rig.store.build_snapshot().unwrap();
    assert_eq!(
        snapshot.applied,
        Some((index, tag)),
        "the snapshot is the boundary"
    );
    wait(|done| rig.log.purge_through(index, done).unwrap());
    rig.store.log_purged().unwrap();
    assert_eq!(rig.log.segments()[0].base, base);
    index
}

fn keys(topic: u32) -> [QueueKey; 2] {
    [0, 1].map(|queue| QueueKey {
        topic_id: topic,
        queue,
    })
}

#[test]
fn what_is_retired_is_gone_and_the_rest_stays_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with_copy(dir.path());
    let topic = filled(&mut rig);
    let key = keys(topic)[0];
    let all = rig.bodies(key);
    let read = rig.read(key, 0, 1);
    let first = split(&read.body)[0].physical_offset();
    retire(&rig);
    let bounds = rig.store.queue_bounds(key).unwrap();
    assert!(bounds.min > QueueOffset::ZERO && bounds.min < bounds.next);
    let kept = rig.bodies(key);
    assert_eq!(kept, all[bounds.min.get() as usize..]);
    assert_eq!(rig.store.message_at(first, HOST).unwrap(), None);
    let read = rig.read(key, 0, 1);
    assert_eq!(
        (read.status, read.next_offset),
        (ReadStatus::OffsetTooSmall, bounds.min)
    );
    let digest = rig.store.digest();
    for path in ["copy", "state/consume_queue", "state/key_index"] {
        rig = rig.reopen_after(|dir| std::fs::remove_dir_all(dir.join(path)).unwrap());
        assert_eq!(rig.store.digest(), digest);
        assert_eq!(rig.store.queue_bounds(key), Some(bounds), "without {path}");
        assert_eq!(rig.bodies(key), kept);
    }
}

#[test]
fn a_replica_made_of_a_snapshot_and_the_retained_log_equals_the_original() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut original = Rig::open(here.path());
    let topic = filled(&mut original);
    let boundary = retire(&original);
    let replica = Rig::open(there.path());
    let snapshot = original.store.build_snapshot().unwrap();
    let received = Snapshot::decode(snapshot.bytes.clone()).unwrap();
    assert_eq!(received, snapshot);
    replica.store.install_snapshot(&received.bytes).unwrap();
    wait(|done| replica.log.reset(received.log_start, done).unwrap());
    replica.store.log_purged().unwrap();
    let last = original.next_index();
    for located in original.log.read(boundary.next(), last, 1 << 30).unwrap() {
        let record = located.record.clone();
        wait(|done| replica.log.append(vec![record], done).unwrap());
        replica.log.set_committed(located.record.index);
        let index = located.record.index;
        let here = replica.log.read(index, index.next(), 1).unwrap().remove(0);
        assert_eq!(here, located, "same bytes at the same place");
        replica.store.apply(&here);
    }
    let replica = {
        check_equal(&original, &replica, topic);
        replica.store.flush_indexes().unwrap();
        check_equal(&original, &replica, topic);
        replica.reopen_after(|_| {})
    };
    check_equal(&original, &replica, topic);
}

fn check_equal(original: &Rig, replica: &Rig, topic: u32) {
    assert_eq!(original.store.digest(), replica.store.digest());
    assert_eq!(*original.store.tables(), *replica.store.tables());
    for key in keys(topic) {
        assert_eq!(
            original.store.queue_bounds(key),
            replica.store.queue_bounds(key)
        );
        assert_eq!(original.bodies(key), replica.bodies(key));
    }
}

#[test]
fn without_a_boundary_the_snapshot_is_of_now() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut original = Rig::open(here.path());
    let topic = filled(&mut original);
    let snapshot = original.store.build_snapshot().unwrap();
    assert_eq!(snapshot.applied, original.store.applied());
    assert_eq!(
        original.store.current_snapshot().unwrap(),
        Some(snapshot.clone())
    );
    let index = snapshot.applied.unwrap().0;
    // The whole log may go now, also in the middle of a segment.
    wait(|done| original.log.purge_through(index, done).unwrap());
    original.store.log_purged().unwrap();
    let digest = original.store.digest();
    let original = original.reopen_after(|_| {});
    assert_eq!(original.store.digest(), digest);
    let bounds = original.store.queue_bounds(keys(topic)[0]).unwrap();
    assert_eq!(
        (bounds.min, bounds.next),
        (QueueOffset::new(100), QueueOffset::new(100))
    );
    let replica = Rig::open(there.path());
    replica.store.install_snapshot(&snapshot.bytes).unwrap();
    assert_eq!(replica.store.digest(), digest);
    assert_eq!(replica.store.queue_bounds(keys(topic)[0]), Some(bounds));
}

#[test]
fn a_damaged_or_older_snapshot_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    filled(&mut rig);
    let old = rig.store.build_snapshot().unwrap();
    rig.topic("later", 1);
    let digest = rig.store.digest();
    rig.store.install_snapshot(&old.bytes).unwrap();
    assert_eq!(rig.store.digest(), digest);
    let mut bad = old.bytes.to_vec();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let refused = rig.store.install_snapshot(&bad.into());
    assert!(
        matches!(refused, Err(StoreError::Snapshot(_))),
        "{refused:?}"
    );
    assert_eq!(rig.store.digest(), digest);
}

#[test]
fn a_purged_log_without_its_checkpoint_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    filled(&mut rig);
    retire(&rig);
    let log = rig.log.clone();
    for entry in std::fs::read_dir(dir.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let fs = std::sync::Arc::new(gantry_storage::fs::RealFs);
    let opened = gantry_storage::store::Store::open(
        fs,
        &dir.path().join("state"),
        Default::default(),
        log,
        None,
    );
    let error = opened.unwrap_err();
    assert!(matches!(error, StoreError::StartMissing { .. }), "{error}");
    assert!(error.to_string().contains("Remedy"));
}
