//! A node: everything one process runs, started and stopped in order.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gantry_protocol::message_id::UniqueKeys;
use gantry_raft::{
    AppliedHook, CatchUp, Connection, GroupFiles, GroupId, Identity, NodeNumber, OpenGroup,
    OpenStore, PeerEvent, PeerServer, Peers, Replica, ReplicaOptions, Seat, StartError, aside,
    open_group,
};
use gantry_storage::commitlog::CommitLog;
use gantry_storage::table_copy;
use gantry_storage::{LogConfig, Store, StoreConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::appender::Appender;
use crate::broker::Broker;
use crate::config::{Config, ListenerNode};
use crate::disk::Disk;
use crate::due::{self, Signals};
use crate::filters::Filters;
use crate::group::Group;
use crate::host::Host;
use crate::http;
use crate::long_poll::LongPoll;
use crate::maintenance;
use crate::memory;
use crate::metrics::{GroupMetrics, Metrics};
use crate::offset_commits::OffsetCommits;
use crate::peer_answers::call_handler;
use crate::peer_calls::Method;
use crate::pop::{self, Pops};
use crate::remoting::{ClientPort, RemotingServer, Router, bind};
use crate::routes::Routes;
use crate::scrub;
use crate::sessions::Sessions;
use crate::statistics::{self, Mornings};
use crate::status;
use crate::transactions;

/// Why a node could not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(pub String);

impl From<std::io::Error> for NodeError {
    fn from(error: std::io::Error) -> Self {
        NodeError(error.to_string())
    }
}

impl From<StartError> for NodeError {
    fn from(error: StartError) -> Self {
        NodeError(error.to_string())
    }
}

/// Runs a node until `shutdown` completes; then hands leadership over, lets clients move, and stops.
///
/// Fails if it cannot start, or when a group fails for good (its disk, most likely): the process must
/// end then and can be started again. All ports are free when this returns.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    let _lock = lock_directory(&config.data)?;
    let mut background = JoinSet::new();
    let outcome = run_with(&mut background, config, shutdown).await;
    // Tasks hold their sockets until they have ended, also aborted ones.
    background.shutdown().await;
    outcome
}

/// A node with its tasks in `background`, some of which still run when this returns.
async fn run_with(
    background: &mut JoinSet<()>,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let config = Arc::new(config);
    let ports = bind_ports(&config).await?;
    let peer_listener = bind(config.peer_bind, "peers").await?;
    let http_listener = bind(config.http_bind, "http").await?;
    if config.insecure {
        tracing::warn!(
            "insecure = true: whoever reaches the ports of this node may use the broker"
        );
    }
    let parts = Arc::new(Parts::new(&config, Host::machine(&config)));
    background.spawn(parts.server.clone().listen(peer_listener));
    let (stop_http, http_stopped) = watch::channel(false);
    background.spawn(http::serve(
        http_listener,
        status::handlers(&parts),
        http_stopped,
    ));
    tokio::pin!(shutdown);
    let router = tokio::select! {
        started = parts.start(background) => started?,
        () = &mut shutdown => return Ok(()),
    };
    let broker = router.broker().clone();
    let server = RemotingServer::new(config.node, router, config.broker.connections_max);
    let (stop_accepting, accepting) = watch::channel(false);
    let mut clients = JoinSet::new();
    clients.spawn(server.serve(ports, accepting));
    tracing::info!(node = config.node, "node is up");
    let outcome = tokio::select! {
        () = &mut shutdown => {
            drain(&config, &broker).await;
            Ok(())
        }
        reason = failure(&broker) => Err(NodeError(reason)),
        _ = clients.join_next() => Err(NodeError("the client ports stopped".to_string())),
    };
    stop_accepting.send_replace(true);
    stop_http.send_replace(true);
    stop_groups(&broker).await;
    while clients.join_next().await.is_some() {}
    outcome
}

/// Ends the groups; the copy of the tables makes the next start quick.
async fn stop_groups(broker: &Broker) {
    let mut stopping = JoinSet::new();
    for group in &broker.groups {
        let group = group.clone();
        stopping.spawn(async move {
            group.replica.shutdown().await;
            let closing = group.clone();
            if let Err(error) = aside(move || close_storage(&closing)).await {
                tracing::error!(group = group.name, %error, "closing the group's files failed");
            }
        });
    }
    while stopping.join_next().await.is_some() {}
}

/// Returns when nothing writes to the group's directory any more.
fn close_storage(group: &Group) {
    if let Err(error) = group.store.save_copy() {
        tracing::warn!(group = group.name, %error, "the tables were not copied");
    }
    group.log.shutdown();
    let writer = group
        .log_writer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if writer.is_some_and(|writer| writer.join().is_err()) {
        tracing::error!(group = group.name, "the log's writer has panicked");
    }
}

/// A node without its sockets: what exists before the groups have started, and starts them.
pub struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) catch_up: Arc<CatchUp>,
    host: Host,
    disk: Arc<Disk>,
    pub(crate) broker: OnceLock<Arc<Broker>>,
    pub(crate) started: Instant,
    router: Arc<OnceLock<Arc<Router>>>,
    server: PeerServer,
    peers: Arc<Peers>,
    events: Mutex<Option<mpsc::UnboundedReceiver<PeerEvent>>>,
}

impl Parts {
    /// A node on `host`, connecting to its peers; [`Parts::serve_peers`] lets them reach it.
    pub fn new(config: &Arc<Config>, host: Host) -> Self {
        let identity = Identity {
            cluster: config.cluster.clone(),
            node: config.node,
            boot: host.boot,
            secret: config.peer_secret.as_str().into(),
            groups: config
                .groups
                .iter()
                .map(|group| group.name.clone())
                .collect(),
        };
        let router: Arc<OnceLock<Arc<Router>>> = Arc::default();
        let server = PeerServer::new(identity.clone(), call_handler(router.clone()));
        let nodes: Vec<NodeNumber> = config.peers.keys().copied().collect();
        let (peers, events) = Peers::open(host.transport.clone(), identity, &nodes);
        Parts {
            config: config.clone(),
            metrics: Metrics::new(&config.cluster, config.node),
            catch_up: Arc::new(CatchUp::new(config.catch_up_bytes_per_second)),
            disk: Arc::new(Disk::new(config, host.fs.clone())),
            host,
            broker: OnceLock::new(),
            started: Instant::now(),
            router,
            server,
            peers,
            events: Mutex::new(Some(events)),
        }
    }

    /// Serves what peers ask on `connections` until the future is dropped.
    pub async fn serve_peers(&self, connections: mpsc::UnboundedReceiver<Connection>) {
        self.server.clone().serve(connections).await;
    }

    /// Starts the groups, with their tasks in `background`; requests may come when this returns. Waits for
    /// the other nodes where a directory is empty. Called once.
    pub async fn start(
        self: &Arc<Self>,
        background: &mut JoinSet<()>,
    ) -> Result<Arc<Router>, NodeError> {
        let broker = start_groups(self, background).await?;
        let twice = || NodeError("started twice".to_string());
        self.broker.set(broker.clone()).map_err(|_| twice())?;
        for group in &broker.groups {
            background.spawn(transactions::run(broker.clone(), group.clone()));
        }
        let sessions = broker.sessions.clone();
        background.spawn(sessions.run(broker.peers.clone(), broker.groups.clone()));
        let router = Arc::new(Router::new(broker));
        self.router.set(router.clone()).map_err(|_| twice())?;
        Ok(router)
    }
}

/// Keeps a second process away from the directory for as long as the file is open.
fn lock_directory(data: &Path) -> Result<std::fs::File, NodeError> {
    let failed = |error: &dyn std::fmt::Display| {
        NodeError(format!(
            "cannot use the data directory {}: {error}",
            data.display()
        ))
    };
    std::fs::create_dir_all(data).map_err(|e| failed(&e))?;
    let path = data.join("lock");
    let file = std::fs::File::create(&path).map_err(|e| failed(&e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| failed(&"another process uses it; stop that one or choose another directory"),
    )?;
    Ok(file)
}

async fn bind_ports(config: &Config) -> Result<Vec<ClientPort>, NodeError> {
    let mut ports = Vec::new();
    for (listener, settings) in config.listeners.iter().enumerate() {
        let own = &settings.nodes[&config.node];
        let mut wanted = vec![(None, own.namesrv)];
        for (id, port) in own.groups.iter().enumerate() {
            wanted.push((Some(id as GroupId), *port));
            // Old clients send to the port two below; RocketMQ calls it the VIP channel.
            wanted.push((Some(id as GroupId), ListenerNode::vip_port(*port)));
        }
        for (group, port) in wanted {
            let what = format!("clients of listener {:?}", settings.name);
            let socket = bind((settings.bind, port).into(), &what).await?;
            ports.push(ClientPort {
                listener,
                group,
                socket,
            });
        }
    }
    Ok(ports)
}

async fn start_groups(
    parts: &Arc<Parts>,
    background: &mut JoinSet<()>,
) -> Result<Arc<Broker>, NodeError> {
    let copies = match parts.host.keeps_table_copy {
        true => Some(table_copy::open(&parts.config.data.join("tables"))?),
        false => None,
    };
    let mut starting = JoinSet::new();
    for id in 0..parts.config.groups.len() {
        let name = &parts.config.groups[id].name;
        let copy = copies.as_ref().map(|copies| copies.open_tree(name));
        let copy = copy
            .transpose()
            .map_err(|error| NodeError(format!("copy of the tables: {error}")))?;
        starting.spawn(start_group(parts.clone(), id as GroupId, copy));
    }
    let mut groups: Vec<(Arc<Group>, OffsetCommits)> = Vec::new();
    while let Some(started) = starting.join_next().await {
        groups.push(started.map_err(|error| NodeError(error.to_string()))??);
    }
    groups.sort_by_key(|(group, _)| group.id);
    for (group, offsets) in &groups {
        let (appender, replica) = (group.appender.clone(), group.replica.clone());
        background.spawn(appender.run(replica, group.log.clone(), parts.host.clock.clone()));
        background.spawn(offsets.clone().run(group.clone()));
        background.spawn(due::run(group.clone(), parts.host.clock.clone()));
        background.spawn(pop::run_expiry(group.clone(), parts.host.clock.clone()));
        background.spawn(maintenance::next_segment(group.clone()));
        background.spawn(scrub::run(parts.config.scrub, group.clone()));
        background.spawn(maintenance::system_topics(
            parts.config.clone(),
            group.clone(),
        ));
    }
    let groups: Vec<Arc<Group>> = groups.into_iter().map(|(group, _)| group).collect();
    background.spawn(memory::run(groups.clone()));
    background.spawn(statistics::run(groups.clone(), parts.host.clock.clone()));
    let events = parts
        .events
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    if let Some(events) = events {
        background.spawn(watch_peers(events, groups.clone()));
    }
    let routes = Routes::new(parts.config.clone(), groups.clone()).await;
    // The node's number, because containers have the same process id and listen on the same address.
    let ip = Ipv4Addr::from(u32::from(parts.config.node)).into();
    Ok(Arc::new(Broker {
        config: parts.config.clone(),
        sessions: Arc::new(Sessions::new(parts.config.node)),
        routes: Arc::new(routes),
        groups,
        filters: Filters::default(),
        peers: parts.peers.clone(),
        metrics: parts.metrics.clone(),
        clock: parts.host.clock.clone(),
        unique_keys: Mutex::new(UniqueKeys::new(
            ip,
            (parts.host.boot & 0xffff) as u32,
            parts.host.clock.now_ms() as u32,
        )),
    }))
}

async fn start_group(
    parts: Arc<Parts>,
    id: GroupId,
    copy: Option<sled::Tree>,
) -> Result<(Arc<Group>, OffsetCommits), NodeError> {
    let config = &parts.config;
    let settings = &config.groups[usize::from(id)];
    let directory = config.data.join("groups").join(&settings.name);
    let host = &parts.host;
    let wanted = Seat {
        cluster: config.cluster.clone(),
        group: settings.name.clone(),
        node: config.node,
        incarnation: host.clock.now_ms(),
        segment_bytes: config.log.segment_bytes,
    };
    let files = group_files(host, directory, config.log.clone(), copy);
    let OpenGroup {
        seat,
        log,
        writer,
        store,
    } = open_group(files, (&parts.peers, &parts.server), id, wanted)
        .await
        .map_err(|error| NodeError(format!("group {}: {error}", settings.name)))?;
    let metrics = parts.metrics.group(&settings.name);
    observe_flushes(&log, metrics.flush_seconds.clone());
    let waiting = Waiting {
        long_poll: Arc::default(),
        pops: Arc::default(),
        signals: Arc::new(Signals::new(&store)),
    };
    let Waiting {
        long_poll,
        pops,
        signals,
    } = waiting.clone();
    let start = store.applied().map_or(0, |(index, _)| index.get());
    let (applied_to, applied) = watch::channel(start);
    let hook = applied_hook(waiting, applied_to, metrics.clone());
    let options = replica_options(&parts, id, &seat, hook);
    let (peers, server) = (parts.peers.clone(), &parts.server);
    let replica = Replica::start(options, log.clone(), store.clone(), peers, server).await?;
    let appender = Appender::new(config.broker.send_bytes_max, metrics.clone());
    let offsets = OffsetCommits::default();
    let group = Group {
        id,
        name: settings.name.clone(),
        node: config.node,
        replica,
        store,
        log,
        log_writer: Mutex::new(writer),
        appender,
        offsets: offsets.clone(),
        long_poll,
        pops,
        applied,
        signals,
        peers: parts.peers.clone(),
        metrics,
        segment_bytes: config.log.segment_bytes,
        disk: parts.disk.clone(),
        mornings: Mornings::default(),
    };
    Ok((Arc::new(group), offsets))
}

fn replica_options(parts: &Parts, id: GroupId, seat: &Seat, hook: AppliedHook) -> ReplicaOptions {
    let config = &parts.config;
    let settings = &config.groups[usize::from(id)];
    ReplicaOptions {
        group: id,
        name: settings.name.clone(),
        replica: seat.replica(),
        nodes: config.peers.keys().copied().collect(),
        preferred: settings.preferred,
        timing: config.timing,
        catch_up: parts.catch_up.clone(),
        applied: hook,
    }
}

fn observe_flushes(log: &CommitLog, seconds: prometheus::Histogram) {
    log.observe_flushes(Box::new(move |group| {
        seconds.observe(group.duration.as_secs_f64());
    }));
}

/// A group's files. The copy of the tables makes opening them quick.
fn group_files(
    host: &Host,
    directory: PathBuf,
    log: LogConfig,
    copy: Option<sled::Tree>,
) -> GroupFiles {
    let (of_store, store_fs) = (directory.clone(), host.fs.clone());
    let open_store: OpenStore = Arc::new(move |log| {
        let config = StoreConfig::default();
        Store::open(store_fs.clone(), &of_store, config, log, copy.clone())
    });
    GroupFiles {
        fs: host.fs.clone(),
        directory,
        log,
        run_writer: host.run_writer.clone(),
        open_store,
    }
}

/// Who waits for what a record may bring.
#[derive(Clone)]
struct Waiting {
    long_poll: Arc<LongPoll>,
    pops: Arc<Pops>,
    signals: Arc<Signals>,
}

/// What happens right after a record was applied on this node.
fn applied_hook(
    waiting: Waiting,
    applied_to: watch::Sender<u64>,
    metrics: Arc<GroupMetrics>,
) -> AppliedHook {
    Arc::new(move |located, applied, took| {
        metrics.apply_seconds.observe(took.as_secs_f64());
        let pushed_out = applied.sends_pushed_out;
        metrics.idempotent.pushed_out.inc_by(pushed_out);
        applied_to.send_replace(located.record.index.get());
        let Waiting {
            long_poll,
            pops,
            signals,
        } = &waiting;
        signals.applied(applied);
        let arrived = || applied.arrivals.iter().map(|arrival| arrival.key);
        long_poll.wake(arrived());
        pops.waiters
            .wake(arrived().chain(applied.freed.iter().copied()));
        let next = applied.next_lease_ms;
        pops.next_lease_ms
            .send_if_modified(|known| std::mem::replace(known, next) != next);
    })
}

/// Tells the groups when a peer's process is gone.
async fn watch_peers(mut events: mpsc::UnboundedReceiver<PeerEvent>, groups: Vec<Arc<Group>>) {
    while let Some(event) = events.recv().await {
        if let PeerEvent::Gone { node } = event {
            for group in &groups {
                let replica: Replica = group.replica.clone();
                tokio::spawn(async move { replica.leader_is_gone(node).await });
            }
        }
    }
}

/// Does the groups' maintenance; completes with the reason when a group has failed for good.
pub async fn failure(broker: &Broker) -> String {
    let mut watching = JoinSet::new();
    for group in &broker.groups {
        let (config, clock) = (broker.config.clone(), broker.clock.clone());
        watching.spawn(maintenance::run(config, group.clone(), clock));
        let mut stopped = group.replica.stopped();
        let name = group.name.clone();
        watching.spawn(async move {
            let reason = match stopped.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "its tasks ended".to_string(),
            };
            format!("group {name} stopped: {reason}")
        });
    }
    match watching.join_next().await {
        Some(Ok(reason)) => reason,
        _ => "a group stopped".to_string(),
    }
}

/// Moves leadership away and gives clients the time to follow the new routes.
async fn drain(config: &Config, broker: &Broker) {
    tracing::info!("stopping: handing leadership over");
    announce_leaving(broker).await;
    hand_over(broker).await;
    if config.peers.len() == 1 {
        return;
    }
    let until = Instant::now() + config.broker.drain;
    while Instant::now() < until && broker.metrics.connections.get() > 0 {
        // Clients look for new routes every 30 s; their requests go on to the leaders until then.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // An election may have made this node a leader again.
    hand_over(broker).await;
}

/// Keeps leadership, and routes, from coming back to this node while it drains.
async fn announce_leaving(broker: &Broker) {
    const PATIENCE: Duration = Duration::from_millis(500);
    for group in &broker.groups {
        group.replica.node_is_leaving(group.node);
    }
    let mut telling = JoinSet::new();
    for peer in broker.peers.others() {
        let peers = broker.peers.clone();
        telling.spawn(async move {
            let method = (0, Method::Leaving as u8);
            let told = peers.call(peer, method, Vec::new(), Instant::now() + PATIENCE);
            if let Err(error) = told.await {
                tracing::info!(peer, %error, "a node was not told that this one stops");
            }
        });
    }
    while telling.join_next().await.is_some() {}
}

/// Writes what is committed by consumers and moves leadership away.
async fn hand_over(broker: &Broker) {
    let mut handing = JoinSet::new();
    for group in &broker.groups {
        let group = group.clone();
        handing.spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(2);
            if let Err(error) = group.offsets.flush(deadline).await {
                tracing::warn!(group = group.name, %error, "some consumer offsets were not written");
            }
            group.replica.hand_over().await;
        });
    }
    while handing.join_next().await.is_some() {}
}
