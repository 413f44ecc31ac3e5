//! What is stored once is known again: after restarts, on other replicas, and behind what retention took.

use std::path::Path;

use gantry_storage::batch::{BatchBuilder, RowHead, RowKind};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{Applied, AppliedRow, RowResult, Snapshot};
use gantry_storage::tables::{Command, FirstSend, Once, RECENT_SENDS_MAX, SendId};
use gantry_storage::{PhysicalOffset, QueueOffset};

use crate::rig::{HOST, Rig, message, wait};

const HOUR_MS: u64 = 3_600_000;

fn id(number: u64) -> SendId {
    SendId((u128::from(number) << 64 | 7).to_le_bytes())
}

/// Adds one message of queue 0 that is known by a number.
fn push(batch: &mut BatchBuilder, topic: u32, number: u64, body: &[u8]) {
    let head = RowHead {
        topic_id: topic,
        ..RowHead::default()
    };
    let row = batch.push_message(head, &message("T", 0, body, b""));
    once(batch, row.unwrap() as u32, number, HOUR_MS);
}

fn once(batch: &mut BatchBuilder, row: u32, number: u64, window_ms: u64) {
    let once = Once {
        row,
        id: id(number),
        queue: 0,
        window_ms,
    };
    batch.push_command(&Command::StoreOnce { once });
}

fn send(rig: &mut Rig, topic: u32, number: u64) -> AppliedRow {
    let mut batch = BatchBuilder::default();
    push(&mut batch, topic, number, &[number as u8; 1_000]);
    rig.put_batch(batch).1.rows[0]
}

fn queue(topic: u32) -> QueueKey {
    QueueKey {
        topic_id: topic,
        queue: 0,
    }
}

/// 200 messages over several segments, every third of which is sent twice; where each is.
fn filled(rig: &mut Rig) -> (u32, Vec<FirstSend>) {
    let topic = rig.topic("T", 1);
    let mut firsts = Vec::new();
    for number in 0..200 {
        let sent = send(rig, topic, number);
        let first = FirstSend {
            queue: 0,
            queue_offset: QueueOffset::new(number),
            place: sent.offset,
        };
        assert_eq!(sent.result, RowResult::Stored(first.queue_offset));
        if number % 3 == 0 {
            assert_eq!(
                send(rig, topic, number).result,
                RowResult::SentBefore(first)
            );
        }
        firsts.push(first);
    }
    rig.store.flush_indexes().unwrap();
    assert!(rig.log.segments().len() > 3, "it is about several segments");
    (topic, firsts)
}

/// Sends everything again: each gets the answer of the first, and nothing is stored.
fn check_all_known(rig: &mut Rig, topic: u32, firsts: &[FirstSend]) {
    let end = rig.store.queue_bounds(queue(topic)).unwrap().next;
    for (number, first) in firsts.iter().enumerate() {
        let again = send(rig, topic, number as u64);
        assert_eq!(again.result, RowResult::SentBefore(*first), "{number}");
    }
    assert_eq!(rig.store.queue_bounds(queue(topic)).unwrap().next, end);
}

#[test]
fn sends_are_known_after_a_restart_with_whatever_files_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with_copy(dir.path());
    let (topic, firsts) = filled(&mut rig);
    rig.store.save_copy().unwrap();
    send(&mut rig, topic, 1_000);
    let tables = rig.store.tables().clone();
    let same = |rig: &Rig| assert_eq!(*rig.store.tables(), tables);
    rig = rig.reopen_after(|_| {});
    same(&rig);
    for path in ["copy", "state/consume_queue", "state"] {
        rig = rig.reopen_after(|dir| std::fs::remove_dir_all(dir.join(path)).unwrap());
        same(&rig);
    }
    assert_eq!(tables.recent_sends().len(), 201);
    check_all_known(&mut rig, topic, &firsts);
}

/// Lets go of everything before the third segment.
fn retire(rig: &Rig) -> PhysicalOffset {
    let base = rig.log.segments()[2].base;
    let (index, _) = rig.store.set_boundary(base).unwrap().unwrap();
    wait(|done| rig.log.purge_through(index, done).unwrap());
    rig.store.log_purged().unwrap();
    base
}

#[test]
fn a_send_whose_message_retention_took_is_known_until_its_window_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with_copy(dir.path());
    let (topic, firsts) = filled(&mut rig);
    let base = retire(&rig);
    assert!(firsts[0].place < base && firsts[50].place < base);
    let read = rig.store.message_at(firsts[0].place, HOST).unwrap();
    assert_eq!(read, None, "the message itself is gone");
    check_all_known(&mut rig, topic, &firsts);
    let digest = rig.store.digest();
    for path in ["copy", "state/consume_queue"] {
        rig = rig.reopen_after(|dir| std::fs::remove_dir_all(dir.join(path)).unwrap());
        assert_eq!(rig.store.digest(), digest, "without {path}");
    }
    check_all_known(&mut rig, topic, &firsts);
    rig.now_ms += HOUR_MS;
    let anew = send(&mut rig, topic, 0).result;
    assert_eq!(anew, RowResult::Stored(QueueOffset::new(200)));
}

/// A replica that begins with a snapshot and applies what the other one has behind it.
fn replica_of(original: &Rig, dir: &Path) -> Rig {
    let replica = Rig::open(dir);
    let snapshot = original.store.build_snapshot().unwrap();
    let received = Snapshot::decode(snapshot.bytes).unwrap();
    replica.store.install_snapshot(&received.bytes).unwrap();
    wait(|done| replica.log.reset(received.log_start, done).unwrap());
    replica.store.log_purged().unwrap();
    let first = received.applied.unwrap().0.next();
    for located in original
        .log
        .read(first, original.next_index(), 1 << 30)
        .unwrap()
    {
        let index = located.record.index;
        wait(|done| {
            replica
                .log
                .append(vec![located.record.clone()], done)
                .unwrap()
        });
        replica.log.set_committed(index);
        replica.store.apply(&located);
    }
    replica
}

#[test]
fn a_replica_that_begins_with_a_snapshot_answers_alike() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut original = Rig::open(here.path());
    let (topic, firsts) = filled(&mut original);
    retire(&original);
    let mut replica = replica_of(&original, there.path());
    assert!(replica.log.bounds().last == original.log.bounds().last);
    assert_eq!(*replica.store.tables(), *original.store.tables());
    assert_eq!(replica.store.digest(), original.store.digest());
    replica.now_ms = original.now_ms;
    check_all_known(&mut replica, topic, &firsts);
    check_all_known(&mut original, topic, &firsts);
    let mut replica = replica.reopen_after(|_| {});
    assert_eq!(*replica.store.tables(), *original.store.tables());
    check_all_known(&mut replica, topic, &firsts);
}

#[test]
fn one_that_waits_is_followed_to_where_it_was_copied_and_forgotten_when_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 1);
    let park = |rig: &mut Rig, kind, origin: PhysicalOffset| {
        let mut batch = BatchBuilder::default();
        let head = RowHead {
            topic_id: topic,
            kind,
            origin: origin.get(),
        };
        let row = batch.push_with_tags_code(head, &message("T", 0, b"x", b""), i64::MAX / 2);
        let row = row.unwrap() as u32;
        if kind == RowKind::Timer {
            once(&mut batch, row, 5, HOUR_MS);
        }
        rig.put_batch(batch).1.rows[0]
    };
    let sent = park(&mut rig, RowKind::Timer, PhysicalOffset::ZERO);
    let moved = park(&mut rig, RowKind::Moves, sent.offset);
    let first = FirstSend {
        queue: 0,
        queue_offset: QueueOffset::ZERO,
        place: moved.offset,
    };
    let copy = park(&mut rig, RowKind::Timer, PhysicalOffset::ZERO);
    assert_eq!(copy.result, RowResult::SentBefore(first));
    let taken_back = rig.command(Command::Unpark {
        places: vec![moved.offset],
    });
    assert_eq!(
        taken_back,
        gantry_storage::tables::CommandResult::Resolved(1)
    );
    assert!(rig.store.tables().recent_sends().is_empty());
    let mut rig = rig.reopen_after(|_| {});
    let anew = park(&mut rig, RowKind::Timer, PhysicalOffset::ZERO);
    assert_eq!(anew.result, RowResult::Stored(QueueOffset::new(2)));
}

/// Sends that many new messages in one batch.
fn send_many(rig: &mut Rig, topic: u32, numbers: std::ops::Range<u64>) -> Applied {
    let mut batch = BatchBuilder::default();
    for number in numbers {
        push(&mut batch, topic, number, b"x");
    }
    rig.put_batch(batch).1
}

#[test]
fn beyond_the_bound_the_oldest_are_forgotten_and_counted() {
    const BATCH: u64 = 4_000;
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with_segments(dir.path(), 1 << 30);
    let topic = rig.topic("T", 1);
    let most = RECENT_SENDS_MAX as u64;
    assert_eq!(most % BATCH, 0);
    for begin in (0..most).step_by(BATCH as usize) {
        let applied = send_many(&mut rig, topic, begin..begin + BATCH);
        assert_eq!(applied.sends_pushed_out, 0, "{begin}");
    }
    let applied = send_many(&mut rig, topic, most..most + 5);
    assert_eq!(applied.sends_pushed_out, 5);
    assert_eq!(rig.store.tables().recent_sends().len(), RECENT_SENDS_MAX);
    let known = send_many(&mut rig, topic, 5..7);
    assert!(
        known
            .rows
            .iter()
            .all(|row| matches!(row.result, RowResult::SentBefore(_)))
    );
    let forgotten = send_many(&mut rig, topic, 0..5);
    for (number, row) in forgotten.rows.iter().enumerate() {
        let next = QueueOffset::new(most + 5 + number as u64);
        assert_eq!(row.result, RowResult::Stored(next));
    }
    assert_eq!(forgotten.sends_pushed_out, 5, "they made room in turn");
}
