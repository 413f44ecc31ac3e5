//! The handle of one replica: propose, read barrier, who leads, membership, shutdown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_storage::commitlog::{CommitLog, LeaderTag};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::{LogIndex, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::TransferLeaderRequest;
use openraft::{ReadPolicy, ServerState, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::{BarrierError, ProposeError, StartError};
use crate::log_store::LogStore;
use crate::membership::{self, full_voters};
use crate::mend::{self, Mender};
use crate::network::{CatchUp, ClientFactory, Endpoint, PeerServer, Peers};
use crate::preference::{self, Preference};
use crate::state_machine::{AppliedHook, StateMachine};
use crate::timing::Timing;
use crate::types::{
    GroupId, GroupTypes, LeaderId, LogId, NodeNumber, Outcome, Proposal, ReplicaId, completion,
    node_of,
};

pub(crate) type Raft = openraft::Raft<GroupTypes, StateMachine>;

/// How long a second follower leaves the election to the first when the leader's process is gone.
const ELECTION_STAGGER: Duration = Duration::from_millis(60);

/// What a replica is started with.
pub struct ReplicaOptions {
    /// Id of the group.
    pub group: GroupId,
    /// Name of the group, for messages.
    pub name: String,
    /// This replica, as [`claim_seat`](crate::claim_seat) found.
    pub replica: ReplicaId,
    /// All nodes of the group.
    pub nodes: Vec<NodeNumber>,
    /// The node that leads when it can.
    pub preferred: NodeNumber,
    /// Timers.
    pub timing: Timing,
    /// Bounds the rate at which this node brings others up to date.
    pub catch_up: Arc<CatchUp>,
    /// Hears of every applied record.
    pub applied: AppliedHook,
}

/// Who leads a group, as one replica knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader of that term, if one is known.
    pub leader: Option<NodeNumber>,
    /// This replica leads and has applied all that was committed before its term: it may propose,
    /// and what it has applied is current.
    pub ready: bool,
}

/// A replica's place in the log and in the group.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Who leads.
    pub leadership: Leadership,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: &'static str,
    /// Index of the last record in the log.
    pub last: Option<u64>,
    /// Index of the last record known to be committed.
    pub committed: Option<u64>,
    /// Index of the last record applied.
    pub applied: Option<u64>,
    /// The nodes whose replicas vote. One that takes the place of a lost one is among them once the
    /// group no longer needs the votes of those that were there before.
    pub voters: Vec<NodeNumber>,
    /// The nodes that are being brought up to date.
    pub learners: Vec<NodeNumber>,
    /// On the leader: index of the last record that each other node has on its disk.
    pub matched: Vec<(NodeNumber, Option<u64>)>,
}

/// One replica of a group. Clones are the same replica.
#[derive(Clone)]
pub struct Replica {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) raft: Raft,
    pub(crate) group: GroupId,
    pub(crate) name: String,
    pub(crate) replica: ReplicaId,
    pub(crate) nodes: Vec<NodeNumber>,
    pub(crate) preference: Preference,
    pub(crate) peers: Arc<Peers>,
    pub(crate) store: Arc<Store>,
    pub(crate) log: CommitLog,
    mended: watch::Receiver<u64>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    stopped: watch::Receiver<Option<String>>,
    elections: Arc<AtomicU64>,
    tasks: std::sync::Mutex<JoinSet<()>>,
}

impl Replica {
    /// Starts the replica over a log and a store that are open, and lets peers reach it.
    pub async fn start(
        options: ReplicaOptions,
        log: CommitLog,
        store: Arc<Store>,
        peers: Arc<Peers>,
        server: &PeerServer,
    ) -> Result<Replica, StartError> {
        let config = raft_config(&options)?;
        let network = ClientFactory {
            peers: peers.clone(),
            group: options.group,
            log: log.clone(),
            catch_up: options.catch_up.clone(),
        };
        let (tell_mended, mended) = watch::channel(0);
        let found = mend::observe(&log);
        let alone = peers.others().next().is_none();
        let waits = (!alone).then(|| mended.clone());
        let log_store = LogStore::new(log.clone(), store.clone()).waiting_for(waits);
        let machine = StateMachine::new(store.clone(), options.applied.clone());
        let (own, config) = (options.replica, Arc::new(config));
        let starting = Raft::new(own, config, network, log_store, machine);
        let mender = Mender {
            log: &log,
            open: true,
            peers: &peers,
            group: options.group,
        };
        let mending = (&*found, &tell_mended);
        let raft = mend::beside_start(starting, mender, &options.name, mending)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let (led, leadership) = watch::channel(Leadership::default());
        let (stop, stopped) = watch::channel(None);
        let elections: Arc<AtomicU64> = Arc::default();
        let shared = Arc::new(Shared {
            raft: raft.clone(),
            group: options.group,
            name: options.name,
            replica: options.replica,
            nodes: options.nodes,
            preference: Preference::new(options.preferred),
            peers,
            store,
            log: log.clone(),
            mended,
            leadership,
            stopped,
            elections: elections.clone(),
            tasks: std::sync::Mutex::default(),
        });
        let endpoint = Endpoint {
            raft: Some((options.replica, raft.clone())),
            log: Some(log),
            questions: membership::questions(shared.clone()),
        };
        server.register(options.group, endpoint);
        {
            let mut tasks = shared.lock_tasks();
            tasks.spawn(watch_leadership(
                raft,
                (options.replica, elections),
                led,
                stop,
            ));
            tasks.spawn(membership::join_group(shared.clone()));
            tasks.spawn(preference::prefer_leader(shared.clone()));
            tasks.spawn(mend::run(shared.clone(), found, tell_mended));
        }
        Ok(Replica { shared })
    }

    /// Id of the group.
    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// Who leads, and every change of it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    /// Changes whenever damaged records of the log were mended.
    pub fn mended(&self) -> watch::Receiver<u64> {
        self.shared.mended.clone()
    }

    /// Becomes `Some(reason)` when the replica has failed for good: the process must end.
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.shared.stopped.clone()
    }

    /// Appends a batch to the log, if this replica leads in `term`.
    ///
    /// `done` is called once: with the results when the batch is on the disks of a majority and
    /// applied here, or with the reason why that is not so; [`ProposeError::Unsettled`] when the
    /// replica stops or fails first: nobody knows then. Proposals of one caller are applied in the
    /// order of the calls. Waits only for room in openraft's queue.
    pub async fn propose(
        &self,
        term: u64,
        proposal: Proposal,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> Result<(), ProposeError> {
        let fence = LeaderId {
            term,
            node_id: self.shared.replica,
        };
        let write = self.shared.raft.write(proposal).with_leader(fence);
        let stopped = |e: openraft::errors::Fatal<GroupTypes>| ProposeError::Stopped(e.to_string());
        write.responder(completion(done)).await.map_err(stopped)
    }

    /// Returns when this replica has applied everything that was committed anywhere before the
    /// call; proves leadership by hearing from a majority. One round trip.
    pub async fn read_barrier(&self) -> Result<(), BarrierError> {
        if planted(Bug::DeposedLeaderReads) {
            return Ok(());
        }
        let linearizer = self
            .shared
            .raft
            .get_read_linearizer(ReadPolicy::ReadIndex)
            .await;
        let linearizer = linearizer.map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                BarrierError::NotLeader {
                    leader: forward.leader_id.map(node_of),
                }
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                BarrierError::NotLeader { leader: None }
            }
            RaftError::Fatal(fatal) => BarrierError::Stopped(fatal.to_string()),
        })?;
        let ready = linearizer.await_ready(&self.shared.raft).await;
        ready
            .map(drop)
            .map_err(|fatal| BarrierError::Stopped(fatal.to_string()))
    }

    /// Elections that this replica has started since the process runs.
    pub fn elections(&self) -> u64 {
        self.shared.elections.load(Ordering::Relaxed)
    }

    /// The last applied record.
    pub fn applied(&self) -> Option<(LogIndex, LeaderTag)> {
        self.shared.store.applied()
    }

    /// Where the replica stands.
    pub fn status(&self) -> ReplicaStatus {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters = full_voters(membership);
        let members = membership.nodes().map(|(id, _)| *id);
        let joining = members.filter(|id| !voters.contains(id));
        let matched = metrics.replication.iter().flatten();
        let matched = matched.filter(|(id, _)| **id != self.shared.replica);
        ReplicaStatus {
            leadership: *self.shared.leadership.borrow(),
            role: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Learner => "learner",
                ServerState::Shutdown => "stopped",
            },
            last: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index()),
            applied: metrics.last_applied.map(|id| id.index()),
            voters: nodes_of(voters.iter().copied()),
            learners: nodes_of(joining),
            matched: matched
                .map(|(id, at)| (node_of(*id), at.map(|log_id| log_id.index())))
                .collect(),
        }
    }

    /// Takes the store's checkpoint as the snapshot and drops the log before it. The store has
    /// chosen the boundary. When this returns, the log starts behind it; segments wholly before it
    /// are retired soon after.
    ///
    /// # Errors
    /// The replica has failed, or a follower needs the old log for so long that it is better to try
    /// again later.
    pub async fn purge_through(&self, index: LogIndex) -> Result<(), StartError> {
        const LIMIT: Duration = Duration::from_secs(30);
        let fatal = |e: openraft::errors::Fatal<GroupTypes>| StartError::Raft(e.to_string());
        let reached = |at: Option<LogId>| at.is_some_and(|id| id.index() >= index.get());
        let late = |e: openraft::metrics::WaitError| StartError::Raft(e.to_string());
        let raft = &self.shared.raft;
        let wait = raft.wait(Some(LIMIT));
        if !reached(raft.metrics().borrow_watched().snapshot) {
            raft.trigger().snapshot().await.map_err(fatal)?;
            let built = wait.metrics(
                |m| reached(m.snapshot),
                "snapshot at the retention boundary",
            );
            built.await.map_err(late)?;
        }
        raft.trigger().purge_log(index.get()).await.map_err(fatal)?;
        let purged = wait.metrics(|m| reached(m.purged), "purge to the retention boundary");
        purged.await.map(drop).map_err(late)
    }

    /// The process of `node` is gone: if it led this group, elects a new leader now instead of
    /// waiting for the timer (`design.md` D15).
    pub async fn leader_is_gone(&self, node: NodeNumber) {
        let shared = &self.shared;
        shared.preference.has_gone(node);
        let vote = shared.raft.metrics().borrow_watched().vote;
        if !vote.committed || node_of(vote.leader_id.node_id) != node {
            return;
        }
        let metrics = shared.raft.metrics();
        let voters: BTreeSet<ReplicaId> = metrics
            .borrow_watched()
            .membership_config
            .membership()
            .voter_ids()
            .collect();
        // A leader should be able to give every record: the others, or the timer, decide.
        if !voters.contains(&shared.replica) || !shared.log.holes().is_empty() {
            return;
        }
        let own = node_of(shared.replica);
        let rank = voters
            .iter()
            .filter(|id| election_rank(node_of(**id), node) < election_rank(own, node));
        let ahead = rank.filter(|id| node_of(**id) != node).count() as u32;
        let mut leadership = self.leadership();
        let term = vote.leader_id.term;
        let superseded = leadership.wait_for(|now| now.term > term);
        if timeout(ELECTION_STAGGER * ahead, superseded).await.is_ok() {
            return;
        }
        tracing::info!(
            group = shared.name,
            leader = node,
            "leader is gone: electing now"
        );
        let request = TransferLeaderRequest::new(vote, shared.replica, None);
        if let Err(fatal) = shared.raft.handle_transfer_leader(request).await {
            tracing::error!(group = shared.name, %fatal, "cannot elect");
        }
    }

    /// Stops the replica. Nothing is proposed or applied here after it returns.
    pub async fn shutdown(&self) {
        self.shared.lock_tasks().abort_all();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(group = self.shared.name, %error, "stopping the group failed");
        }
    }
}

/// The nodes of some replicas, in order, each once.
fn nodes_of(replicas: impl Iterator<Item = ReplicaId>) -> Vec<NodeNumber> {
    let nodes: BTreeSet<NodeNumber> = replicas.map(node_of).collect();
    nodes.into_iter().collect()
}

/// The order in which followers try after the leader on `gone` died: the next number first.
fn election_rank(node: NodeNumber, gone: NodeNumber) -> NodeNumber {
    node.wrapping_sub(gone)
}

impl Shared {
    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn raft_config(options: &ReplicaOptions) -> Result<openraft::Config, StartError> {
    let config = openraft::Config {
        cluster_name: options.name.clone(),
        heartbeat_interval: options.timing.heartbeat_ms,
        election_timeout_min: options.timing.election_min_ms,
        election_timeout_max: options.timing.election_max_ms,
        max_payload_entries: 64,
        max_append_entries: Some(64),
        replication_lag_threshold: 200,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(256),
        enable_pre_vote: Some(true),
        // A leader that comes back in its old term does not know what it had committed, and may have lost
        // records that its followers have: it would answer reads from the past, and give numbers of
        // records again. Only an election settles both.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Raft(error.to_string()))
}

/// Turns openraft's metrics into [`Leadership`] and notices when the replica fails.
async fn watch_leadership(
    raft: Raft,
    (replica, elections): (ReplicaId, Arc<AtomicU64>),
    led: watch::Sender<Leadership>,
    stop: watch::Sender<Option<String>>,
) {
    let mut server = raft.server_metrics();
    let mut campaigned = server.borrow_watched().vote.leader_id.term;
    loop {
        let (vote, leads) = {
            let now = server.borrow_watched();
            (now.vote, now.state == ServerState::Leader)
        };
        let term = vote.leader_id.term;
        if term > campaigned && vote.leader_id.node_id == replica {
            // A vote for itself in a new term is an election that this replica started.
            campaigned = term;
            elections.fetch_add(1, Ordering::Relaxed);
        }
        let leader = vote.committed.then(|| node_of(vote.leader_id.node_id));
        let own_reign = leads && vote.committed && vote.leader_id.node_id == replica;
        publish(
            &led,
            Leadership {
                term,
                leader,
                ready: false,
            },
        );
        if own_reign {
            // Ready once an entry of this term, the blank one at the latest, is applied here.
            let wait = raft.wait(None);
            let applied = wait.metrics(
                |m| {
                    m.last_applied
                        .is_some_and(|id| id.committed_leader_id().term >= term)
                },
                "first entry of the term",
            );
            tokio::select! {
                applied = applied => if applied.is_ok() {
                    publish(&led, Leadership { term, leader, ready: true });
                },
                changed = server.changed() => if changed.is_ok() { continue },
            }
        }
        if server.changed().await.is_err() {
            let state = raft.metrics().borrow_watched().running_state.clone();
            let reason = state
                .err()
                .map_or("shut down".to_string(), |fatal| fatal.to_string());
            stop.send_replace(Some(reason));
            return;
        }
    }
}

fn publish(led: &watch::Sender<Leadership>, now: Leadership) {
    led.send_if_modified(|current| {
        let keeps = current.term == now.term && current.leader == now.leader;
        if *current == now || (keeps && current.ready && !now.ready) {
            return false;
        }
        *current = now;
        true
    });
}
