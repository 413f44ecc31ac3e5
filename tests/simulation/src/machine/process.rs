//! The process on a machine: all of a node but its sockets and the copy of its tables.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use gantry::clock::WallClock;
use gantry::config::{
    BrokerConfig, Config, GroupConfig, ListenerConfig, ListenerNode, ScrubConfig,
};
use gantry::delays::Delays;
use gantry::host::Host;
use gantry::node::{self, Parts};
use gantry::remoting::{RemotingServer, Router};
use gantry::transactions::Checks;
use gantry_raft::{NodeNumber, RunWriter, Timing};
use gantry_storage::commitlog::{MemoryBudget, Turn, Writer};
use gantry_storage::{Clock, LogConfig, RetentionConfig};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::cluster::{BROKER, CLUSTER, NODES, Surroundings};
use crate::disk::Disk;
use crate::fiber::{Fiber, Pause, pause};
use crate::net::ClientConnection;
use crate::time::MachineTime;

/// What the world sees of a process.
#[derive(Default)]
pub struct Process {
    router: OnceLock<Arc<Router>>,
    ended: Mutex<Option<String>>,
}

impl Process {
    /// The node's parts, once it answers.
    pub fn router(&self) -> Option<&Arc<Router>> {
        self.router.get()
    }

    /// Why it has ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.ended.lock().expect("nothing panics here").clone()
    }

    pub(super) fn end(&self, reason: String) {
        *self.ended.lock().expect("nothing panics here") = Some(reason);
    }
}

/// What a process is started with.
pub(super) struct Settings {
    pub node: NodeNumber,
    pub boot: u64,
    pub disk: Disk,
    pub time: MachineTime,
    pub around: Surroundings,
}

/// Runs a node until it ends by itself; says why it did. `started` is called when it answers.
pub(super) async fn run(settings: Settings, seen: Arc<Process>, started: impl Fn()) -> String {
    let (peers, peer_connections) = mpsc::unbounded_channel();
    let (clients, client_connections) = mpsc::unbounded_channel();
    let net = settings.around.net.clone();
    net.listen(settings.node, Some(peers.clone()), None);
    let config = Arc::new(config(&settings));
    let parts = Arc::new(Parts::new(&config, host(&settings)));
    let mut background = JoinSet::new();
    let serving = parts.clone();
    background.spawn(async move { serving.serve_peers(peer_connections).await });
    let router = match parts.start(&mut background).await {
        Ok(router) => router,
        Err(error) => return format!("cannot start: {error}"),
    };
    let server = RemotingServer::new(settings.node, router.clone(), 1_000);
    background.spawn(accept(server, client_connections));
    net.listen(settings.node, Some(peers), Some(clients));
    let broker = router.broker().clone();
    drop(seen.router.set(router));
    started();
    let reason = node::failure(&broker).await;
    background.shutdown().await;
    reason
}

async fn accept(server: RemotingServer, mut clients: mpsc::UnboundedReceiver<ClientConnection>) {
    let mut running = JoinSet::new();
    while let Some((reader, writer, peer)) = clients.recv().await {
        if let Some(serving) = server.serve_one((reader, writer), (0, Some(0)), peer) {
            running.spawn(serving);
        }
    }
}

fn host(settings: &Settings) -> Host {
    let time = settings.time.clone();
    Host {
        fs: Arc::new(settings.disk.fs()),
        transport: settings.around.net.transport(settings.node),
        clock: WallClock::new(move || time.wall_ms()),
        boot: settings.boot,
        run_writer: fiber_writer(),
        keeps_table_copy: false,
    }
}

/// Runs writers as fibers: one turn after the other, with a pause wherever the disk takes its time.
fn fiber_writer() -> RunWriter {
    Arc::new(|mut writer: Writer, name: &str| {
        let queued = Arc::new(Notify::new());
        let wake = queued.clone();
        writer.on_queued(Box::new(move || wake.notify_one()));
        let fiber = Fiber::new(name, move || {
            loop {
                match writer.run_once() {
                    Turn::Worked => {}
                    Turn::Idle(limit) => pause(Pause::Idle(limit)),
                    Turn::Stopped => return,
                }
            }
        });
        tokio::spawn(drive(fiber, queued));
        Ok(None)
    })
}

async fn drive(fiber: Fiber, queued: Arc<Notify>) {
    loop {
        match fiber.resume() {
            Pause::Sleep(time) => tokio::time::sleep(time).await,
            Pause::Idle(None) => queued.notified().await,
            Pause::Idle(Some(limit)) => {
                // Woken or not, the next turn looks.
                drop(tokio::time::timeout(limit, queued.notified()).await);
            }
            Pause::Ended => return,
        }
    }
}

fn config(settings: &Settings) -> Config {
    let address = |node: NodeNumber| Ipv4Addr::new(10, 0, 0, node as u8);
    let peers: BTreeMap<NodeNumber, String> = NODES
        .iter()
        .map(|node| (*node, format!("{}:10912", address(*node))))
        .collect();
    let listener = ListenerConfig {
        name: "clients".to_string(),
        bind: address(settings.node).into(),
        nodes: NODES
            .iter()
            .map(|node| {
                let reached = ListenerNode {
                    host: address(*node).to_string(),
                    namesrv: 9876,
                    groups: vec![10911],
                };
                (*node, reached)
            })
            .collect(),
    };
    let shape = &settings.around.shape;
    let time = settings.time.clone();
    Config {
        cluster: CLUSTER.to_string(),
        node: settings.node,
        data: PathBuf::from("/data"),
        insecure: true,
        peer_secret: "a secret of the simulation".to_string(),
        peers,
        groups: vec![GroupConfig {
            name: BROKER.to_string(),
            preferred: shape.preferred,
        }],
        listeners: vec![listener],
        peer_bind: SocketAddr::from((address(settings.node), 10912)),
        http_bind: SocketAddr::from((address(settings.node), 5557)),
        log: LogConfig {
            segment_bytes: shape.segment_bytes,
            tail: MemoryBudget::new(shape.tail_bytes),
            cold: MemoryBudget::new(shape.tail_bytes),
            clock: Clock::new(move || Duration::from_nanos(time.monotonic_ns())),
            ..LogConfig::default()
        },
        retention: RetentionConfig {
            max_bytes: shape.retention_bytes,
            ..RetentionConfig::default()
        },
        scrub: ScrubConfig {
            interval: Duration::from_secs(10),
            bytes_per_second: 1 << 20,
        },
        catch_up_bytes_per_second: 64 << 20,
        timing: Timing::default(),
        broker: BrokerConfig {
            auto_create_topic: shape.auto_create,
            auto_create_group: true,
            auto_create_queues: 4,
            send_bytes_max: 16 << 20,
            connections_max: 1_000,
            drain: Duration::ZERO,
            delays: Delays::default(),
            checks: Checks {
                timeout: Duration::from_secs(1),
                interval: Duration::from_secs(1),
                most: 200,
            },
        },
    }
}
