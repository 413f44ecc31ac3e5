//! Replicas that lost their directory, and logs whose beginning is gone.

use std::sync::Arc;

use gantry_raft::NodeNumber;
use gantry_storage::{LogIndex, QueueOffset};

use crate::rig::{Cluster, NODES, PATIENT, QUEUES, Setup, eventually};

/// All three vote, under one id each, and nobody else is known.
async fn assert_members_are_whole(cluster: &Cluster) {
    let leader = cluster.leader().await;
    eventually("the group has its three voters", || {
        let status = cluster.nodes[&leader].replica.status();
        status.voters.len() == NODES.len() && status.learners.is_empty()
    })
    .await;
    let mut voters = cluster.nodes[&leader].replica.status().voters;
    voters.sort_unstable();
    assert_eq!(voters, NODES);
}

/// Waits until `node` is a voter that acts under its present id.
async fn admitted(cluster: &Cluster, node: NodeNumber) {
    eventually("the new replica is a voter", || {
        let status = cluster.nodes[&node].replica.status();
        status.voters.contains(&node) && status.role != "learner"
    })
    .await;
    assert_members_are_whole(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_replica_comes_back_as_another_and_holds_everything() {
    let mut cluster = Cluster::form(Setup::new(PATIENT)).await;
    cluster.send(60, 3_000).await;
    let leader = cluster.leader().await;
    let wiped = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(wiped).await;
    cluster.send(10, 100).await;
    cluster.wipe(wiped);
    cluster.start(&[wiped]).await;
    let incarnation = cluster.nodes[&wiped].seat.incarnation;
    assert!(
        incarnation > 0,
        "it must not act under the name of the one that was lost"
    );
    admitted(&cluster, wiped).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();

    // It counts: with another node gone, the two that are left are a majority.
    let gone = NODES
        .into_iter()
        .find(|node| ![leader, wiped].contains(node))
        .unwrap();
    cluster.kill(gone).await;
    cluster.send(5, 100).await;
    cluster.kill(wiped).await;
    cluster.start(&[wiped, gone]).await;
    assert_eq!(
        cluster.nodes[&wiped].seat.incarnation, incarnation,
        "its name is on its disk"
    );
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_lost_while_it_joins_leaves_no_trace() {
    let mut setup = Setup::new(PATIENT);
    // Slow enough that it is not a voter before it is lost again.
    setup.catch_up = 20_000;
    let mut cluster = Cluster::form(setup).await;
    // Far behind means hundreds of records.
    cluster.send(400, 100).await;
    let leader = cluster.leader().await;
    let wiped = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.start(&[wiped]).await;
    let first = cluster.nodes[&wiped].seat.replica();
    eventually("the new replica is a learner", || {
        cluster.nodes[&leader].replica.status().learners == [wiped]
    })
    .await;
    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.start(&[wiped]).await;
    assert!(cluster.nodes[&wiped].seat.replica() > first);
    admitted(&cluster, wiped).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_goes_on_when_its_leader_died() {
    let mut setup = Setup::new(PATIENT);
    // Slow enough that the third node is gone before the newcomer becomes a voter.
    setup.catch_up = 60_000;
    let mut cluster = Cluster::form(setup).await;
    cluster.send(400, 100).await;
    let leader = cluster.leader().await;
    let mut others = NODES.into_iter().filter(|node| *node != leader);
    let (wiped, third) = (others.next().unwrap(), others.next().unwrap());
    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.start(&[wiped]).await;
    eventually("the new replica is a learner", || {
        cluster.nodes[&leader].replica.status().learners == [wiped]
    })
    .await;
    // Agreed, so that the next change may begin.
    cluster.send(1, 100).await;
    // The change needs its vote, as one of those that were there before.
    cluster.kill(third).await;
    eventually("the newcomer knows of the change", || {
        cluster.nodes[&wiped].replica.status().role != "learner"
    })
    .await;
    let status = cluster.nodes[&leader].replica.status();
    assert_eq!(
        status.learners,
        [wiped],
        "the change is not over: {status:?}"
    );
    assert!(!status.voters.contains(&wiped), "{status:?}");
    cluster.kill(leader).await;
    cluster.start(&[leader, third]).await;
    admitted(&cluster, wiped).await;
    cluster.send(5, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_replica_catches_up_through_the_snapshot_at_the_boundary() {
    let mut cluster = Cluster::form(Setup::new(PATIENT)).await;
    cluster.send(80, 4_000).await;
    cluster.converge().await;
    let bases: Vec<_> = cluster.nodes[&1]
        .log
        .segments()
        .iter()
        .map(|s| s.base)
        .collect();
    assert!(bases.len() >= 5, "{bases:?}");
    let keep_from = bases[3];
    let mut boundaries = Vec::new();
    for node in cluster.nodes.values() {
        boundaries.push(retire(node, keep_from).await);
    }
    assert!(
        boundaries.iter().all(|index| *index == boundaries[0]),
        "{boundaries:?}"
    );
    let mins = min_offsets(&cluster, 1);
    assert!(
        mins.iter().all(|min| min.get() > 0),
        "messages were retired: {mins:?}"
    );

    let leader = cluster.leader().await;
    let wiped = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.start(&[wiped]).await;
    admitted(&cluster, wiped).await;
    cluster.send(5, 100).await;
    cluster.converge().await;
    let log = cluster.nodes[&wiped].log.bounds();
    assert_eq!(
        log.purged.map(|(index, _)| index),
        Some(boundaries[0]),
        "it got the snapshot"
    );
    for node in NODES {
        assert_eq!(min_offsets(&cluster, node), mins, "node {node}");
    }
    cluster.assert_acked_are_there();

    // What came by snapshot is there after a restart too.
    cluster.kill(wiped).await;
    cluster.start(&[wiped]).await;
    cluster.converge().await;
    assert_eq!(min_offsets(&cluster, wiped), mins);
    cluster.assert_acked_are_there();
}

/// What the maintenance of a node does when the log before `base` may go.
pub async fn retire(node: &crate::rig::Node, base: gantry_storage::PhysicalOffset) -> LogIndex {
    let store = node.store.clone();
    let chosen = tokio::task::spawn_blocking(move || {
        store.flush_indexes().unwrap();
        store.set_boundary(base).unwrap()
    });
    let (index, _) = chosen.await.unwrap().expect("a checkpoint to keep from");
    node.replica.purge_through(index).await.unwrap();
    assert_eq!(
        node.log.bounds().purged.map(|(at, _)| at),
        Some(index),
        "purged on return"
    );
    let store: Arc<_> = node.store.clone();
    tokio::task::spawn_blocking(move || store.log_purged().unwrap())
        .await
        .unwrap();
    let first = node.log.segments().first().map(|segment| segment.base);
    assert!(first >= Some(base), "{first:?}");
    index
}

fn min_offsets(cluster: &Cluster, node: NodeNumber) -> Vec<QueueOffset> {
    let store = &cluster.nodes[&node].store;
    let min = |queue| store.queue_bounds(cluster.queue(queue)).unwrap().min;
    (0..QUEUES).map(min).collect()
}
