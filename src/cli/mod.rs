//! The command line: one file for each command, and what commands share.
//!
//! Commands talk to a cluster as any client does, through [`crate::client`] and the nodes' HTTP port; only
//! `server` runs a node. Data goes to standard output, everything else to standard error.

mod arguments;
mod bench;
mod consume;
mod dev;
mod dlq;
mod failover;
mod failure;
mod group;
mod layout;
mod load;
mod mqadmin;
mod nodes;
mod output;
mod send;
mod server;
mod status;
mod topic;
mod transfer;
mod tx;

pub use arguments::main;
