//! Leases through the log: what takes their place is stored once, and all of it survives a restart.

use gantry_storage::batch::BatchBuilder;
use gantry_storage::position::QueueOffset;
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::RowResult;
use gantry_storage::tables::{Command, CommandResult, Grant, LeaseName, Redelivery};

use crate::rig::{Rig, push};

const GROUP: &str = "G";

fn pop(rig: &mut Rig, key: QueueKey, expected: Option<u64>, offsets: &[u64]) -> u64 {
    let grant = Grant {
        expected: expected.map(QueueOffset::new),
        next: QueueOffset::new(offsets[offsets.len() - 1] + 1),
        offsets: offsets.iter().copied().map(QueueOffset::new).collect(),
        invisible_ms: 1_500,
        in_order: None,
    };
    let group = GROUP.to_owned();
    match rig.command(Command::Pop { group, key, grant }) {
        CommandResult::Popped { pop_ms, .. } => pop_ms,
        other => panic!("{other:?}"),
    }
}

/// Puts a message of queue 1 in the place of each lease on queue 0.
fn redeliver(rig: &mut Rig, topic: u32, names: &[LeaseName]) -> Vec<RowResult> {
    let mut batch = BatchBuilder::default();
    let mut leases = Vec::new();
    for (row, name) in names.iter().enumerate() {
        push(&mut batch, ("T", topic), 1, b"again", b"");
        leases.push(Redelivery {
            group: GROUP.to_owned(),
            name: *name,
            row: Some(row as u32),
        });
    }
    batch.push_command(&Command::Redeliver { leases });
    let (_, applied) = rig.put_batch(batch);
    assert_eq!(applied.freed.len(), names.len());
    applied.rows.iter().map(|row| row.result).collect()
}

#[test]
fn a_lease_is_replaced_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with_copy(dir.path());
    let topic = rig.topic("T", 2);
    for body in [b"a", b"b", b"c"] {
        rig.send(("T", topic), 0, body, b"");
    }
    let key = QueueKey {
        topic_id: topic,
        queue: 0,
    };
    let pop_ms = pop(&mut rig, key, None, &[0, 1, 2]);
    let names = [0, 1, 2].map(|offset| LeaseName {
        key,
        offset: QueueOffset::new(offset),
        pop_ms,
    });
    rig.command(Command::Ack {
        group: GROUP.to_owned(),
        leases: vec![names[1]],
    });
    rig.store.save_copy().unwrap();
    let digest = rig.store.digest();
    let mut rig = rig.reopen_after(|_| {});
    assert_eq!(rig.store.digest(), digest);
    assert_eq!(
        rig.store.tables().leases().first_due_ms(),
        Some(pop_ms + 1_500)
    );
    let stored = |offset| RowResult::Stored(QueueOffset::new(offset));
    let gone = RowResult::AlreadyResolved;
    assert_eq!(
        redeliver(&mut rig, topic, &names),
        [stored(0), gone, stored(1)]
    );
    assert_eq!(redeliver(&mut rig, topic, &names), [gone; 3]);
    let digest = rig.store.digest();
    // Without the copy the whole log is applied anew.
    let rig = rig.reopen_after(|dir| std::fs::remove_dir_all(dir.join("copy")).unwrap());
    assert_eq!(rig.store.digest(), digest);
    assert_eq!(rig.store.tables().leases().count(), 0);
    let again = QueueKey { queue: 1, ..key };
    assert_eq!(rig.store.queue_bounds(again).unwrap().next.get(), 2);
}

/// Which of the messages that take the place of leases were stored is known only from all that came before.
#[test]
fn a_damaged_retry_queue_is_mended_without_what_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let topic = rig.topic("T", 2);
    let key = QueueKey {
        topic_id: topic,
        queue: 0,
    };
    let again = QueueKey { queue: 1, ..key };
    for number in 0..40u8 {
        // Some segments are filled, so that there are checkpoints in between.
        rig.send(("T", topic), 0, &[number; 6_000], b"");
        let offset = u64::from(number);
        let before = (number > 0).then_some(offset);
        let pop_ms = pop(&mut rig, key, before, &[offset]);
        let name = LeaseName {
            key,
            offset: QueueOffset::new(offset),
            pop_ms,
        };
        rig.now_ms += 2_000;
        let names = vec![name; 1 + usize::from(number % 3)];
        redeliver(&mut rig, topic, &names);
    }
    rig.store.save_copy().unwrap();
    let digest = rig.store.digest();
    // Nothing is in memory any more.
    let rig = rig.reopen_after(|_| {});
    let bodies = rig.bodies(again);
    assert_eq!(bodies.len(), 40);
    for (first, end) in [(0, 1), (3, 30), (38, 40)] {
        rig.damage_queue(again, first..end);
        assert!(rig.try_read(again, first as u64, 1).is_err(), "{first}");
        rig.store.flush_indexes().unwrap();
        assert_eq!(rig.bodies(again), bodies, "{first}");
    }
    assert_eq!(rig.store.digest(), digest);
}
