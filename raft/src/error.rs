//! What can go wrong with a group, by what the caller must decide.

use openraft::errors::ClientWriteError;

use crate::types::{DecodeError, GroupTypes, NodeNumber, node_of};

/// Who leads instead, if that is known.
fn elsewhere(leader: Option<NodeNumber>) -> String {
    leader
        .map(|node| format!("; node {node} does"))
        .unwrap_or_default()
}

/// Why a proposal was not (known to be) applied.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was appended: another node leads, or none does. Trying again elsewhere is safe.
    #[error("this node does not lead the group{}", elsewhere(*leader))]
    NotLeader {
        /// The leader as far as this node knows.
        leader: Option<NodeNumber>,
    },
    /// The entry was appended here and then lost to another leader's log. It is applied only if
    /// another replica got it through; that is settled once an entry of a later term is applied.
    #[error("leadership changed while the write was under way")]
    Unsettled,
    /// The group has stopped on this node.
    #[error("the group stopped: {0}")]
    Stopped(String),
}

impl From<ClientWriteError<GroupTypes>> for ProposeError {
    fn from(error: ClientWriteError<GroupTypes>) -> Self {
        match error {
            ClientWriteError::ForwardToLeader(forward) => ProposeError::NotLeader {
                leader: forward.leader_id.map(node_of),
            },
            ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unsettled,
            ClientWriteError::ChangeMembershipError(e) => ProposeError::Stopped(e.to_string()),
            ClientWriteError::PreconditionFailed(e) => ProposeError::Stopped(e.to_string()),
        }
    }
}

/// Why a read gate could not be passed.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// This node does not lead the group, or cannot prove that it still does.
    #[error("this node does not lead the group{}", elsewhere(*leader))]
    NotLeader {
        /// The leader as far as this node knows.
        leader: Option<NodeNumber>,
    },
    /// The group has stopped on this node.
    #[error("the group stopped: {0}")]
    Stopped(String),
}

/// Why a replica could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory belongs to another cluster, group, node or format.
    #[error("{0}")]
    Identity(String),
    /// The directory no longer says whose it is.
    #[error("{0}")]
    IdentityLost(String),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The log could not be opened.
    #[error(transparent)]
    Log(gantry_storage::error::OpenError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(gantry_storage::StoreError),
    /// Damaged records could not be mended.
    #[error("{0}")]
    Mend(String),
    /// openraft refused its settings or found the log in a state that it does not accept.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a call to a peer failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// There is no connection, or it could not be made: nothing was sent.
    #[error("node {0} cannot be reached")]
    Unreachable(NodeNumber),
    /// The connection ended or the deadline passed after the call was sent: the peer may have
    /// acted on it.
    #[error("node {0} did not answer")]
    Unanswered(NodeNumber),
    /// The peer answered that it cannot.
    #[error("node {0}: {1}")]
    Refused(NodeNumber, String),
}

impl From<DecodeError> for StartError {
    fn from(error: DecodeError) -> Self {
        StartError::Raft(error.to_string())
    }
}
