//! Groups of three nodes in one process: real logs and stores in a temporary directory, a network of memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_raft::{
    AppliedHook, CatchUp, GroupFiles, Identity, MemoryNetwork, NodeNumber, OpenGroup, OpenStore,
    Outcome, PeerEvent, PeerServer, Peers, Proposal, ProposeError, Replica, ReplicaOptions, Reply,
    Seat, StartError, Timing, open_group,
};
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::commitlog::{CommitLog, MemoryBudget};
use gantry_storage::fs::{FileSystem, RealFs};
use gantry_storage::message::{MessageView, NewMessage};
use gantry_storage::store::{ReadRequest, ReadStatus};
use gantry_storage::tables::{Command, CommandResult, TopicConfig};
use gantry_storage::{LogConfig, QueueKey, QueueOffset, Store, StoreConfig};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Nothing here takes longer, however busy the machine is.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Elections by the timer come soon after a leader falls silent.
pub const QUICK: Timing = Timing {
    heartbeat_ms: 100,
    election_min_ms: 500,
    election_max_ms: 700,
};

/// Elections by the timer come too late to be what a test sees.
pub const PATIENT: Timing = Timing {
    heartbeat_ms: 200,
    election_min_ms: 6_000,
    election_max_ms: 7_000,
};

/// Pause before a proposal is made again that was refused.
const RETRY: Duration = Duration::from_millis(10);

pub const SEGMENT_BYTES: u64 = 64 << 10;
pub const QUEUES: u16 = 2;
const TOPIC: &str = "orders";
const GROUP: &str = "broker-a";
pub const NODES: [NodeNumber; 3] = [1, 2, 3];

/// What a test wants otherwise than usual.
pub struct Setup {
    pub timing: Timing,
    pub preferred: NodeNumber,
    /// Nodes that nobody tells of processes that are gone.
    pub deaf: BTreeSet<NodeNumber>,
    pub disks: BTreeMap<NodeNumber, Arc<dyn FileSystem>>,
    pub catch_up: u64,
    /// Recent log that each node keeps in memory.
    pub tail_bytes: usize,
}

impl Setup {
    pub fn new(timing: Timing) -> Self {
        Setup {
            timing,
            preferred: 1,
            deaf: BTreeSet::new(),
            disks: BTreeMap::new(),
            catch_up: 64 << 20,
            tail_bytes: 64 << 10,
        }
    }
}

/// A running process of a node.
pub struct Node {
    pub replica: Replica,
    pub seat: Seat,
    pub log: CommitLog,
    pub store: Arc<Store>,
    pub peers: Arc<Peers>,
    pub applied: watch::Receiver<u64>,
    tasks: JoinSet<()>,
    writer: JoinHandle<()>,
}

/// The nodes of a group, those that run.
pub struct Cluster {
    pub network: MemoryNetwork,
    pub nodes: BTreeMap<NodeNumber, Node>,
    setup: Arc<Setup>,
    dir: TempDir,
    boots: Arc<AtomicU64>,
    clock: AtomicU64,
    topic: u32,
    acked: Mutex<Vec<(QueueKey, QueueOffset, String)>>,
}

impl Cluster {
    /// Starts all nodes over empty directories and creates the topic.
    pub async fn form(setup: Setup) -> Cluster {
        let mut cluster = Cluster {
            network: MemoryNetwork::new(),
            nodes: BTreeMap::new(),
            setup: Arc::new(setup),
            dir: tempfile::tempdir().unwrap(),
            boots: Arc::default(),
            clock: AtomicU64::new(1_000_000),
            topic: 0,
            acked: Mutex::default(),
        };
        cluster.start(&NODES).await;
        let mut batch = BatchBuilder::default();
        let config = TopicConfig::new(TOPIC, QUEUES);
        batch.push_command(&Command::PutTopic { config });
        let reply = cluster.put(batch).await;
        let CommandResult::TopicId(id) = reply.applied.commands[0] else {
            panic!("{reply:?}");
        };
        cluster.topic = id;
        cluster
    }

    /// Starts nodes that do not run, at the same time, since they may wait for each other.
    pub async fn start(&mut self, nodes: &[NodeNumber]) {
        let refused = self.try_start(nodes).await;
        assert!(refused.is_empty(), "these do not start: {refused:?}");
    }

    /// The same; returns those that do not start, and why.
    pub async fn try_start(&mut self, nodes: &[NodeNumber]) -> Vec<(NodeNumber, StartError)> {
        let mut starting = JoinSet::new();
        for number in nodes {
            let start = Start {
                network: self.network.clone(),
                setup: self.setup.clone(),
                directory: self.directory(*number),
                number: *number,
                boot: 1 + self.boots.fetch_add(1, Ordering::Relaxed),
            };
            starting.spawn(start.run());
        }
        let started = timeout(LIMIT, starting.join_all()).await;
        let mut refused = Vec::new();
        for (number, node) in started.expect("the nodes start") {
            match node {
                Ok(node) => {
                    let before = self.nodes.insert(number, node);
                    assert!(before.is_none(), "node {number} runs already");
                }
                Err(error) => refused.push((number, error)),
            }
        }
        refused
    }

    pub fn directory(&self, node: NodeNumber) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    /// Ends the process of a node: first its peers see it gone, then it stops.
    pub async fn kill(&mut self, node: NodeNumber) {
        self.network.kill(node);
        let node = self.nodes.remove(&node).expect("the node runs");
        node.stop().await;
    }

    pub fn wipe(&self, node: NodeNumber) {
        assert!(!self.nodes.contains_key(&node), "node {node} still runs");
        std::fs::remove_dir_all(self.directory(node)).unwrap();
    }

    /// The first of these nodes that leads and may propose.
    pub async fn leader_among(&self, nodes: &[NodeNumber]) -> NodeNumber {
        let mut waiting = JoinSet::new();
        for number in nodes {
            let (number, mut leadership) = (*number, self.nodes[number].replica.leadership());
            waiting.spawn(async move {
                let leads = leadership.wait_for(|now| now.ready && now.leader == Some(number));
                leads.await.expect("the replica runs");
                number
            });
        }
        let Ok(first) = timeout(LIMIT, waiting.join_next()).await else {
            let statuses = self
                .nodes
                .iter()
                .map(|(n, node)| (n, node.replica.status()));
            panic!(
                "none of {nodes:?} leads within the limit: {:#?}",
                statuses.collect::<Vec<_>>()
            );
        };
        first.unwrap().unwrap()
    }

    pub async fn leader(&self) -> NodeNumber {
        let nodes: Vec<NodeNumber> = self.nodes.keys().copied().collect();
        self.leader_among(&nodes).await
    }

    pub fn seal(&self, batch: BatchBuilder) -> Proposal {
        let store_time_ms = self.clock.fetch_add(1, Ordering::Relaxed);
        let (payload, payload_crc) = batch.seal(store_time_ms);
        Proposal {
            payload,
            payload_crc,
            store_time_ms,
        }
    }

    /// Proposes to whoever leads until it is applied. Loses nothing that was proposed here: a batch whose
    /// outcome is unknown is an error of the test.
    pub async fn put(&self, batch: BatchBuilder) -> Reply {
        let proposal = self.seal(batch);
        let deadline = Instant::now() + LIMIT;
        loop {
            let leader = self.leader().await;
            let outcome = self.nodes[&leader].propose(proposal.clone()).await;
            match timeout_at(deadline, outcome)
                .await
                .expect("an outcome")
                .unwrap()
            {
                Ok(reply) => return reply,
                Err(ProposeError::NotLeader { .. }) => tokio::time::sleep(RETRY).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn message(&self, queue: u16, body: &str) -> BatchBuilder {
        let mut batch = BatchBuilder::default();
        let message = NewMessage {
            topic: TOPIC,
            queue_id: queue,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: "192.0.2.1:4000".parse().unwrap(),
            reconsume_times: 0,
            prepared_offset: 0,
            body: body.as_bytes(),
            properties: b"KEYS\x01k\x02",
        };
        let head = RowHead {
            topic_id: self.topic,
            ..RowHead::default()
        };
        batch.push_message(head, &message).unwrap();
        batch
    }

    /// Sends `count` messages of about `bytes` and remembers each that was acknowledged.
    pub async fn send(&self, count: usize, bytes: usize) {
        for number in 0..count {
            let queue = number as u16 % QUEUES;
            let boot = self.clock.load(Ordering::Relaxed);
            let body = format!("{boot}-{number}-{}", "x".repeat(bytes));
            let reply = self.put(self.message(queue, &body)).await;
            self.note_acked(queue, &reply, body);
        }
    }

    /// Remembers that a message with this body was acknowledged.
    pub fn note_acked(&self, queue: u16, reply: &Reply, body: String) {
        let gantry_storage::RowResult::Stored(offset) = reply.applied.rows[0].result else {
            panic!("{reply:?}");
        };
        let key = self.queue(queue);
        self.acked.lock().unwrap().push((key, offset, body));
    }

    pub fn queue(&self, queue: u16) -> QueueKey {
        QueueKey {
            topic_id: self.topic,
            queue,
        }
    }

    /// Waits until all nodes that run have applied the same, and compares their states.
    pub async fn converge(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let furthest = self.nodes.values().map(|node| *node.applied.borrow()).max();
            let furthest = furthest.expect("some node runs");
            for (number, node) in &self.nodes {
                let mut applied = node.applied.clone();
                let there = timeout_at(deadline, applied.wait_for(|at| *at >= furthest)).await;
                let there =
                    there.unwrap_or_else(|_| panic!("node {number} stays behind {furthest}"));
                there.expect("the replica runs");
            }
            let state = |node: &Node| (node.store.applied(), node.store.digest());
            let states: Vec<_> = self.nodes.values().map(state).collect();
            if states.iter().all(|state| state.0 == states[0].0) {
                assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
                return;
            }
            assert!(Instant::now() < deadline, "{states:?}");
        }
    }

    /// Every acknowledged message that retention has left is where it was acknowledged to be, on each node.
    pub fn assert_acked_are_there(&self) {
        let acked = self.acked.lock().unwrap();
        assert!(!acked.is_empty());
        for (number, node) in &self.nodes {
            let mut found = 0;
            for (key, offset, body) in acked.iter() {
                let min = node.store.queue_bounds(*key).unwrap().min;
                if *offset >= min {
                    assert_eq!(
                        node.body(*key, *offset),
                        *body,
                        "node {number} {key:?} {offset}"
                    );
                    found += 1;
                }
            }
            assert!(found > 0, "node {number} has no message");
        }
    }
}

/// What a process is started with.
struct Start {
    network: MemoryNetwork,
    setup: Arc<Setup>,
    directory: PathBuf,
    number: NodeNumber,
    boot: u64,
}

impl Start {
    async fn run(self) -> (NodeNumber, Result<Node, StartError>) {
        let identity = identity(self.number, self.boot);
        let server = PeerServer::new(
            identity.clone(),
            Arc::new(|_, _, _, _| Box::pin(async { Err("nothing above".to_string()) })),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(server.clone().serve(self.network.listen(self.number)));
        let transport = Arc::new(self.network.transport(self.number));
        let (peers, mut events) = Peers::open(transport, identity, &NODES);
        let fs = self.setup.disks.get(&self.number).cloned();
        let fs = fs.unwrap_or_else(|| Arc::new(RealFs));
        let wanted = Seat {
            cluster: "test".to_string(),
            group: GROUP.to_string(),
            node: self.number,
            incarnation: 0,
            segment_bytes: SEGMENT_BYTES,
        };
        let files = group_files(&fs, &self.directory, self.setup.tail_bytes);
        let OpenGroup {
            seat,
            log,
            writer,
            store,
        } = match open_group(files, (&peers, &server), 0, wanted).await {
            Ok(open) => open,
            Err(error) => return (self.number, Err(error)),
        };
        let at = store.applied().map_or(0, |(index, _)| index.get());
        let (applied_to, applied) = watch::channel(at);
        let hook: AppliedHook = Arc::new(move |located, _, _| {
            applied_to.send_replace(located.record.index.get());
        });
        let options = ReplicaOptions {
            group: 0,
            name: GROUP.to_string(),
            replica: seat.replica(),
            nodes: NODES.to_vec(),
            preferred: self.setup.preferred,
            timing: self.setup.timing,
            catch_up: Arc::new(CatchUp::new(self.setup.catch_up)),
            applied: hook,
        };
        let started = Replica::start(options, log.clone(), store.clone(), peers.clone(), &server);
        let replica = started.await.unwrap();
        let (told, deaf) = (replica.clone(), self.setup.deaf.contains(&self.number));
        tasks.spawn(async move {
            while let Some(event) = events.recv().await {
                if let PeerEvent::Gone { node } = event
                    && !deaf
                {
                    told.leader_is_gone(node).await;
                }
            }
        });
        let node = Node {
            replica,
            seat,
            log,
            store,
            peers,
            applied,
            tasks,
            writer: writer.expect("a thread of its own"),
        };
        (self.number, Ok(node))
    }
}

fn group_files(fs: &Arc<dyn FileSystem>, directory: &Path, tail_bytes: usize) -> GroupFiles {
    let log = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        tail: MemoryBudget::new(tail_bytes),
        ..LogConfig::default()
    };
    let (store_fs, store_directory) = (fs.clone(), directory.to_path_buf());
    let open_store: OpenStore = Arc::new(move |log| {
        let config = StoreConfig::default();
        Store::open(store_fs.clone(), &store_directory, config, log, None)
    });
    GroupFiles {
        fs: fs.clone(),
        directory: directory.to_path_buf(),
        log,
        run_writer: Arc::new(|writer, name| CommitLog::spawn_writer(writer, name).map(Some)),
        open_store,
    }
}

pub fn identity(node: NodeNumber, boot: u64) -> Identity {
    Identity {
        cluster: "test".to_string(),
        node,
        boot,
        secret: "secret".into(),
        groups: vec![GROUP.to_string()],
    }
}

impl Node {
    /// Proposes in the term that this node knows; the outcome comes out of the receiver.
    pub async fn propose(&self, proposal: Proposal) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let term = self.replica.leadership().borrow().term;
        let proposed = self
            .replica
            .propose(term, proposal, move |outcome| drop(tell.send(outcome)));
        proposed.await.expect("the replica runs");
        told
    }

    /// The body of a message, as consumers would get it.
    pub fn body(&self, key: QueueKey, offset: QueueOffset) -> String {
        let request = ReadRequest {
            key,
            offset,
            max_messages: 1,
            max_bytes: 1 << 20,
            filter: &|_| true,
            properties: None,
            store_host: "192.0.2.9:1".parse().unwrap(),
            may_wait: true,
            whole: true,
        };
        let read = self.store.read_queue(&request).unwrap();
        assert_eq!(read.status, ReadStatus::Found, "{key:?} {offset}: {read:?}");
        let message = MessageView::parse(&read.body).unwrap();
        assert_eq!(message.queue_offset(), offset);
        String::from_utf8(message.body().to_vec()).unwrap()
    }

    /// Ends everything that the process runs.
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        self.replica.shutdown().await;
        self.log.shutdown();
        let writer = self.writer;
        let ended = tokio::task::spawn_blocking(move || writer.join());
        assert!(ended.await.unwrap().is_ok(), "the writer panicked");
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Waits for something that has no channel to watch.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within the limit: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
