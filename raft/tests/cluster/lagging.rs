//! A replica that is far behind is brought up to date, however often retention overtakes it (openraft #2116:
//! a purge that overtook a queued apply ended the replica).

use gantry_raft::NodeNumber;

use crate::rejoin::retire;
use crate::rig::{Cluster, NODES, PATIENT, Setup, eventually};

/// Retires everything but the newest segments of the nodes that run, but for one.
async fn retire_all_but(cluster: &Cluster, spared: NodeNumber) {
    for (number, node) in &cluster.nodes {
        let segments = node.log.segments();
        if *number != spared && segments.len() > 2 {
            retire(node, segments[segments.len() - 2].base).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_retention_overtakes_again_and_again_is_never_cut_off() {
    let mut setup = Setup::new(PATIENT);
    setup.tail_bytes = 0;
    // Slow enough that it has records to get and to apply while the next snapshot is due.
    setup.catch_up = 400_000;
    let mut cluster = Cluster::form(setup).await;
    let leader = cluster.leader().await;
    let behind = NODES.into_iter().find(|node| *node != leader).unwrap();
    for round in 0..4 {
        cluster.send(10, 4_000).await;
        cluster.kill(behind).await;
        cluster.send(60, 4_000).await;
        retire_all_but(&cluster, behind).await;
        cluster.start(&[behind]).await;
        let purged = cluster.nodes[&leader].log.bounds().purged.unwrap().0;
        eventually("it got the snapshot", || {
            cluster.nodes[&behind]
                .store
                .applied()
                .is_some_and(|(index, _)| index >= purged)
        })
        .await;
        // In the middle of catching up, the log moves on, and so does its start.
        cluster.send(40, 4_000).await;
        retire_all_but(&cluster, behind).await;
        assert!(
            cluster.nodes[&behind].replica.stopped().borrow().is_none(),
            "round {round}: the follower has stopped"
        );
    }
    cluster.converge().await;
    cluster.assert_acked_are_there();
}
