//! Whole clusters in one thread: real nodes, from the bytes of their clients' connections down to the
//! operations on their disks, on simulated machines that a seed decides everything about.
//!
//! ```text
//! world ── machines ── process: gantry's node without its sockets, on a tokio runtime of its own
//!   │         ├─ disk: files that lose what was not synced, fail, fill up, stall
//!   │         └─ time: clocks that drift and are set wrong
//!   ├── net: streams between machines that are late, cut, broken
//!   ├── clients: the load, in RocketMQ's protocol; writes the history
//!   └── faults: what goes wrong when
//! ```
//!
//! [`run::run`] runs a seed and has the history judged by `gantry_checker`. One process runs one seed: that
//! makes every run of it the same, to the byte. What is simulated and what is not is in
//! `docs/reliability.md`.

pub mod clients;
pub mod cluster;
pub mod disk;
pub mod entropy;
pub mod faults;
pub mod fiber;
pub mod history;
mod log;
pub mod machine;
pub mod net;
pub mod planted;
pub mod rng;
pub mod run;
pub mod steps;
pub mod sweep;
pub mod time;
pub mod trace;
mod verify;
pub mod world;
