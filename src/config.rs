//! Settings as a user gives them ([`ConfigFile`]) and as the process uses them ([`Config`]).
//!
//! A configuration is one TOML file; the variables `GANTRY_NODE`, `GANTRY_DATA`, `GANTRY_PEER_SECRET`,
//! `GANTRY_CLUSTER` and `GANTRY_INSECURE` replace the keys of those names. Everything is checked here,
//! once; the rest of the program never reads the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use gantry_protocol::topic;
use gantry_raft::{NodeNumber, Timing};
use gantry_storage::commitlog::MemoryBudget;
use gantry_storage::{FlushMode, LogConfig, RetentionConfig};

use crate::delays::Delays;
use crate::transactions::Checks;
use crate::units::{parse_bytes, parse_duration};

mod delays;
mod file;
mod ports;

pub use file::{
    BindFile, BrokerFile, ConfigFile, GroupFile, ListenerFile, ListenerNodeFile, PeerFile,
    RaftFile, StorageFile,
};

/// Why a configuration cannot be used; says which key and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn wrong<T>(reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(reason.into()))
}

/// The complete, checked configuration of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// This node.
    pub node: NodeNumber,
    /// Directory of everything this node keeps.
    pub data: PathBuf,
    /// The operator accepts that anybody who reaches a port may use the broker.
    pub insecure: bool,
    /// Secret of the peers.
    pub peer_secret: String,
    /// Peer address of each node.
    pub peers: BTreeMap<NodeNumber, String>,
    /// The groups in the order of their ids.
    pub groups: Vec<GroupConfig>,
    /// Where clients come in.
    pub listeners: Vec<ListenerConfig>,
    /// Where peers come in.
    pub peer_bind: SocketAddr,
    /// Where HTTP comes in.
    pub http_bind: SocketAddr,
    /// The log of each group.
    pub log: LogConfig,
    /// How long messages are kept.
    pub retention: RetentionConfig,
    /// How the log is looked at for rot.
    pub scrub: ScrubConfig,
    /// Rate at which a replica that catches up is served, in bytes a second.
    pub catch_up_bytes_per_second: u64,
    /// Timers.
    pub timing: Timing,
    /// What clients may do.
    pub broker: BrokerConfig,
}

/// How the log is looked at for rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Every group's whole log is read once in this time; zero: never.
    pub interval: Duration,
    /// Bytes a second that this may take, for each group.
    pub bytes_per_second: u64,
}

/// One broker group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// RocketMQ's brokerName.
    pub name: String,
    /// The node that leads when it can.
    pub preferred: NodeNumber,
}

/// Where clients of one network come in.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// For messages.
    pub name: String,
    /// Address to bind.
    pub bind: IpAddr,
    /// How its clients reach each node.
    pub nodes: BTreeMap<NodeNumber, ListenerNode>,
}

/// How clients of a listener reach one node.
#[derive(Clone, Debug)]
pub struct ListenerNode {
    /// Host name or address.
    pub host: String,
    /// Port of the name server.
    pub namesrv: u16,
    /// One port for each group.
    pub groups: Vec<u16>,
}

/// What clients may do.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Create unknown topics at the first send.
    pub auto_create_topic: bool,
    /// Create unknown consumer groups at the first heartbeat.
    pub auto_create_group: bool,
    /// Most queues of a topic that is created on its own.
    pub auto_create_queues: u16,
    /// Bytes of sends under way for each group before clients are held back.
    pub send_bytes_max: usize,
    /// Client connections.
    pub connections_max: usize,
    /// How long a node that stops goes on serving clients that have not moved yet.
    pub drain: Duration,
    /// How long messages may be delayed.
    pub delays: Delays,
    /// When producers are asked about open transactions.
    pub checks: Checks,
}

impl ConfigFile {
    /// Checks everything and fills in the defaults.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let node = self
            .node
            .ok_or_else(|| ConfigError("`node` is missing".into()))?;
        let data = self
            .data
            .clone()
            .ok_or_else(|| ConfigError("`data` is missing".into()))?;
        let peers = self.resolve_peers(node)?;
        let nodes: Vec<NodeNumber> = peers.keys().copied().collect();
        let groups = self.resolve_groups(&nodes)?;
        let listeners = self.resolve_listeners(&nodes, groups.len())?;
        let peer_bind = self.peer.as_ref().map(|peer| peer.bind);
        let peer_bind = peer_bind.ok_or_else(|| ConfigError("`peer.bind` is missing".into()))?;
        let http_bind = self.http.as_ref().map(|http| http.bind);
        let http_bind = http_bind.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 5557)));
        let insecure = self.insecure.unwrap_or(false);
        self.check_exposure(insecure, peer_bind, http_bind)?;
        ports::check(node, &listeners, peer_bind, http_bind)?;
        Ok(Config {
            cluster: self.cluster.clone().unwrap_or_else(|| "gantry".to_string()),
            node,
            data,
            insecure,
            peer_secret: self.peer_secret.clone().unwrap_or_default(),
            peers,
            groups,
            listeners,
            peer_bind,
            http_bind,
            log: self.storage.resolve_log()?,
            retention: self.storage.resolve_retention()?,
            scrub: self.storage.resolve_scrub()?,
            catch_up_bytes_per_second: bytes_or(
                "storage.catch_up_bytes_per_second",
                &self.storage.catch_up_bytes_per_second,
                64 << 20,
            )?
            .max(1 << 20),
            timing: self.raft.resolve()?,
            broker: self.broker.resolve()?,
        })
    }

    fn resolve_peers(&self, node: NodeNumber) -> Result<BTreeMap<NodeNumber, String>, ConfigError> {
        let mut peers = BTreeMap::new();
        for peer in &self.peers {
            if !(1..=999).contains(&peer.node) {
                return wrong(format!(
                    "`peers`: node {} is not within 1 to 999",
                    peer.node
                ));
            }
            if peers.insert(peer.node, peer.address.clone()).is_some() {
                return wrong(format!("`peers`: node {} is listed twice", peer.node));
            }
        }
        if !peers.contains_key(&node) {
            return wrong(format!("`peers` does not list this node, {node}"));
        }
        if !matches!(peers.len(), 1 | 3 | 5) {
            let count = peers.len();
            return wrong(format!(
                "`peers` lists {count} nodes; a group has 1, 3 or 5"
            ));
        }
        Ok(peers)
    }

    fn resolve_groups(&self, nodes: &[NodeNumber]) -> Result<Vec<GroupConfig>, ConfigError> {
        if self.groups.is_empty() || self.groups.len() > 64 {
            return wrong(
                "`groups` needs 1 to 64 entries, for instance [[groups]] name = \"broker-a\"",
            );
        }
        let mut names = BTreeSet::new();
        let mut groups = Vec::new();
        for (position, group) in self.groups.iter().enumerate() {
            if let Err(error) = topic::check_group(&group.name) {
                return wrong(format!("`groups`: name {:?}: {error}", group.name));
            }
            if !names.insert(group.name.clone()) {
                return wrong(format!("`groups`: {:?} is listed twice", group.name));
            }
            let preferred = group.preferred.unwrap_or(nodes[position % nodes.len()]);
            if !nodes.contains(&preferred) {
                return wrong(format!(
                    "`groups`: {:?} prefers node {preferred}, which is not in `peers`",
                    group.name
                ));
            }
            groups.push(GroupConfig {
                name: group.name.clone(),
                preferred,
            });
        }
        Ok(groups)
    }

    fn resolve_listeners(
        &self,
        nodes: &[NodeNumber],
        groups: usize,
    ) -> Result<Vec<ListenerConfig>, ConfigError> {
        if self.listeners.is_empty() {
            return wrong("there is no [[listener]]: clients could not connect");
        }
        let mut listeners = Vec::new();
        for listener in &self.listeners {
            let name = &listener.name;
            let mut reached = BTreeMap::new();
            for node in &listener.nodes {
                if node.groups.len() != groups {
                    return wrong(format!(
                        "listener {name:?}: node {} has {} group ports for {groups} groups",
                        node.node,
                        node.groups.len()
                    ));
                }
                if node.host.is_empty() || node.host.contains([',', ';', ' ']) {
                    return wrong(format!(
                        "listener {name:?}: host {:?} is not one host",
                        node.host
                    ));
                }
                let entry = ListenerNode {
                    host: node.host.clone(),
                    namesrv: node.namesrv,
                    groups: node.groups.clone(),
                };
                if !nodes.contains(&node.node) || reached.insert(node.node, entry).is_some() {
                    return wrong(format!(
                        "listener {name:?}: node {} is listed twice or not in `peers`",
                        node.node
                    ));
                }
            }
            if let Some(missing) = nodes.iter().find(|node| !reached.contains_key(node)) {
                return wrong(format!(
                    "listener {name:?} does not say how to reach node {missing}"
                ));
            }
            let (name, bind) = (name.clone(), listener.bind);
            listeners.push(ListenerConfig {
                name,
                bind,
                nodes: reached,
            });
        }
        Ok(listeners)
    }

    /// Closed by default (`design.md` D12): only loopback, unless the operator says otherwise.
    fn check_exposure(
        &self,
        insecure: bool,
        peer: SocketAddr,
        http: SocketAddr,
    ) -> Result<(), ConfigError> {
        let mut open: Vec<String> = self
            .listeners
            .iter()
            .filter(|listener| !listener.bind.is_loopback())
            .map(|listener| format!("listener {:?} on {}", listener.name, listener.bind))
            .collect();
        if !http.ip().is_loopback() {
            open.push(format!("http on {http}"));
        }
        if !insecure && !open.is_empty() {
            return wrong(format!(
                "{} would let anybody who reaches it use the broker. Bind it to 127.0.0.1, or accept \
                 that with `insecure = true`",
                open.join(", ")
            ));
        }
        if !peer.ip().is_loopback() && self.peer_secret.as_deref().unwrap_or("").len() < 16 {
            return wrong(format!(
                "peer.bind is {peer}: set the same `peer_secret` of at least 16 characters on all nodes"
            ));
        }
        Ok(())
    }
}

fn bytes_or(key: &str, value: &Option<String>, default: u64) -> Result<u64, ConfigError> {
    let Some(text) = value else {
        return Ok(default);
    };
    parse_bytes(text).map_err(|error| ConfigError(format!("`{key}`: {error}")))
}

impl StorageFile {
    fn resolve_log(&self) -> Result<LogConfig, ConfigError> {
        const SEGMENT_MIN: u64 = 16 << 20;
        const SEGMENT_MAX: u64 = 2 << 30;
        let segment_bytes = bytes_or("storage.segment_bytes", &self.segment_bytes, 1 << 30)?;
        if !(SEGMENT_MIN..=SEGMENT_MAX).contains(&segment_bytes) || segment_bytes % 4096 != 0 {
            return wrong("`storage.segment_bytes` is a multiple of 4096 from 16MiB to 2GiB");
        }
        let flush = match self.flush.as_deref() {
            None | Some("sync") => FlushMode::SyncFlush,
            Some("async") => FlushMode::AsyncFlush,
            Some(other) => {
                return wrong(format!("`storage.flush` is sync or async, not {other:?}"));
            }
        };
        // The groups clone it, and with it share the budget.
        let budget = |key: &str, text: &Option<String>, default| {
            let bytes = bytes_or(key, text, default)?;
            Ok(MemoryBudget::new(bytes.max(1 << 20) as usize))
        };
        Ok(LogConfig {
            segment_bytes,
            flush_mode: flush,
            tail: budget("storage.tail_bytes", &self.tail_bytes, 24 << 20)?,
            cold: budget("storage.cold_bytes", &self.cold_bytes, 32 << 20)?,
            ..LogConfig::default()
        })
    }

    fn resolve_scrub(&self) -> Result<ScrubConfig, ConfigError> {
        let interval = match &self.scrub_interval {
            Some(text) => parse_duration(text)
                .map_err(|error| ConfigError(format!("`storage.scrub_interval`: {error}")))?,
            None => Duration::from_secs(24 * 3600),
        };
        let key = "storage.scrub_bytes_per_second";
        let bytes_per_second = bytes_or(key, &self.scrub_bytes_per_second, 32 << 20)?;
        Ok(ScrubConfig {
            interval,
            bytes_per_second: bytes_per_second.max(64 << 10),
        })
    }

    fn resolve_retention(&self) -> Result<RetentionConfig, ConfigError> {
        let default = RetentionConfig::default();
        let max_age = match &self.retention {
            Some(text) => parse_duration(text)
                .map_err(|error| ConfigError(format!("`storage.retention`: {error}")))?,
            None => default.max_age,
        };
        let max_bytes = match &self.retention_bytes {
            Some(_) => Some(bytes_or(
                "storage.retention_bytes",
                &self.retention_bytes,
                0,
            )?),
            None => None,
        };
        let warn_percent = self.disk_clean_percent.unwrap_or(default.warn_percent);
        let force_percent = self.disk_force_percent.unwrap_or(default.force_percent);
        let refuse_percent = self.disk_refuse_percent.unwrap_or(default.refuse_percent);
        let rises = warn_percent <= force_percent && force_percent <= refuse_percent;
        if !rises || warn_percent == 0 || refuse_percent > 100 {
            return wrong(
                "`storage.disk_*_percent` must rise: 1 <= clean <= force <= refuse <= 100",
            );
        }
        Ok(RetentionConfig {
            max_age,
            max_bytes,
            warn_percent,
            force_percent,
            refuse_percent,
        })
    }
}

impl RaftFile {
    fn resolve(&self) -> Result<Timing, ConfigError> {
        let default = Timing::default();
        let timing = Timing {
            heartbeat_ms: self.heartbeat_ms.unwrap_or(default.heartbeat_ms),
            election_min_ms: self.election_min_ms.unwrap_or(default.election_min_ms),
            election_max_ms: self.election_max_ms.unwrap_or(default.election_max_ms),
        };
        let ordered = timing.heartbeat_ms * 2 <= timing.election_min_ms
            && timing.election_min_ms < timing.election_max_ms;
        if timing.heartbeat_ms == 0 || !ordered {
            return wrong(
                "`raft`: election_min_ms must be at least twice heartbeat_ms and below election_max_ms",
            );
        }
        Ok(timing)
    }
}

impl BrokerFile {
    fn resolve(&self) -> Result<BrokerConfig, ConfigError> {
        let send_bytes_max = bytes_or("broker.send_bytes_max", &self.send_bytes_max, 64 << 20)?;
        Ok(BrokerConfig {
            auto_create_topic: self.auto_create_topic.unwrap_or(true),
            auto_create_group: self.auto_create_group.unwrap_or(true),
            auto_create_queues: self.auto_create_queues.unwrap_or(8).max(1),
            send_bytes_max: send_bytes_max.max(16 << 20) as usize,
            connections_max: self.connections_max.unwrap_or(5000).max(1),
            drain: match &self.drain {
                Some(text) => parse_duration(text)
                    .map_err(|error| ConfigError(format!("`broker.drain`: {error}")))?,
                None => Duration::from_secs(40),
            },
            delays: self.resolve_delays()?,
            checks: self.resolve_checks()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE_NODE: &str = r#"
        node = 1
        data = "d"
        peers = [{ node = 1, address = "127.0.0.1:10912" }]
        groups = [{ name = "broker-a" }]
        peer = { bind = "127.0.0.1:10912" }
        [[listener]]
        name = "local"
        bind = "127.0.0.1"
        nodes = [{ node = 1, host = "127.0.0.1", namesrv = 9876, groups = [10911] }]
    "#;

    fn refused(text: &str) -> String {
        ConfigFile::parse(text)
            .and_then(ConfigFile::resolve)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_smallest_file_gets_its_defaults() {
        let config = ConfigFile::parse(ONE_NODE).unwrap().resolve().unwrap();
        assert_eq!(config.log.segment_bytes, 1 << 30);
        assert_eq!(config.groups[0].preferred, 1);
        assert_eq!(config.http_bind.port(), 5557);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let message = refused(&format!("insecur = true\n{ONE_NODE}"));
        assert!(
            message.contains("insecur") && message.contains("did you mean `insecure`?"),
            "{message}"
        );
    }

    #[test]
    fn an_open_address_needs_a_word() {
        let open = ONE_NODE.replace("bind = \"127.0.0.1\"\n", "bind = \"0.0.0.0\"\n");
        assert!(refused(&open).contains("insecure = true"));
        let accepted = format!("insecure = true\n{open}");
        assert!(ConfigFile::parse(&accepted).unwrap().resolve().is_ok());
        let peer = ONE_NODE.replace("bind = \"127.0.0.1:10912\"", "bind = \"0.0.0.0:10912\"");
        assert!(refused(&peer).contains("peer_secret"));
    }

    #[test]
    fn contradictions_are_found() {
        assert!(
            refused(&ONE_NODE.replace("groups = [10911]", "groups = []")).contains("0 group ports")
        );
        assert!(
            refused(&ONE_NODE.replace("node = 1\n", "node = 2\n"))
                .contains("does not list this node")
        );
        assert!(
            refused(&format!("{ONE_NODE}\n[storage]\nsegment_bytes = \"1MiB\"")).contains("16MiB")
        );
        assert!(
            refused(&format!("{ONE_NODE}\n[raft]\nheartbeat_ms = 400")).contains("election_min_ms")
        );
    }

    #[test]
    fn the_environment_replaces_keys() {
        let mut file = ConfigFile::parse(ONE_NODE).unwrap();
        file.apply_environment([("GANTRY_DATA".to_string(), "/elsewhere".to_string())])
            .unwrap();
        assert_eq!(file.resolve().unwrap().data, PathBuf::from("/elsewhere"));
    }
}
