//! Applying is the same everywhere, and reading finds what was applied.

use gantry_storage::batch::BatchBuilder;
use gantry_storage::commitlog::{Record, RecordKind};
use gantry_storage::position::{LogIndex, QueueOffset};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{ReadRequest, ReadStatus, RowResult};
use gantry_storage::tables::{Command, OffsetCommit, TopicConfig};

use crate::rig::{HOST, Rig, TAG, push};

fn rows(applied: &gantry_storage::store::Applied) -> Vec<RowResult> {
    applied.rows.iter().map(|row| row.result).collect()
}

#[test]
fn two_stores_given_the_same_records_are_equal() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut leader, follower) = (Rig::open(here.path()), Rig::open(there.path()));
    let topic = leader.topic("T", 4);
    for round in 0..50u64 {
        let mut batch = BatchBuilder::default();
        for number in 0..5 {
            let body = format!("{round}-{number}");
            push(
                &mut batch,
                ("T", topic),
                (number % 4) as u16,
                body.as_bytes(),
                b"",
            );
        }
        let entry = OffsetCommit {
            group: format!("G{}", round % 3),
            topic: "T".into(),
            queue: 0,
            offset: QueueOffset::new(round),
        };
        batch.push_command(&Command::CommitOffsets {
            entries: vec![entry],
            advance_only: false,
        });
        leader.put_batch(batch);
        if round == 30 {
            // Half-way: later records are cut into other groups there.
            leader.store.flush_indexes().unwrap();
        }
    }
    leader.command(Command::PutTopic {
        config: TopicConfig::new("U", 1),
    });
    leader.command(Command::DeleteTopic { name: "U".into() });
    let last = leader.next_index();
    let records = leader.log.read(LogIndex::new(1), last, 1 << 30).unwrap();
    assert_ne!(leader.store.digest(), follower.store.digest());
    for located in &records {
        follower.store.apply(located);
    }
    assert_eq!(leader.store.digest(), follower.store.digest());
    assert_eq!(leader.store.applied(), follower.store.applied());
    assert_eq!(*leader.store.tables(), *follower.store.tables());
}

#[test]
fn messages_for_topics_and_queues_that_are_gone_are_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let (gone, kept) = (rig.topic("gone", 1), rig.topic("kept", 4));
    rig.send(("kept", kept), 3, b"early", b"");
    rig.command(Command::PutTopic {
        config: TopicConfig::new("kept", 2),
    });
    let mut batch = BatchBuilder::default();
    push(&mut batch, ("gone", gone), 0, b"a", b"");
    push(&mut batch, ("kept", kept), 1, b"b", b"");
    push(&mut batch, ("kept", kept), 3, b"c", b"");
    batch.push_command(&Command::DeleteTopic {
        name: "gone".into(),
    });
    let (_, applied) = rig.put_batch(batch);
    let stored = RowResult::Stored(QueueOffset::ZERO);
    assert_eq!(
        rows(&applied),
        [RowResult::TopicGone, stored, RowResult::QueueGone]
    );
    let key = QueueKey {
        topic_id: kept,
        queue: 1,
    };
    assert_eq!(
        applied.arrivals.iter().map(|a| a.key).collect::<Vec<_>>(),
        [key]
    );
    assert_eq!(applied.arrivals[0].next, QueueOffset::new(1));
    let shrunk = QueueKey { queue: 3, ..key };
    assert_eq!(
        rig.bodies(shrunk),
        [b"early"],
        "what a removed queue holds stays readable"
    );
    assert_eq!(
        rig.store.queue_bounds(QueueKey {
            topic_id: gone,
            queue: 0
        }),
        None
    );
    let again = rig.topic("gone", 1);
    assert_ne!(
        again, gone,
        "rows for the old topic never reach the new one"
    );
}

#[test]
fn a_read_answers_as_the_table_of_outcomes_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 2);
    let key = QueueKey {
        topic_id: topic,
        queue: 0,
    };
    let outcome = |rig: &Rig, offset| {
        let read = rig.read(key, offset, 10);
        (read.status, read.next_offset.get(), read.count)
    };
    assert_eq!(outcome(&rig, 0), (ReadStatus::NoMessageInQueue, 0, 0));
    assert_eq!(outcome(&rig, 9), (ReadStatus::NoMessageInQueue, 0, 0));
    for body in ["a", "b", "c"] {
        rig.send(("T", topic), 0, body.as_bytes(), b"TAGS\x01x\x02");
    }
    for flushed in [false, true] {
        if flushed {
            rig.store.flush_indexes().unwrap();
        }
        assert_eq!(outcome(&rig, 0), (ReadStatus::Found, 3, 3));
        assert_eq!(outcome(&rig, 2), (ReadStatus::Found, 3, 1));
        assert_eq!(outcome(&rig, 3), (ReadStatus::OffsetOverflowOne, 3, 0));
        assert_eq!(outcome(&rig, 4), (ReadStatus::OffsetOverflowBadly, 3, 0));
        assert_eq!(
            outcome(&rig, u64::MAX),
            (ReadStatus::OffsetOverflowBadly, 3, 0)
        );
    }
    let absent = QueueKey { queue: 9, ..key };
    assert_eq!(rig.read(absent, 0, 1).status, ReadStatus::NoMessageInQueue);
}

#[test]
fn filters_and_limits_decide_what_a_read_returns() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 1);
    let key = QueueKey {
        topic_id: topic,
        queue: 0,
    };
    let mut batch = BatchBuilder::default();
    for number in 0..10 {
        let tag = if number % 2 == 0 {
            "TAGS\x01even\x02"
        } else {
            "TAGS\x01odd\x02"
        };
        push(&mut batch, ("T", topic), 0, &[b'x'; 100], tag.as_bytes());
    }
    rig.put_batch(batch);
    let even = i64::from(gantry_storage::message::java_hash("even"));
    let read = |max_messages, max_bytes, filter: &dyn Fn(i64) -> bool| {
        let offset = QueueOffset::ZERO;
        let request = ReadRequest {
            key,
            offset,
            max_messages,
            max_bytes,
            filter,
            properties: None,
            store_host: HOST,
            may_wait: true,
            whole: true,
        };
        let read = rig.store.read_queue(&request).unwrap();
        (read.status, read.count, read.next_offset.get())
    };
    let is_even = |code: i64| code == even;
    assert_eq!(read(32, 1 << 20, &is_even), (ReadStatus::Found, 5, 10));
    assert_eq!(
        read(2, 1 << 20, &is_even),
        (ReadStatus::Found, 2, 4),
        "up to the next match"
    );
    assert_eq!(
        read(32, 1 << 20, &|_| false),
        (ReadStatus::NoMatched, 0, 10)
    );
    assert_eq!(
        read(32, 1, &|_| true),
        (ReadStatus::Found, 1, 1),
        "one is always returned"
    );
    assert_eq!(read(32, 500, &|_| true), (ReadStatus::Found, 2, 2));
    assert_eq!(read(0, 500, &|_| true), (ReadStatus::Found, 1, 1));
}

#[test]
fn members_and_the_clock_are_part_of_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let members = Record::new(
        TAG,
        rig.next_index(),
        RecordKind::Membership,
        "1,2,3".into(),
    );
    let index = members.index;
    let (_, applied) = rig.put(members.at(5_000));
    assert_eq!(applied.clock_ms, 5_000);
    let earlier = Record::new(TAG, rig.next_index(), RecordKind::Blank, "".into()).at(4_000);
    let (_, applied) = rig.put(earlier);
    assert_eq!(
        applied.clock_ms, 5_000,
        "a clock that went back stands still"
    );
    assert_eq!(
        rig.store.applied_membership(),
        Some((index, TAG, "1,2,3".into()))
    );
}

#[test]
#[should_panic(expected = "applied after")]
fn a_gap_in_the_records_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    rig.topic("T", 1);
    rig.topic("U", 1);
    let records = rig
        .log
        .read(LogIndex::new(1), LogIndex::new(3), 1 << 20)
        .unwrap();
    let mut skipped = records[1].clone();
    skipped.record.index = LogIndex::new(9);
    rig.store.apply(&skipped);
}
