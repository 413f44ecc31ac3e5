//! Connections between nodes: one port per node, all groups over it, the group's id in every frame.
//!
//! Data, heartbeats, forwarded calls and snapshots have connections of their own, so that a large
//! transfer never delays a heartbeat. `docs/formats.md` describes the bytes.

mod append;
mod client;
mod frame;
mod greeting;
mod link;
mod memory;
mod peers;
mod server;
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;

pub use greeting::Identity;
pub use link::PeerEvent;
pub use memory::{MemoryNetwork, MemoryTransport};
pub use peers::Peers;
pub use server::{CallHandler, PeerServer};
pub use throttle::{CatchUp, CatchUpProgress};
pub use transport::{BoxFuture, Connection, TcpTransport, Transport, split_tcp};

pub(crate) use client::{ClientFactory, SnapshotOf};
pub(crate) use peers::Method;
pub(crate) use server::{Endpoint, GroupQuestion};
