//! Broker groups of three nodes in one process, over real logs in temporary directories.

#![allow(clippy::unwrap_used)]

mod damage;
mod failover;
mod lagging;
mod rejoin;
mod rig;
mod slow_disk;
