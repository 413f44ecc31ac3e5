//! What a node gets from outside: files, the way to its peers, the time, and someone to run its logs'
//! writers. The machine in production, a simulation in tests (`design.md` D13).

use std::sync::Arc;

use gantry_raft::{RunWriter, TcpTransport, Transport};
use gantry_storage::commitlog::CommitLog;
use gantry_storage::fs::{FileSystem, RealFs};

use crate::clock::WallClock;
use crate::config::Config;

/// The surroundings of a node.
#[derive(Clone)]
pub struct Host {
    /// Where the groups keep their files.
    pub fs: Arc<dyn FileSystem>,
    /// The way to the other nodes.
    pub transport: Arc<dyn Transport>,
    /// What time it is.
    pub clock: WallClock,
    /// A number that no other process of this node has.
    pub boot: u64,
    /// Runs the writer of each group's log.
    pub run_writer: RunWriter,
    /// Whether a copy of the tables is kept in the data directory, which makes a restart quicker. It does
    /// not go through `fs`.
    pub keeps_table_copy: bool,
}

impl Host {
    /// The machine that this process runs on.
    pub fn machine(config: &Config) -> Self {
        let clock = WallClock::system();
        Host {
            fs: Arc::new(RealFs),
            transport: Arc::new(TcpTransport::new(config.peers.clone())),
            boot: clock.now_ms() << 16 | u64::from(std::process::id() & 0xffff),
            clock,
            run_writer: Arc::new(|writer, name| CommitLog::spawn_writer(writer, name).map(Some)),
            keeps_table_copy: true,
        }
    }
}
