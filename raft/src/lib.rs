//! Agreement: a broker group is a Raft group whose log is the CommitLog.
//!
//! This is the only crate that names openraft; it knows nothing of clients, topics or the RocketMQ
//! wire. [`Replica`] is the handle of one group on this node, [`Peers`] and [`PeerServer`] are the
//! node's side of the connections to the other nodes, shared by its groups and open to the process
//! above for calls of its own.

mod aside;
mod error;
mod identity;
mod log_store;
mod membership;
mod mend;
mod network;
mod opening;
mod preference;
mod replica;
mod state_machine;
#[doc(hidden)]
pub mod testing;
mod timing;
mod types;

pub use aside::aside;
pub use error::{BarrierError, CallError, ProposeError, StartError};
pub use identity::{Seat, claim_seat};
pub use log_store::LogStore;
pub use network::{
    BoxFuture, CallHandler, CatchUp, CatchUpProgress, Connection, Identity, MemoryNetwork,
    MemoryTransport, PeerEvent, PeerServer, Peers, TcpTransport, Transport, split_tcp,
};
pub use opening::{GroupFiles, OpenGroup, OpenStore, RunWriter, open_group};
pub use replica::{Leadership, Replica, ReplicaOptions, ReplicaStatus};
pub use state_machine::{AppliedHook, StateMachine};
pub use timing::Timing;
pub use types::{
    DecodeError, GroupId, NodeNumber, Outcome, Proposal, ReplicaId, Reply, node_of, replica_id,
};

#[doc(hidden)]
pub use types::GroupTypes;
