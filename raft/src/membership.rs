//! How a group comes to have its members: it is formed once, by its preferred node, when all nodes are
//! there and none of them holds anything; a replica that comes later with an empty directory is
//! admitted in place of the one whose directory was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, EmptyNode};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::identity::{GroupState, ask_state};
use crate::network::{BoxFuture, GroupQuestion, Method};
use crate::replica::Shared;
use crate::types::{Membership, NodeNumber, ReplicaId, node_of, replica_id};

const RETRY_INTERVAL: Duration = Duration::from_millis(200);
const ADMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A learner this few records behind becomes a voter.
const PROMOTE_LAG: u64 = 16;

/// Answers what other nodes ask about the group.
pub(crate) fn questions(shared: Arc<Shared>) -> GroupQuestion {
    let admission = Arc::new(Mutex::new(()));
    Arc::new(move |from, method, body| {
        let (shared, admission) = (shared.clone(), admission.clone());
        let answer: BoxFuture<'static, _> = match method {
            Method::GROUP_STATE => {
                Box::pin(async move { Ok(state(&shared, from).await?.encode()) })
            }
            Method::ADMIT => Box::pin(async move { admit(shared, admission, body).await }),
            other => Box::pin(async move { Err(format!("method {other} is unknown")) }),
        };
        answer
    })
}

/// Asks openraft itself and not its metrics, which are empty for a moment after the start: a wrong
/// "not formed" would let a lost replica come back under its old name.
async fn state(shared: &Shared, asker: NodeNumber) -> Result<GroupState, String> {
    let formed = shared
        .raft
        .is_initialized()
        .await
        .map_err(|error| error.to_string())?;
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    let members = metrics.membership_config.membership().nodes();
    Ok(GroupState {
        formed,
        replica: Some(shared.replica),
        leader: metrics.current_leader.map(node_of),
        asker: members
            .map(|(id, _)| *id)
            .filter(|id| node_of(*id) == asker)
            .max(),
    })
}

/// Makes this replica a member: forms the group if it is this node's turn, or asks to be admitted.
pub(crate) async fn join_group(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(RETRY_INTERVAL);
    let mut refused = None;
    loop {
        tick.tick().await;
        if is_voter(&shared) {
            return;
        }
        let outcome = if shared.replica == replica_id(node_of(shared.replica), 0) {
            form(&shared).await
        } else {
            ask_admission(&shared).await
        };
        if let Err(reason) = outcome
            && refused.as_ref() != Some(&reason)
        {
            tracing::info!(group = shared.name, reason, "not a member yet");
            refused = Some(reason);
        }
    }
}

/// Whether this replica votes in the only configuration in force, for good: the record of it is
/// committed.
fn is_voter(shared: &Shared) -> bool {
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    let config = &metrics.membership_config;
    *config.log_id() <= metrics.local_committed
        && full_voters(config.membership()).contains(&shared.replica)
}

/// The replicas that vote in every configuration in force: while one takes another's place, neither
/// of the two is among them, and the group waits for a majority of both configurations.
pub(crate) fn full_voters(membership: &Membership) -> BTreeSet<ReplicaId> {
    let configs = membership.get_joint_config().iter().cloned();
    configs
        .reduce(|all, config| &all & &config)
        .unwrap_or_default()
}

/// The preferred node forms the group, which makes it the first leader, once every other node is
/// there as a founder too.
async fn form(shared: &Shared) -> Result<(), String> {
    let own = node_of(shared.replica);
    if own != shared.preference.node() {
        return Ok(());
    }
    for node in shared.nodes.iter().copied().filter(|node| *node != own) {
        let state = ask_state(&shared.peers, node, shared.group).await;
        let state = state.ok_or_else(|| format!("node {node} does not answer"))?;
        if state.formed {
            return Ok(());
        }
        if state.replica != Some(replica_id(node, 0)) {
            return Err(format!("node {node} is not ready to form the group"));
        }
    }
    tracing::info!(group = shared.name, nodes = ?shared.nodes, "forming the group");
    let formed = shared.raft.initialize(founders(&shared.nodes)).await;
    formed.map_err(|error| error.to_string())
}

/// The members of a group that is formed anew.
fn founders(nodes: &[NodeNumber]) -> BTreeMap<ReplicaId, EmptyNode> {
    nodes
        .iter()
        .map(|node| (replica_id(*node, 0), EmptyNode::new()))
        .collect()
}

async fn ask_admission(shared: &Shared) -> Result<(), String> {
    let mut leader = None;
    for node in shared.peers.others() {
        let state = ask_state(&shared.peers, node, shared.group).await;
        leader = leader.or(state.and_then(|state| state.leader));
    }
    let leader = leader.ok_or("the group has no leader")?;
    let body = vec![Bytes::copy_from_slice(&shared.replica.to_le_bytes())];
    let deadline = Instant::now() + ADMIT_TIMEOUT;
    let asked = shared
        .peers
        .ask(leader, (shared.group, Method::ADMIT), body, deadline)
        .await;
    asked.map(drop).map_err(|error| error.to_string())
}

/// Brings the asking replica nearer to being a voter: adds it as a learner, and makes it a voter in
/// place of its node's former replica once it has caught up. The asker repeats until it is one.
async fn admit(
    shared: Arc<Shared>,
    admission: Arc<Mutex<()>>,
    body: Bytes,
) -> Result<Vec<Bytes>, String> {
    let bytes: [u8; 8] = body.as_ref().try_into().map_err(|_| "not a replica id")?;
    let newcomer = ReplicaId::from_le_bytes(bytes);
    if !shared.nodes.contains(&node_of(newcomer)) {
        return Err(format!(
            "node {} is not in the configuration",
            node_of(newcomer)
        ));
    }
    let _one_at_a_time = admission.lock().await;
    let own: NodeNumber = node_of(newcomer);
    let Members {
        full,
        voters,
        learners,
        next,
    } = members(&shared);
    if full.contains(&newcomer) {
        return Ok(Vec::new());
    }
    let of_node = |id: &&ReplicaId| node_of(**id) == own && **id != newcomer;
    if voters
        .union(&learners)
        .filter(of_node)
        .any(|id| *id > newcomer)
    {
        return Err("a later replica of that node is a member already".to_string());
    }
    let lost: BTreeSet<ReplicaId> = learners.iter().filter(of_node).copied().collect();
    if !lost.is_empty() {
        // Its directory went before it was a voter: nobody else would ever take it out again.
        tracing::info!(group = shared.name, replicas = ?lost, "removing lost replicas");
        let removed = shared
            .raft
            .change_membership(ChangeMembers::RemoveNodes(lost), false)
            .await;
        removed.map_err(|error| error.to_string())?;
    }
    if !learners.contains(&newcomer) && !voters.contains(&newcomer) {
        tracing::info!(group = shared.name, node = own, "admitting a new replica");
        let added = shared
            .raft
            .add_learner(newcomer, EmptyNode::new(), false)
            .await;
        added.map_err(|error| error.to_string())?;
    }
    if !has_caught_up(&shared, newcomer) {
        return Err("catching up".to_string());
    }
    // Also ends a change that a former leader began and did not live to end.
    let voters: BTreeSet<ReplicaId> = next
        .into_iter()
        .filter(|id| node_of(*id) != own)
        .chain(std::iter::once(newcomer))
        .collect();
    let changed = shared.raft.change_membership(voters, false).await;
    changed.map_err(|error| error.to_string())?;
    tracing::info!(
        group = shared.name,
        node = own,
        "the new replica is a member"
    );
    Ok(Vec::new())
}

struct Members {
    /// Those that vote in every configuration in force.
    full: BTreeSet<ReplicaId>,
    /// Those that vote in any configuration in force.
    voters: BTreeSet<ReplicaId>,
    learners: BTreeSet<ReplicaId>,
    /// Those that vote in the newest configuration.
    next: BTreeSet<ReplicaId>,
}

fn members(shared: &Shared) -> Members {
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    Members {
        full: full_voters(membership),
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        next: membership
            .get_joint_config()
            .last()
            .cloned()
            .unwrap_or_default(),
    }
}

fn has_caught_up(shared: &Shared, replica: ReplicaId) -> bool {
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|r| r.get(&replica).copied().flatten());
    match (matched, metrics.last_log_index) {
        (Some(matched), Some(last)) => matched.index() + PROMOTE_LAG >= last,
        _ => false,
    }
}
