//! What waits in the log is delivered once, in order, and is still there after a restart, in a snapshot and
//! behind a damaged queue.

use std::os::unix::fs::FileExt;

use gantry_storage::batch::{BatchBuilder, RowHead, RowKind};
use gantry_storage::error::ReadError;
use gantry_storage::message::MessageView;
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{RowResult, Snapshot};
use gantry_storage::tables::{Command, CommandResult};
use gantry_storage::{PhysicalOffset, QueueOffset};

use crate::rig::{Rig, SEGMENT_BYTES, message};

const WAITING: &str = "rmq_sys_wheel_timer";

/// Two topics: one to wait in, one to arrive in.
struct Topics {
    waiting: u32,
    real: u32,
}

fn topics(rig: &mut Rig) -> Topics {
    Topics {
        waiting: rig.topic(WAITING, 1),
        real: rig.topic("T", 2),
    }
}

fn head(topic_id: u32, kind: RowKind, origin: PhysicalOffset) -> RowHead {
    let origin = origin.get();
    RowHead {
        topic_id,
        kind,
        origin,
    }
}

/// Parks one message; where it is.
fn park(
    rig: &mut Rig,
    topics: &Topics,
    kind: RowKind,
    time_ms: i64,
    body: &[u8],
) -> PhysicalOffset {
    let mut batch = BatchBuilder::default();
    let row = head(topics.waiting, kind, PhysicalOffset::ZERO);
    let pushed = batch.push_with_tags_code(row, &message(WAITING, 0, body, b""), time_ms);
    pushed.unwrap();
    rig.put_batch(batch).1.rows[0].offset
}

/// Delivers what waits at `place` to a queue of the real topic.
fn deliver(rig: &mut Rig, topics: &Topics, place: PhysicalOffset, queue: u16) -> RowResult {
    let body = rig.store.parked_message(place).unwrap().unwrap();
    let body = MessageView::parse(&body).unwrap().body().to_vec();
    let mut batch = BatchBuilder::default();
    let row = head(topics.real, RowKind::Resolves, place);
    batch
        .push_message(row, &message("T", queue, &body, b""))
        .unwrap();
    rig.put_batch(batch).1.rows[0].result
}

fn due(rig: &Rig) -> Vec<(u64, PhysicalOffset)> {
    rig.store.tables().parked().timers().due(u64::MAX).collect()
}

#[test]
fn what_waits_is_due_in_order_and_arrives_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let late = park(&mut rig, &topics, RowKind::Timer, 9_000, b"late");
    let early = park(&mut rig, &topics, RowKind::Timer, 5_000, b"early");
    assert_eq!(due(&rig), [(5_000, early), (9_000, late)]);
    let stored = RowResult::Stored(QueueOffset::ZERO);
    assert_eq!(deliver(&mut rig, &topics, early, 0), stored);
    let again = deliver(&mut rig, &topics, early, 0);
    assert_eq!(again, RowResult::AlreadyResolved);
    assert_eq!(due(&rig), [(9_000, late)]);
    let key = QueueKey {
        topic_id: topics.real,
        queue: 0,
    };
    assert_eq!(
        rig.bodies(key),
        [b"early".to_vec()],
        "no offset for the second"
    );
}

#[test]
fn the_next_times_are_told_with_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    park(&mut rig, &topics, RowKind::Timer, 9_000, b"timer");
    park(&mut rig, &topics, RowKind::Half, 7_000, b"half");
    let (_, applied) = rig.put_batch(BatchBuilder::default());
    assert_eq!(applied.next_timer_ms, Some(9_000));
    assert_eq!(applied.next_check_ms, Some(7_000));
}

#[test]
fn a_topic_that_is_gone_resolves_and_a_queue_that_is_gone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let place = park(&mut rig, &topics, RowKind::Timer, 5_000, b"x");
    let missing = deliver(&mut rig, &topics, place, 7);
    assert_eq!(missing, RowResult::QueueGone);
    assert_eq!(due(&rig).len(), 1, "another queue may take it");
    rig.command(Command::DeleteTopic { name: "T".into() });
    let gone = deliver(&mut rig, &topics, place, 0);
    assert_eq!(gone, RowResult::TopicGone);
    assert_eq!(due(&rig), []);
}

#[test]
fn a_recalled_message_never_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let place = park(&mut rig, &topics, RowKind::Timer, 5_000, b"x");
    let unpark = Command::Unpark {
        places: vec![place, place, PhysicalOffset::new(3)],
    };
    let recalled = rig.command(unpark.clone());
    assert_eq!(
        recalled,
        CommandResult::Resolved(1),
        "it, once, and nothing else"
    );
    assert_eq!(rig.command(unpark), CommandResult::Resolved(0));
    let delivered = deliver(&mut rig, &topics, place, 0);
    assert_eq!(delivered, RowResult::AlreadyResolved);
}

#[test]
fn a_copy_waits_instead_of_its_original() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let place = park(&mut rig, &topics, RowKind::Timer, 5_000, b"x");
    let half = park(&mut rig, &topics, RowKind::Half, 6_000, b"half");
    rig.command(Command::HalvesChecked {
        next: vec![(half, 8_000), (place, 1)],
    });
    let mut moved = Vec::new();
    for (from, time_ms) in [(place, 5_000), (half, 8_000), (place, 5_000)] {
        let mut batch = BatchBuilder::default();
        let row = head(topics.waiting, RowKind::Moves, from);
        let pushed = batch.push_with_tags_code(row, &message(WAITING, 0, b"x", b""), time_ms);
        pushed.unwrap();
        moved.push(rig.put_batch(batch).1.rows[0]);
    }
    assert_eq!(moved[2].result, RowResult::AlreadyResolved);
    assert_eq!(due(&rig), [(5_000, moved[0].offset)]);
    let tables = rig.store.tables();
    let parked = tables.parked();
    assert_eq!(parked.halves().time_of(moved[1].offset), Some(8_000));
    assert_eq!(parked.checks_of(moved[1].offset), 1);
    assert_eq!(
        parked.first_place(),
        Some(moved[0].offset),
        "the log may go up to here"
    );
}

#[test]
fn what_waits_survives_restarts_and_snapshots() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut rig = Rig::open_with_copy(here.path());
    let topics = topics(&mut rig);
    let mut places = Vec::new();
    for number in 0..300 {
        let body = [number as u8; 600];
        let time_ms = 50_000 - number * 100;
        places.push(park(&mut rig, &topics, RowKind::Timer, time_ms, &body));
    }
    for place in &places[..100] {
        deliver(&mut rig, &topics, *place, 0);
    }
    let waiting = due(&rig);
    assert_eq!(waiting.len(), 200);
    let digest = rig.store.digest();
    rig.store.save_copy().unwrap();
    for path in ["copy", "state/consume_queue"] {
        rig = rig.reopen_after(|_| {});
        assert_eq!((due(&rig), rig.store.digest()), (waiting.clone(), digest));
        rig = rig.reopen_after(|dir| std::fs::remove_dir_all(dir.join(path)).unwrap());
        assert_eq!((due(&rig), rig.store.digest()), (waiting.clone(), digest));
    }
    let snapshot = rig.store.build_snapshot().unwrap();
    let other = Rig::open(there.path());
    let received = Snapshot::decode(snapshot.bytes).unwrap();
    other.store.install_snapshot(&received.bytes).unwrap();
    assert_eq!((due(&other), other.store.digest()), (waiting, digest));
}

#[test]
fn a_damaged_queue_is_mended_without_what_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let key = QueueKey {
        topic_id: topics.real,
        queue: 0,
    };
    for number in 0..20u8 {
        let place = park(&mut rig, &topics, RowKind::Timer, 5_000, &[number; 10]);
        deliver(&mut rig, &topics, place, 0);
        if number % 2 == 0 {
            deliver(&mut rig, &topics, place, 0);
        }
    }
    let bodies = rig.bodies(key);
    assert_eq!(bodies.len(), 20);
    rig.store.save_copy().unwrap();
    rig.damage_queue(key, 3..11);
    assert!(rig.try_read(key, 5, 1).is_err(), "the damage is noticed");
    rig.store.flush_indexes().unwrap();
    assert_eq!(rig.bodies(key), bodies);
}

#[test]
fn retention_is_told_where_the_first_message_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let place = park(&mut rig, &topics, RowKind::Timer, 5_000, b"x");
    assert_eq!(rig.store.tables().parked().first_place(), Some(place));
    deliver(&mut rig, &topics, place, 0);
    assert_eq!(rig.store.tables().parked().first_place(), None);
}

#[test]
fn a_message_that_is_read_alone_is_the_same_or_known_to_be_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topics = topics(&mut rig);
    let small = park(&mut rig, &topics, RowKind::Timer, 5_000, b"small");
    let large = vec![b'l'; 10_000];
    let large = park(&mut rig, &topics, RowKind::Timer, 5_000, &large);
    // As in a log of before there were checksums.
    let mut batch = BatchBuilder::default();
    let row = head(topics.waiting, RowKind::Timer, PhysicalOffset::ZERO);
    batch
        .push_message(row, &message(WAITING, 0, b"old", b""))
        .unwrap();
    let old = rig.put_batch(batch).1.rows[0].offset;

    let rig = rig.reopen_after(|_| {});
    let alone = [small, large, old].map(|place| {
        let in_memory = rig.log.read_bytes(place, 4, false);
        assert!(
            matches!(in_memory, Err(ReadError::NotInMemory)),
            "{in_memory:?}"
        );
        rig.store.parked_message_alone(place).unwrap().unwrap()
    });
    let whole = [small, large, old].map(|place| rig.store.parked_message(place).unwrap().unwrap());
    assert_eq!(alone, whole);

    let rig = rig.reopen_after(|_| {});
    let files = std::fs::read_dir(dir.path().join("log")).unwrap();
    let segments = files.map(|file| file.unwrap().path());
    let mut segments: Vec<_> = segments
        .filter(|path| path.metadata().unwrap().len() >= SEGMENT_BYTES)
        .collect();
    segments.sort();
    let segment = std::fs::OpenOptions::new()
        .write(true)
        .open(&segments[0])
        .unwrap();
    // The last byte of its properties' length: no checksum of RocketMQ's covers it.
    let at = small.get() + alone[0].len() as u64 - 1;
    segment.write_all_at(b"\x77", at).unwrap();
    let damaged = rig.store.parked_message_alone(small);
    assert!(
        matches!(damaged, Err(ReadError::Corrupt { .. })),
        "{damaged:?}"
    );
}
