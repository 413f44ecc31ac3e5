//! Leadership on request: an operator says which node is to lead a group from now on.

use std::time::Duration;

use bytes::Bytes;
use gantry_raft::NodeNumber;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::broker::Broker;
use crate::group::Group;
use crate::peer_calls::Method;

/// How long leadership may take to move. Above the 2 s for which the preferred node must be well.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long nodes are waited for that only have to know of it.
const TELLING: Duration = Duration::from_secs(1);

/// Why leadership was not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMoved {
    /// There is no such group or node.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done now. Nothing was changed.
    #[error("{0}")]
    Impossible(String),
    /// All were told, and it has not happened yet.
    #[error("{0}")]
    Late(String),
}

/// Makes `to` the node that leads the group when it can, on all nodes, until their processes end; returns
/// when it leads. The nodes that cannot be reached keep the preference that they have.
pub async fn transfer(broker: &Broker, name: &str, to: NodeNumber) -> Result<(), NotMoved> {
    let deadline = Instant::now() + PATIENCE;
    let group = broker.groups.iter().find(|group| group.name == name);
    let group = group.ok_or_else(|| {
        let names: Vec<&str> = broker.groups.iter().map(|one| one.name.as_str()).collect();
        let names = names.join(", ");
        NotMoved::Unknown(format!("there is no group {name:?}; there are {names}"))
    })?;
    check(group, to)?;
    let mut telling = JoinSet::new();
    for peer in broker.peers.others() {
        let (peers, id) = (broker.peers.clone(), group.id);
        let wish = Bytes::copy_from_slice(&to.to_le_bytes());
        telling.spawn(async move {
            let method = (id, Method::Prefer as u8);
            let told = peers.call(peer, method, vec![wish], deadline).await;
            if let Err(error) = told {
                tracing::warn!(peer, %error, "a node was not told who is to lead");
            }
        });
    }
    prefer(group, to).await;
    let mut leadership = group.replica.leadership();
    let moved = leadership.wait_for(|now| now.leader == Some(to));
    let moved = timeout_at(deadline, moved)
        .await
        .is_ok_and(|led| led.is_ok());
    // Also those that it did not depend on should know.
    let told = async { while telling.join_next().await.is_some() {} };
    let until = deadline.min(Instant::now() + TELLING);
    if timeout_at(until, told).await.is_err() {
        tracing::warn!(group = name, to, "not all nodes were told who is to lead");
    }
    if moved {
        tracing::info!(group = name, to, "leadership was moved on request");
        return Ok(());
    }
    Err(NotMoved::Late(format!(
        "node {to} does not lead group {name} after {} s; it will as soon as it has caught up and the node \
         that leads reaches it",
        PATIENCE.as_secs()
    )))
}

fn check(group: &Group, to: NodeNumber) -> Result<(), NotMoved> {
    let voters = group.replica.status().voters;
    if !voters.contains(&to) {
        let reason = format!(
            "node {to} has no full replica of group {}; these have: {voters:?}",
            group.name
        );
        return Err(NotMoved::Unknown(reason));
    }
    if to != group.node && !group.peers.is_connected(to) {
        let reason = format!("node {to} cannot be reached from node {}", group.node);
        return Err(NotMoved::Impossible(reason));
    }
    Ok(())
}

/// What each node does about it.
pub(crate) async fn prefer(group: &Group, to: NodeNumber) {
    group.replica.prefer(to);
    group.replica.move_to_preferred().await;
}
