//! The small replicated state of a group: topics, consumer groups, offsets, locks, key-value pairs, and what
//! waits in the log.
//!
//! Changed by commands in the log and by nothing else; the same commands at the same times give the same
//! tables on every replica.

mod apply;
mod command;
mod consumer_offsets;
mod groups;
mod kv;
mod leases;
mod locks;
mod parked;
mod recent_sends;
mod request_modes;
mod schedule;
mod topics;

pub use apply::Tables;
pub use command::{
    Command, CommandResult, Grant, OffsetCommit, Redelivery, decode_commands, encode_commands,
};
pub use groups::{RetryPolicy, SubscriptionGroupConfig};
pub use leases::{
    DueLease, LEASES_MAX, LEASES_PER_QUEUE_MAX, Lease, LeaseName, Leases, OrderBatch, OrderEntry,
};
pub use locks::LOCK_LEASE_MS;
pub use parked::{GIVEN_UP_MS, Parked};
pub use recent_sends::{FirstSend, Once, RECENT_SENDS_MAX, RecentSends, SendId};
pub use request_modes::{RequestMode, RequestModes};
pub use schedule::Schedule;
pub use topics::{FilterType, PERM_INHERIT, PERM_READ, PERM_WRITE, Topic, TopicConfig};

pub(crate) use consumer_offsets::ConsumerOffsets;
use groups::Groups;
use kv::KeyValues;
use locks::Locks;
use topics::Topics;
