//! Many queues are cheap.

use std::fs;

use gantry_storage::batch::BatchBuilder;
use gantry_storage::queue_offsets::QueueKey;

use crate::rig::{Rig, push};

const TOPICS: u32 = 1_250;
const QUEUES: u16 = 8;
/// What 10,000 queues may cost; bytes.
const LIMIT: u64 = 50 << 20;

/// Resident memory of this process; bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn ten_thousand_queues_cost_little_memory_and_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let before = resident();
    let ids: Vec<u32> = (0..TOPICS)
        .map(|n| rig.topic(&format!("topic-{n}"), QUEUES))
        .collect();
    for _ in 0..2 {
        for (number, id) in ids.iter().enumerate() {
            let mut batch = BatchBuilder::default();
            for queue in 0..QUEUES {
                let topic = format!("topic-{number}");
                push(
                    &mut batch,
                    (&topic, *id),
                    queue,
                    b"body",
                    b"KEYS\x01key\x02",
                );
            }
            rig.put_batch(batch);
        }
        rig.store.flush_indexes().unwrap();
    }
    let grown = resident().saturating_sub(before);
    assert!(
        grown < LIMIT,
        "{grown} bytes for {} queues",
        TOPICS * u32::from(QUEUES)
    );
    assert!(open_files() < 1_000, "{} open files", open_files());
    let last = QueueKey {
        topic_id: ids[ids.len() - 1],
        queue: QUEUES - 1,
    };
    assert_eq!(rig.bodies(last).len(), 2);
    assert_eq!(
        rig.bodies(QueueKey {
            topic_id: ids[0],
            queue: 0
        })
        .len(),
        2
    );
}
