//! Three nodes of the program, as processes that a test can kill.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry::client::status::{self, ReplicaStatus};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::support::Connection;
use super::support::ports::Hundred;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const NODES: u16 = 3;
const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

/// A running cluster with one group.
pub struct ThreeNodes {
    nodes: Vec<Option<Child>>,
    ports: Hundred,
    _directory: TempDir,
}

impl ThreeNodes {
    /// Starts the nodes; returns when the group has a leader.
    pub async fn start() -> ThreeNodes {
        let directory = TempDir::new().unwrap();
        let ports = Hundred::claim();
        let mut nodes = Vec::new();
        for node in 1..=NODES {
            let file = directory.path().join(format!("{node}.toml"));
            let data = directory.path().join(node.to_string());
            let text = configuration(node, ports.first, &data.display().to_string());
            std::fs::write(&file, text).unwrap();
            let child = Command::new(GANTRY)
                .args(["server", "--log-level", "error", "--config"])
                .arg(&file)
                .stdin(Stdio::null())
                .spawn();
            nodes.push(Some(child.unwrap()));
        }
        let cluster = ThreeNodes {
            nodes,
            ports,
            _directory: directory,
        };
        cluster.leader(0).await;
        cluster
    }

    /// The node that leads in a term after `term`, and its term.
    pub async fn leader(&self, term: u64) -> (u16, u64) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for node in self.running() {
                let replica = self.replica(node).await;
                let leads =
                    replica.filter(|replica| replica.role == "leader" && replica.term > term);
                if let Some(replica) = leads {
                    return (node, replica.term);
                }
            }
            assert!(
                Instant::now() < deadline,
                "no leader after {START_TIMEOUT:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn replica(&self, node: u16) -> Option<ReplicaStatus> {
        let status = status::get(&local(http(self.ports.first, node)).to_string()).await;
        status.ok()?.groups.into_iter().next()
    }

    fn running(&self) -> impl Iterator<Item = u16> {
        let nodes = (1..=NODES).zip(&self.nodes);
        nodes
            .filter(|(_, child)| child.is_some())
            .map(|(node, _)| node)
    }

    /// Ends a node without a word.
    pub fn kill(&mut self, node: u16) {
        let mut child = self.nodes[usize::from(node) - 1].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A node that runs and is not this one.
    pub fn other_than(&self, node: u16) -> u16 {
        self.running().find(|other| *other != node).unwrap()
    }

    /// A connection to the group's port at a node.
    pub async fn connect(&self, node: u16) -> Connection {
        let address = local(group(self.ports.first, node));
        Connection::over(TcpStream::connect(address).await.unwrap())
    }
}

impl Drop for ThreeNodes {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn http(first: u16, node: u16) -> u16 {
    first + node * 10
}

fn group(first: u16, node: u16) -> u16 {
    first + node * 10 + 5
}

fn configuration(node: u16, first: u16, data: &str) -> String {
    let (http, own_peer) = (http(first, node), first + node * 10 + 1);
    let nodes = 1..=NODES;
    let peers = nodes.clone().map(|peer| {
        let port = first + peer * 10 + 1;
        format!("{{ node = {peer}, address = \"127.0.0.1:{port}\" }}")
    });
    let peers = peers.collect::<Vec<_>>().join(", ");
    let listeners = nodes.map(|peer| {
        let (namesrv, group) = (first + peer * 10 + 2, group(first, peer));
        format!(
            "{{ node = {peer}, host = \"127.0.0.1\", namesrv = {namesrv}, groups = [{group}] }}"
        )
    });
    let listeners = listeners.collect::<Vec<_>>().join(", ");
    format!(
        r#"
        node = {node}
        data = {data:?}
        peers = [{peers}]
        groups = [{{ name = "broker-a" }}]
        peer = {{ bind = "127.0.0.1:{own_peer}" }}
        http = {{ bind = "127.0.0.1:{http}" }}
        storage = {{ segment_bytes = "16MiB" }}
        [[listener]]
        name = "local"
        bind = "127.0.0.1"
        nodes = [{listeners}]
        "#
    )
}
