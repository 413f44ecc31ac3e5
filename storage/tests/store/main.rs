//! The store on top of a real log: applying, reading, losing files, snapshots.
#![allow(clippy::unwrap_used)]

mod apply;
mod cold;
mod crash;
mod once;
mod parked;
mod pop;
mod rebuild;
mod rig;
mod search;
mod size;
mod snapshot;
mod threads;
