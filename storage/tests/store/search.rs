//! Messages by position, key and time; positions come from clients and are not believed.

use gantry_storage::batch::BatchBuilder;
use gantry_storage::message::MessageView;
use gantry_storage::position::{PhysicalOffset, QueueOffset};
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{KeyQuery, TimeBoundary};
use gantry_storage::tables::Command;

use crate::rig::{HOST, Rig, message, push};

fn query<'a>(topic: &'a str, key: &'a str) -> KeyQuery<'a> {
    KeyQuery {
        topic,
        key,
        max_messages: 32,
        begin_ms: 0,
        end_ms: u64::MAX,
        store_host: HOST,
    }
}

fn bodies(rig: &Rig, query: &KeyQuery<'_>) -> Vec<String> {
    let found = rig.store.query_keys(query).unwrap();
    let body = |bytes: &bytes::Bytes| {
        String::from_utf8(MessageView::parse(bytes).unwrap().body().to_vec()).unwrap()
    };
    found.iter().map(body).collect()
}

#[test]
fn only_positions_that_a_queue_points_at_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 1);
    // A message whose body is a message: asking for the inner one must not work.
    let inner = message("T", 0, b"forged", b"");
    let mut forged = bytes::BytesMut::new();
    inner.encode(&mut forged).unwrap();
    let mut sent = Vec::new();
    for number in 0..120 {
        let body = if number % 2 == 0 {
            forged.to_vec()
        } else {
            vec![number; 1_000]
        };
        sent.push(rig.send(("T", topic), 0, &body, b""));
    }
    for flushed in [false, true] {
        if flushed {
            rig.store.flush_indexes().unwrap();
        }
        for message in &sent {
            let bytes = rig.store.message_at(message.offset, HOST).unwrap().unwrap();
            let view = MessageView::parse(&bytes).unwrap();
            assert_eq!(view.physical_offset(), message.offset);
            assert_eq!(view.queue_offset(), message.queue_offset);
            assert_eq!(view.store_host(), HOST);
        }
        let real: Vec<u64> = sent.iter().map(|message| message.offset.get()).collect();
        let end = rig.log.bounds().end_offset.get();
        // Every byte around some messages, old and new, and places that no log has.
        let near = |center: u64| center.saturating_sub(200)..(center + 300).min(end + 100);
        let everywhere = near(real[0]).chain(near(real[60])).chain(near(real[119]));
        for at in everywhere.chain([end, end + 1, 1 << 40, u64::MAX - 7, u64::MAX]) {
            let found = rig.store.message_at(PhysicalOffset::new(at), HOST).unwrap();
            assert_eq!(found.is_some(), real.contains(&at), "byte {at}");
        }
    }
}

#[test]
fn a_message_that_no_queue_took_cannot_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 1);
    let sent = rig.send(("T", topic), 0, b"body", b"KEYS\x01k\x02");
    let mut refused = BatchBuilder::default();
    push(
        &mut refused,
        ("T", topic),
        7,
        b"no such queue",
        b"KEYS\x01k\x02",
    );
    let (_, applied) = rig.put_batch(refused);
    assert_eq!(
        rig.store.message_at(applied.rows[0].offset, HOST).unwrap(),
        None
    );
    assert_eq!(bodies(&rig, &query("T", "k")), ["body"]);
    rig.command(Command::DeleteTopic { name: "T".into() });
    assert_eq!(rig.store.message_at(sent.offset, HOST).unwrap(), None);
    assert!(bodies(&rig, &query("T", "k")).is_empty());
}

#[test]
fn keys_are_found_newest_first_within_the_times_and_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 2);
    let start = rig.now_ms;
    // "Aa" and "BB" have the same hash.
    for (number, key) in ["Aa", "BB", "Aa", "x Aa y", "BB"].iter().enumerate() {
        let keys = format!("KEYS\x01{key}\x02UNIQ_KEY\x01U{number}\x02");
        let body = number.to_string();
        rig.send(("T", topic), 1, body.as_bytes(), keys.as_bytes());
    }
    for flushed in [false, true] {
        if flushed {
            rig.store.save_copy().unwrap();
        }
        assert_eq!(bodies(&rig, &query("T", "Aa")), ["3", "2", "0"]);
        assert_eq!(bodies(&rig, &query("T", "BB")), ["4", "1"]);
        assert_eq!(bodies(&rig, &query("T", "U2")), ["2"]);
        assert!(bodies(&rig, &query("U", "Aa")).is_empty());
        let limited = KeyQuery {
            max_messages: 1,
            ..query("T", "Aa")
        };
        assert_eq!(bodies(&rig, &limited), ["3"]);
        let (begin_ms, end_ms) = (start + 2_000, start + 3_000);
        let timed = KeyQuery {
            begin_ms,
            end_ms,
            ..query("T", "Aa")
        };
        assert_eq!(bodies(&rig, &timed), ["2"]);
    }
}

#[test]
fn a_time_is_found_from_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 1);
    let key = QueueKey {
        topic_id: topic,
        queue: 0,
    };
    let at =
        |rig: &Rig, time, boundary| rig.store.offset_by_time(key, time, boundary).unwrap().get();
    assert_eq!(at(&rig, 0, TimeBoundary::Lower), 0, "an empty queue");
    // Offsets 0 and 1 at the first second, 2 and 3 at the next, and so on.
    let first = rig.now_ms + 1_000;
    for _ in 0..5 {
        let mut batch = BatchBuilder::default();
        push(&mut batch, ("T", topic), 0, b"a", b"");
        push(&mut batch, ("T", topic), 0, b"b", b"");
        rig.put_batch(batch);
    }
    for flushed in [false, true] {
        if flushed {
            rig.store.flush_indexes().unwrap();
        }
        let lower = |time| at(&rig, time, TimeBoundary::Lower);
        let upper = |time| at(&rig, time, TimeBoundary::Upper);
        assert_eq!((lower(0), upper(0)), (0, 0));
        assert_eq!((lower(first), upper(first)), (0, 1));
        assert_eq!((lower(first + 1), upper(first + 1)), (2, 1));
        assert_eq!((lower(first + 4_000), upper(first + 4_000)), (8, 9));
        assert_eq!((lower(u64::MAX), upper(u64::MAX)), (10, 9));
        let time = rig.store.store_time_at(key, QueueOffset::new(2)).unwrap();
        assert_eq!(time, Some(first + 1_000));
        assert_eq!(
            rig.store.store_time_at(key, QueueOffset::new(10)).unwrap(),
            None
        );
    }
}
