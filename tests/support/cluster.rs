//! Three nodes in this process, each on a runtime of its own, so that one can be killed: everything it does
//! ends at once, and its connections with it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gantry::config::ConfigFile;
use gantry_protocol::bodies::TopicRoute;
use gantry_protocol::headers::RouteRequest;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::ports::Hundred;
use super::{Connection, START_TIMEOUT, is_ready};

const NODES: [u16; 3] = [1, 2, 3];
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster whose groups have three replicas each.
pub struct Cluster {
    running: BTreeMap<u16, Runtime>,
    ports: Hundred,
    directory: TempDir,
    /// More lines for the table `broker` of the configuration.
    settings: String,
    /// The node that is to lead the group when it can.
    preferred: Option<u16>,
    /// Names of its groups.
    groups: &'static [&'static str],
}

const ONE_GROUP: &[&str] = &["broker-a"];

impl Cluster {
    /// Starts three nodes; returns when all are ready. `settings` are lines of the table `broker`.
    pub async fn start(settings: &str) -> Cluster {
        Self::start_with(settings, None).await
    }

    /// The same, of a group that node 1 leads when all are well.
    pub async fn start_led_by_the_first() -> Cluster {
        let cluster = Self::start_with("drain = \"0s\"", Some(1)).await;
        let deadline = Instant::now() + START_TIMEOUT;
        let first = cluster.address(1, 4).to_string();
        while cluster.master(1, "TBW102").await.as_ref() != Some(&first) {
            assert!(Instant::now() < deadline, "node 1 does not lead");
            sleep(Duration::from_millis(20)).await;
        }
        cluster
    }

    /// The same with two groups.
    pub async fn start_with_two_groups() -> Cluster {
        Self::start_of(&["broker-a", "broker-b"], "", None).await
    }

    async fn start_with(settings: &str, preferred: Option<u16>) -> Cluster {
        Self::start_of(ONE_GROUP, settings, preferred).await
    }

    async fn start_of(
        groups: &'static [&'static str],
        settings: &str,
        preferred: Option<u16>,
    ) -> Cluster {
        let mut cluster = Cluster {
            running: BTreeMap::new(),
            ports: Hundred::claim(),
            directory: TempDir::new().unwrap(),
            settings: settings.to_string(),
            preferred,
            groups,
        };
        for node in NODES {
            cluster.run(node);
        }
        for node in NODES {
            cluster.wait_until_ready(node).await;
        }
        cluster
    }

    /// Starts a node that does not run.
    pub fn run(&mut self, node: u16) {
        let config = ConfigFile::parse(&self.config(node)).unwrap();
        let config = config.resolve().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let ended = gantry::node::run(config, std::future::pending()).await;
            panic!("node {node} ended: {ended:?}");
        });
        assert!(self.running.insert(node, runtime).is_none(), "it runs");
    }

    /// Ends a node in the middle of whatever it does.
    pub fn kill(&mut self, node: u16) {
        let runtime = self.running.remove(&node).expect("it runs");
        tokio::task::block_in_place(|| runtime.shutdown_timeout(KILL_TIMEOUT));
    }

    /// Ends all nodes. A runtime must not be dropped where others wait.
    pub fn stop(mut self) {
        for node in NODES {
            if self.running.contains_key(&node) {
                self.kill(node);
            }
        }
    }

    /// Waits for a node to be ready.
    pub async fn wait_until_ready(&self, node: u16) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(self.address(node, 1)).await {
            assert!(Instant::now() < deadline, "node {node} is not ready");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where clients of the group connect at a node.
    pub fn group_address(&self, node: u16) -> SocketAddr {
        self.address(node, 4)
    }

    /// The name server of a node.
    pub fn name_server(&self, node: u16) -> SocketAddr {
        self.address(node, 0)
    }

    /// A connection to the group's port of a node.
    pub async fn connect(&self, node: u16) -> Connection {
        Connection::to(self.address(node, 4)).await
    }

    /// A connection to the port of one of the groups, by its place, of a node.
    pub async fn connect_to(&self, node: u16, group: u16) -> Connection {
        Connection::to(self.address(node, 4 + 3 * group)).await
    }

    /// The node that a topic's messages are sent to: the group's leader.
    pub async fn leader(&self, topic: &str) -> u16 {
        let node = *self.running.keys().next().expect("a node runs");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(address) = self.master(node, topic).await {
                let at = |node: &u16| self.address(*node, 4).to_string() == address;
                if let Some(leader) = self.running.keys().copied().find(at) {
                    return leader;
                }
            }
            assert!(Instant::now() < deadline, "there is no leader");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn master(&self, node: u16, topic: &str) -> Option<String> {
        let header = RouteRequest {
            topic,
            accept_standard_json_only: Some(true),
        };
        let mut request = RemotingCommand::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, 0);
        header.write(&mut request.fields);
        let answer = self.connect(node).await.ask(request).await;
        if answer.response_code() != ResponseCode::SUCCESS {
            return None;
        }
        let route = TopicRoute::decode(&answer.body).unwrap();
        route.broker_datas[0].broker_addrs.get(&0).cloned()
    }

    fn port(&self, node: u16, nth: u16) -> u16 {
        self.ports.first + (node - 1) * 10 + nth
    }

    fn address(&self, node: u16, nth: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(node, nth)).into()
    }

    fn config(&self, node: u16) -> String {
        let peers = NODES.map(|peer| {
            let port = self.port(peer, 3);
            format!("{{ node = {peer}, address = \"127.0.0.1:{port}\" }}")
        });
        let nodes = NODES.map(|peer| {
            let namesrv = self.port(peer, 0);
            let ports = (4..)
                .step_by(3)
                .zip(self.groups)
                .map(|(nth, _)| self.port(peer, nth));
            let ports: Vec<u16> = ports.collect();
            format!(
                "{{ node = {peer}, host = \"127.0.0.1\", namesrv = {namesrv}, groups = {ports:?} }}"
            )
        });
        let preferred = self.preferred.map(|node| format!(", preferred = {node}"));
        let preferred = preferred.unwrap_or_default();
        let groups = self.groups.iter();
        let groups = groups.map(|name| format!("{{ name = {name:?}{preferred} }}"));
        let groups: Vec<String> = groups.collect();
        format!(
            r#"
            node = {node}
            data = {:?}
            peers = [{}]
            groups = [{}]
            peer = {{ bind = "127.0.0.1:{}" }}
            http = {{ bind = "127.0.0.1:{}" }}
            storage = {{ segment_bytes = "16MiB" }}
            [[listener]]
            name = "local"
            bind = "127.0.0.1"
            nodes = [{}]
            [broker]
            {}
            "#,
            self.directory.path().join(node.to_string()),
            peers.join(", "),
            groups.join(", "),
            self.port(node, 3),
            self.port(node, 1),
            nodes.join(", "),
            self.settings,
        )
    }
}
