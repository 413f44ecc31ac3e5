//! Who should lead: the node that the configuration or an operator prefers, when it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, timeout};

use crate::membership::full_voters;
use crate::replica::{Replica, Shared};
use crate::types::{NodeNumber, ReplicaId, node_of};

/// How long a planned hand-over may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// A replica this few records behind can take over at once.
const TAKE_OVER_LAG: u64 = 8;

/// The node that leads when it can.
pub(crate) struct Preference {
    node: AtomicU16,
    /// It has said that it stops, and its process has not ended yet.
    leaves: AtomicBool,
}

impl Preference {
    pub(crate) fn new(node: NodeNumber) -> Self {
        Preference {
            node: AtomicU16::new(node),
            leaves: AtomicBool::new(false),
        }
    }

    pub(crate) fn node(&self) -> NodeNumber {
        self.node.load(Ordering::Relaxed)
    }

    /// The process of a node has ended: the next one of it may lead.
    pub(crate) fn has_gone(&self, node: NodeNumber) {
        if node == self.node() {
            self.leaves.store(false, Ordering::Relaxed);
        }
    }
}

impl Replica {
    /// The node that leads when it can.
    pub fn preferred(&self) -> NodeNumber {
        self.shared.preference.node()
    }

    /// From now on `node` leads when it can, instead of the one that the configuration names, until this
    /// process ends. If this replica leads, leadership moves to it as soon as it has caught up; tell all
    /// replicas.
    pub fn prefer(&self, node: NodeNumber) {
        let preference = &self.shared.preference;
        preference.node.store(node, Ordering::Relaxed);
        preference.leaves.store(false, Ordering::Relaxed);
    }

    /// `node` has said that it stops: leadership does not go back to it until its process has ended
    /// ([`Replica::leader_is_gone`] tells).
    pub fn node_is_leaving(&self, node: NodeNumber) {
        let preference = &self.shared.preference;
        let is_preferred = node == preference.node();
        preference.leaves.fetch_or(is_preferred, Ordering::Relaxed);
    }

    /// Whether the preferred node has said that it stops.
    pub fn preferred_leaves(&self) -> bool {
        self.shared.preference.leaves.load(Ordering::Relaxed)
    }

    /// Gives leadership to the preferred node at once, if this replica leads and that one could take over.
    pub async fn move_to_preferred(&self) {
        if let Some(target) = preferred_successor(&self.shared) {
            let trigger = self.shared.raft.trigger();
            if let Err(fatal) = trigger.transfer_leader(target).await {
                tracing::error!(group = self.shared.name, %fatal, "cannot hand over");
            }
        }
    }

    /// Gives leadership to the replica that is furthest along, if this one leads, and waits until
    /// another leads.
    pub async fn hand_over(&self) {
        let shared = &self.shared;
        let own = node_of(shared.replica);
        if shared.leadership.borrow().leader != Some(own) {
            return;
        }
        let Some(target) = successor(shared) else {
            tracing::warn!(group = shared.name, "no other replica can take over");
            return;
        };
        if shared.raft.trigger().transfer_leader(target).await.is_err() {
            return;
        }
        let mut leadership = self.leadership();
        let moved = leadership.wait_for(|l| l.leader.is_some_and(|leader| leader != own));
        match timeout(HAND_OVER_TIMEOUT, moved).await {
            Ok(_) => tracing::info!(group = shared.name, to = node_of(target), "handed over"),
            Err(_) => tracing::warn!(group = shared.name, "hand-over took too long"),
        }
    }
}

/// The voter that is furthest along among those that can be reached.
fn successor(shared: &Shared) -> Option<ReplicaId> {
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    let voters = full_voters(metrics.membership_config.membership());
    let replication = metrics.replication.as_ref()?;
    replication
        .iter()
        .filter(|(id, _)| **id != shared.replica && voters.contains(id))
        .filter(|(id, _)| shared.peers.is_connected(node_of(**id)))
        .max_by_key(|(_, at)| at.map(|log_id| log_id.index()))
        .map(|(id, _)| *id)
}

/// The preferred replica, if it is another one that could take over now.
fn preferred_successor(shared: &Shared) -> Option<ReplicaId> {
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    let voter = full_voters(metrics.membership_config.membership())
        .into_iter()
        .find(|id| node_of(*id) == shared.preference.node() && *id != shared.replica)?;
    let matched = metrics
        .replication
        .as_ref()?
        .get(&voter)?
        .map(|id| id.index())?;
    let close = matched + TAKE_OVER_LAG >= metrics.last_log_index?;
    let stays = !shared.preference.leaves.load(Ordering::Relaxed);
    (close && stays && shared.peers.is_connected(shared.preference.node())).then_some(voter)
}

/// Moves leadership to the preferred node once it has caught up and stayed reachable.
pub(crate) async fn prefer_leader(shared: Arc<Shared>) {
    const LOOK: Duration = Duration::from_millis(500);
    const STEADY: Duration = Duration::from_secs(2);
    let mut steady_since: Option<Instant> = None;
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let ready = shared.leadership.borrow().ready;
        let Some(target) = preferred_successor(&shared).filter(|_| ready) else {
            steady_since = None;
            continue;
        };
        let since = *steady_since.get_or_insert_with(Instant::now);
        if since.elapsed() < STEADY {
            continue;
        }
        steady_since = None;
        tracing::info!(
            group = shared.name,
            to = shared.preference.node(),
            "moving leadership to the preferred node"
        );
        if shared.raft.trigger().transfer_leader(target).await.is_err() {
            return;
        }
    }
}
