//! Gantry: a message broker that Apache RocketMQ clients use as if it were RocketMQ, and whose broker
//! groups are Raft groups.
//!
//! This crate is the process, the only part that knows clients. [`node`] builds and runs it,
//! [`remoting`] speaks RocketMQ's protocol on sockets, [`handlers`] answer requests, [`appender`]
//! writes, [`group`] is a hosted broker group; `gantry_raft` agrees, `gantry_storage` keeps,
//! `gantry_protocol` has the wire. `ARCHITECTURE.md` is the map.

pub mod appender;
pub mod backlog;
pub mod broker;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod client_calls;
pub mod clock;
pub mod config;
pub mod delays;
pub mod disk;
pub mod due;
pub mod error;
pub mod filters;
pub mod forward;
pub mod group;
pub mod handlers;
pub(crate) mod held_up;
pub mod host;
pub mod http;
pub mod idempotent;
pub mod long_poll;
mod maintenance;
mod memory;
pub mod message_types;
pub mod metrics;
pub mod node;
pub mod offset_commits;
mod peer_answers;
pub mod peer_calls;
pub mod permissions;
pub mod pop;
mod reading;
pub mod recalls;
pub mod remoting;
pub mod routes;
mod samples;
mod scrub;
pub mod sessions;
pub mod statistics;
mod status;
pub mod transactions;
pub mod transfer;
pub mod units;
pub mod waiting;
