//! One broker group as this node hosts it: the replica, its store, and what waits on them.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use gantry_raft::{GroupId, Leadership, NodeNumber, Peers, Replica};
use gantry_storage::Store;
use gantry_storage::commitlog::CommitLog;
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::{Command, CommandResult};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::appender::Appender;
use crate::clock::WallClock;
use crate::disk::Disk;
use crate::due::Signals;
use crate::error::Failure;
use crate::long_poll::LongPoll;
use crate::metrics::GroupMetrics;
use crate::offset_commits::OffsetCommits;
use crate::peer_calls::Method;
use crate::pop::Pops;
use crate::statistics::Mornings;

/// How long a command or a current read waits for a leader. Below the 3 s of clients' own timeout.
pub const HOLD: Duration = Duration::from_millis(2200);

/// How soon an attempt that a leader turned down is made again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// What became of commands.
#[derive(Debug)]
pub struct Executed {
    /// One for each command.
    pub results: Vec<CommandResult>,
    /// They were written before with unknown outcome: what the results say was not there may have been there.
    pub again: bool,
}

/// A hosted group.
pub struct Group {
    /// Its id: the place in the configuration.
    pub id: GroupId,
    /// RocketMQ's brokerName.
    pub name: String,
    /// This node.
    pub node: NodeNumber,
    /// The replica.
    pub replica: Replica,
    /// Its applied state.
    pub store: Arc<Store>,
    /// Its log.
    pub log: CommitLog,
    /// The thread that writes the log, if there is one; it ends after [`CommitLog::shutdown`].
    pub log_writer: Mutex<Option<JoinHandle<()>>>,
    /// The way to write.
    pub appender: Appender,
    /// Consumer offsets that this node was told of.
    pub offsets: OffsetCommits,
    /// Pulls that wait.
    pub long_poll: Arc<LongPoll>,
    /// Pops that wait, and whose turn it is.
    pub pops: Arc<Pops>,
    /// Index of the last applied record.
    pub applied: watch::Receiver<u64>,
    /// What wakes those who work on messages that wait.
    pub signals: Arc<Signals>,
    /// Other nodes.
    pub peers: Arc<Peers>,
    /// What is measured.
    pub metrics: Arc<GroupMetrics>,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// The disk that it is on.
    pub disk: Arc<Disk>,
    /// Messages in and out at the last midnights.
    pub mornings: Mornings,
}

impl Group {
    /// Whether this node leads the group and may write.
    pub fn leads(&self) -> bool {
        self.appender.is_leading()
    }

    /// What time it is for messages that wait: `clock`'s, but never before the log's; milliseconds since
    /// 1970.
    pub fn now_ms(&self, clock: &WallClock) -> u64 {
        clock.now_ms().max(self.store.tables().clock_ms())
    }

    /// Who leads, as this node knows.
    pub fn leadership(&self) -> Leadership {
        *self.replica.leadership().borrow()
    }

    /// Applies commands to the group's tables, wherever it is led; waits for a leader until
    /// `deadline`. When this returns, they are on the disks of a majority and applied on the leader;
    /// call [`Group::catch_up`] to see them here.
    ///
    /// A command whose outcome was lost with a leader is written again if that does no harm
    /// ([`Command::may_repeat`]), and offsets written again only move forward; otherwise this fails with
    /// [`Failure::Unsettled`]: written again it would undo what others wrote in between.
    pub async fn execute(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Vec<CommandResult>, Failure> {
        let executed = self.execute_and_tell(commands, deadline).await?;
        Ok(executed.results)
    }

    /// The same for whoever answers by what the results say.
    pub async fn execute_and_tell(
        &self,
        mut commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Executed, Failure> {
        let mut leadership = self.replica.leadership();
        let mut held = None;
        let mut again = false;
        loop {
            let now = *leadership.borrow_and_update();
            let attempt = match now.leader {
                _ if self.leads() => self.appender.execute(commands.clone()).await,
                Some(leader) if leader != self.node => {
                    self.execute_at(leader, &commands, deadline).await
                }
                _ => Err(Failure::NotLeader),
            };
            match attempt {
                Err(Failure::NotLeader) => {}
                Err(Failure::Unsettled) if commands.iter().all(Command::may_repeat) => {
                    again = true;
                    if !planted(Bug::OffsetsOutOfOrder) {
                        only_advance(&mut commands);
                    }
                }
                settled => return settled.map(|results| Executed { results, again }),
            }
            held.get_or_insert_with(|| self.metrics.hold());
            if !wait_for_change(&mut leadership, deadline).await {
                return Err(Failure::NoLeader);
            }
        }
    }

    async fn execute_at(
        &self,
        leader: NodeNumber,
        commands: &[Command],
        deadline: Instant,
    ) -> Result<Vec<CommandResult>, Failure> {
        let body = Bytes::from(gantry_storage::tables::encode_commands(commands));
        let method = (self.id, Method::Execute as u8);
        let reply = self
            .peers
            .call(leader, method, vec![body], deadline)
            .await?;
        crate::peer_calls::decode_reply(&reply)
    }

    /// Returns when this node has applied everything that was committed before the call, so that a
    /// read of the store is current: after this, nothing acknowledged anywhere is missed.
    pub async fn catch_up(&self, deadline: Instant) -> Result<(), Failure> {
        let mut leadership = self.replica.leadership();
        let mut held = None;
        loop {
            let now = *leadership.borrow_and_update();
            let attempt = match now.leader {
                _ if self.leads() => self.replica.read_barrier().await.map_err(Failure::from),
                Some(leader) if leader != self.node => self.catch_up_with(leader, deadline).await,
                _ => Err(Failure::NotLeader),
            };
            match attempt {
                Err(Failure::NotLeader | Failure::Unsettled) => {}
                settled => return settled,
            }
            held.get_or_insert_with(|| self.metrics.hold());
            if !wait_for_change(&mut leadership, deadline).await {
                return Err(Failure::NoLeader);
            }
        }
    }

    /// Asks the leader how far a current read must see, and waits until this node has come there.
    async fn catch_up_with(&self, leader: NodeNumber, deadline: Instant) -> Result<(), Failure> {
        let method = (self.id, Method::ReadIndex as u8);
        let reply = self
            .peers
            .call(leader, method, Vec::new(), deadline)
            .await?;
        let index: u64 = crate::peer_calls::decode_reply(&reply)?;
        let mut applied = self.applied.clone();
        match timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::Stopped),
            Err(_) => Err(Failure::NoLeader),
        }
    }

    /// The leader's answer to [`Method::ReadIndex`].
    pub async fn read_index(&self) -> Result<u64, Failure> {
        if !self.leads() {
            return Err(Failure::NotLeader);
        }
        self.replica.read_barrier().await?;
        Ok(*self.applied.borrow())
    }
}

/// Waits for news of the leader, or a moment; false at the deadline.
pub async fn wait_for_change(
    leadership: &mut watch::Receiver<Leadership>,
    deadline: Instant,
) -> bool {
    let soon = deadline.min(Instant::now() + RETRY_INTERVAL);
    if let Ok(Err(_)) = timeout_at(soon, leadership.changed()).await {
        // The replica has stopped, and there is no more news.
        sleep_until(soon).await;
    }
    Instant::now() < deadline
}

/// Offsets that may have been written before must not undo what was written after them.
fn only_advance(commands: &mut [Command]) {
    for command in commands {
        if let Command::CommitOffsets { advance_only, .. } = command {
            *advance_only = true;
        }
    }
}
