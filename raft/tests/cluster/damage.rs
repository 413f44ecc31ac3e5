//! Rot on one replica, on several, and on all: what was acknowledged comes back, and nothing else is served.

use std::path::{Path, PathBuf};

use gantry_raft::NodeNumber;
use gantry_storage::commitlog::Located;
use gantry_storage::{LogIndex, PhysicalOffset};
use tokio::time::timeout;

use crate::rejoin::retire;
use crate::rig::{Cluster, LIMIT, NODES, Node, PATIENT, QUICK, SEGMENT_BYTES, Setup, eventually};

/// All reads are from the disk.
fn cold(timing: gantry_raft::Timing) -> Setup {
    let mut setup = Setup::new(timing);
    setup.tail_bytes = 0;
    setup
}

fn segment_path(directory: &Path, base: u64) -> PathBuf {
    directory.join(format!("{base:020}.log"))
}

/// Flips a byte in the payload of a record.
fn rot(directory: &Path, record: &Located) {
    let at = record.payload_offset().get() + 5;
    let base = at / SEGMENT_BYTES * SEGMENT_BYTES;
    let path = segment_path(directory, base);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(at - base) as usize] ^= 0x20;
    std::fs::write(&path, bytes).unwrap();
}

fn record(node: &Node, index: u64) -> Located {
    let (from, end) = (LogIndex::new(index), LogIndex::new(index + 1));
    node.log.read(from, end, 1).unwrap().remove(0)
}

fn forget_indexes(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// The records of every node, which must be the same bytes once all have the last one.
async fn assert_logs_are_equal(cluster: &Cluster) {
    let last = |node: &Node| node.log.bounds().last;
    eventually("all logs end alike", || {
        let lasts: Vec<_> = cluster.nodes.values().map(last).collect();
        lasts.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
    let read = |node: &Node| {
        let last = node.log.bounds().last.unwrap().0;
        let mut found: Vec<Located> = Vec::new();
        while found
            .last()
            .is_none_or(|located| located.record.index < last)
        {
            let next = found
                .last()
                .map_or(0, |located| located.record.index.get() + 1);
            let read = node.log.read(LogIndex::new(next), last.next(), 1 << 20);
            found.extend(read.unwrap());
        }
        found
    };
    let logs: Vec<_> = cluster.nodes.values().map(read).collect();
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]));
}

async fn kill_all(cluster: &mut Cluster) {
    for node in NODES {
        cluster.kill(node).await;
    }
}

/// A stopped cluster with several segments, and one of its records per wanted index.
async fn stopped(indexes: &[u64]) -> (Cluster, Vec<Located>) {
    let mut cluster = Cluster::form(cold(QUICK)).await;
    cluster.send(60, 4_000).await;
    cluster.converge().await;
    let node = &cluster.nodes[&1];
    assert!(node.log.segments().len() >= 3);
    let records = indexes.iter().map(|index| record(node, *index)).collect();
    kill_all(&mut cluster).await;
    for node in NODES {
        forget_indexes(&cluster.directory(node));
    }
    (cluster, records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_rotted_while_it_was_down_is_mended_before_it_votes() {
    let (mut cluster, records) = stopped(&[7, 40]).await;
    rot(&cluster.directory(2), &records[0]);
    rot(&cluster.directory(2), &records[1]);
    std::fs::remove_file(segment_path(&cluster.directory(3), SEGMENT_BYTES)).unwrap();
    cluster.start(&NODES).await;
    cluster.send(5, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    assert_logs_are_equal(&cluster).await;
    for node in cluster.nodes.values() {
        assert_eq!(node.seat.incarnation, 0, "nobody lost its name");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_rotted_in_different_places_mend_each_other_without_a_leader() {
    let (mut cluster, records) = stopped(&[7, 30, 50]).await;
    for (node, record) in NODES.into_iter().zip(&records) {
        rot(&cluster.directory(node), record);
    }
    // Two are enough, although each of them is damaged.
    cluster.start(&[1, 2]).await;
    cluster.leader().await;
    cluster.send(5, 100).await;
    cluster.start(&[3]).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    assert_logs_are_equal(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_rotted_everywhere_halts_the_group_and_says_so() {
    let (mut cluster, records) = stopped(&[30]).await;
    for node in NODES {
        rot(&cluster.directory(node), &records[0]);
    }
    let copy = std::fs::read(segment_path(
        &cluster.directory(1),
        records[0].offset.get() / SEGMENT_BYTES * SEGMENT_BYTES,
    ));
    let refused = cluster.try_start(&NODES).await;
    assert_eq!(refused.len(), 3, "{refused:?}");
    for (_, error) in &refused {
        let message = error.to_string();
        assert!(message.contains("records 30 to 30"), "{message}");
        assert!(message.contains("damaged on every node"), "{message}");
        assert!(message.contains("Restore the segment file"), "{message}");
    }
    // One copy brings all of them back.
    let base = records[0].offset.get() / SEGMENT_BYTES * SEGMENT_BYTES;
    let mut bytes = copy.unwrap();
    bytes[(records[0].payload_offset().get() + 5 - base) as usize] ^= 0x20;
    std::fs::write(segment_path(&cluster.directory(3), base), bytes).unwrap();
    cluster.start(&NODES).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    assert_logs_are_equal(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_under_a_running_leader_is_mended_while_a_follower_needs_it() {
    let mut cluster = Cluster::form(cold(PATIENT)).await;
    cluster.send(30, 4_000).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let behind = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(behind).await;
    cluster.send(20, 4_000).await;
    let last = cluster.nodes[&leader].log.bounds().last.unwrap().0.get();
    for index in [last - 15, last - 5] {
        let damaged = record(&cluster.nodes[&leader], index);
        rot(&cluster.directory(leader), &damaged);
    }
    cluster.start(&[behind]).await;
    cluster.converge().await;
    // What the follower did not need is found by looking for it.
    let log = cluster.nodes[&leader].log.clone();
    log.scrub(PhysicalOffset::ZERO, u64::MAX).unwrap();
    eventually("both are mended", || log.holes().is_empty()).await;
    let damage = log.damage();
    assert_eq!((damage.found, damage.mended), (2, 2), "{damage:?}");
    cluster.assert_acked_are_there();
    assert_logs_are_equal(&cluster).await;
    assert_eq!(cluster.leader().await, leader, "it was mended in no time");
    assert!(cluster.nodes[&leader].replica.stopped().borrow().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_mend_yet_is_fenced_and_the_group_goes_on_without_it() {
    let mut cluster = Cluster::form(cold(QUICK)).await;
    cluster.send(30, 4_000).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let damaged = record(&cluster.nodes[&leader], 9);
    let others: Vec<NodeNumber> = NODES.into_iter().filter(|node| *node != leader).collect();
    cluster.kill(others[1]).await;
    // Both before either is noticed: they would mend each other.
    for node in [leader, others[0]] {
        rot(&cluster.directory(node), &damaged);
    }
    for node in [leader, others[0]] {
        let read = cluster.nodes[&node].log.record_at(damaged.offset);
        assert!(read.is_err(), "rot was served");
    }
    cluster.send(6, 100).await;
    for node in [leader, others[0]] {
        let log = &cluster.nodes[&node].log;
        assert_eq!(log.holes().len(), 1, "node {node}");
        assert!(log.record_at(damaged.offset).is_err(), "rot was served");
    }
    // Also a leader that is damaged is better than none.
    cluster.kill(leader).await;
    forget_indexes(&cluster.directory(leader));
    cluster.start(&[others[1]]).await;
    let whole = |cluster: &Cluster, node: NodeNumber| cluster.nodes[&node].log.holes().is_empty();
    eventually("it is mended", || whole(&cluster, others[0])).await;
    cluster.start(&[leader]).await;
    cluster.send(3, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    assert_logs_are_equal(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_vote_or_its_name_joins_as_another() {
    for file in ["vote", "identity"] {
        let mut cluster = Cluster::form(Setup::new(QUICK)).await;
        cluster.send(20, 1_000).await;
        cluster.converge().await;
        let leader = cluster.leader().await;
        let lost = NODES.into_iter().find(|node| *node != leader).unwrap();
        cluster.kill(lost).await;
        let path = cluster.directory(lost).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (10..bytes.len()).step_by(40) {
            bytes[at] ^= 0x11;
        }
        std::fs::write(&path, bytes).unwrap();
        cluster.start(&[lost]).await;
        assert!(cluster.nodes[&lost].seat.incarnation > 0, "{file}");
        eventually("the new replica votes", || {
            let status = cluster.nodes[&lost].replica.status();
            status.voters.contains(&lost) && status.role != "learner"
        })
        .await;
        cluster.send(3, 100).await;
        cluster.converge().await;
        cluster.assert_acked_are_there();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_that_was_never_agreed_on_costs_the_replica_its_name() {
    let mut cluster = Cluster::form(cold(QUICK)).await;
    cluster.send(10, 1_000).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let others: Vec<NodeNumber> = NODES.into_iter().filter(|node| *node != leader).collect();
    for node in &others {
        cluster.kill(*node).await;
    }
    // Alone, it appends what nobody else will ever have.
    let before = cluster.nodes[&leader].log.bounds().last.unwrap().0;
    let proposal = cluster.seal(cluster.message(0, "alone"));
    let outcome = cluster.nodes[&leader].propose(proposal).await;
    eventually("it is on its disk", || {
        cluster.nodes[&leader].log.bounds().flushed > Some(before)
    })
    .await;
    let alone = record(&cluster.nodes[&leader], before.get() + 1);
    cluster.kill(leader).await;
    assert!(timeout(LIMIT, outcome).await.unwrap().unwrap().is_err());
    rot(&cluster.directory(leader), &alone);
    forget_indexes(&cluster.directory(leader));
    cluster.start(&others).await;
    cluster.leader().await;
    cluster.send(3, 100).await;
    cluster.start(&[leader]).await;
    assert!(cluster.nodes[&leader].seat.incarnation > 0);
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_that_the_others_have_retired_costs_the_replica_its_name() {
    let mut cluster = Cluster::form(cold(QUICK)).await;
    cluster.send(60, 4_000).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let damaged = NODES.into_iter().find(|node| *node != leader).unwrap();
    let early = record(&cluster.nodes[&damaged], 7);
    cluster.kill(damaged).await;
    rot(&cluster.directory(damaged), &early);
    forget_indexes(&cluster.directory(damaged));
    for node in cluster.nodes.values() {
        retire(node, PhysicalOffset::new(SEGMENT_BYTES)).await;
    }
    cluster.start(&[damaged]).await;
    assert!(cluster.nodes[&damaged].seat.incarnation > 0);
    cluster.send(3, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
}
