//! A cluster of three nodes with one group, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gantry::config::ConfigFile;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

#[path = "ports.rs"]
mod ports;

use self::ports::Hundred;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Nodes 1 to 3 with the group `broker-a`, which node 1 leads when all are well.
pub struct Cluster {
    nodes: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    first_port: u16,
    _directories: Vec<TempDir>,
    _ports: Hundred,
}

impl Cluster {
    /// Starts the nodes in fresh directories; returns when the group takes writes on each of them.
    pub async fn start() -> Cluster {
        let ports = Hundred::claim();
        let first_port = ports.first;
        let directories: Vec<TempDir> = (1..=3).map(|_| TempDir::new().unwrap()).collect();
        let mut nodes = Vec::new();
        for (node, directory) in (1u16..).zip(&directories) {
            let text = config(node, first_port, directory);
            let config = ConfigFile::parse(&text).unwrap().resolve().unwrap();
            let (stop, stopped) = oneshot::channel();
            let running = tokio::spawn(async move {
                let until = async { drop(stopped.await) };
                gantry::node::run(config, until).await.unwrap();
            });
            nodes.push((stop, running));
        }
        let cluster = Cluster {
            nodes,
            first_port,
            _directories: directories,
            _ports: ports,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        for node in 1..=3 {
            while !is_ready(cluster.address(node, 1)).await {
                assert!(Instant::now() < deadline, "node {node} is not ready");
                sleep(Duration::from_millis(20)).await;
            }
        }
        cluster
    }

    /// Where clients of the group connect at a node.
    pub fn group_address(&self, node: u16) -> SocketAddr {
        self.address(node, 4)
    }

    /// The name server of a node.
    pub fn name_server(&self, node: u16) -> SocketAddr {
        self.address(node, 0)
    }

    fn address(&self, node: u16, port: u16) -> SocketAddr {
        let port = self.first_port + (node - 1) * 10 + port;
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// Stops the nodes as a signal would.
    pub async fn stop(self) {
        let (stops, running): (Vec<_>, Vec<_>) = self.nodes.into_iter().unzip();
        for stop in stops {
            stop.send(()).unwrap();
        }
        for running in running {
            running.await.unwrap();
        }
    }
}

fn config(node: u16, first: u16, directory: &TempDir) -> String {
    let port = |node: u16, nth: u16| first + (node - 1) * 10 + nth;
    let nodes = [1, 2, 3];
    let peers = nodes.map(|node| {
        let port = port(node, 3);
        format!("{{ node = {node}, address = \"127.0.0.1:{port}\" }}")
    });
    let clients = nodes.map(|node| {
        let (namesrv, group) = (port(node, 0), port(node, 4));
        format!(
            "{{ node = {node}, host = \"127.0.0.1\", namesrv = {namesrv}, groups = [{group}] }}"
        )
    });
    format!(
        r#"
        node = {node}
        data = {:?}
        peers = [{}]
        groups = [{{ name = "broker-a", preferred = 1 }}]
        peer = {{ bind = "127.0.0.1:{}" }}
        http = {{ bind = "127.0.0.1:{}" }}
        storage = {{ segment_bytes = "16MiB" }}
        broker = {{ drain = "0s" }}
        [[listener]]
        name = "local"
        bind = "127.0.0.1"
        nodes = [{}]
        "#,
        directory.path(),
        peers.join(", "),
        port(node, 3),
        port(node, 1),
        clients.join(", "),
    )
}

async fn is_ready(http: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(http).await else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    let asked = stream.write_all(request).await.is_ok();
    asked && stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200")
}
