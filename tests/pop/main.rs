//! Consumers that pop: leases through the wire, messages that come again, order, assignments; and a
//! leader that is killed while messages are handed out.

#![allow(clippy::unwrap_used)]

mod cluster;
mod in_order;
mod leases;
mod redelivery;
mod requests;
mod status;
#[path = "../support/mod.rs"]
mod support;
