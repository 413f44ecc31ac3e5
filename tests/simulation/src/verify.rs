//! Whether the replicas hold the same: their logs byte for byte, their state, and every queue as it is read.

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry::group::Group;
use gantry_checker::{Answer, Note, Queue, Request};
use gantry_protocol::message::Message;
use gantry_storage::{LogIndex, QueueKey, ReadRequest, ReadStatus};

use crate::clients::seen;
use crate::cluster::{BROKER, COPIES, FEATURE_TOPICS, NODES, QUEUES, TOPICS};
use crate::machine::name_of;
use crate::world::World;

/// Records that a digest is over.
const DIGEST_RECORDS: u64 = 64;

/// What is wrong with the replicas.
pub enum Wrong {
    /// They differ.
    Differ(String),
    /// A part of one cannot be read. It was looked at, so it will come back if it was only damaged.
    Damaged(String),
}

/// Compares all replicas, which have converged; what clients can see of them goes into the history, too.
///
/// # Errors
/// They differ, or cannot be read.
pub fn replicas_are_equal(world: &World) -> Result<(), Wrong> {
    let mut states = Vec::new();
    for machine in &world.machines {
        let group = machine
            .group()
            .ok_or_else(|| Wrong::Differ("a node does not run".to_string()))?;
        let name = name_of(machine.node);
        states.push((group.store.applied(), group.store.digest()));
        digest_log(world, group, &name)?;
        for topic in TOPICS {
            for number in 0..QUEUES {
                dump(world, group, &name, (topic, number))?;
            }
        }
        let copies = COPIES.iter().map(|topic| (*topic, 1));
        for (topic, queues) in FEATURE_TOPICS.into_iter().chain(copies) {
            for number in 0..queues {
                dump(world, group, &name, (topic, number))?;
            }
        }
    }
    if states.iter().any(|state| *state != states[0]) {
        let text = format!("the states of nodes {NODES:?} differ: {states:?}");
        return Err(Wrong::Differ(text));
    }
    Ok(())
}

/// Digests of the log's records, for each run of them that begins at a round index.
fn digest_log(world: &World, group: &Group, name: &str) -> Result<(), Wrong> {
    let bounds = group.log.bounds();
    let first = match (bounds.purged, group.log.segments().first()) {
        (Some((purged, _)), _) => purged.get() + 1,
        (None, Some(segment)) => segment.first_index.get(),
        (None, None) => return Ok(()),
    };
    let Some((last, _)) = bounds.last else {
        return Ok(());
    };
    let mut from = first.next_multiple_of(DIGEST_RECORDS);
    while from <= last.get() {
        let end = (from + DIGEST_RECORDS).min(last.get() + 1);
        let crc = digest(group, from, end)?;
        world.around.history.note(Note::Digest {
            broker: BROKER.to_string(),
            node: name.to_string(),
            index: end - 1,
            crc,
        });
        from = end;
    }
    Ok(())
}

fn digest(group: &Group, from: u64, end: u64) -> Result<u32, Wrong> {
    let mut hasher = crc32fast::Hasher::new();
    let mut next = from;
    while next < end {
        let (at, limit) = (LogIndex::new(next), LogIndex::new(end));
        let records = group.log.read(at, limit, usize::MAX);
        let records = records.map_err(|error| {
            Wrong::Damaged(format!("the log cannot be read at {next}: {error}"))
        })?;
        for located in &records {
            let record = &located.record;
            let head = format!(
                "{} {} {:?} {:?} {}",
                record.index, located.offset, record.tag, record.kind, record.store_time_ms
            );
            hasher.update(head.as_bytes());
            hasher.update(&record.payload);
        }
        if records.is_empty() {
            let text = format!("record {next} of the log is missing");
            return Err(Wrong::Differ(text));
        }
        next += records.len() as u64;
    }
    Ok(hasher.finalize())
}

/// Reads a queue of one replica from end to end, as a pull would.
fn dump(
    world: &World,
    group: &Group,
    name: &str,
    (topic, number): (&str, u16),
) -> Result<(), Wrong> {
    let Some(known) = group.store.tables().topic(topic) else {
        return Ok(());
    };
    let key = QueueKey {
        topic_id: known.id,
        queue: number,
    };
    let queue = Queue {
        broker: BROKER.to_string(),
        topic: topic.to_string(),
        queue: number,
    };
    let what = Request::Dump {
        node: name.to_string(),
        queue: queue.clone(),
    };
    let call = world.around.history.invoke("verifier", what);
    let bounds = group.store.queue_bounds(key).unwrap_or_default();
    let mut messages = Vec::new();
    let mut offset = bounds.min;
    while offset < bounds.next {
        let read = group.store.read_queue(&ReadRequest {
            key,
            offset,
            max_messages: 1_000,
            max_bytes: 1 << 20,
            filter: &|_| true,
            properties: None,
            store_host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            may_wait: true,
            whole: true,
        });
        let read = read.map_err(|error| {
            // Nobody is told anything by this look.
            world.around.history.fail("verifier", call, -1);
            Wrong::Damaged(format!("{queue} of {name} cannot be read: {error}"))
        })?;
        if read.status != ReadStatus::Found {
            let status = read.status;
            let end = bounds.next;
            let text = format!("{queue} of {name} at {offset}: {status:?} below {end}");
            return Err(Wrong::Differ(text));
        }
        let found = Message::decode_all(read.body.clone());
        let found = found
            .map_err(|error| Wrong::Differ(format!("{queue} of {name} at {offset}: {error}")))?;
        messages.extend(found.iter().map(seen));
        offset = read.next_offset;
    }
    let answer = Answer::Dumped {
        min: bounds.min.get(),
        next: bounds.next.get(),
        messages,
    };
    world.around.history.ok("verifier", call, answer);
    Ok(())
}
