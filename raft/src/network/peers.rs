//! The other nodes as seen from this one: a control link and a link for calls to each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::frame::{FrameReader, FrameWriter};
use super::greeting::{Class, Identity, greet};
use super::link::{Call, Link, PeerEvent};
use super::transport::Transport;
use crate::error::CallError;
use crate::types::{GroupId, NodeNumber};

/// The methods of calls between peers. Those from [`Method::APPLICATION`] on belong to the process
/// above this crate.
pub(crate) struct Method;

impl Method {
    pub(crate) const VOTE: u8 = 1;
    pub(crate) const PRE_VOTE: u8 = 2;
    pub(crate) const TRANSFER: u8 = 3;
    pub(crate) const HEARTBEAT: u8 = 4;
    /// What a node knows of a group: is it formed, who leads.
    pub(crate) const GROUP_STATE: u8 = 5;
    /// A replica with an empty directory asks the leader to become a member.
    pub(crate) const ADMIT: u8 = 6;
    /// Nothing but the clock that every reply tells.
    pub(crate) const CLOCK: u8 = 7;
    /// Records that are damaged on the asking node.
    pub(crate) const RECORDS: u8 = 8;
    pub(crate) const APPLICATION: u8 = 16;
}

/// Connections to all peers, shared by the groups of this process.
pub struct Peers {
    identity: Identity,
    transport: Arc<dyn Transport>,
    links: BTreeMap<NodeNumber, PeerLinks>,
}

struct PeerLinks {
    control: Link,
    calls: Link,
}

impl Peers {
    /// Starts connecting to every node of `nodes` but this one. What happens to their processes
    /// comes out of the receiver.
    pub fn open(
        transport: Arc<dyn Transport>,
        identity: Identity,
        nodes: &[NodeNumber],
    ) -> (Arc<Peers>, mpsc::UnboundedReceiver<PeerEvent>) {
        let (events, happened) = mpsc::unbounded_channel();
        let open = |peer, class, events| {
            Link::open(transport.clone(), identity.clone(), peer, class, events)
        };
        let links = nodes
            .iter()
            .filter(|node| **node != identity.node)
            .map(|node| {
                let control = open(*node, Class::Control, Some(events.clone()));
                (
                    *node,
                    PeerLinks {
                        control,
                        calls: open(*node, Class::Calls, None),
                    },
                )
            })
            .collect();
        (
            Arc::new(Peers {
                identity,
                transport,
                links,
            }),
            happened,
        )
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The numbers of the other nodes.
    pub fn others(&self) -> impl Iterator<Item = NodeNumber> + '_ {
        self.links.keys().copied()
    }

    /// Whether there is a connection to `node` at this moment.
    pub fn is_connected(&self, node: NodeNumber) -> bool {
        self.links
            .get(&node)
            .is_some_and(|links| links.control.is_connected())
    }

    /// Calls the process above this crate on `node`; `method` counts from 0. The body is sent in
    /// pieces, without a copy. The node does not begin with it after `deadline`, however long it was on its
    /// way.
    pub async fn call(
        &self,
        node: NodeNumber,
        (group, method): (GroupId, u8),
        body: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        self.fetch(node, (group, Method::APPLICATION + method), body, deadline)
            .await
    }

    /// A question with a long answer, between the Raft parts of two nodes.
    pub(crate) async fn fetch(
        &self,
        node: NodeNumber,
        (group, method): (GroupId, u8),
        body: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let links = self.links.get(&node).ok_or(CallError::Unreachable(node))?;
        links
            .calls
            .call(
                Call {
                    method,
                    group,
                    body,
                    expires: true,
                },
                deadline,
            )
            .await
    }

    /// A short question between the Raft parts of two nodes.
    pub(crate) async fn ask(
        &self,
        node: NodeNumber,
        (group, method): (GroupId, u8),
        body: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let links = self.links.get(&node).ok_or(CallError::Unreachable(node))?;
        links
            .control
            .call(
                Call {
                    method,
                    group,
                    body,
                    expires: false,
                },
                deadline,
            )
            .await
    }

    /// Opens a connection of its own for entries or a snapshot.
    pub(super) async fn dial(
        &self,
        node: NodeNumber,
        class: Class,
        group: GroupId,
    ) -> std::io::Result<(FrameReader, FrameWriter)> {
        let connection = self.transport.connect(node).await?;
        let (reader, writer, peer) = greet(connection, &self.identity, class, group).await?;
        if peer.node != node {
            return Err(super::frame::invalid(format!(
                "node {} answers for {node}",
                peer.node
            )));
        }
        Ok((reader, writer))
    }
}
