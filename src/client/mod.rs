//! A small RocketMQ client, for the command line and for tests.
//!
//! It speaks to any RocketMQ cluster, knows nothing of Raft and does what stock clients do, so that what it
//! shows is what they would see: one TCP connection per address with many requests under way, routes from
//! the name servers, synchronous sends that are tried again on another broker name.

mod admin;
mod connection;
mod error;
pub mod http;
mod name_server;
mod pop;
mod producer;
mod pull;
pub mod status;
pub mod transfer;

pub use admin::GroupProgress;
pub use error::ClientError;
pub use name_server::{BrokerGroup, Client};
pub use pop::Popped;
pub use producer::{Acked, Outgoing, Producer, SendFailure};
pub use pull::{Pulled, QueueAt};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
