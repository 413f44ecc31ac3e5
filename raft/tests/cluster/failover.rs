//! Forming, leading, losing the leader, and starting again.

use std::time::Duration;

use gantry_raft::ProposeError;
use tokio::time::{Instant, timeout};

use crate::rig::{Cluster, LIMIT, NODES, PATIENT, QUICK, Setup, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_group_forms_and_its_replicas_agree() {
    let cluster = Cluster::form(Setup::new(QUICK)).await;
    cluster.send(20, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    let leader = cluster.leader().await;
    let status = cluster.nodes[&leader].replica.status();
    assert_eq!(
        (status.role, status.voters.as_slice()),
        ("leader", &NODES[..])
    );
    assert!(status.learners.is_empty());
    for (number, node) in &cluster.nodes {
        let barrier = node.replica.read_barrier().await;
        assert_eq!(
            barrier.is_ok(),
            *number == leader,
            "node {number}: {barrier:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_does_not_go_back() {
    let cluster = Cluster::form(Setup::new(QUICK)).await;
    cluster.send(5, 100).await;
    cluster.converge().await;
    assert_eq!(cluster.leader().await, 1);
    for node in cluster.nodes.values() {
        node.replica.prefer(3);
        node.replica.move_to_preferred().await;
    }
    let mut leadership = cluster.nodes[&2].replica.leadership();
    let moved = timeout(LIMIT, leadership.wait_for(|now| now.leader == Some(3))).await;
    drop(moved.expect("node 3 leads"));
    cluster.send(5, 100).await;
    // The preferred node is given leadership when it has been well for 2 s.
    let back = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != 3));
    let back = timeout(Duration::from_millis(3_500), back).await;
    assert!(back.is_err(), "leadership went back");
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_acknowledges_nothing() {
    let mut setup = Setup::new(QUICK);
    setup.preferred = 2;
    let cluster = Cluster::form(setup).await;
    cluster.send(4, 100).await;
    let old = cluster.leader().await;
    let others: Vec<_> = NODES.into_iter().filter(|node| *node != old).collect();
    let first_term = cluster.nodes[&old].replica.leadership().borrow().term;
    cluster.network.isolate(old);

    // Within its lease the old leader takes a proposal; it must not find a majority for it.
    let lost = cluster.seal(cluster.message(0, "lost"));
    let mut pending = cluster.nodes[&old].propose(lost).await;
    let new = cluster.leader_among(&others).await;
    let now = *cluster.nodes[&new].replica.leadership().borrow();
    assert!(now.term > first_term, "{now:?}");
    let mut acked = Vec::new();
    for number in 0..5 {
        let body = format!("after {number}");
        let proposal = cluster.seal(cluster.message(1, &body));
        let outcome = cluster.nodes[&new].propose(proposal).await;
        let reply = timeout(LIMIT, outcome).await.unwrap().unwrap().unwrap();
        cluster.note_acked(1, &reply, body);
        acked.push(reply.offset);
    }
    assert!(acked.is_sorted());
    match pending.try_recv() {
        Ok(outcome) => assert!(
            outcome.is_err(),
            "acknowledged without a majority: {outcome:?}"
        ),
        Err(error) => assert_eq!(error, tokio::sync::oneshot::error::TryRecvError::Empty),
    }
    // By now its lease is over, and it cannot prove that it leads.
    let late = cluster.seal(cluster.message(0, "late"));
    let late = cluster.nodes[&old].propose(late).await;
    let barrier = cluster.nodes[&old].replica.clone();
    let barrier = tokio::spawn(async move { barrier.read_barrier().await });

    cluster.network.heal();
    for outcome in [pending, late] {
        let outcome = timeout(LIMIT, outcome).await.unwrap().unwrap();
        let expected = |e: &ProposeError| {
            matches!(e, ProposeError::NotLeader { .. } | ProposeError::Unsettled)
        };
        assert!(outcome.as_ref().is_err_and(expected), "{outcome:?}");
    }
    assert!(timeout(LIMIT, barrier).await.unwrap().unwrap().is_err());
    cluster.send(2, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    let queue = cluster.queue(0);
    for node in cluster.nodes.values() {
        let bounds = node.store.queue_bounds(queue).unwrap();
        for offset in bounds.min.get()..bounds.next.get() {
            let body = node.body(queue, gantry_storage::QueueOffset::new(offset));
            assert!(body != "lost" && body != "late", "{body} came through");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_at_once_and_comes_back() {
    let mut cluster = Cluster::form(Setup::new(PATIENT)).await;
    cluster.send(10, 100).await;
    let old = cluster.leader().await;
    let started = Instant::now();
    cluster.network.kill(old);
    let others: Vec<_> = NODES.into_iter().filter(|node| *node != old).collect();
    cluster.leader_among(&others).await;
    let took = started.elapsed();
    // The timer alone would take twelve seconds.
    assert!(took < Duration::from_secs(2), "{took:?}");
    cluster.kill(old).await;
    cluster.send(10, 100).await;

    cluster.start(&[old]).await;
    assert_eq!(
        cluster.nodes[&old].seat.incarnation, 0,
        "its directory is its own"
    );
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

/// A leader that went on in its old term would not know what it had committed there: a read after the restart
/// would miss what was acknowledged before. Records that it had sent but not written would be followed by
/// others of the same term and index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_killed_does_not_go_on_in_its_old_term() {
    let mut cluster = Cluster::form(Setup::new(QUICK)).await;
    cluster.send(10, 100).await;
    let old = cluster.leader().await;
    let old_term = cluster.nodes[&old].replica.leadership().borrow().term;
    // The leader last: without the others nobody takes over before it dies.
    for node in NODES.into_iter().filter(|node| *node != old) {
        cluster.kill(node).await;
    }
    cluster.kill(old).await;
    cluster.start(&NODES).await;
    let new = cluster.leader().await;
    let term = cluster.nodes[&new].replica.leadership().borrow().term;
    assert!(
        term > old_term,
        "node {new} leads in term {term} after {old_term}"
    );
    cluster.nodes[&new].replica.read_barrier().await.unwrap();
    // The others may apply a moment later.
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_not_tried_without_pause() {
    const OBSERVED: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::form(Setup::new(QUICK)).await;
    cluster.kill(3).await;
    cluster.send(10, 100).await;
    let before = cluster.network.refused();
    tokio::time::sleep(OBSERVED).await;
    let tries = cluster.network.refused() - before;
    assert!(tries > 0, "it is tried, so that its return is seen");
    assert!(tries < 200, "{tries} tries in {OBSERVED:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_nodes_keeps_everything() {
    let mut cluster = Cluster::form(Setup::new(QUICK)).await;
    cluster.send(30, 3_000).await;
    cluster.converge().await;
    let before = cluster.nodes[&1].store.applied().unwrap();
    for node in NODES {
        cluster.kill(node).await;
    }
    cluster.start(&NODES).await;
    cluster.send(3, 100).await;
    cluster.converge().await;
    for node in cluster.nodes.values() {
        assert_eq!(node.seat.incarnation, 0);
        assert!(node.store.applied().unwrap() > before);
    }
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_goes_back_to_the_preferred_node() {
    let mut setup = Setup::new(PATIENT);
    setup.preferred = 3;
    let cluster = Cluster::form(setup).await;
    assert_eq!(
        cluster.leader().await,
        3,
        "the preferred node forms its group"
    );
    cluster.send(3, 100).await;
    let started = Instant::now();
    cluster.nodes[&3].replica.hand_over().await;
    let successor = cluster.leader_among(&[1, 2]).await;
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert_ne!(
        cluster.nodes[&3].replica.leadership().borrow().leader,
        Some(3)
    );
    let body = "between".to_string();
    let proposal = cluster.seal(cluster.message(0, &body));
    let outcome = cluster.nodes[&successor].propose(proposal).await;
    let reply = timeout(LIMIT, outcome).await.unwrap().unwrap().unwrap();
    cluster.note_acked(0, &reply, body);

    assert_eq!(cluster.leader_among(&[3]).await, 3);
    cluster.send(3, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
    let elections: u64 = cluster.nodes.values().map(|n| n.replica.elections()).sum();
    assert!(elections >= 3, "one to form, one each way: {elections}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_does_not_go_back_to_a_node_that_stops_until_its_process_has_ended() {
    let mut setup = Setup::new(PATIENT);
    setup.preferred = 3;
    let cluster = Cluster::form(setup).await;
    assert_eq!(cluster.leader().await, 3);
    for number in [1, 2] {
        cluster.nodes[&number].replica.node_is_leaving(3);
    }
    cluster.nodes[&3].replica.hand_over().await;
    let successor = cluster.leader_among(&[1, 2]).await;
    let mut leadership = cluster.nodes[&successor].replica.leadership();
    let went_back = leadership.wait_for(|now| now.leader == Some(3));
    let went_back = timeout(Duration::from_secs(4), went_back).await.is_ok();
    assert!(!went_back, "twice the time after which it would go back");
    for number in [1, 2] {
        cluster.nodes[&number].replica.leader_is_gone(3).await;
    }
    assert_eq!(cluster.leader_among(&[3]).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_lets_go_of_everything() {
    let mut cluster = Cluster::form(Setup::new(QUICK)).await;
    cluster.send(1, 10).await;
    for number in NODES {
        let node = cluster.nodes.remove(&number).unwrap();
        let (peers, store) = (
            std::sync::Arc::downgrade(&node.peers),
            std::sync::Arc::downgrade(&node.store),
        );
        let mut stopped = node.replica.stopped();
        node.stop().await;
        let stopped = stopped.wait_for(Option::is_some).await;
        drop(stopped);
        eventually("peers and store are dropped", || {
            peers.strong_count() == 0 && store.strong_count() == 0
        })
        .await;
    }
}
